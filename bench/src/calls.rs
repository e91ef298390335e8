//! Counts a process's system calls, by the kernel, which takes next to no time: under strace each call takes so long
//! that a side which sleeps once sleeps again soon.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{FromRawFd, OwnedFd},
};

/// What identifies the tracepoint at which every call passes, where tracefs is mounted.
const IDS: [&str; 2] = [
    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
];

/// `perf_event_attr` of perf_event_open(2) as its first release had it.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    bp_type: u32,
    bp_addr: u64,
}

const TRACEPOINT: u32 = 2;
/// Threads that are made from now on count, too.
const INHERIT: u64 = 1 << 1;
const CLOSE_ON_EXEC: libc::c_ulong = 8;

/// The system calls of this thread and of all that it starts from now on.
pub struct Calls(File);

impl Calls {
    /// Fails where the kernel has no tracepoints, or does not let this user see them.
    pub fn new() -> io::Result<Self> {
        let id = IDS.iter().find_map(|id| std::fs::read_to_string(id).ok());
        let id = id.and_then(|id| id.trim().parse().ok());
        let attributes = Attributes {
            kind: TRACEPOINT,
            size: size_of::<Attributes>() as u32,
            config: id.ok_or(io::ErrorKind::Unsupported)?,
            flags: INHERIT,
            ..Attributes::default()
        };
        let (this_thread, any_cpu, no_group) = (0, -1, -1);
        // SAFETY: the attributes are plain data of the size that they say.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                this_thread,
                any_cpu,
                no_group,
                CLOSE_ON_EXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor of nobody else's.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(fd as i32) })))
    }

    /// So many so far.
    pub fn so_far(&mut self) -> io::Result<u64> {
        let mut count = [0; 8];
        self.0.read_exact(&mut count)?;
        Ok(u64::from_ne_bytes(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_another_thread_is_not_counted() {
        // Where it is not allowed, strace counts.
        let Ok(mut calls) = Calls::new() else { return };
        let before = calls.so_far().unwrap();
        let other = std::thread::spawn(|| {
            for _ in 0..1000 {
                // SAFETY: no such descriptor.
                unsafe { libc::close(-1) };
            }
        });
        other.join().unwrap();
        let counted = calls.so_far().unwrap() - before;
        assert!((1000..1100).contains(&counted), "{counted}");
    }
}
