//! Windows 10 and later.
//!
//! | file | what |
//! |---|---|
//! | `rendezvous.rs` | named pipes: the seat, the place where the controller listens, the members' mark |
//! | `channel.rs`, `arrivals.rs`, `pipe.rs`, `transfer.rs` | packets on a named pipe, those that have come, overlapped reads, handles that go with packets |
//! | `memory.rs`, `held.rs`, `owner.rs` | sections of the page file |
//! | `wake.rs`, `waitset.rs`, `watched.rs`, `event.rs` | events, sleeping on many objects, what each has to tell |
//! | `process.rs`, `security.rs`, `handle.rs` | processes, users, handles |
//!
//! Calls about regions, packets and their handles are points at which the tests let what a thread does end (see `crash`). Those
//! by which a process takes over the end of a channel are not: what was put into its table for it goes with that table, which
//! a thread cannot act.

mod arrivals;
mod channel;
mod event;
mod handle;
mod held;
mod memory;
mod owner;
mod pipe;
mod process;
mod rendezvous;
mod security;
mod transfer;
mod waitset;
mod wake;
mod watched;

pub(crate) use channel::{Ahead, Channel, MAX_HANDLES};
pub(crate) use handle::{Kept, OwnHandle, Spare, duplicate, keep};
#[cfg(test)]
pub(crate) use held::COUNTS_COPIES;
pub(crate) use held::Held;
pub(crate) use memory::{Mapping, Memory, Protection, Seal};
pub(crate) use owner::{OWNER_DIED, OwnedMapping};
pub(crate) use process::{
    Users, has_ended, is_stopped, pid, pid_space, spawn, start_time, uid, watch_process, yield_now,
};
pub(crate) use rendezvous::{MembersMark, Rendezvous, Seat};
pub(crate) use transfer::Peer;
pub(crate) use waitset::WaitSet;
pub(crate) use wake::{AsSource, Bell, Event, Interest, Ringer, SourceRef, bell, wait_for};

use super::Handle;
use crate::error::Resource;
use std::io;
use windows_sys::Win32::Foundation::{
    ERROR_BROKEN_PIPE, ERROR_COMMITMENT_LIMIT, ERROR_INVALID_PARAMETER, ERROR_NO_DATA,
    ERROR_NO_SYSTEM_RESOURCES, ERROR_NOT_ENOUGH_MEMORY, ERROR_NOT_ENOUGH_QUOTA, ERROR_OUTOFMEMORY,
    ERROR_PIPE_NOT_CONNECTED, ERROR_TOO_MANY_OPEN_FILES,
};

/// What the system must have for the bus to run: it tells who this process is.
pub(crate) fn prepare(_app_group: Option<&str>) -> io::Result<()> {
    security::own().map(|_| ())
}

fn code(error: &io::Error) -> Option<u32> {
    error.raw_os_error().map(|code| code as u32)
}

/// Whether a system error says that something ran out, and what.
pub(crate) fn exhausted(error: &io::Error) -> Option<Resource> {
    match code(error)? {
        ERROR_TOO_MANY_OPEN_FILES => Some(Resource::Handles),
        ERROR_NOT_ENOUGH_MEMORY
        | ERROR_OUTOFMEMORY
        | ERROR_COMMITMENT_LIMIT
        | ERROR_NO_SYSTEM_RESOURCES
        | ERROR_NOT_ENOUGH_QUOTA => Some(Resource::Memory),
        _ => None,
    }
}

/// Whether a system error says that the other end is gone.
pub(crate) fn is_hangup(error: &io::Error) -> bool {
    matches!(
        code(error),
        Some(ERROR_BROKEN_PIPE | ERROR_NO_DATA | ERROR_PIPE_NOT_CONNECTED)
    )
}

/// Whether a system error says that there is no such process.
pub(crate) fn is_no_process(error: &io::Error) -> bool {
    code(error) == Some(ERROR_INVALID_PARAMETER)
}

/// `FlushProcessWriteBuffers` fences the threads of one process only.
pub(crate) fn fences_reach_us() -> bool {
    false
}

/// See [`fences_reach_us`]: nobody else is fenced.
pub(crate) fn fence_everybody() -> bool {
    crate::sync::fence(crate::sync::Ordering::SeqCst);
    false
}

/// There is no fork.
pub(crate) fn generation() -> u32 {
    0
}

/// There is no fork.
pub(crate) fn forked_since(_generation: u32) -> bool {
    false
}

/// Keeps nothing: closes are not known to wait here.
pub(crate) struct Closing(());

impl Closing {
    pub(crate) fn start() -> io::Result<Self> {
        Ok(Self(()))
    }
}

/// See [`Closing`].
pub(crate) fn dispose(handles: Vec<Handle>) {
    drop(handles);
}
