//! A serde deserializer for postcard's wire format over private bytes that a hostile peer may have chosen.
//!
//! Three things are bounded here that postcard's own does not bound: the depth of nesting (the stack), elements that
//! take no bytes (`Vec<()>` that claims 2⁶⁴ of them), and what a claimed length makes a collection reserve. And bytes left over are an
//! error.

use super::{DEPTH, EMPTY_ELEMENTS, varint};
use crate::DecodeError;
use serde::{
    Deserialize,
    de::{self, DeserializeSeed, IntoDeserializer, Visitor},
};
use std::{fmt, marker::PhantomData};

/// A collection may reserve for so many elements before it has seen them.
const RESERVE: usize = 1 << 16;

type Result<T> = std::result::Result<T, Fault>;

/// Reads a value that takes all of the bytes.
#[inline]
pub(super) fn from_bytes<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T> {
    let mut deserializer = Deserializer {
        rest: bytes,
        depth: DEPTH,
        empty: EMPTY_ELEMENTS,
    };
    let value = T::deserialize(&mut deserializer)?;
    if deserializer.rest.is_empty() {
        Ok(value)
    } else {
        Err(Fault::new(Kind::TrailingBytes))
    }
}

/// What is wrong with the bytes. A pointer, so that what every step returns fits into registers.
#[derive(Debug)]
pub(super) struct Fault(Box<Kind>);

#[derive(Debug)]
enum Kind {
    End,
    Varint,
    Bool,
    Option,
    Char,
    Utf8,
    TrailingBytes,
    Depth,
    EmptyElements,
    NotSelfDescribing,
    Custom(String),
}

impl Fault {
    #[cold]
    #[inline(never)]
    fn new(kind: Kind) -> Self {
        Self(Box::new(kind))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0 {
            Kind::End => "it ends too early",
            Kind::Varint => "an integer is over its type's range",
            Kind::Bool => "a bool is neither 0 nor 1",
            Kind::Option => "an option is neither 0 nor 1",
            Kind::Char => "a char is not one character of UTF-8",
            Kind::Utf8 => "a string is not UTF-8",
            Kind::TrailingBytes => "bytes are left over",
            Kind::Depth => "it is nested more than 128 levels deep",
            Kind::EmptyElements => "it has more than 65536 elements that take no bytes",
            Kind::NotSelfDescribing => {
                "its type needs a self-describing format (serde's untagged, flatten or tag)"
            }
            Kind::Custom(message) => message,
        })
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Kind::Custom(message.to_string()))
    }
}

impl From<Fault> for DecodeError {
    #[cold]
    fn from(fault: Fault) -> Self {
        Self(match *fault.0 {
            Kind::Custom(message) => message,
            _ => fault.to_string(),
        })
    }
}

struct Deserializer<'de> {
    rest: &'de [u8],
    /// Levels that may still be entered.
    depth: u32,
    /// Elements without bytes that may still come.
    empty: u32,
}

/// Integers of 7 bits a byte, the lowest first; the high bit says that more follow.
macro_rules! varint {
    ($name:ident, $ty:ty) => {
        #[inline]
        fn $name(&mut self) -> Result<$ty> {
            const BYTES: usize = (<$ty>::BITS as usize).div_ceil(7);
            /// What the last byte may be: the bits that still fit.
            const LAST: u8 = (1 << (<$ty>::BITS % 7)) - 1;

            let mut value: $ty = 0;
            let mut rest = self.rest;
            for i in 0..BYTES {
                let (&byte, behind) = rest.split_first().ok_or_else(|| Fault::new(Kind::End))?;
                rest = behind;
                value |= <$ty>::from(byte & 0x7f) << (7 * i);
                if byte < 0x80 {
                    if i == BYTES - 1 && byte > LAST {
                        return Err(Fault::new(Kind::Varint));
                    }
                    self.rest = rest;
                    return Ok(value);
                }
            }
            Err(Fault::new(Kind::Varint))
        }
    };
}

impl<'de> Deserializer<'de> {
    varint!(varint_u16, u16);
    varint!(varint_u32, u32);
    varint!(varint_u64_by_byte, u64);
    varint!(varint_u128, u128);

    #[inline(always)]
    fn varint_u64(&mut self) -> Result<u64> {
        let Some((word, behind)) = self.rest.split_first_chunk() else {
            return self.varint_u64_by_byte();
        };
        let (value, len) = varint::gather(*word);
        if let Some(rest) = self.rest.get(len..)
            && len <= word.len()
        {
            self.rest = rest;
            return Ok(value);
        }
        let (last, rest) = match *behind {
            [byte @ ..0x80, ref rest @ ..] => (u64::from(byte), rest),
            // Only one bit is left.
            [low, high @ ..2, ref rest @ ..] => {
                (u64::from(low & 0x7f) | u64::from(high) << 7, rest)
            }
            [_, _, ..] => return Err(Fault::new(Kind::Varint)),
            _ => return Err(Fault::new(Kind::End)),
        };
        self.rest = rest;
        Ok(value | last << 56)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8> {
        let (&byte, rest) = self
            .rest
            .split_first()
            .ok_or_else(|| Fault::new(Kind::End))?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (&array, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| Fault::new(Kind::End))?;
        self.rest = rest;
        Ok(array)
    }

    /// A length: of bytes, elements or entries.
    #[inline]
    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.varint_u64()?).map_err(|_| Fault::new(Kind::Varint))
    }

    /// As many bytes as the length before them says.
    #[inline]
    fn slice(&mut self) -> Result<&'de [u8]> {
        let length = self.length()?;
        let (slice, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| Fault::new(Kind::End))?;
        self.rest = rest;
        Ok(slice)
    }

    #[inline]
    fn str(&mut self) -> Result<&'de str> {
        std::str::from_utf8(self.slice()?).map_err(|_| Fault::new(Kind::Utf8))
    }

    /// Goes one level deeper.
    #[inline]
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth = self
            .depth
            .checked_sub(1)
            .ok_or_else(|| Fault::new(Kind::Depth))?;
        let value = read(self);
        self.depth += 1;
        value
    }

    /// A number of values that the type fixes.
    #[inline]
    fn fields<V: Visitor<'de>>(&mut self, left: usize, visitor: V) -> Result<V::Value> {
        visitor.visit_seq(Fields {
            deserializer: self,
            left,
        })
    }
}

fn zigzag_u16(n: u16) -> i16 {
    (n >> 1) as i16 ^ -((n & 1) as i16)
}

fn zigzag_u32(n: u32) -> i32 {
    (n >> 1) as i32 ^ -((n & 1) as i32)
}

fn zigzag_u64(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

fn zigzag_u128(n: u128) -> i128 {
    (n >> 1) as i128 ^ -((n & 1) as i128)
}

macro_rules! scalars {
    ($($method:ident, $visit:ident, |$self:ident| $value:expr;)*) => {$(
        #[inline(always)]
        fn $method<V: Visitor<'de>>($self, visitor: V) -> Result<V::Value> {
            visitor.$visit($value)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for &mut Deserializer<'de> {
    type Error = Fault;

    scalars! {
        deserialize_i8, visit_i8, |self| self.byte()? as i8;
        deserialize_i16, visit_i16, |self| zigzag_u16(self.varint_u16()?);
        deserialize_i32, visit_i32, |self| zigzag_u32(self.varint_u32()?);
        deserialize_i64, visit_i64, |self| zigzag_u64(self.varint_u64()?);
        deserialize_i128, visit_i128, |self| zigzag_u128(self.varint_u128()?);
        deserialize_u8, visit_u8, |self| self.byte()?;
        deserialize_u16, visit_u16, |self| self.varint_u16()?;
        deserialize_u32, visit_u32, |self| self.varint_u32()?;
        deserialize_u64, visit_u64, |self| self.varint_u64()?;
        deserialize_u128, visit_u128, |self| self.varint_u128()?;
        deserialize_f32, visit_f32, |self| f32::from_le_bytes(self.array()?);
        deserialize_f64, visit_f64, |self| f64::from_le_bytes(self.array()?);
        deserialize_str, visit_borrowed_str, |self| self.str()?;
        deserialize_string, visit_borrowed_str, |self| self.str()?;
        deserialize_bytes, visit_borrowed_bytes, |self| self.slice()?;
        deserialize_byte_buf, visit_borrowed_bytes, |self| self.slice()?;
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            _ => Err(Fault::new(Kind::Bool)),
        }
    }

    #[inline]
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let text = std::str::from_utf8(self.slice()?).map_err(|_| Fault::new(Kind::Char))?;
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(char), None) => visitor.visit_char(char),
            _ => Err(Fault::new(Kind::Char)),
        }
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => self.nested(|this| visitor.visit_some(this)),
            _ => Err(Fault::new(Kind::Option)),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        self.nested(|this| visitor.visit_newtype_struct(this))
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let left = self.length()?;
        self.nested(|deserializer| visitor.visit_seq(Elements { deserializer, left }))
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let left = self.length()?;
        self.nested(|deserializer| {
            let before = deserializer.rest.len();
            visitor.visit_map(Entries {
                elements: Elements { deserializer, left },
                before,
            })
        })
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.nested(|this| this.fields(len, visitor))
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.nested(|this| visitor.visit_enum(this))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value> {
        Err(Fault::new(Kind::NotSelfDescribing))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value> {
        Err(Fault::new(Kind::NotSelfDescribing))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value> {
        Err(Fault::new(Kind::NotSelfDescribing))
    }
}

impl<'de> de::EnumAccess<'de> for &mut Deserializer<'de> {
    type Error = Fault;
    type Variant = Self;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self)> {
        let variant = self.varint_u32()?;
        let variant: de::value::U32Deserializer<Fault> = variant.into_deserializer();
        Ok((seed.deserialize(variant)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Deserializer<'de> {
    type Error = Fault;

    #[inline]
    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.fields(len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.fields(fields.len(), visitor)
    }
}

/// Values whose number the type fixes.
struct Fields<'d, 'de> {
    deserializer: &'d mut Deserializer<'de>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Fields<'_, 'de> {
    type Error = Fault;

    #[inline(always)]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return Ok(None),
        }
        seed.deserialize(&mut *self.deserializer).map(Some)
    }

    // As serde has it, and inlined, so that a field stays in a register.
    #[inline(always)]
    fn next_element<T: Deserialize<'de>>(&mut self) -> Result<Option<T>> {
        self.next_element_seed(PhantomData)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// Elements whose number the payload claims.
struct Elements<'d, 'de> {
    deserializer: &'d mut Deserializer<'de>,
    left: usize,
}

impl<'de> Elements<'_, 'de> {
    /// Accounts for an element that began when `before` bytes were left.
    #[inline]
    fn account(&mut self, before: usize) -> Result<()> {
        if self.deserializer.rest.len() == before {
            let empty = &mut self.deserializer.empty;
            *empty = empty
                .checked_sub(1)
                .ok_or_else(|| Fault::new(Kind::EmptyElements))?;
        }
        Ok(())
    }

    #[inline]
    fn next<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return Ok(None),
        }
        seed.deserialize(&mut *self.deserializer).map(Some)
    }

    #[inline]
    fn hint(&self) -> usize {
        self.left.min(self.deserializer.rest.len()).min(RESERVE)
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Fault;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let before = self.deserializer.rest.len();
        let element = self.next(seed)?;
        if element.is_some() {
            self.account(before)?;
        }
        Ok(element)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.hint())
    }
}

/// Keys and values whose number the payload claims.
struct Entries<'d, 'de> {
    elements: Elements<'d, 'de>,
    /// Bytes that were left when the present entry began.
    before: usize,
}

impl<'de> de::MapAccess<'de> for Entries<'_, 'de> {
    type Error = Fault;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        self.before = self.elements.deserializer.rest.len();
        self.elements.next(seed)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        let value = seed.deserialize(&mut *self.elements.deserializer)?;
        self.elements.account(self.before)?;
        Ok(value)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.elements.hint())
    }
}
