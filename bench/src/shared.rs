//! Memory that the processes of a measurement share, inherited by number.

use std::{
    ffi::CStr,
    ptr,
    sync::atomic::{AtomicU32, AtomicU64},
};

/// A mapping of a memfd that all processes of one measurement have.
pub struct Shared {
    start: *mut u8,
    len: usize,
}

/// The start of the first page.
#[repr(C)]
pub struct Control {
    /// Set by the sender when it has joined.
    pub sender: AtomicU32,
    /// Set by the receiver when it has joined.
    pub receiver: AtomicU32,
    /// How many messages the receiver has confirmed.
    pub confirmed: AtomicU64,
    /// For the bare wake-ups: what was asked and what was answered.
    pub ask: AtomicU32,
    pub answer: AtomicU32,
}

/// Where rings begin.
pub const RINGS: usize = 4096;

pub fn memfd(len: usize) -> i32 {
    const NAME: &CStr = c"ipmb-bench";
    // SAFETY: a fresh descriptor, without close-on-exec: the children inherit it.
    unsafe {
        let fd = libc::memfd_create(NAME.as_ptr(), 0);
        assert!(fd >= 0 && libc::ftruncate(fd, len as i64) == 0, "memfd");
        fd
    }
}

impl Shared {
    pub fn map(fd: i32, len: usize) -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, which stays until the process ends.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, libc::MAP_SHARED, fd, 0) };
        assert_ne!(start, libc::MAP_FAILED, "mmap");
        Self {
            start: start.cast(),
            len,
        }
    }

    pub fn start(&self) -> *mut u8 {
        self.start
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn control(&self) -> &Control {
        // SAFETY: the first page holds nothing else; atomics may be shared and any bytes are valid.
        unsafe { &*self.start.cast() }
    }
}
