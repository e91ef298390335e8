//! macOS 11 and later. Built, linted and linked by the project, but never run by it: see `README.md`.
//!
//! It is made of Unix sockets, POSIX shared memory and kqueue, and not of Mach ports, although those have a few
//! properties that one would like to have. Objects of the program can be ports all the same, and go their own way (`mailbox.rs`). What decided:
//!
//! * **The name.** A Mach service is registered with launchd, in the namespace of one login session: a user's programs in another
//!   session, root and other users do not find it. launchd learns of its holder's death by a message, so the name is free some
//!   time later, and no second name can be held by all members at once. A lock on a file belongs to an open file
//!   description: one process has it, or all that were handed it, and it is free when the last of them is gone.
//! * **The identity.** Both ends of a connected Unix socket learn the other's user at once (`LOCAL_PEERCRED`). Behind the port of a
//!   service is whoever answers, and that is known when it did. (`LOCAL_PEERTOKEN`, the audit token, would tell processes apart that
//!   had one number. But it is looked up when it is asked for, by the number of the process that touched the socket last
//!   (`uipc_ctloutput`), and so is that of whoever has the number by then.)
//! * **Introductions are repeated.** When the controller dies, a sender offers a link to the next one again. A descriptor can be sent
//!   as often as one likes; the right to receive from a port can be moved once, and would be lost with the controller.
//!
//! What it costs is said where it is paid: `channel.rs` (packets), `anchor.rs` (handles under way), `memory.rs` (read-only memory), `held.rs`
//! (counting), `rendezvous.rs` (files).
//!
//! Statements about the kernel are those of its published source (xnu, `bsd/kern`).

mod anchor;
mod channel;
mod handle;
mod held;
mod libproc;
pub(super) mod mach;
mod mailbox;
mod memory;
mod owner;
mod process;
mod rendezvous;
mod socket;
mod wake;

pub(crate) use super::unix::{
    fork::{Fd as OwnHandle, forked_since, generation},
    thread::{spawn, yield_now},
};
pub(crate) use channel::{Ahead, Channel, Peer};
pub(crate) use handle::{Kept, Spare, dispose, duplicate, keep};
#[cfg(test)]
pub(crate) use held::COUNTS_COPIES;
pub(crate) use held::Held;
pub use mach::SendRight;
pub(crate) use mailbox::Closing;
pub(crate) use memory::{Mapping, Memory, Protection, Seal};
pub(crate) use owner::{OWNER_DIED, OwnedMapping};
#[cfg(fault)]
pub(crate) use process::end_at_once;
pub(crate) use process::{
    Users, has_ended, is_stopped, pid, pid_space, start_time, uid, watch_process,
};
pub(crate) use rendezvous::{MembersMark, Rendezvous, Seat};
pub(crate) use socket::MAX_HANDLES;
pub(crate) use wake::{
    AsSource, Bell, Event, Interest, Ringer, SourceRef, WaitSet, bell, wait_for,
};

use super::unix::{above_stdio, closing, fork, lock_file};
use crate::error::Resource;
use rustix::{
    fd::{FromRawFd, OwnedFd, RawFd},
    io::{Errno, FdFlags},
};
use std::io;

/// Notes the application group, and registers where ports arrive.
pub(crate) fn prepare(app_group: Option<&str>) -> io::Result<()> {
    memory::note_app_group(app_group);
    mailbox::open();
    Ok(())
}

/// Takes over a descriptor that a call has just returned: close-on-exec, never one of 0–2. Of those that are used here only
/// `shm_open` makes descriptors so from the start; of another one a program that another thread starts at this very moment gets a
/// copy.
fn adopt(fd: OwnedFd) -> io::Result<OwnedFd> {
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    above_stdio(fd)
}

/// The same for a raw number, which is negative after a failure.
///
/// # Safety
/// Unless it is negative the descriptor is open and nobody else's.
unsafe fn adopt_raw(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as the caller promises.
    adopt(unsafe { OwnedFd::from_raw_fd(fd) })
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

/// There is no fence that reaches other processes: messages cost a fence each.
pub(crate) fn fences_reach_us() -> bool {
    false
}

/// A full fence on this thread; on no other.
pub(crate) fn fence_everybody() -> bool {
    crate::sync::fence(crate::sync::Ordering::SeqCst);
    false
}
