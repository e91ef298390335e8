//! [`BytesView`]: a received payload that stays where its sender put it.
//!
//! The memory is the sender's, who may write to it at any time, against the rules. So no reference to it is ever made:
//! bytes are copied out of it, as many as are looked at, and what is decided about them is decided about the copy.

use super::{BytesMessage, Encoder, MessageBox, Payload, TypeUuid, payload::Keeper};
use crate::{DecodeError, Error, sync::copy_from_shared, sys};
use std::{fmt, mem::MaybeUninit, ptr::NonNull};

/// Bytes that are copied at a time: they stay in the nearest cache.
const CHUNK: usize = 16 << 10;

/// A [`BytesMessage`] that is received without copying its data: for large ones, of which one reads a part, or reads all
/// once.
///
/// A payload of up to 1/16 of the ring (64 KiB by default) travels in the ring, and is copied when it is received; larger ones,
/// and each [`Loan`](crate::Loan), travel in blocks of shared memory, which are not used again before their view is dropped.
/// While a receiver keeps 32 of them, or 64 MiB, their sender waits for space.
///
/// The sender can write to the memory all the time, so bytes are read by copying them out; two reads of the same bytes
/// may differ if the sender does not keep to the rules. For memory that nobody can change, send a
/// [frozen](crate::MemoryRegion::freeze) region.
///
/// It can be a variant of an enum with `#[derive(MessageBox)]`, and be sent on, which copies it. All calls may be made from
/// any thread at the same time. In a forked child they return [`Error::Forked`].
///
/// ```
/// use ipmb::{BytesMessage, BytesView, Message, Options, Selector, label};
///
/// let bus = format!("doc.view.{}", std::process::id());
/// let (sender, receiver) = ipmb::join::<BytesMessage, BytesView>(Options::new(&bus, label!("a"), ""), None)?;
/// let message = BytesMessage { format: 7, data: vec![1; 100_000] };
/// sender.send(Message::new(Selector::unicast("a"), message))?;
///
/// let view = receiver.recv(None)?.payload;
/// assert_eq!((view.format, view.len()), (7, 100_000));
/// let mut last = [0; 2];
/// view.read(99_998, &mut last)?;
/// let mut sum = 0;
/// view.for_each_chunk(|bytes| sum += bytes.iter().map(|b| u64::from(*b)).sum::<u64>())?;
/// assert_eq!((last, sum), ([1, 1], 100_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BytesView {
    /// What the data is; the meaning is the programs' own.
    pub format: u16,
    data: Data,
}

enum Data {
    Copy(Vec<u8>),
    InPlace(InPlace),
}

/// Memory that a peer may write to, and what keeps it.
pub(super) struct InPlace {
    start: NonNull<u8>,
    len: usize,
    generation: u32,
    _keeper: Keeper,
}

// SAFETY: the memory is one of the process, not of a thread, and it is only ever copied out of.
unsafe impl Send for InPlace {}
// SAFETY: as above.
unsafe impl Sync for InPlace {}

impl InPlace {
    /// # Safety
    /// `start` must be readable for `len` bytes while `keeper` lives, whatever a peer does.
    pub(super) unsafe fn new(start: NonNull<u8>, len: usize, keeper: Keeper) -> Self {
        Self {
            start,
            len,
            generation: sys::generation(),
            _keeper: keeper,
        }
    }

    /// Copies bytes out. Both lie within the data.
    fn copy(&self, from: usize, to: *mut u8, len: usize) -> Result<(), Error> {
        if sys::forked_since(self.generation) {
            return Err(Error::Forked);
        }
        debug_assert!(from <= self.len && len <= self.len - from);
        // SAFETY: within the data, which the keeper keeps; the callers own `to`.
        unsafe { copy_from_shared(self.start.add(from), to, len) };
        Ok(())
    }
}

impl BytesView {
    /// Bytes of data.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Copy(bytes) => bytes.len(),
            Data::InPlace(place) => place.len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the data lies where its sender put it, and was not copied.
    pub fn is_in_place(&self) -> bool {
        matches!(self.data, Data::InPlace(_))
    }

    /// Fills `buffer` with the bytes from offset `from` on.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if there are too few; [`Error::Forked`].
    pub fn read(&self, from: usize, buffer: &mut [u8]) -> Result<(), Error> {
        let len = buffer.len();
        let within = from.checked_add(len).filter(|end| *end <= self.len());
        let end = within.ok_or_else(|| Error::OutOfBounds {
            start: from,
            end: from.saturating_add(len),
            size: self.len(),
        })?;
        match &self.data {
            Data::Copy(bytes) => buffer.copy_from_slice(&bytes[from..end]),
            Data::InPlace(place) => place.copy(from, buffer.as_mut_ptr(), len)?,
        }
        Ok(())
    }

    /// Shows all bytes in order, some thousand at a time.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn for_each_chunk(&self, mut f: impl FnMut(&[u8])) -> Result<(), Error> {
        match &self.data {
            Data::Copy(bytes) => bytes.chunks(CHUNK).for_each(f),
            Data::InPlace(place) => {
                // Not filled with zeros first: that takes longer than to copy a small payload.
                let mut chunk = MaybeUninit::<[u8; CHUNK]>::uninit();
                let start = chunk.as_mut_ptr().cast::<u8>();
                for from in (0..place.len).step_by(CHUNK) {
                    let len = CHUNK.min(place.len - from);
                    place.copy(from, start, len)?;
                    // SAFETY: these bytes of the chunk were written just now, and are not written while `f` looks at them.
                    f(unsafe { std::slice::from_raw_parts(start, len) });
                }
            }
        }
        Ok(())
    }

    /// A copy of all bytes.
    ///
    /// # Errors
    /// [`Error::Exhausted`] without memory; [`Error::Forked`].
    pub fn to_vec(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        super::encoder::reserve(&mut bytes, self.len())?;
        bytes.resize(self.len(), 0);
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }
}

impl MessageBox for BytesView {
    fn uuid(&self) -> [u8; 16] {
        BytesMessage::UUID
    }

    #[inline]
    fn accepts(uuid: &[u8; 16]) -> bool {
        *uuid == BytesMessage::UUID
    }

    fn encode<'a>(&'a self, encoder: &mut Encoder<'a>) -> Result<(), Error> {
        encoder.put(&self.format.to_le_bytes())?;
        match &self.data {
            Data::Copy(bytes) => encoder.put_tail(bytes),
            Data::InPlace(_) => {
                let mut full = Ok(());
                self.for_each_chunk(|bytes| {
                    if full.is_ok() {
                        full = encoder.put(bytes);
                    }
                })?;
                full
            }
        }
    }

    fn decode(uuid: &[u8; 16], payload: &mut Payload<'_>) -> Result<Self, Error> {
        if !Self::accepts(uuid) {
            return Err(Error::TypeUuidNotFound);
        }
        let mut format = [0; 2];
        if payload.len() < format.len() {
            return Err(DecodeError("a BytesMessage without a format".into()).into());
        }
        payload.read(0, &mut format)?;
        let data = match payload.keep(format.len()) {
            Some(place) => Data::InPlace(place),
            None => Data::Copy(payload.read_into_vec(format.len())?),
        };
        Ok(Self {
            format: u16::from_le_bytes(format),
            data,
        })
    }
}

impl fmt::Debug for BytesView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BytesView")
            .field("format", &self.format)
            .field("len", &self.len())
            .field("in_place", &self.is_in_place())
            .finish()
    }
}
