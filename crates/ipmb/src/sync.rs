//! The atomics of the crate: the standard ones, or those of the model checker. Nothing else names them, so that
//! whatever two processes share can be model-checked.

use std::ptr::NonNull;

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, Ordering, compiler_fence, fence,
};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

/// Copies private bytes into shared memory.
///
/// # Safety
///
/// `to` is valid for `bytes.len()` bytes of writes and does not overlap `bytes`.
#[inline]
pub(crate) unsafe fn copy_to_shared(bytes: &[u8], to: NonNull<u8>) {
    // SAFETY: the caller's promise. Another process may read at the same time; what it makes of that is its affair.
    unsafe { copy(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
}

/// Copies bytes of shared memory, which may change meanwhile, into private memory.
///
/// # Safety
///
/// `from` is valid for `len` bytes of reads, `to` for as many writes, and they do not overlap.
#[inline]
pub(crate) unsafe fn copy_from_shared(from: NonNull<u8>, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise. The bytes are copied as they are, whatever they are; nobody interprets them in place.
    unsafe { copy(from.as_ptr(), to, len) };
    // What is read later must come from the copy: the compiler may not fetch from `from` a second time.
    #[cfg(not(loom))]
    compiler_fence(Ordering::SeqCst);
}

/// Copies bytes; those of a small message without a call.
///
/// # Safety
///
/// As for `copy_nonoverlapping`.
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    /// Both ends of at least `N` and at most `2 * N` bytes; where they overlap the second counts.
    #[inline]
    unsafe fn ends<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: the caller's promise; both ends lie within `len`.
        unsafe {
            let first = from.cast::<[u8; N]>().read();
            let last = from.add(len - N).cast::<[u8; N]>().read();
            to.cast::<[u8; N]>().write(first);
            to.add(len - N).cast::<[u8; N]>().write(last);
        }
    }
    // SAFETY: the caller's promise.
    unsafe {
        match len {
            8..=16 => ends::<8>(from, to, len),
            17..=32 => ends::<16>(from, to, len),
            _ => std::ptr::copy_nonoverlapping(from, to, len),
        }
    }
}

/// Reads one aligned word of shared memory, once.
///
/// # Safety
///
/// `from` is valid for reads and aligned.
#[inline]
pub(crate) unsafe fn load_shared(from: NonNull<u64>) -> u64 {
    // SAFETY: the caller's promise; volatile, so that the compiler does not look a second time.
    unsafe { from.as_ptr().read_volatile() }
}
