//! What the system tells about processes, and threads of the library.

use super::{
    event,
    handle::{self, OwnHandle},
    security,
};
use std::{
    io,
    os::windows::io::{AsHandle, AsRawHandle, OwnedHandle},
    sync::Arc,
    thread,
};
use windows_sys::Win32::{
    Foundation::FILETIME,
    System::Threading::{
        GetProcessTimes, OpenProcess, PROCESS_ACCESS_RIGHTS, PROCESS_QUERY_LIMITED_INFORMATION,
        PROCESS_SYNCHRONIZE,
    },
};

/// This process's id.
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// This process's user as a number. The highest one stands for nobody.
pub(crate) fn uid() -> u32 {
    security::own().map_or(u32::MAX, security::Identity::uid)
}

/// Opens a process. `InvalidParameter` if there is none.
pub(super) fn open(pid: u32, access: PROCESS_ACCESS_RIGHTS) -> io::Result<OwnedHandle> {
    // SAFETY: no pointers are passed, and the handle is ours.
    unsafe { handle::made(OpenProcess(access, 0, pid)) }
}

/// Number that differs between processes that had the same id one after the other; 0 when unknown.
pub(crate) fn start_time(pid: u32) -> u64 {
    open(pid, PROCESS_QUERY_LIMITED_INFORMATION).map_or(0, |process| started(&process))
}

fn started(process: &OwnedHandle) -> u64 {
    let mut times = [FILETIME::default(); 4];
    let [start, end, kernel, user] = &mut times;
    // SAFETY: the handle is open, and the places for the results are valid.
    let done = unsafe { GetProcessTimes(process.as_raw_handle(), start, end, kernel, user) };
    match done {
        0 => 0,
        _ => u64::from(start.dwHighDateTime) << 32 | u64::from(start.dwLowDateTime),
    }
}

/// Whether the process is suspended. That is not known here.
pub(crate) fn is_stopped(_pid: u32) -> bool {
    false
}

/// Ids of processes are those of the whole system.
pub(crate) fn pid_space() -> u64 {
    1
}

/// What the ids of users mean: they are hashes of SIDs, and 0 is the system. There are no groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Users;

impl Users {
    pub(crate) fn here() -> Self {
        Self
    }

    /// The user, if the id stands for one.
    pub(crate) fn user(&self, uid: u32) -> Option<u32> {
        (uid != u32::MAX).then_some(uid)
    }

    /// The group: none has an id.
    pub(crate) fn group(&self, _gid: u32) -> Option<u32> {
        None
    }

    /// Whether the user is the bus's owner, or the system.
    pub(crate) fn is_owner_or_root(&self, uid: u32, owner: u32) -> bool {
        self.user(uid).is_some_and(|uid| uid == 0 || uid == owner)
    }
}

/// A process to watch: its handle is set when it has ended.
pub(crate) fn watch_process(pid: u32) -> io::Result<OwnHandle> {
    let access = PROCESS_SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION;
    open(pid, access).map(|process| OwnHandle(Arc::new(process)))
}

/// Whether a watched process has ended.
pub(crate) fn has_ended(process: &OwnHandle) -> bool {
    event::is_set(process.0.as_handle()).unwrap_or(false)
}

/// Starts a named thread. There are no signals that it could get.
pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Lets another thread have this one's core.
pub(crate) fn yield_now() {
    thread::yield_now();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_taken_for_its_successor() {
        assert_ne!(start_time(pid()), 0);
        assert_eq!(start_time(0), 0);
        assert!(watch_process(u32::MAX).is_err_and(|e| super::super::is_no_process(&e)));
        assert!(!has_ended(&watch_process(pid()).unwrap()));
    }

    #[test]
    fn a_user_without_an_id_passes_for_nobody() {
        let users = Users::here();
        assert!(users.is_owner_or_root(0, 7) && users.is_owner_or_root(7, 7));
        assert!(!users.is_owner_or_root(8, 7) && !users.is_owner_or_root(u32::MAX, u32::MAX));
    }
}
