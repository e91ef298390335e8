//! Parts of the bus die in the middle of what they do, in this process: what they had is dropped at a point (see `crash`) as
//! the kernel would drop it, and what they shared stays as it is. Each operation is tried with every point as its last.
//!
//! Here are the parts that say nothing when they are dropped: both ends of a link, regions and registries, the writer of a
//! directory. Whole processes die in `tests/crash`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod directory;
mod links;
mod memory;

use crate::crash::Abandoned;

/// Tries an operation with each point as its last, until it completes. Says how many there are.
fn at_every_point(what: &str, mut operation: impl FnMut(u64) -> Result<(), Abandoned>) {
    let mut last = 1;
    while operation(last).is_err() {
        last += 1;
        assert!(last < 100_000, "it never ends");
    }
    assert!(last > 1, "nothing was tried");
    println!("ABANDONED {what}: at {} points", last - 1);
}

#[track_caller]
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed().as_secs() < 20, "never: {what}");
        std::thread::yield_now();
    }
}
