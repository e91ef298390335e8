//! A link by hand, for tests: its words are written by their place, so that a change of the layout shows here.

#![allow(clippy::unwrap_used)]

use crate::sync::process::{AtomicU32, AtomicU64, Ordering};
use crate::sys::{
    self, Bell, BorrowedHandle, Channel, Handle, Mapping, Memory, Protection, Ringer,
};

pub(crate) const CAPACITY: u64 = 64 << 10;
pub(crate) const HEADER: usize = 4096;
pub(crate) const AT_VERSION: usize = 8;
pub(crate) const AT_CAPACITY: usize = 16;
pub(crate) const AT_START: usize = 24;
pub(crate) const AT_INDEX: usize = 128;
pub(crate) const AT_SLEEP: usize = 256;
pub(crate) const AT_ACCEPTED: usize = 384;
pub(crate) const AT_RELEASED: usize = 512;

pub(crate) const INLINE: u64 = 1;
pub(crate) const BLOCK: u64 = 2;
pub(crate) const PAD: u64 = 3;
pub(crate) const HAS_UUID: u64 = 1;
pub(crate) const HAS_HANDLES: u64 = 2;

/// The first word of a record.
pub(crate) fn head(kind: u64, len: u64, flags: u64, objects: u64, regions: u64) -> u64 {
    len | kind << 32 | flags << 40 | objects << 48 | regions << 56
}

pub(crate) fn word(mapping: &Mapping, at: usize) -> &AtomicU64 {
    assert!(at + 8 <= mapping.len() && at % 8 == 0);
    // SAFETY: inside the mapping and aligned; accessed atomically only.
    unsafe { mapping.start().add(at).cast().as_ref() }
}

pub(crate) fn half(mapping: &Mapping, at: usize) -> &AtomicU32 {
    assert!(at + 4 <= mapping.len() && at % 4 == 0);
    // SAFETY: as above.
    unsafe { mapping.start().add(at).cast().as_ref() }
}

/// The sender's end of a link.
pub(crate) struct HandLink {
    pub(crate) records: Mapping,
    pub(crate) returns: Mapping,
    pub(crate) ringer: Ringer,
    pub(crate) side: Channel,
    offer: Vec<Handle>,
}

impl HandLink {
    pub(crate) fn new() -> Self {
        Self::starting_at(0)
    }

    /// With indices that start somewhere else.
    pub(crate) fn starting_at(start: u64) -> Self {
        let records = Memory::new(c"lies", HEADER + CAPACITY as usize).unwrap();
        let returns = Memory::new(c"lies", 4096).unwrap();
        let (ringer, bell): (Ringer, Bell) = sys::bell().unwrap();
        let (side, theirs) = Channel::pair(0).unwrap();
        let link = Self {
            records: records.map_all(Protection::ReadWrite).unwrap(),
            returns: returns.map_all(Protection::ReadWrite).unwrap(),
            ringer,
            side,
            offer: vec![
                records.into_handle().unwrap(),
                returns.into_handle().unwrap(),
                bell.into_handle().unwrap(),
                theirs.into_handle().unwrap(),
            ],
        };
        let magic = |text: &[u8; 8]| u64::from_le_bytes(*text);
        word(&link.records, 0).store(magic(b"ipmb-rec"), Ordering::Relaxed);
        word(&link.returns, 0).store(magic(b"ipmb-ret"), Ordering::Relaxed);
        half(&link.records, AT_VERSION).store(1, Ordering::Relaxed);
        half(&link.returns, AT_VERSION).store(1, Ordering::Relaxed);
        word(&link.records, AT_CAPACITY).store(CAPACITY, Ordering::Relaxed);
        word(&link.records, AT_START).store(start, Ordering::Relaxed);
        word(&link.records, AT_INDEX).store(start, Ordering::Relaxed);
        word(&link.returns, AT_INDEX).store(start, Ordering::Relaxed);
        link
    }

    /// The receiver's handles, to be offered once.
    pub(crate) fn offer(&mut self) -> Vec<Handle> {
        std::mem::take(&mut self.offer)
    }

    /// Writes words at an index of the ring.
    pub(crate) fn put(&self, index: u64, words: &[u64]) {
        for (i, value) in words.iter().enumerate() {
            let index = index.wrapping_add(i as u64 * 8);
            let at = HEADER + (index % CAPACITY / 8 * 8) as usize;
            word(&self.records, at).store(*value, Ordering::Relaxed);
        }
    }

    pub(crate) fn publish(&self, index: u64) {
        word(&self.records, AT_INDEX).store(index, Ordering::Release);
        self.ringer.ring();
    }

    /// How far the receiver has read.
    pub(crate) fn read(&self) -> u64 {
        word(&self.returns, AT_INDEX).load(Ordering::Acquire)
    }

    /// Sends handles that belong to a record.
    pub(crate) fn attach(&self, number: u64, handles: &[BorrowedHandle<'_>]) {
        let mut bytes = [0; 16];
        bytes[0] = 2;
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        let _ = self.side.send(&bytes, handles);
    }

    #[cfg(test)]
    pub(crate) fn is_dropped(&self) -> bool {
        is_hung_up(&self.side)
    }
}

/// Reads packets until the hang-up.
#[cfg(test)]
pub(crate) fn is_hung_up(channel: &Channel) -> bool {
    loop {
        match channel.skip() {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// A memory with seals as asked for, whatever its size.
pub(crate) fn memory(size: u64, flags: u32, seals: i32) -> std::io::Result<Handle> {
    use std::os::fd::{AsRawFd, FromRawFd};
    // SAFETY: the name is terminated.
    let fd = unsafe { libc::memfd_create(c"lies".as_ptr(), flags | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: it was opened just now.
    let fd = unsafe { Handle::from_raw_fd(fd) };
    // Not the C library's, whose sizes have 32 bits on some systems.
    rustix::fs::ftruncate(&fd, size)?;
    // SAFETY: as above.
    let sealed = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    assert_eq!(sealed, 0);
    Ok(fd)
}
