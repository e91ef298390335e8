//! What is measured: each way to get a message from one process to another, behind one trait.

mod bus;
mod channel;
mod iceoryx;
mod ring;
mod wake_up;

pub use bus::{Lent, Loans, Old, Ours};
pub use channel::{ByteChannel, TypedChannel};
pub use iceoryx::{InPlace, Samples, Slices};
pub use ring::{Ring, received};
pub use wake_up::{EventFd, Futex};

use crate::{rows::pair::Job, shared::Shared};
use std::time::Duration;

pub const SOON: Option<Duration> = Some(Duration::from_secs(20));
pub const TOKEN: &str = "bench";

/// One end of a two-way connection.
pub trait Peer<T> {
    /// The two sides meet in `join`: neither returns before the other has begun.
    const MEETS: bool = false;

    /// The side that sends first joins first.
    fn join(job: &Job, shared: &Shared, sends_first: bool) -> Self;
    fn send(&mut self, payload: T);
    fn recv(&mut self) -> T;
}

/// The names of this end and of the other.
pub fn names(sends_first: bool) -> (&'static str, &'static str) {
    if sends_first { ("a", "b") } else { ("b", "a") }
}
