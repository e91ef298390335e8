//! Linux 5.10 and later.

mod barrier;
pub(crate) mod fork;
mod handle;
mod held;
mod holders;
mod memory;
mod owner;
mod process;
mod rendezvous;
mod socket;
mod thread;
mod wake;

pub(crate) use barrier::{fence_everybody, fences_reach_us};
pub(crate) use handle::{RawHandle, duplicate, handle_as_raw, handle_from_raw, handle_into_raw};
pub(crate) use held::{Held, own_descriptors};
pub(crate) use memory::{Mapping, Memory, Protection, Seal};
pub(crate) use owner::{OWNER_DIED, OwnedMapping};
pub(crate) use process::{
    gid, has_ended, is_stopped, is_unmapped, pid, pid_space, start_time, uid, watch_process,
};
pub(crate) use rendezvous::{MembersMark, Rendezvous, Seat, is_owner_or_root};
pub(crate) use socket::{Channel, MAX_HANDLES, Peer};
pub(crate) use thread::{spawn, yield_now};
pub(crate) use wake::{Bell, Event, Interest, Ringer, WaitSet, bell, timespec, wait_for};

/// A handle of the library's own, which a forked child does not keep.
pub(crate) use fork::Fd as OwnHandle;
/// An owned kernel handle.
pub(crate) use std::os::fd::OwnedFd as Handle;
/// A borrowed kernel handle.
pub(crate) use std::os::fd::{AsFd as AsHandle, BorrowedFd as BorrowedHandle};

use crate::error::Resource;
use rustix::{fd::OwnedFd, io::Errno};
use std::{io, os::fd::AsRawFd};

/// Moves a fresh descriptor out of 0–2, so that a program with closed standard streams does not print into it.
pub(crate) fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 3)?)
}

/// Whether a system error says that something ran out, and what.
pub(crate) fn exhausted(error: &io::Error) -> Option<Resource> {
    match Errno::from_io_error(error)? {
        Errno::MFILE | Errno::NFILE => Some(Resource::Handles),
        Errno::NOMEM | Errno::NOSPC | Errno::NOBUFS => Some(Resource::Memory),
        Errno::TOOMANYREFS => Some(Resource::HandlesInFlight),
        _ => None,
    }
}

/// Whether a system error says that the other end is gone.
pub(crate) fn is_hangup(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN)
    )
}
