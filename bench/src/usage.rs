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

    /// Of another process. Fails where it is gone, or where the system does not tell: a zero would look like idleness.
    pub fn of(pid: u32) -> Result<Self, String> {
        let mut usage = Self::default();
        let tasks = format!("/proc/{pid}/task");
        for thread in std::fs::read_dir(&tasks).map_err(|e| format!("{tasks}: {e}"))? {
            let thread = thread.map_err(|e| format!("{tasks}: {e}"))?.path();
            let number = |file: &str, find: fn(&str) -> Option<&str>| {
                let file = thread.join(file);
                let text = std::fs::read_to_string(&file)
                    .map_err(|e| format!("{}: {e}", file.display()))?;
                let found = find(&text).and_then(|n| n.trim().parse::<u64>().ok());
                found.ok_or(format!("{} says {text:?}", file.display()))
            };
            usage.cpu_ns += number("schedstat", |text| text.split_whitespace().next())?;
            usage.sleeps += number("status", |text| {
                let key = "voluntary_ctxt_switches:";
                text.lines().find_map(|line| line.strip_prefix(key))
            })?;
        }
        Ok(usage)
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
