//! [`Encoder`]: an outgoing payload as bytes.
//!
//! One lives on the stack of each `send`. Up to [`INLINE`] bytes stay in it; more go to a heap buffer that each
//! thread keeps for the next time. Bulk data is not copied at all but borrowed from the message until the link has
//! written it.

use super::codec::varint;
use crate::{Error, Resource};
use std::{cell::Cell, fmt, io, mem::MaybeUninit, slice, sync::Arc};

/// Bytes that need no heap.
const INLINE: usize = 256;

/// A tail up to this size is copied behind the head: one short copy is cheaper for the link than two segments.
const SHORT_TAIL: usize = 64;

/// A heap buffer over this size is given back at once and not kept for the thread's next message.
pub(super) const KEEP: usize = 1 << 20;

thread_local! {
    /// The heap buffer between uses. It is taken out while in use, so an encoder inside an encoder gets a fresh one.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A failed allocation. Of no size, since every step of encoding returns it; the full error is made at the end.
#[derive(Debug)]
pub(super) struct NoMemory;

/// Makes room for exactly `more` bytes.
pub(crate) fn reserve(bytes: &mut Vec<u8>, more: usize) -> Result<(), Error> {
    Ok(bytes.try_reserve_exact(more).map_err(|_| NoMemory)?)
}

impl From<NoMemory> for Error {
    #[cold]
    fn from(_: NoMemory) -> Self {
        let error = io::Error::from(io::ErrorKind::OutOfMemory);
        Self::Exhausted(Resource::Memory, Arc::new(error))
    }
}

/// Takes a payload's bytes on their way out: a head that it owns and a tail that is borrowed.
///
/// Only [`MessageBox::encode`](crate::MessageBox::encode) implemented by hand calls it.
///
/// ```
/// let bulk = vec![7; 1000];
/// let mut encoder = ipmb::Encoder::new();
/// encoder.put(&[1, 2])?;
/// encoder.put_tail(&bulk)?;
/// assert_eq!(encoder.len(), 1002);
/// # Ok::<(), ipmb::Error>(())
/// ```
pub struct Encoder<'a> {
    /// Bytes of the head. The first `len` bytes at [`start`](Self::start) are initialised.
    len: usize,
    /// Bytes that the head has room for where it is: `INLINE`, or more once it is on the heap.
    capacity: usize,
    /// Where the head is once it needs more than `INLINE` bytes. The length is kept in `len`.
    heap: Heap,
    tail: Option<&'a [u8]>,
    inline: [MaybeUninit<u8>; INLINE],
}

impl<'a> Encoder<'a> {
    /// An empty one. Allocates nothing.
    #[inline]
    pub fn new() -> Self {
        Self {
            len: 0,
            capacity: INLINE,
            heap: Heap(Vec::new()),
            tail: None,
            inline: [const { MaybeUninit::uninit() }; INLINE],
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Error::Exhausted`] without memory; [`Error::Encode`] after [`put_tail`](Self::put_tail).
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.tail.is_some() {
            return Err(behind_the_tail());
        }
        Ok(self.append(bytes)?)
    }

    /// Sets the last bytes, which are borrowed until the message is sent and not copied before.
    ///
    /// # Errors
    /// [`Error::Encode`] if there is a tail already; [`Error::Exhausted`] without memory.
    #[inline]
    pub fn put_tail(&mut self, tail: &'a [u8]) -> Result<(), Error> {
        if self.tail.is_some() {
            return Err(behind_the_tail());
        }
        if tail.len() <= SHORT_TAIL {
            self.append(tail)?;
            self.tail = Some(&[]);
        } else {
            self.tail = Some(tail);
        }
        Ok(())
    }

    /// Bytes so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.len + self.tail().len()
    }

    #[inline]
    pub(super) fn head_len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that were copied: all before the [`tail`](Self::tail).
    #[inline]
    pub fn head(&self) -> &[u8] {
        let start = if self.capacity == INLINE {
            self.inline.as_ptr().cast()
        } else {
            self.heap.0.as_ptr()
        };
        // SAFETY: the first `len` bytes there are initialised: `advance` counts only what was written.
        unsafe { slice::from_raw_parts(start, self.len) }
    }

    /// The bytes that are borrowed. A short tail may stand at the end of the [`head`](Self::head) instead.
    #[inline]
    pub fn tail(&self) -> &'a [u8] {
        self.tail.unwrap_or_default()
    }

    #[inline]
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        let room = self.room(bytes.len())?;
        // SAFETY: there is room for the bytes, and they cannot be our own: we are borrowed mutably.
        unsafe {
            room.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            self.advance(bytes.len());
        }
        Ok(())
    }

    #[inline]
    pub(super) fn append_byte(&mut self, byte: u8) -> Result<(), NoMemory> {
        let room = self.room(1)?;
        // SAFETY: there is room for it.
        unsafe {
            room.write(byte);
            self.advance(1);
        }
        Ok(())
    }

    /// Appends an integer with 7 bits in each byte, the lowest first; the high bit says that more follow.
    #[inline(always)]
    pub(super) fn append_varint(&mut self, value: u64) -> Result<(), NoMemory> {
        let room = self.room(varint::MAX)?;
        // SAFETY: there is room for all ten bytes, of which `len` count.
        unsafe {
            if value < 0x80 {
                room.write(value as u8);
                self.advance(1);
            } else {
                let (first, last, len) = varint::spread(value);
                room.cast::<[u8; 8]>().write_unaligned(first);
                room.add(8).cast::<[u8; 2]>().write_unaligned(last);
                self.advance(len);
            }
        }
        Ok(())
    }

    /// As [`append_varint`](Self::append_varint).
    pub(super) fn append_varint_u128(&mut self, mut value: u128) -> Result<(), NoMemory> {
        while value >= 0x80 {
            self.append_byte(value as u8 | 0x80)?;
            value >>= 7;
        }
        self.append_byte(value as u8)
    }

    /// Where the next `more` bytes go.
    #[inline(always)]
    fn room(&mut self, more: usize) -> Result<*mut u8, NoMemory> {
        if self.capacity - self.len < more {
            self.grow(more)?;
        }
        let start = if self.capacity == INLINE {
            self.inline.as_mut_ptr().cast()
        } else {
            self.heap.0.as_mut_ptr()
        };
        // SAFETY: `len <= capacity`, and so many bytes belong to `start`.
        Ok(unsafe { start.add(self.len) })
    }

    /// # Safety
    /// `more` bytes must have been written to the [`room`](Self::room) asked for them.
    #[inline]
    unsafe fn advance(&mut self, more: usize) {
        self.len += more;
    }

    /// Makes room on the heap for `more` bytes, and moves there what is inline.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) -> Result<(), NoMemory> {
        if self.capacity == INLINE {
            let mut spare = SPARE.try_with(Cell::take).unwrap_or_default();
            spare
                .try_reserve(self.len.saturating_add(more).max(4 * INLINE))
                .map_err(|_| NoMemory)?;
            spare.extend_from_slice(self.head());
            self.heap.0 = spare;
        } else {
            // SAFETY: the first `len` bytes are initialised, and `len` is within the capacity.
            unsafe { self.heap.0.set_len(self.len) };
            self.heap.0.try_reserve(more).map_err(|_| NoMemory)?;
        }
        self.capacity = self.heap.0.capacity();
        Ok(())
    }
}

impl Default for Encoder<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Encoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("head", &self.head().len())
            .field("tail", &self.tail().len())
            .finish()
    }
}

#[cold]
fn behind_the_tail() -> Error {
    Error::Encode("bytes were put behind the tail, which is the last thing".into())
}

/// The heap buffer; capacity zero means unused. A type of its own so that an encoder may be dropped after what its
/// tail borrows.
struct Heap(Vec<u8>);

impl Drop for Heap {
    #[inline]
    fn drop(&mut self) {
        if self.0.capacity() > 0 {
            give_back(std::mem::take(&mut self.0));
        }
    }
}

#[inline(never)]
fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() <= KEEP {
        buffer.clear();
        // Fails only while the thread ends.
        let _ = SPARE.try_with(|spare| spare.set(buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_move_from_the_stack_to_the_heap() {
        for step in [1, 3, 255, 256, 257, 5000] {
            let mut encoder = Encoder::new();
            let mut expected = Vec::new();
            for round in 0..600_usize {
                let piece = vec![round as u8; step];
                encoder.put(&piece).unwrap();
                expected.extend_from_slice(&piece);
                assert_eq!(encoder.len(), expected.len());
            }
            assert_eq!(encoder.head(), expected);
        }
    }

    #[test]
    fn an_encoder_used_inside_another_does_not_share_its_heap_buffer() {
        let mut outer = Encoder::new();
        outer.put(&[1; 1000]).unwrap();
        {
            let mut inner = Encoder::new();
            inner.put(&[2; 2000]).unwrap();
            assert_eq!(inner.head(), [2; 2000]);
        }
        outer.put(&[3; 3000]).unwrap();
        assert_eq!(outer.head(), [&[1; 1000][..], &[3; 3000]].concat());
        drop(outer);
        let mut next = Encoder::new();
        next.put(&[4; 300]).unwrap();
        assert_eq!(next.head(), [4; 300]);
    }

    #[test]
    fn a_huge_message_does_not_keep_its_memory_for_the_thread() {
        let mut encoder = Encoder::new();
        encoder.put(&vec![0; 2 * KEEP]).unwrap();
        drop(encoder);
        assert!(SPARE.take().capacity() <= KEEP);
    }

    #[test]
    fn nothing_goes_behind_a_tail_however_short() {
        for length in [0, 1, 1000] {
            let tail = vec![5; length];
            let mut encoder = Encoder::new();
            encoder.put(&[1]).unwrap();
            encoder.put_tail(&tail).unwrap();
            assert!(matches!(encoder.put(&[2]), Err(Error::Encode(_))));
            assert!(matches!(encoder.put_tail(&[2]), Err(Error::Encode(_))));
            assert_eq!(encoder.len(), 1 + length);
        }
    }

    #[test]
    fn a_tail_may_die_in_the_same_scope_as_its_encoder() {
        let mut encoder = Encoder::new();
        let tail = vec![5; 100];
        encoder.put_tail(&tail).unwrap();
    }
}
