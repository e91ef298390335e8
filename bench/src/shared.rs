//! Memory that the processes of a measurement share, inherited by number.

use std::{
    ffi::CStr,
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
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
    /// Length of a text that the sender leaves for the receiver.
    note: AtomicU32,
}

/// Where the note lies in the first page, and its most bytes.
const NOTE: usize = 1024;
const NOTE_MAX: usize = 1024;

/// Where rings begin.
pub const RINGS: usize = 4096;

/// Memory that the children of this process can map, by the number of its descriptor.
pub struct Memory {
    pub fd: i32,
    pub len: usize,
}

impl Memory {
    pub fn new(len: usize) -> Self {
        const NAME: &CStr = c"ipmb-bench";
        // SAFETY: a fresh descriptor, without close-on-exec: the children inherit it.
        let fd = unsafe {
            let fd = libc::memfd_create(NAME.as_ptr(), 0);
            assert!(fd >= 0 && libc::ftruncate(fd, len as i64) == 0, "memfd");
            fd
        };
        Self { fd, len }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and used by nobody else here.
        unsafe { libc::close(self.fd) };
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

    pub fn bytes(&self) -> usize {
        self.len
    }

    /// Leaves a text for the other side.
    pub fn leave_note(&self, text: &str) {
        assert!(!text.is_empty() && text.len() <= NOTE_MAX);
        // SAFETY: the place of the note, which nobody reads before its length is there.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), self.start.add(NOTE), text.len()) };
        let len = text.len() as u32;
        self.control().note.store(len, Ordering::Release);
    }

    /// Waits for the text of the other side.
    pub fn await_note(&self) -> String {
        loop {
            let len = self.control().note.load(Ordering::Acquire) as usize;
            if len > 0 {
                // SAFETY: written before the length, and never changed again.
                let bytes = unsafe { std::slice::from_raw_parts(self.start.add(NOTE), len) };
                return String::from_utf8_lossy(bytes).into_owned();
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// One of 16 further words, each on its own line.
    pub fn word(&self, index: usize) -> &'static AtomicU32 {
        assert!(index < 16);
        // SAFETY: in the first page, aligned, used as this word only; the mapping stays until the process ends.
        unsafe { &*self.start.add(NOTE + NOTE_MAX + 128 * index).cast() }
    }

    pub fn control(&self) -> &Control {
        // SAFETY: the first page holds nothing else; atomics may be shared and any bytes are valid.
        unsafe { &*self.start.cast() }
    }
}
