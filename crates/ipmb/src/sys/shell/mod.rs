//! A system on which the bus does not run. Everything that is needed to join says so, with an error of the kind
//! `Unsupported`; the types of what can therefore never be had have no values.

mod channel;
mod memory;
mod wake;

pub(crate) use channel::{Ahead, Channel, MAX_HANDLES, MembersMark, Peer, Rendezvous, Seat, Users};
pub(crate) use memory::{Held, Mapping, Memory, OWNER_DIED, OwnedMapping, Protection, Seal};
pub(crate) use wake::{
    AsSource, Bell, Event, Interest, Ringer, SourceRef, WaitSet, bell, wait_for,
};

#[cfg(test)]
pub(crate) const COUNTS_COPIES: bool = false;

use super::{BorrowedHandle, Handle};
use crate::error::Resource;
use std::{io, thread};

/// Has no values.
#[derive(Debug, Clone, Copy)]
enum Never {}

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "ipmb does not run on this operating system",
    ))
}

pub(crate) fn prepare(_app_group: Option<&str>) -> io::Result<()> {
    unsupported()
}

/// A handle of the library's own. There are none.
#[derive(Debug)]
pub(crate) struct OwnHandle(Never);

pub(crate) fn duplicate(_handle: BorrowedHandle<'_>) -> io::Result<Handle> {
    unsupported()
}

/// What a handle under way needs. None is ever under way.
#[derive(Debug, Default)]
pub(crate) struct Kept(());

pub(crate) fn keep(_: Option<BorrowedHandle<'_>>, _: &[BorrowedHandle<'_>]) -> io::Result<Kept> {
    unsupported()
}

#[derive(Debug)]
pub(crate) struct Spare(Never);

impl Spare {
    pub(crate) fn new() -> io::Result<Self> {
        unsupported()
    }
}

pub(crate) fn exhausted(_error: &io::Error) -> Option<Resource> {
    None
}

pub(crate) fn is_hangup(_error: &io::Error) -> bool {
    false
}

pub(crate) fn is_no_process(_error: &io::Error) -> bool {
    false
}

pub(crate) fn fences_reach_us() -> bool {
    false
}

pub(crate) fn fence_everybody() -> bool {
    false
}

pub(crate) fn generation() -> u32 {
    0
}

pub(crate) fn forked_since(_generation: u32) -> bool {
    false
}

pub(crate) fn pid() -> u32 {
    std::process::id()
}

pub(crate) fn uid() -> u32 {
    0
}

pub(crate) fn pid_space() -> u64 {
    0
}

pub(crate) fn start_time(_pid: u32) -> u64 {
    0
}

pub(crate) fn is_stopped(_pid: u32) -> bool {
    false
}

pub(crate) fn watch_process(_pid: u32) -> io::Result<OwnHandle> {
    unsupported()
}

pub(crate) fn has_ended(process: &OwnHandle) -> bool {
    match process.0 {}
}

pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

#[cfg(fault)]
pub(crate) fn end_at_once(_code: i32) -> ! {
    std::process::abort()
}

pub(crate) fn yield_now() {
    thread::yield_now();
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
