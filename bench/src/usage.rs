//! What a process has used of the processor.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// CPU time and sleeps of all threads of a process, since its start or between two looks.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Usage {
    pub cpu_ns: u64,
    /// Voluntary context switches.
    pub sleeps: u64,
}

impl Usage {
    pub fn now() -> Self {
        // SAFETY: plain data, filled by the call.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
            usage
        };
        let part = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
        Self {
            cpu_ns: (part(usage.ru_utime) + part(usage.ru_stime)).as_nanos() as u64,
            sleeps: usage.ru_nvcsw as u64,
        }
    }

    /// Of another process, as far as it still runs.
    pub fn of(pid: u32) -> Self {
        let mut usage = Self::default();
        let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
            return usage;
        };
        for thread in threads.flatten() {
            let read = |file: &str| std::fs::read_to_string(thread.path().join(file));
            let ran = read("schedstat").unwrap_or_default();
            let ran = ran.split_whitespace().next().map(str::parse::<u64>);
            usage.cpu_ns += ran.and_then(Result::ok).unwrap_or_default();
            let status = read("status").unwrap_or_default();
            let sleeps = status
                .lines()
                .find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
            let sleeps = sleeps.and_then(|n| n.trim().parse::<u64>().ok());
            usage.sleeps += sleeps.unwrap_or_default();
        }
        usage
    }

    pub fn add(&mut self, more: Self) {
        self.cpu_ns += more.cpu_ns;
        self.sleeps += more.sleeps;
    }

    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns - before.cpu_ns,
            sleeps: self.sleeps - before.sleeps,
        }
    }
}
