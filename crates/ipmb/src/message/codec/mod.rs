//! Postcard's wire format: values to an [`Encoder`] by postcard itself, bytes to values by a deserializer of our own that
//! a hostile payload cannot make recurse, loop or allocate without bound.

mod de;

use super::Encoder;
use crate::Error;
use postcard::{Serializer, ser_flavors::Flavor};
use serde::{Serialize, de::DeserializeOwned};

/// Appends a value.
#[inline]
pub(super) fn encode<T: Serialize>(value: &T, encoder: &mut Encoder<'_>) -> Result<(), Error> {
    let output = Output {
        encoder,
        error: None,
    };
    let mut serializer = Serializer { output };
    value
        .serialize(&mut serializer)
        .map_err(|error| match serializer.output.error.take() {
            Some(error) => error,
            None => Error::Encode(error.to_string()),
        })
}

/// Appends the length that stands before a string.
#[inline]
pub(super) fn put_length(length: usize, encoder: &mut Encoder<'_>) -> Result<(), Error> {
    encode(&length, encoder)
}

/// Reads a value that takes all of the bytes.
#[inline]
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    de::from_bytes(bytes).map_err(|fault| Error::Decode(fault.into()))
}

/// Where postcard writes to. Keeps our error, which postcard's cannot carry.
struct Output<'e, 'a> {
    encoder: &'e mut Encoder<'a>,
    error: Option<Error>,
}

impl Output<'_, '_> {
    #[cold]
    fn fail(&mut self, error: Error) -> postcard::Error {
        self.error = Some(error);
        postcard::Error::SerializeBufferFull
    }
}

impl Flavor for Output<'_, '_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        match self.encoder.append(data) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fail(error)),
        }
    }

    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.try_extend(&[data])
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
