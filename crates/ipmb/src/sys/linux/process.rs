//! What the kernel tells about processes.

use super::fork::Fd;
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{fs, io};

/// This process's id.
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// This process's effective user.
pub(crate) fn uid() -> u32 {
    call!(rustix::process::geteuid()).as_raw()
}

/// Number that differs between processes that had the same id one after the other; 0 when unknown.
pub(crate) fn start_time(pid: u32) -> u64 {
    stat(pid)
        .and_then(|(_, rest)| rest.split(' ').nth(19)?.parse().ok())
        .unwrap_or(0)
}

/// Whether the process is stopped by a signal or a debugger. False when unknown.
pub(crate) fn is_stopped(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| matches!(state, 'T' | 't'))
}

/// State letter, and the fields from the state on, of the process's first thread (proc(5)): they are those of the process. Qemu
/// makes up a `/proc/PID/stat` for its own process, whose start time is not the one that others see.
fn stat(pid: u32) -> Option<(char, String)> {
    let text = call!(fs::read_to_string(format!("/proc/{pid}/task/{pid}/stat"))).ok()?;
    // The name is in parentheses and may contain anything, parentheses included.
    let rest = text.get(text.rfind(')')?.checked_add(2)?..)?;
    Some((rest.chars().next()?, rest.to_owned()))
}

/// Identity of the space in which process ids are counted; 0 when unknown.
pub(crate) fn pid_space() -> u64 {
    call!(rustix::fs::stat("/proc/self/ns/pid")).map_or(0, |s| s.st_ino)
}

/// What the ids of other users and groups mean here. A process that lives in another user namespace may have a user or a
/// group that has no id in this one; the kernel then tells the *overflow* id, which may be an id of somebody else, too.
///
/// Looked up when an endpoint joins: a sandbox may take `/proc` away later. A process with the serving thread cannot
/// change its user namespace (unshare(2), `CLONE_NEWUSER`), so what was true stays true.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Users {
    /// The ids that say nothing.
    user: Option<u32>,
    group: Option<u32>,
}

impl Users {
    pub(crate) fn here() -> Self {
        Self {
            user: overflow("uid"),
            group: overflow("gid"),
        }
    }

    /// The user, if the id stands for one.
    pub(crate) fn user(&self, uid: u32) -> Option<u32> {
        (self.user != Some(uid)).then_some(uid)
    }

    /// The group, if the id stands for one.
    pub(crate) fn group(&self, gid: u32) -> Option<u32> {
        (self.group != Some(gid)).then_some(gid)
    }

    /// Whether the user is the bus's owner, or root.
    pub(crate) fn is_owner_or_root(&self, uid: u32, owner: u32) -> bool {
        self.user(uid).is_some_and(|uid| uid == 0 || uid == owner)
    }
}

/// The overflow id. `None` where every id is known, so that the overflow id is an ordinary one: in the system's first
/// user namespace. Where nothing can be learned it is the usual one.
fn overflow(kind: &str) -> Option<u32> {
    let map = call!(fs::read_to_string(format!("/proc/self/{kind}_map")));
    if map.is_ok_and(|map| is_complete(&map)) {
        return None;
    }
    let text = call!(fs::read_to_string(format!(
        "/proc/sys/kernel/overflow{kind}"
    )))
    .ok();
    Some(text.and_then(|t| t.trim().parse().ok()).unwrap_or(65534))
}

/// Whether a map of a user namespace (user_namespaces(7)) leaves no id out. The highest id means "none".
fn is_complete(map: &str) -> bool {
    let known = map.lines().map(|line| {
        let count = line.split_whitespace().nth(2);
        count.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    });
    known.sum::<u64>() >= u64::from(u32::MAX)
}

/// Ends the process as a kill would: nothing is dropped or flushed.
#[cfg(fault)]
pub(crate) fn end_at_once(code: i32) -> ! {
    // SAFETY: it may be called at any point of any thread.
    unsafe { call!(later libc::_exit(code)) }
}

/// A process to watch: its descriptor becomes readable when it has ended.
pub(crate) fn watch_process(pid: u32) -> io::Result<Fd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    Ok(Fd::new(super::above_stdio(call!(pidfd_open(
        pid,
        PidfdFlags::empty(),
    ))?)?))
}

/// Whether a watched process has ended.
pub(crate) fn has_ended(process: &Fd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    matches!(call!(poll(&mut fds, Some(&super::wake::timespec(std::time::Duration::ZERO)))), Ok(n) if n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_an_id_passes_for_nobody() {
        let whole = Users {
            user: None,
            group: None,
        };
        assert!(whole.is_owner_or_root(65534, 65534) && whole.group(65534) == Some(65534));
        let part = Users {
            user: Some(65534),
            group: Some(65534),
        };
        assert!(!part.is_owner_or_root(65534, 65534) && part.group(65534).is_none());
        assert!(part.is_owner_or_root(0, 65534) && part.is_owner_or_root(7, 7));
    }

    #[test]
    fn a_part_of_the_ids_passes_for_all() {
        assert!(is_complete("         0          0 4294967295\n"));
        assert!(is_complete("0 0 1000\n1000 1000 4294966295\n"));
        assert!(!is_complete("0 100000 65536\n"));
        assert!(!is_complete("") && !is_complete("x") && !is_complete("0 0"));
    }

    #[test]
    fn a_process_is_taken_for_its_successor() {
        assert_ne!(start_time(pid()), 0);
        assert_eq!(start_time(0), 0);
        assert!(!is_stopped(pid()) && !is_stopped(u32::MAX));
        assert!(watch_process(0).is_err() && watch_process(u32::MAX).is_err());
    }
}
