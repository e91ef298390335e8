//! Whether others use the machine.

use std::time::{Duration, Instant};

/// Waits until the machine is idle, at most for `patience`. Returns whether it is.
pub fn wait(patience: Duration) -> bool {
    let start = Instant::now();
    loop {
        let before = ticks();
        std::thread::sleep(Duration::from_millis(50));
        let after = ticks();
        let [idle, all] = [after.0 - before.0, after.1 - before.1];
        let is_calm = idle * 10 >= all * 9;
        if is_calm || start.elapsed() >= patience {
            return is_calm;
        }
    }
}

/// Idle time and all time of all cores since the start, in ticks.
fn ticks() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let times: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
    let idle = times.get(3).copied().unwrap_or(0);
    (idle, times.iter().sum())
}
