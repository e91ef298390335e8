//! [`Payload`]: an incoming payload as bytes.
//!
//! The bytes lie in private memory or in memory that a peer may be writing to this very moment, against the rules.
//! The second kind is only ever read by [`copy_from_shared`], and each byte once: whatever is decided about it is
//! decided about the copy. A liar who changes bytes later changes nothing.

use super::encoder::{KEEP, out_of_memory};
use crate::{DecodeError, Error, sync::copy_from_shared};
use std::{fmt, marker::PhantomData, mem::MaybeUninit, ptr::NonNull, slice};

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
pub struct Payload<'p> {
    source: Source<'p>,
    inline: [MaybeUninit<u8>; INLINE],
}

enum Source<'p> {
    Private(&'p [u8]),
    Shared(Shared<'p>),
    /// This many bytes at the start of `inline`.
    Inline(usize),
    /// All of the scratch buffer.
    Scratch(Scratch<'p>),
}

struct Shared<'p> {
    ptr: NonNull<u8>,
    len: usize,
    scratch: Scratch<'p>,
    lives: PhantomData<&'p [u8]>,
}

impl<'p> Payload<'p> {
    /// The payload in `bytes`, which nobody else writes to. For tests of a [`MessageBox`](crate::MessageBox).
    #[inline]
    pub fn new(bytes: &'p [u8]) -> Self {
        Self {
            source: Source::Private(bytes),
            inline: [const { MaybeUninit::uninit() }; INLINE],
        }
    }

    /// The payload in memory that a peer can write to. `scratch` is where it is copied to if it must be looked at in
    /// whole and is not small; its contents do not matter, and it is kept up to 1 MiB.
    ///
    /// # Safety
    /// `ptr` must be readable for `len` bytes during `'p`, whatever a peer does.
    #[inline]
    #[cfg_attr(not(test), allow(dead_code))]
    pub(crate) unsafe fn from_shared(
        ptr: NonNull<u8>,
        len: usize,
        scratch: &'p mut Vec<u8>,
    ) -> Self {
        Self {
            source: Source::Shared(Shared {
                ptr,
                len,
                scratch: Scratch(Some(scratch)),
                lives: PhantomData,
            }),
            inline: [const { MaybeUninit::uninit() }; INLINE],
        }
    }

    /// Size in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Private(bytes) => bytes.len(),
            Source::Shared(shared) => shared.len,
            Source::Inline(len) => *len,
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
        if let Source::Shared(shared) = &mut self.source {
            let len = shared.len;
            self.source = if len <= INLINE {
                let dst = self.inline.as_mut_ptr().cast();
                // SAFETY: `from_shared` was promised that the source is readable; `inline` has room for `INLINE`.
                unsafe { copy_from_shared(shared.ptr, dst, len) };
                Source::Inline(len)
            } else {
                Source::Scratch(shared.copy_to_scratch()?)
            };
        }
        Ok(match &self.source {
            Source::Private(bytes) => bytes,
            // SAFETY: the first `len` bytes were initialised when the source became `Inline`.
            Source::Inline(len) => unsafe {
                slice::from_raw_parts(self.inline.as_ptr().cast(), *len)
            },
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
        bytes.try_reserve_exact(left).map_err(|_| out_of_memory())?;
        // SAFETY: the vector has that capacity; `copy` initialises all of it before it counts as its length.
        unsafe {
            self.copy(from, bytes.as_mut_ptr(), left);
            bytes.set_len(left);
        }
        Ok(bytes)
    }

    fn left(&self, from: usize) -> Result<usize, Error> {
        self.len().checked_sub(from).ok_or_else(too_short)
    }

    /// # Safety
    /// There must be `len` bytes behind `from`, and `dst` must be private memory that is writable for `len` bytes.
    unsafe fn copy(&self, from: usize, dst: *mut u8, len: usize) {
        let start = match &self.source {
            Source::Private(bytes) => NonNull::from(*bytes).cast(),
            Source::Inline(_) => NonNull::from(&self.inline).cast(),
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
                return Err(out_of_memory());
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

    fn shared<'p>(memory: &'p mut [u8], scratch: &'p mut Vec<u8>) -> (*mut u8, Payload<'p>) {
        let ptr = NonNull::new(memory.as_mut_ptr()).unwrap();
        // SAFETY: the memory is borrowed for as long as the payload.
        let payload = unsafe { Payload::from_shared(ptr, memory.len(), scratch) };
        (ptr.as_ptr(), payload)
    }

    #[test]
    fn bytes_that_a_peer_changes_after_the_copy_change_nothing() {
        for length in [1, 255, 256, 257, 70_000] {
            let mut memory = vec![1; length];
            let mut scratch = vec![8; 10];
            let (ptr, mut payload) = shared(&mut memory, &mut scratch);
            assert_eq!(payload.bytes().unwrap(), vec![1; length]);
            // SAFETY: the memory is still there; this is what the peer would do.
            unsafe { ptr.write_bytes(2, length) };
            assert_eq!(payload.bytes().unwrap(), vec![1; length]);
            assert_eq!(payload.read_into_vec(0).unwrap(), vec![1; length]);
            assert_eq!(payload.len(), length);
        }
    }

    #[test]
    fn offsets_behind_the_end_are_errors() {
        let mut memory = *b"abc";
        let mut scratch = Vec::new();
        let (_, mut payload) = shared(&mut memory, &mut scratch);
        let mut buffer = [0; 2];
        payload.read(1, &mut buffer).unwrap();
        assert_eq!(buffer, *b"bc");
        assert!(matches!(
            payload.read(2, &mut buffer),
            Err(Error::Decode(_))
        ));
        assert!(matches!(
            payload.read(usize::MAX, &mut buffer),
            Err(Error::Decode(_))
        ));
        assert_eq!(payload.read_into_vec(3).unwrap(), b"");
        assert!(matches!(payload.read_into_vec(4), Err(Error::Decode(_))));
    }

    #[test]
    fn a_huge_payload_does_not_keep_its_memory() {
        let mut scratch = Vec::new();
        let mut memory = vec![1; 2 * KEEP];
        let (_, mut payload) = shared(&mut memory, &mut scratch);
        assert_eq!(payload.bytes().unwrap().len(), 2 * KEEP);
        drop(payload);
        assert!(scratch.capacity() <= KEEP);
        let mut memory = vec![1; 1000];
        let (_, mut payload) = shared(&mut memory, &mut scratch);
        assert_eq!(payload.bytes().unwrap().len(), 1000);
        drop(payload);
        assert!(scratch.capacity() >= 1000);
    }
}
