//! [`BytesMessage`], the payload that programs in all languages share.

use super::{Encoder, Payload, TypeUuid};
use crate::{DecodeError, Error};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes with a number that says what they are: the payload type that Rust, C, C++ and JavaScript share.
///
/// Its data is copied once on the way out and once on the way in, also as a variant of an enum with
/// `#[derive(MessageBox)]`. On the wire it is the format in two bytes, little-endian, and then the data.
///
/// ```
/// let message = ipmb::BytesMessage { format: 1, data: vec![1, 2, 3] };
/// assert_eq!(format!("{message:?}"), "BytesMessage { format: 1, data: [1, 2, 3] }");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct BytesMessage {
    /// What the data is; the meaning is the programs' own.
    pub format: u16,
    /// The data.
    #[serde(with = "data")]
    pub data: Vec<u8>,
}

impl TypeUuid for BytesMessage {
    const UUID: [u8; 16] = 0xdd95ba8e_1279_47cf_925e_83e614e79588_u128.to_be_bytes();
}

impl BytesMessage {
    pub(super) fn put<'a>(&'a self, encoder: &mut Encoder<'a>) -> Result<(), Error> {
        encoder.put(&self.format.to_le_bytes())?;
        encoder.put_tail(&self.data)
    }

    pub(super) fn take(payload: &mut Payload<'_>) -> Result<Self, Error> {
        let mut format = [0; 2];
        if payload.len() < format.len() {
            return Err(DecodeError("a BytesMessage without a format".into()).into());
        }
        payload.read(0, &mut format)?;
        Ok(Self {
            format: u16::from_le_bytes(format),
            data: payload.read_into_vec(format.len())?,
        })
    }
}

/// Shows the first 64 bytes at most.
impl fmt::Debug for BytesMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("BytesMessage");
        debug.field("format", &self.format);
        match self.data.get(..64) {
            Some(start) if self.data.len() > 64 => {
                let rest = self.data.len() - start.len();
                debug.field("data", &format_args!("{start:?} and {rest} more"))
            }
            _ => debug.field("data", &self.data),
        };
        debug.finish()
    }
}

/// How the data is written inside a larger serde type: as bytes, not as a sequence of numbers.
mod data {
    use serde::{Deserializer, Serializer, de};
    use std::fmt;

    pub(super) fn serialize<S: Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(data)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, data: &[u8]) -> Result<Vec<u8>, E> {
                Ok(data.to_vec())
            }

            fn visit_byte_buf<E: de::Error>(self, data: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(data)
            }

            // Formats without a notion of bytes, such as JSON, give a sequence.
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut data = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    data.push(byte);
                }
                Ok(data)
            }
        }

        deserializer.deserialize_byte_buf(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MessageBox;

    #[test]
    fn the_layout_that_other_languages_rely_on_is_format_then_data() {
        for length in [0, 1, 254, 255, 100_000] {
            let message = BytesMessage {
                format: 0x0102,
                data: vec![9; length],
            };
            let mut encoder = Encoder::new();
            message.encode(&mut encoder).unwrap();
            let wire = [encoder.head(), encoder.tail()].concat();
            assert_eq!(wire[..2], [2, 1]);
            assert_eq!(wire[2..], message.data);
            let back = BytesMessage::decode(&BytesMessage::UUID, &mut Payload::new(&wire)).unwrap();
            assert_eq!(back, message);
        }
    }

    #[test]
    fn bulk_data_leaves_without_a_copy_in_between() {
        let message = BytesMessage {
            format: 1,
            data: vec![9; 1000],
        };
        let mut encoder = Encoder::new();
        message.encode(&mut encoder).unwrap();
        assert_eq!(encoder.tail().as_ptr(), message.data.as_ptr());
    }

    #[test]
    fn a_payload_too_short_for_the_format_is_an_error() {
        for wire in [&[][..], &[1]] {
            let result = BytesMessage::decode(&BytesMessage::UUID, &mut Payload::new(wire));
            assert!(matches!(result, Err(Error::Decode(_))));
        }
    }

    #[test]
    fn inside_a_serde_type_it_is_bytes() {
        let message = BytesMessage {
            format: 300,
            data: vec![1, 2, 3],
        };
        let wire = postcard::to_allocvec(&message).unwrap();
        assert_eq!(wire, [0xac, 2, 3, 1, 2, 3]);
        assert_eq!(
            postcard::from_bytes::<BytesMessage>(&wire).unwrap(),
            message
        );
    }

    #[test]
    fn debug_does_not_print_megabytes() {
        let message = BytesMessage {
            format: 1,
            data: vec![9; 1 << 20],
        };
        assert!(format!("{message:?}").len() < 400);
    }
}
