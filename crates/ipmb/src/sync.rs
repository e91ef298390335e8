//! The atomics of the crate: the standard ones, or those of the model checker. Nothing else names them (`clippy.toml`
//! forbids it), so that whatever two processes share can be model-checked.
//!
//! All that goes into shared memory goes through here: the words [`SharedU32`] and [`SharedU64`], and the bytes by
//! [`copy_to_shared`]. Each store is a point at which the tests let a process die ([`crate::crash`]).

#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use crate::crash;
use std::ptr::NonNull;

#[cfg(loom)]
use loom::sync::atomic as atomics;
#[cfg(not(loom))]
use std::sync::atomic as atomics;

pub(crate) use atomics::Ordering;

/// The locks of what a model includes.
#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

/// An atomic of its own name, so that nobody else need name the standard one.
macro_rules! own_atomic {
    ($name:ident$(<$item:ident>)?, $atomic:ty, $word:ty, $($const:tt)?) => {
        #[derive(Debug)]
        #[repr(transparent)]
        #[allow(dead_code)] // Systems differ in what they need.
        pub(crate) struct $name$(<$item>)?($atomic);

        impl$(<$item>)? $name$(<$item>)? {
            #[inline]
            #[allow(dead_code)] // Some are only mapped.
            pub(crate) $($const)? fn new(value: $word) -> Self {
                Self(<$atomic>::new(value))
            }
        }

        impl$(<$item>)? std::ops::Deref for $name$(<$item>)? {
            type Target = $atomic;

            #[inline(always)]
            fn deref(&self) -> &$atomic {
                &self.0
            }
        }
    };
}

own_atomic!(AtomicBool, atomics::AtomicBool, bool,);
own_atomic!(AtomicU64, atomics::AtomicU64, u64,);

/// The atomics of statics, which no other process sees: those of the model checker cannot be constants.
pub(crate) mod process {
    #[allow(unused_imports)]
    pub(crate) use std::sync::atomic::Ordering;

    own_atomic!(AtomicBool, std::sync::atomic::AtomicBool, bool, const);
    own_atomic!(AtomicU32, std::sync::atomic::AtomicU32, u32, const);
    own_atomic!(AtomicU64, std::sync::atomic::AtomicU64, u64, const);
    own_atomic!(AtomicUsize, std::sync::atomic::AtomicUsize, usize, const);
    own_atomic!(AtomicPtr<T>, std::sync::atomic::AtomicPtr<T>, *mut T, const);
}

/// A fence of this thread.
#[inline(always)]
pub(crate) fn fence(order: Ordering) {
    atomics::fence(order);
}

/// A fence for the compiler only.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn compiler_fence(order: Ordering) {
    atomics::compiler_fence(order);
}

macro_rules! shared_word {
    ($(#[$doc:meta])* $name:ident, $atomic:ident, $word:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[repr(transparent)]
        pub(crate) struct $name(atomics::$atomic);

        impl $name {
            #[cfg(test)]
            #[allow(dead_code)] // For models.
            pub(crate) fn new(value: $word) -> Self {
                Self(atomics::$atomic::new(value))
            }

            #[inline]
            pub(crate) fn load(&self, order: Ordering) -> $word {
                self.0.load(order)
            }

            #[inline]
            pub(crate) fn store(&self, value: $word, order: Ordering) {
                self.0.store(value, order);
                crash::point();
            }
        }
    };
}

shared_word! {
    /// A word of shared memory. It has one writer, so there is nothing but loads and stores.
    SharedU32, AtomicU32, u32
}
shared_word! {
    /// A word of shared memory. It has one writer, so there is nothing but loads and stores.
    SharedU64, AtomicU64, u64
}

/// Copies private bytes into shared memory.
///
/// # Safety
///
/// `to` is valid for `bytes.len()` bytes of writes and does not overlap `bytes`.
#[inline]
pub(crate) unsafe fn copy_to_shared(bytes: &[u8], to: NonNull<u8>) {
    // In two parts where a process may die in between, as it may in the middle of any copy.
    #[cfg(all(any(test, fault), not(loom)))]
    let (bytes, to) = {
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        if !first.is_empty() {
            // SAFETY: the caller's promise, as below.
            unsafe { copy(first.as_ptr(), to.as_ptr(), first.len()) };
            crash::point();
        }
        // SAFETY: within the caller's `bytes.len()` bytes.
        (rest, unsafe { to.add(first.len()) })
    };
    // SAFETY: the caller's promise. Another process may read at the same time; what it makes of that is its affair.
    unsafe { copy(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
    crash::point();
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
            8..=15 => ends::<8>(from, to, len),
            16..=32 => ends::<16>(from, to, len),
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

/// Asks for the cache line at an address, which is to be written soon. A hint: it changes nothing and cannot fault, whatever lies there.
#[inline(always)]
pub(crate) fn prefetch_to_write(at: NonNull<u8>) {
    // A processor that is older than the instruction takes it for one that does nothing (Intel SDM, AMD APM: PREFETCHW).
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    // SAFETY: it has no effect that a program can see.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at.as_ptr(), options(nostack, preserves_flags, readonly));
    }
    #[cfg(all(target_arch = "aarch64", not(loom)))]
    // SAFETY: it has no effect that a program can see.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{}]", in(reg) at.as_ptr(), options(nostack, preserves_flags, readonly));
    }
    let _ = at;
}
