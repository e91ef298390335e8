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
    rustix::process::geteuid().as_raw()
}

/// This process's effective group.
pub(crate) fn gid() -> u32 {
    rustix::process::getegid().as_raw()
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

/// State letter, and the fields from the state on, of `/proc/PID/stat` (proc(5)).
fn stat(pid: u32) -> Option<(char, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain anything, parentheses included.
    let rest = text.get(text.rfind(')')?.checked_add(2)?..)?;
    Some((rest.chars().next()?, rest.to_owned()))
}

/// Identity of the space in which process ids are counted; 0 when unknown.
pub(crate) fn pid_space() -> u64 {
    rustix::fs::stat("/proc/self/ns/pid").map_or(0, |s| s.st_ino)
}

/// Whether `uid` stands for a user whom this user namespace does not know. Such a user is never "the same" as anybody.
pub(crate) fn is_unmapped(uid: u32) -> bool {
    let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid")
        .ok()
        .and_then(|s| s.trim().parse().ok())
        .unwrap_or(65534);
    if uid != overflow {
        return false;
    }
    let Ok(map) = fs::read_to_string("/proc/self/uid_map") else {
        return true;
    };
    !map.lines().any(|line| {
        let mut n = line
            .split_whitespace()
            .map(|n| n.parse::<u64>().unwrap_or(0));
        let (inside, _, count) = (n.next().unwrap_or(0), n.next(), n.next().unwrap_or(0));
        (inside..inside.saturating_add(count)).contains(&u64::from(uid))
    })
}

/// A process to watch: its descriptor becomes readable when it has ended.
pub(crate) fn watch_process(pid: u32) -> io::Result<Fd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    Ok(Fd::new(super::above_stdio(pidfd_open(
        pid,
        PidfdFlags::empty(),
    )?)?))
}

/// Whether a watched process has ended.
pub(crate) fn has_ended(process: &Fd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&super::timespec(std::time::Duration::ZERO))), Ok(n) if n > 0)
}
