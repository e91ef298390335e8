//! Linux 5.10 and later.

mod ahead;
mod barrier;
mod handle;
mod held;
mod holders;
mod memory;
#[cfg(tsan)]
mod one_mapping;
mod owner;
mod process;
mod rendezvous;
mod socket;
mod wake;

pub(crate) use super::unix::{
    closing::{Closing, dispose},
    fork::{Fd as OwnHandle, forked_since, generation},
    thread::{spawn, yield_now},
};
pub(crate) use ahead::Ahead;
pub(crate) use barrier::{fence_everybody, fences_reach_us};
pub(crate) use handle::{Kept, Spare, duplicate, keep};
#[cfg(test)]
pub(crate) use held::COUNTS_COPIES;
pub(crate) use held::{Held, prepare};
pub(crate) use memory::{Mapping, Memory, Protection, Seal};
pub(crate) use owner::{OWNER_DIED, OwnedMapping};
#[cfg(fault)]
pub(crate) use process::end_at_once;
pub(crate) use process::{
    Users, has_ended, is_stopped, pid, pid_space, start_time, uid, watch_process,
};
pub(crate) use rendezvous::{MembersMark, Rendezvous, Seat};
pub(crate) use socket::{Channel, MAX_HANDLES, Peer};
pub(crate) use wake::{Bell, Event, Interest, Ringer, WaitSet, bell, wait_for};

use super::unix::{above_stdio, closing, fork, lock_file};
use crate::error::Resource;
use rustix::{
    fd::{AsFd, BorrowedFd},
    io::Errno,
};
use std::io;

/// What a wait set can watch: here, any descriptor.
pub(crate) type SourceRef<'a> = BorrowedFd<'a>;

/// Has something to watch.
pub(crate) trait AsSource {
    fn source(&self) -> SourceRef<'_>;
}

impl<T: AsFd> AsSource for T {
    #[inline]
    fn source(&self) -> SourceRef<'_> {
        self.as_fd()
    }
}

/// Names a call that the system does not let this process make at all, which no other error of it says.
pub(crate) fn named<T>(call: &str, result: rustix::io::Result<T>) -> io::Result<T> {
    result.map_err(|error| match error {
        Errno::NOSYS | Errno::PERM | Errno::ACCESS => io::Error::new(
            io::Error::from(error).kind(),
            format!("{call}: {error}; let the sandbox allow it, or take a kernel that has it"),
        ),
        other => other.into(),
    })
}

/// Whether a system error says that something ran out, and what.
pub(crate) fn exhausted(error: &io::Error) -> Option<Resource> {
    // Over the limit on the size of files, which holds for shared memory, too.
    if error.kind() == io::ErrorKind::FileTooLarge {
        return Some(Resource::Memory);
    }
    match Errno::from_io_error(error)? {
        Errno::MFILE | Errno::NFILE => Some(Resource::Handles),
        Errno::NOMEM | Errno::NOSPC | Errno::NOBUFS => Some(Resource::Memory),
        Errno::TOOMANYREFS => Some(Resource::HandlesInFlight),
        _ => None,
    }
}

/// Whether a system error says that there is no such process.
pub(crate) fn is_no_process(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::SRCH)
}

/// Whether a system error says that the other end is gone.
pub(crate) fn is_hangup(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN)
    )
}
