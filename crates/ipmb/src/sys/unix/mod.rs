//! What is the same on several Unixes: what a forked child must not keep, what waits to be closed, threads, and the file whose locks say who holds a
//! path.

pub(super) mod closing;
pub(super) mod fork;
#[cfg(target_os = "linux")]
mod leaving;
pub(super) mod lock_file;
pub(super) mod thread;

use rustix::fd::{AsRawFd, OwnedFd};
use std::io;

/// Moves a fresh descriptor out of 0–2, so that a program with closed standard streams does not print into it.
pub(super) fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 || crate::fault::on(27) {
        return Ok(fd);
    }
    Ok(call!(rustix::io::fcntl_dupfd_cloexec(&fd, 3))?)
}
