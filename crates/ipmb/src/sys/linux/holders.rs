//! Who holds a memory: one lock byte per handle.
//!
//! Every handle of a region is an open file description of its own with a write lock on one byte, taken at random out
//! of [`SPACE`] bytes (a lock needs no byte of the file to exist). The kernel drops the lock with the description, so
//! the count is right after a SIGKILL too, and a description under way in a socket still counts. Two handles that
//! draw the same byte conflict, and the later one draws again.
//!
//! Offsets stay below 2^30, so that processes with a 32-bit `off_t` share regions with others.

use rustix::{
    fd::{AsRawFd, BorrowedFd},
    io::Errno,
};
use std::{
    hash::{BuildHasher, RandomState},
    io,
    time::{Duration, Instant},
};

/// Bytes to draw from.
const SPACE: i64 = 1 << 30;
/// A hostile holder can take any number of bytes; nobody counts further than this.
const MOST: u32 = 65_536;
/// Nor longer than this, once there are more than a program can mean.
const PATIENCE: Duration = Duration::from_millis(100);
const PLENTY: u32 = 1024;

/// What `fcntl` is asked.
enum Ask {
    Set,
    Get,
}

fn flock(kind: libc::c_int, start: i64, len: i64) -> libc::flock {
    // SAFETY: all zero bytes is a valid value of this plain C structure, padding included; OFD locks want `l_pid` zero.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock.l_start = start as _;
    lock.l_len = len as _;
    lock
}

fn fcntl(fd: BorrowedFd<'_>, ask: Ask, lock: &mut libc::flock) -> Result<(), Errno> {
    let command = match ask {
        Ask::Set => libc::F_OFD_SETLK,
        Ask::Get => libc::F_OFD_GETLK,
    };
    loop {
        // SAFETY: `lock` is a valid structure that the kernel reads and, for a query, writes.
        if unsafe {
            call!(libc::fcntl(
                fd.as_raw_fd(),
                command,
                std::ptr::from_mut(lock)
            ))
        } >= 0
        {
            return Ok(());
        }
        match Errno::from_io_error(&io::Error::last_os_error()) {
            Some(Errno::INTR) => {}
            Some(error) => return Err(error),
            None => return Err(Errno::IO),
        }
    }
}

/// Enters the description as a holder. Call once per open file description.
pub(super) fn enter(fd: BorrowedFd<'_>) -> io::Result<()> {
    let random = RandomState::new();
    let mut error = Errno::AGAIN;
    for attempt in 0..64u32 {
        let byte = (random.hash_one(attempt) % SPACE as u64) as i64;
        match fcntl(fd, Ask::Set, &mut flock(libc::F_WRLCK, byte, 1)) {
            Ok(()) => return Ok(()),
            Err(taken @ (Errno::AGAIN | Errno::ACCESS)) => error = taken,
            Err(other) => return Err(other.into()),
        }
    }
    Err(error.into())
}

/// Takes the description out of the holders, whoever else has a descriptor of it.
pub(super) fn leave(fd: BorrowedFd<'_>) {
    let _ = fcntl(fd, Ask::Set, &mut flock(libc::F_UNLCK, 0, 0));
}

/// Finds a byte in `start..end` that another description holds: its first byte and one past its last.
fn find(fd: BorrowedFd<'_>, start: i64, end: i64) -> Result<Option<(i64, i64)>, Errno> {
    let mut lock = flock(libc::F_WRLCK, start, end - start);
    fcntl(fd, Ask::Get, &mut lock)?;
    if lock.l_type as libc::c_int == libc::F_UNLCK {
        return Ok(None);
    }
    #[allow(clippy::unnecessary_cast)] // `off_t` is 32 bits wide on some targets.
    let (from, len) = (lock.l_start as i64, lock.l_len as i64);
    let from = from.clamp(start, end);
    let to = if len <= 0 {
        end
    } else {
        from.saturating_add(len).clamp(from, end)
    };
    Ok(Some((from, to.max(from + 1))))
}

/// Whether any other description holds the memory.
pub(super) fn has_others(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(find(fd, 0, SPACE)?.is_some())
}

/// How many other descriptions hold the memory. Stops counting at [`MOST`], or when it takes too long.
pub(super) fn count_others(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // The kernel answers with any lock of the range, not with the lowest, so both sides of it are looked at.
    let mut ranges = vec![(0, SPACE)];
    let mut count = 0;
    let mut since = None;
    while let Some((start, end)) = ranges.pop() {
        if start >= end {
            continue;
        }
        let Some((from, to)) = find(fd, start, end)? else {
            continue;
        };
        count += 1;
        if count >= MOST
            || count > PLENTY && since.get_or_insert_with(Instant::now).elapsed() > PATIENCE
        {
            break;
        }
        ranges.push((start, from));
        ranges.push((to, end));
    }
    Ok(count)
}
