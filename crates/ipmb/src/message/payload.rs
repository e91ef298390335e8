//! [`Payload`]: an incoming payload as bytes.
//!
//! The bytes lie in private memory or in memory that a peer may be writing to this very moment, against the rules.
//! The second kind is only ever read by [`copy_from_shared`], and each byte once: whatever is decided about it is
//! decided about the copy. A liar who changes bytes later changes nothing.

use super::{
    encoder::{KEEP, NoMemory, reserve},
    view::InPlace,
};
use crate::{DecodeError, Error, sync::copy_from_shared};
use std::{fmt, marker::PhantomData, mem::MaybeUninit, ptr::NonNull, slice, sync::Arc};

/// Up to this many bytes are copied to the stack and not to the heap.
const INLINE: usize = 256;

/// The bytes of a received payload.
///
/// Only [`MessageBox::decode`](crate::MessageBox::decode) implemented by hand calls it. Use either
/// [`bytes`](Self::bytes), which copies what lies in shared memory to a buffer that is used again for the next
/// message, or [`read`](Self::read) and [`read_into_vec`](Self::read_into_vec), which copy to where the bytes are wanted. Mixing
/// them is safe, but while a peer cheats the two may see different bytes.
///
/// ```
/// let mut payload = ipmb::Payload::new(&[1, 2, 3]);
/// assert_eq!(payload.len(), 3);
/// assert_eq!(payload.bytes()?, [1, 2, 3]);
/// assert_eq!(payload.read_into_vec(1)?, [2, 3]);
/// # Ok::<(), ipmb::Error>(())
/// ```
pub struct Payload<'p>(Source<'p>);

enum Source<'p> {
    Private(&'p [u8]),
    Shared(Shared<'p>),
    /// All of the scratch buffer.
    Scratch(Scratch<'p>),
}

/// Keeps memory of a peer as it is for as long as it lives.
pub(crate) type Keeper = Arc<dyn Send + Sync>;

struct Shared<'p> {
    ptr: NonNull<u8>,
    len: usize,
    /// Keeps the bytes beyond this payload, if they can be kept.
    keep: &'p mut dyn FnMut() -> Option<Keeper>,
    scratch: Scratch<'p>,
    lives: PhantomData<&'p [u8]>,
}

impl<'p> Payload<'p> {
    /// The payload in `bytes`, which nobody else writes to. For tests of a [`MessageBox`](crate::MessageBox).
    #[inline]
    pub fn new(bytes: &'p [u8]) -> Self {
        Self(Source::Private(bytes))
    }

    /// Calls `f` with the payload of `len` bytes in memory that a peer can write to. A small one is copied to the stack beforehand: if
    /// as many as `readable` bytes can be read there, by one load and one store, since a later load that needs more
    /// than one store waits for them all to reach the cache. `scratch`
    /// is where a larger one is copied to if it must be looked at in whole; its contents do not matter, and it is kept
    /// up to 1 MiB. `keep` is asked to keep the memory when the payload is not to be copied at all.
    ///
    /// # Safety
    /// `ptr` must be readable for `readable` bytes, at least `len`, until this returns, and for as long as what `keep` returned
    /// lives, whatever a peer does.
    #[inline]
    pub(crate) unsafe fn with_shared<T>(
        ptr: NonNull<u8>,
        len: usize,
        readable: usize,
        scratch: &mut Vec<u8>,
        keep: &mut dyn FnMut() -> Option<Keeper>,
        f: impl FnOnce(&mut Payload<'_>) -> T,
    ) -> T {
        if len <= INLINE {
            let mut copy = [const { MaybeUninit::<u8>::uninit() }; INLINE];
            // SAFETY: the caller's promise; the copy has room, and its first `len` bytes are initialised by it.
            let bytes = unsafe {
                let to = copy.as_mut_ptr().cast();
                match readable {
                    8 => copy_from_shared(ptr, to, 8),
                    16 => copy_from_shared(ptr, to, 16),
                    _ => copy_from_shared(ptr, to, len),
                }
                slice::from_raw_parts(copy.as_ptr().cast(), len)
            };
            return f(&mut Payload::new(bytes));
        }
        f(&mut Payload(Source::Shared(Shared {
            ptr,
            len,
            keep,
            scratch: Scratch(Some(scratch)),
            lives: PhantomData,
        })))
    }

    /// Size in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Source::Private(bytes) => bytes.len(),
            Source::Shared(shared) => shared.len,
            Source::Scratch(scratch) => scratch.get().len(),
        }
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes, in private memory.
    ///
    /// # Errors
    /// [`Error::Exhausted`] without memory.
    #[inline]
    pub fn bytes(&mut self) -> Result<&[u8], Error> {
        if let Source::Shared(shared) = &mut self.0 {
            self.0 = Source::Scratch(shared.copy_to_scratch()?);
        }
        Ok(match &self.0 {
            Source::Private(bytes) => bytes,
            Source::Scratch(scratch) => scratch.get(),
            Source::Shared(_) => &[],
        })
    }

    /// Fills `buffer` with the bytes from offset `from` on.
    ///
    /// # Errors
    /// [`Error::Decode`] if there are too few.
    #[inline]
    pub fn read(&mut self, from: usize, buffer: &mut [u8]) -> Result<(), Error> {
        let left = self.left(from)?;
        if left < buffer.len() {
            return Err(too_short());
        }
        // SAFETY: the buffer is writable for its length, and at least that much is left behind `from`.
        unsafe { self.copy(from, buffer.as_mut_ptr(), buffer.len()) };
        Ok(())
    }

    /// The bytes from offset `from` to the end, copied exactly once.
    ///
    /// # Errors
    /// [`Error::Decode`] if `from` is behind the end; [`Error::Exhausted`] without memory.
    pub fn read_into_vec(&mut self, from: usize) -> Result<Vec<u8>, Error> {
        let left = self.left(from)?;
        let mut bytes = Vec::new();
        reserve(&mut bytes, left)?;
        // SAFETY: the vector has that capacity; `copy` initialises all of it before it counts as its length.
        unsafe {
            self.copy(from, bytes.as_mut_ptr(), left);
            bytes.set_len(left);
        }
        Ok(bytes)
    }

    /// The bytes from offset `from` on where they are, beyond this payload's life, if that is possible.
    pub(super) fn keep(&mut self, from: usize) -> Option<InPlace> {
        let Source::Shared(shared) = &mut self.0 else {
            return None;
        };
        let len = shared.len.checked_sub(from)?;
        let keeper = (shared.keep)()?;
        // SAFETY: within the payload, and `with_shared` was promised that the keeper keeps it readable.
        Some(unsafe { InPlace::new(shared.ptr.add(from), len, keeper) })
    }

    fn left(&self, from: usize) -> Result<usize, Error> {
        self.len().checked_sub(from).ok_or_else(too_short)
    }

    /// # Safety
    /// There must be `len` bytes behind `from`, and `dst` must be private memory that is writable for `len` bytes.
    unsafe fn copy(&self, from: usize, dst: *mut u8, len: usize) {
        let start = match &self.0 {
            Source::Private(bytes) => NonNull::from(*bytes).cast(),
            Source::Scratch(scratch) => NonNull::from(scratch.get()).cast(),
            Source::Shared(shared) => shared.ptr,
        };
        // SAFETY: the caller sees to the bounds; the sources are readable for their length.
        unsafe { copy_from_shared(start.add(from), dst, len) };
    }
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("len", &self.len()).finish()
    }
}

#[cold]
fn too_short() -> Error {
    DecodeError("the payload is too short".into()).into()
}

impl<'p> Shared<'p> {
    #[cold]
    #[inline(never)]
    fn copy_to_scratch(&mut self) -> Result<Scratch<'p>, Error> {
        let mut scratch = Scratch(self.scratch.0.take());
        if let Some(buffer) = &mut scratch.0 {
            buffer.clear();
            if buffer.try_reserve_exact(self.len).is_err() {
                self.scratch.0 = scratch.0.take();
                return Err(NoMemory.into());
            }
            // SAFETY: `from_shared` was promised that the source is readable; the buffer has room for `len` bytes, all
            // of which are initialised before they count as its length.
            unsafe {
                copy_from_shared(self.ptr, buffer.as_mut_ptr(), self.len);
                buffer.set_len(self.len);
            }
        }
        Ok(scratch)
    }
}

/// The borrowed scratch buffer, which is given back no larger than [`KEEP`]. `None` once it was moved on.
struct Scratch<'p>(Option<&'p mut Vec<u8>>);

impl Scratch<'_> {
    fn get(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl Drop for Scratch<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(buffer) = self
            .0
            .as_deref_mut()
            .filter(|buffer| buffer.capacity() > KEEP)
        {
            *buffer = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(
        memory: &mut [u8],
        scratch: &mut Vec<u8>,
        f: impl FnOnce(*mut u8, &mut Payload<'_>) -> T,
    ) -> T {
        let ptr = NonNull::new(memory.as_mut_ptr()).unwrap();
        // SAFETY: the memory is borrowed for as long as the payload.
        unsafe {
            let len = memory.len();
            Payload::with_shared(ptr, len, len, scratch, &mut || None, |payload| {
                f(ptr.as_ptr(), payload)
            })
        }
    }

    #[test]
    fn bytes_that_a_peer_changes_after_the_copy_change_nothing() {
        for length in [1, 255, 256, 257, 70_000] {
            let (mut memory, mut scratch) = (vec![1; length], vec![8; 10]);
            with(&mut memory, &mut scratch, |ptr, payload| {
                assert_eq!(payload.bytes().unwrap(), vec![1; length]);
                // SAFETY: the memory is still there; this is what the peer would do.
                unsafe { ptr.write_bytes(2, length) };
                assert_eq!(payload.bytes().unwrap(), vec![1; length]);
                assert_eq!(payload.read_into_vec(0).unwrap(), vec![1; length]);
                assert_eq!(payload.len(), length);
            });
        }
    }

    #[test]
    fn a_small_payload_shows_what_lies_behind_it_in_the_ring() {
        let memory: [u8; 24] = std::array::from_fn(|i| i as u8);
        for length in 0..=memory.len() {
            let ptr = NonNull::from(&memory).cast();
            let readable = length.next_multiple_of(8);
            let (keep, mut scratch) = (&mut || None, Vec::new());
            // SAFETY: so many bytes of the array are readable.
            unsafe {
                Payload::with_shared(ptr, length, readable, &mut scratch, keep, |payload| {
                    assert_eq!(payload.bytes().unwrap(), &memory[..length]);
                });
            }
        }
    }

    #[test]
    fn offsets_behind_the_end_are_errors() {
        for length in [3, 300] {
            let (mut memory, mut scratch) = (vec![7; length], Vec::new());
            with(&mut memory, &mut scratch, |_, payload| {
                let mut buffer = [0; 2];
                payload.read(length - 2, &mut buffer).unwrap();
                assert_eq!(buffer, [7; 2]);
                for from in [length - 1, usize::MAX] {
                    let read = payload.read(from, &mut buffer);
                    assert!(matches!(read, Err(Error::Decode(_))));
                }
                assert_eq!(payload.read_into_vec(length).unwrap(), b"");
                let behind = payload.read_into_vec(length + 1);
                assert!(matches!(behind, Err(Error::Decode(_))));
            });
        }
    }

    #[test]
    fn a_huge_payload_does_not_keep_its_memory() {
        let mut scratch = Vec::new();
        for (length, kept) in [(2 * KEEP, 0..=KEEP), (1000, 1000..=KEEP)] {
            with(&mut vec![1; length], &mut scratch, |_, payload| {
                assert_eq!(payload.bytes().unwrap().len(), length);
            });
            assert!(kept.contains(&scratch.capacity()));
        }
    }
}
