//! Postcard's wire format, both ways, by a serializer and a deserializer of our own.
//!
//! Postcard's own write through a scratch buffer for every integer and recurse, loop and reserve as a payload tells them
//! to. Ours write in place and have limits, the same on both sides, so that nobody sends what cannot be received.
//! Property tests hold them to postcard's bytes and values.

mod de;
mod ser;
#[cfg(test)]
mod tests;
pub(super) mod varint;

use super::Encoder;
use crate::Error;
use serde::{Serialize, de::DeserializeOwned};

/// Levels of nesting: structs, tuples, sequences, maps, enums, newtypes and options.
const DEPTH: u32 = 128;

/// Elements of sequences and entries of maps that take no bytes, in the whole payload.
const EMPTY_ELEMENTS: u32 = 1 << 16;

/// Appends a value.
#[inline]
pub(super) fn encode<T: Serialize>(value: &T, encoder: &mut Encoder<'_>) -> Result<(), Error> {
    ser::append(value, encoder).map_err(Error::from)
}

/// Appends the length that stands before a string.
#[inline]
pub(super) fn put_length(length: usize, encoder: &mut Encoder<'_>) -> Result<(), Error> {
    Ok(encoder.append_varint(length as u64)?)
}

/// Reads a value that takes all of the bytes.
#[inline]
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    de::from_bytes(bytes).map_err(|fault| Error::Decode(fault.into()))
}
