//! For ThreadSanitizer only, which sees a race between two accesses of one address: where both sides of a link are threads of
//! one process, they get one mapping of its memory instead of two.

use crate::sync::Mutex;
use rustix::{fd::BorrowedFd, fs::fstat};
use std::{ptr::NonNull, sync::PoisonError};

/// A mapping that several share.
struct Shared {
    /// Device, inode and length.
    memory: (u64, u64, usize),
    start: usize,
    users: usize,
}

static MAPPED: Mutex<Vec<Shared>> = Mutex::new(Vec::new());

fn memory(fd: BorrowedFd<'_>, len: usize) -> Option<(u64, u64, usize)> {
    let stat = call!(fstat(fd)).ok()?;
    Some((stat.st_dev, stat.st_ino, len))
}

/// The mapping of the memory that there is, for one more user.
pub(super) fn share(fd: BorrowedFd<'_>, len: usize) -> Option<NonNull<u8>> {
    let memory = memory(fd, len)?;
    let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = mapped.iter_mut().find(|shared| shared.memory == memory)?;
    shared.users += 1;
    NonNull::new(shared.start as *mut u8)
}

/// A writable mapping was made.
pub(super) fn enter(fd: BorrowedFd<'_>, len: usize, start: NonNull<u8>) {
    if let Some(memory) = memory(fd, len) {
        let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        mapped.push(Shared {
            memory,
            start: start.as_ptr() as usize,
            users: 1,
        });
    }
}

/// One user less. True: it was the last one, or the only one; unmap it.
pub(super) fn leave(start: NonNull<u8>) -> bool {
    let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let start = start.as_ptr() as usize;
    let Some(at) = mapped.iter().position(|shared| shared.start == start) else {
        return true;
    };
    mapped[at].users -= 1;
    if mapped[at].users > 0 {
        return false;
    }
    mapped.swap_remove(at);
    true
}
