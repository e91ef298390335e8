//! [`MessageBox`]: what can be a payload.

use super::{BytesMessage, Encoder, Payload, TypeUuid, codec};
use crate::Error;
use serde::{Serialize, de::DeserializeOwned};
use std::any::{Any, TypeId};

/// What can be the payload of a message.
///
/// Implemented for every type that has a UUID ([`TypeUuid`]) and is serde's `Serialize` and `Deserialize`: so for
/// `String`, integers, `()`, [`BytesMessage`] and your own types. An endpoint that takes several types derives it
/// for an enum with one variant for each:
///
/// ```
/// use ipmb::{MessageBox, TypeUuid};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, TypeUuid)]
/// #[uuid = "7b07473e-9659-4d47-a502-8245d71c0078"]
/// struct Position { x: f64, y: f64 }
///
/// #[derive(MessageBox)]
/// enum Telemetry {
///     Text(String),
///     Count(i32),
///     Position(Position),
/// }
///
/// assert!(Telemetry::accepts(&Position::UUID));
/// assert!(!Telemetry::accepts(&u8::UUID));
/// ```
///
/// On the bus only the type inside the variant is seen, so a sender of `String` reaches a receiver of `Telemetry`.
/// Where two variants hold the same type, the first gets what arrives.
///
/// # The wire format
///
/// [Postcard's](https://postcard.jamesmunns.com/wire-format). A receiver takes at most 128 levels of nesting (options
/// and newtypes count) and, over a whole payload, 65,536 elements of sequences that take no byte each (as in
/// `Vec<()>`); what is over that does not decode. Types that need a self-describing format (serde's `untagged`,
/// `flatten`, internally tagged enums) do not decode either.
///
/// There are no field names in it: adding, removing or reordering a field makes another type, which needs another UUID. A
/// receiver takes both by an enum with a variant for each.
///
/// # Implementing it by hand
///
/// For a format of one's own, or bulk data without a copy in between. `accepts` and `decode` run while the receiver is locked:
/// one that uses the same receiver waits for itself for ever.
///
/// ```
/// use ipmb::{Encoder, Error, MessageBox, Payload};
///
/// struct Frame(Vec<u8>);
///
/// const FRAME: [u8; 16] = 0x2f0c6b0e_6a0f_4f5a_8f57_64a7a2b1d4c3_u128.to_be_bytes();
///
/// impl MessageBox for Frame {
///     fn uuid(&self) -> [u8; 16] {
///         FRAME
///     }
///     fn accepts(uuid: &[u8; 16]) -> bool {
///         *uuid == FRAME
///     }
///     fn encode<'a>(&'a self, encoder: &mut Encoder<'a>) -> Result<(), Error> {
///         encoder.put_tail(&self.0)
///     }
///     fn decode(uuid: &[u8; 16], payload: &mut Payload<'_>) -> Result<Self, Error> {
///         if !Self::accepts(uuid) {
///             return Err(Error::TypeUuidNotFound);
///         }
///         Ok(Self(payload.read_into_vec(0)?))
///     }
/// }
///
/// let frame = Frame(vec![7; 1000]);
/// let mut encoder = Encoder::new();
/// frame.encode(&mut encoder).unwrap();
/// assert_eq!(encoder.tail().as_ptr(), frame.0.as_ptr());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the payload of a message",
    note = "a payload is `ipmb::TypeUuid + serde::Serialize + serde::de::DeserializeOwned + Send + 'static`, or an \
            enum with `#[derive(ipmb::MessageBox)]`"
)]
pub trait MessageBox: Sized + Send + 'static {
    /// The UUID of the type of this payload.
    fn uuid(&self) -> [u8; 16];

    /// Whether a payload with this UUID can be decoded.
    fn accepts(uuid: &[u8; 16]) -> bool;

    /// Writes the payload.
    ///
    /// # Errors
    /// [`Error::Encode`] if the value cannot be written; [`Error::Exhausted`] without memory.
    fn encode<'a>(&'a self, encoder: &mut Encoder<'a>) -> Result<(), Error>;

    /// Reads a payload with this UUID.
    ///
    /// # Errors
    /// [`Error::TypeUuidNotFound`] if the UUID is not [accepted](Self::accepts); [`Error::Decode`] if the bytes are not
    /// what the type says; [`Error::Exhausted`] without memory.
    fn decode(uuid: &[u8; 16], payload: &mut Payload<'_>) -> Result<Self, Error>;
}

impl<T> MessageBox for T
where
    T: TypeUuid + Serialize + DeserializeOwned + Send + 'static,
{
    #[inline]
    fn uuid(&self) -> [u8; 16] {
        T::UUID
    }

    #[inline]
    fn accepts(uuid: &[u8; 16]) -> bool {
        *uuid == T::UUID
    }

    // The comparisons of types are folded at compile time.
    #[inline]
    fn encode<'a>(&'a self, encoder: &mut Encoder<'a>) -> Result<(), Error> {
        let any: &'a dyn Any = self;
        if let Some(bytes) = any.downcast_ref::<BytesMessage>() {
            return bytes.put(encoder);
        }
        if let Some(text) = any.downcast_ref::<String>() {
            codec::put_length(text.len(), encoder)?;
            return encoder.put_tail(text.as_bytes());
        }
        codec::encode(self, encoder)
    }

    #[inline]
    fn decode(uuid: &[u8; 16], payload: &mut Payload<'_>) -> Result<Self, Error> {
        if *uuid != T::UUID {
            return Err(Error::TypeUuidNotFound);
        }
        if TypeId::of::<T>() == TypeId::of::<BytesMessage>() {
            let mut message = Some(BytesMessage::take(payload)?);
            if let Some(message) = same::<BytesMessage, T>(&mut message) {
                return Ok(message);
            }
        }
        codec::decode(payload.bytes()?)
    }
}

/// Moves a value out of `from` if `A` and `B` are the same type.
#[inline]
fn same<A: 'static, B: 'static>(from: &mut Option<A>) -> Option<B> {
    let from: &mut dyn Any = from;
    from.downcast_mut::<Option<B>>()?.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire<T: MessageBox>(value: &T) -> Vec<u8> {
        let mut encoder = Encoder::new();
        value.encode(&mut encoder).unwrap();
        assert_eq!(encoder.len(), encoder.head().len() + encoder.tail().len());
        [encoder.head(), encoder.tail()].concat()
    }

    #[test]
    fn a_string_leaves_without_a_copy_and_has_postcards_format() {
        for length in [0, 1, 5, 64, 65, 127, 128, 300, 100_000] {
            let text = "é".repeat(length);
            let bytes = wire(&text);
            assert_eq!(bytes, postcard::to_allocvec(&text).unwrap());
            let mut payload = Payload::new(&bytes);
            assert_eq!(String::decode(&String::UUID, &mut payload).unwrap(), text);
        }
        let text = "x".repeat(1000);
        let mut encoder = Encoder::new();
        text.encode(&mut encoder).unwrap();
        assert_eq!(encoder.tail().as_ptr(), text.as_ptr());
    }

    #[test]
    fn a_foreign_uuid_is_told_apart_from_bad_bytes() {
        let error = i32::decode(&u8::UUID, &mut Payload::new(&[0])).unwrap_err();
        assert!(matches!(error, Error::TypeUuidNotFound));
        let error = i32::decode(&i32::UUID, &mut Payload::new(&[])).unwrap_err();
        assert!(matches!(error, Error::Decode(_)));
    }
}
