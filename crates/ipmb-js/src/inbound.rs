//! The payload on its way in: a `BytesMessage` whose data goes straight to where JavaScript will find it, copied once.

use ipmb::{BytesMessage, Encoder, Error, MessageBox, Payload, Resource, TypeUuid};
use napi::sys;
use std::{cell::Cell, io, ptr, slice, sync::Arc};

/// Data over this has memory of Rust's own, which can fail to be had; where Node has no memory for a buffer it ends the process.
const LARGE: usize = 1 << 20;

/// A format, and where the data is.
pub(crate) struct Inbound {
    pub(crate) format: u16,
    pub(crate) data: Data,
}

pub(crate) enum Data {
    /// That many bytes in the receiver's room.
    Room(usize),
    /// A `Buffer` of the call under way.
    Buffer(sys::napi_value),
    Own(Vec<u8>),
}

// SAFETY: a value with a buffer is made and used up within one call of `receive`'s caller, on the thread of its environment.
unsafe impl Send for Inbound {}

/// Where data goes during one call.
#[derive(Clone, Copy)]
struct Place {
    env: sys::napi_env,
    room: *mut u8,
    small: usize,
}

thread_local! {
    static PLACE: Cell<Option<Place>> = const { Cell::new(None) };
}

/// Ends the place's use also by a panic.
struct Reset;

impl Drop for Reset {
    fn drop(&mut self) {
        PLACE.set(None);
    }
}

/// Calls `receive`, which may decode one message: its data goes into `room` if it fits, else into a buffer of `env`.
///
/// # Safety
/// `env` is that of the call under way.
pub(crate) unsafe fn with_place<T>(
    env: sys::napi_env,
    room: &mut [u8],
    receive: impl FnOnce() -> T,
) -> T {
    PLACE.set(Some(Place {
        env,
        room: room.as_mut_ptr(),
        small: room.len(),
    }));
    let _reset = Reset;
    receive()
}

impl MessageBox for Inbound {
    fn uuid(&self) -> [u8; 16] {
        BytesMessage::UUID
    }

    fn accepts(uuid: &[u8; 16]) -> bool {
        *uuid == BytesMessage::UUID
    }

    fn encode<'a>(&'a self, _: &mut Encoder<'a>) -> Result<(), Error> {
        Err(Error::TypeUuidNotFound)
    }

    fn decode(_: &[u8; 16], payload: &mut Payload<'_>) -> Result<Self, Error> {
        let mut format = [0; 2];
        payload.read(0, &mut format)?;
        let format = u16::from_le_bytes(format);
        let len = payload.len().saturating_sub(2);
        let place = PLACE.get().filter(|_| len <= LARGE);
        let data = match place {
            None => Data::Own(payload.read_into_vec(2)?),
            Some(place) if len <= place.small => {
                if len > 0 {
                    // SAFETY: `with_place` has the room, exclusively, until `receive` returns, and it is that long.
                    payload.read(2, unsafe { slice::from_raw_parts_mut(place.room, len) })?;
                }
                Data::Room(len)
            }
            Some(place) => {
                let (mut start, mut value) = (ptr::null_mut(), ptr::null_mut());
                // SAFETY: `env` is that of the call under way, as `with_place` was promised.
                let status =
                    unsafe { sys::napi_create_buffer(place.env, len, &mut start, &mut value) };
                if status != sys::Status::napi_ok || start.is_null() {
                    let error = io::ErrorKind::OutOfMemory.into();
                    return Err(Error::Exhausted(Resource::Memory, Arc::new(error)));
                }
                // SAFETY: memory that Node has just made, of that length, with arbitrary bytes in it; no JavaScript runs
                // that could look at it.
                payload.read(2, unsafe { slice::from_raw_parts_mut(start.cast(), len) })?;
                Data::Buffer(value)
            }
        };
        Ok(Self { format, data })
    }
}
