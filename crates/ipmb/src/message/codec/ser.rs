//! A serde serializer for postcard's wire format into an [`Encoder`], with the limits of the deserializer.

use super::{
    super::{Encoder, encoder::NoMemory},
    DEPTH, EMPTY_ELEMENTS,
};
use crate::Error;
use serde::{Serialize, ser};
use std::fmt;

type Result<T> = std::result::Result<T, Failure>;

/// Appends a value.
#[inline]
pub(super) fn append<T: Serialize>(value: &T, encoder: &mut Encoder<'_>) -> Result<()> {
    value.serialize(&mut Serializer {
        encoder,
        depth: DEPTH,
        empty: EMPTY_ELEMENTS,
    })
}

/// What went wrong. A pointer, since every step returns it.
#[derive(Debug)]
pub(super) struct Failure(Box<Error>);

impl Failure {
    #[cold]
    fn new(message: &str) -> Self {
        Self(Box::new(Error::Encode(message.to_string())))
    }

    #[cold]
    fn depth() -> Self {
        Self::new("it is nested more than 128 levels deep")
    }
}

impl From<Error> for Failure {
    #[cold]
    fn from(error: Error) -> Self {
        Self(Box::new(error))
    }
}

impl From<NoMemory> for Failure {
    #[cold]
    fn from(shortage: NoMemory) -> Self {
        Error::from(shortage).into()
    }
}

impl From<Failure> for Error {
    #[cold]
    fn from(failure: Failure) -> Self {
        *failure.0
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failure {}

impl ser::Error for Failure {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(&message.to_string())
    }
}

struct Serializer<'s, 'a> {
    encoder: &'s mut Encoder<'a>,
    /// Levels that may still be entered.
    depth: u32,
    /// Elements without bytes that may still come.
    empty: u32,
}

impl Serializer<'_, '_> {
    /// Goes one level deeper, until [`leave`](Self::leave).
    #[inline]
    fn enter(&mut self) -> Result<()> {
        self.depth = self.depth.checked_sub(1).ok_or_else(Failure::depth)?;
        Ok(())
    }

    #[inline]
    fn leave(&mut self) {
        self.depth += 1;
    }

    #[inline]
    fn nested<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<()> {
        self.enter()?;
        value.serialize(&mut *self)?;
        self.leave();
        Ok(())
    }

    #[inline]
    fn length(&mut self, length: Option<usize>) -> Result<()> {
        let Some(length) = length else {
            return Err(Failure::new(
                "a sequence or map does not know its length beforehand",
            ));
        };
        Ok(self.encoder.append_varint(length as u64)?)
    }

    #[inline]
    fn variant(&mut self, index: u32) -> Result<()> {
        self.enter()?;
        Ok(self.encoder.append_varint(index.into())?)
    }

    /// Accounts for an element that began when the head had `before` bytes.
    #[inline]
    fn account(&mut self, before: usize) -> Result<()> {
        if self.encoder.head_len() == before {
            self.empty = self.empty.checked_sub(1).ok_or_else(|| {
                Failure::new("it has more than 65536 elements that take no bytes")
            })?;
        }
        Ok(())
    }
}

/// The sign goes to the lowest bit, so that small numbers of both signs are short.
#[inline]
fn zigzag(n: i64) -> u64 {
    (n << 1 ^ n >> 63) as u64
}

#[inline]
fn zigzag_i128(n: i128) -> u128 {
    (n << 1 ^ n >> 127) as u128
}

macro_rules! scalars {
    ($($method:ident, $ty:ty, |$v:ident| $append:ident($value:expr);)*) => {$(
        #[inline(always)]
        fn $method(self, $v: $ty) -> Result<()> {
            Ok(self.encoder.$append($value)?)
        }
    )*};
}

impl<'x, 's, 'a> ser::Serializer for &'x mut Serializer<'s, 'a> {
    type Ok = ();
    type Error = Failure;
    type SerializeSeq = Elements<'x, 's, 'a>;
    type SerializeTuple = Fields<'x, 's, 'a>;
    type SerializeTupleStruct = Fields<'x, 's, 'a>;
    type SerializeTupleVariant = Fields<'x, 's, 'a>;
    type SerializeMap = Elements<'x, 's, 'a>;
    type SerializeStruct = Fields<'x, 's, 'a>;
    type SerializeStructVariant = Fields<'x, 's, 'a>;

    scalars! {
        serialize_bool, bool, |v| append_byte(v.into());
        serialize_i8, i8, |v| append_byte(v as u8);
        serialize_i16, i16, |v| append_varint(zigzag(v.into()));
        serialize_i32, i32, |v| append_varint(zigzag(v.into()));
        serialize_i64, i64, |v| append_varint(zigzag(v));
        serialize_i128, i128, |v| append_varint_u128(zigzag_i128(v));
        serialize_u8, u8, |v| append_byte(v);
        serialize_u16, u16, |v| append_varint(v.into());
        serialize_u32, u32, |v| append_varint(v.into());
        serialize_u64, u64, |v| append_varint(v);
        serialize_u128, u128, |v| append_varint_u128(v);
        serialize_f32, f32, |v| append(&v.to_le_bytes());
        serialize_f64, f64, |v| append(&v.to_le_bytes());
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn serialize_char(self, v: char) -> Result<()> {
        self.serialize_str(v.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, v: &str) -> Result<()> {
        self.serialize_bytes(v.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, v: &[u8]) -> Result<()> {
        self.length(Some(v.len()))?;
        Ok(self.encoder.append(v)?)
    }

    #[inline]
    fn serialize_none(self) -> Result<()> {
        self.serialize_u8(0)
    }

    #[inline]
    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<()> {
        self.encoder.append_byte(1)?;
        self.nested(value)
    }

    #[inline]
    fn serialize_unit(self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _name: &'static str) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
    ) -> Result<()> {
        self.variant(index)?;
        self.leave();
        Ok(())
    }

    #[inline]
    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<()> {
        self.nested(value)
    }

    #[inline]
    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        value: &T,
    ) -> Result<()> {
        self.variant(index)?;
        value.serialize(&mut *self)?;
        self.leave();
        Ok(())
    }

    #[inline]
    fn serialize_seq(self, length: Option<usize>) -> Result<Elements<'x, 's, 'a>> {
        self.length(length)?;
        self.enter()?;
        Ok(Elements {
            before: self.encoder.head_len(),
            serializer: self,
        })
    }

    #[inline]
    fn serialize_map(self, length: Option<usize>) -> Result<Elements<'x, 's, 'a>> {
        self.serialize_seq(length)
    }

    #[inline]
    fn serialize_tuple(self, _length: usize) -> Result<Fields<'x, 's, 'a>> {
        self.enter()?;
        Ok(Fields(self))
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _length: usize,
    ) -> Result<Fields<'x, 's, 'a>> {
        self.enter()?;
        Ok(Fields(self))
    }

    #[inline]
    fn serialize_struct(self, _name: &'static str, _length: usize) -> Result<Fields<'x, 's, 'a>> {
        self.enter()?;
        Ok(Fields(self))
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Fields<'x, 's, 'a>> {
        self.variant(index)?;
        Ok(Fields(self))
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Fields<'x, 's, 'a>> {
        self.variant(index)?;
        Ok(Fields(self))
    }

    fn collect_str<T: ?Sized + fmt::Display>(self, value: &T) -> Result<()> {
        self.serialize_str(&value.to_string())
    }
}

/// Values whose number the type fixes.
struct Fields<'x, 's, 'a>(&'x mut Serializer<'s, 'a>);

macro_rules! fields {
    ($($trait:ident: $method:ident($($key:ty)?);)*) => {$(
        impl ser::$trait for Fields<'_, '_, '_> {
            type Ok = ();
            type Error = Failure;

            #[inline(always)]
            fn $method<T: ?Sized + Serialize>(&mut self, $(_key: $key,)? value: &T) -> Result<()> {
                value.serialize(&mut *self.0)
            }

            #[inline]
            fn end(self) -> Result<()> {
                self.0.leave();
                Ok(())
            }
        }
    )*};
}

fields! {
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeStruct: serialize_field(&'static str);
    SerializeStructVariant: serialize_field(&'static str);
}

/// Elements, or keys and values, whose number stands before them.
struct Elements<'x, 's, 'a> {
    serializer: &'x mut Serializer<'s, 'a>,
    /// Bytes that there were when the present entry of a map began.
    before: usize,
}

impl ser::SerializeSeq for Elements<'_, '_, '_> {
    type Ok = ();
    type Error = Failure;

    #[inline]
    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<()> {
        let before = self.serializer.encoder.head_len();
        value.serialize(&mut *self.serializer)?;
        self.serializer.account(before)
    }

    #[inline]
    fn end(self) -> Result<()> {
        self.serializer.leave();
        Ok(())
    }
}

impl ser::SerializeMap for Elements<'_, '_, '_> {
    type Ok = ();
    type Error = Failure;

    #[inline]
    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<()> {
        self.before = self.serializer.encoder.head_len();
        key.serialize(&mut *self.serializer)
    }

    #[inline]
    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<()> {
        value.serialize(&mut *self.serializer)?;
        self.serializer.account(self.before)
    }

    #[inline]
    fn end(self) -> Result<()> {
        self.serializer.leave();
        Ok(())
    }
}
