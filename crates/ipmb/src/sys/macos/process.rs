//! What the kernel tells about processes.

use super::{adopt_raw, fork::Fd, libproc, wake};
use rustix::fd::{AsFd, AsRawFd};
use std::io;

/// This process's id.
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// This process's effective user.
pub(crate) fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Number that differs between processes that had the same id one after the other; 0 when unknown.
pub(crate) fn start_time(pid: u32) -> u64 {
    libproc::process(pid).map_or(0, |info| {
        let seconds = info.pbi_start_tvsec.wrapping_mul(1_000_000);
        seconds.wrapping_add(info.pbi_start_tvusec)
    })
}

/// Whether the process is stopped by a signal or a debugger. False when unknown.
pub(crate) fn is_stopped(pid: u32) -> bool {
    libproc::process(pid).is_some_and(|info| info.pbi_status == libc::SSTOP)
}

/// There is one space of process ids.
pub(crate) fn pid_space() -> u64 {
    1
}

/// What the ids of users and groups mean: there is one space of them, and each stands for somebody.
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

    /// The group, if the id stands for one.
    pub(crate) fn group(&self, gid: u32) -> Option<u32> {
        (gid != u32::MAX).then_some(gid)
    }

    /// Whether the user is the bus's owner, or root.
    pub(crate) fn is_owner_or_root(&self, uid: u32, owner: u32) -> bool {
        self.user(uid).is_some_and(|uid| uid == 0 || uid == owner)
    }
}

/// Ends the process as a kill would: nothing is dropped or flushed.
#[cfg(fault)]
pub(crate) fn end_at_once(code: i32) -> ! {
    // SAFETY: it may be called at any point of any thread.
    unsafe { libc::_exit(code) }
}

/// A process to watch: a kqueue that becomes readable when it has ended. The kernel's note belongs to the process and not to
/// its number. `ESRCH` if it has ended already.
pub(crate) fn watch_process(pid: u32) -> io::Result<Fd> {
    let pid = libc::pid_t::try_from(pid)
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: a fresh descriptor, or a negative number.
    let queue = Fd::new(unsafe { adopt_raw(libc::kqueue()) }?);
    wake::change(
        queue.as_fd(),
        pid as usize,
        libc::EVFILT_PROC,
        libc::EV_ADD,
        libc::NOTE_EXIT,
        0,
        0,
    )?;
    Ok(queue)
}

/// Whether a watched process has ended.
pub(crate) fn has_ended(process: &Fd) -> bool {
    let mut poll = libc::pollfd {
        fd: process.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one structure, which the call reads and writes. It does not wait, and takes nothing out of the queue.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_taken_for_its_successor() {
        assert_ne!(start_time(pid()), 0);
        assert_eq!(start_time(u32::MAX), 0);
        assert!(!is_stopped(pid()) && !is_stopped(u32::MAX));
        assert!(watch_process(0).is_err() && watch_process(u32::MAX).is_err());
    }

    #[test]
    fn the_end_of_a_process_is_not_seen() {
        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let watched = watch_process(child.id()).unwrap();
        assert!(!has_ended(&watched));
        child.kill().unwrap();
        assert_eq!(wake::wait_for(&watched, None).unwrap(), (true, false));
        assert!(has_ended(&watched));
        child.wait().unwrap();
    }
}
