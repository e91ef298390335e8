//! Linux 5.10 and later.

pub(crate) mod fork;
mod memory;

pub(crate) use memory::{Mapping, Memory, Protection, Seal};

use crate::error::Resource;
use rustix::io::Errno;
use rustix::fd::OwnedFd;
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
