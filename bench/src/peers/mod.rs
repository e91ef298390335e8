//! What is measured: each way to get a message from one process to another, behind one trait.

mod bus;
#[cfg(feature = "ipc-channel")]
mod channel;
#[cfg(feature = "iceoryx2")]
mod iceoryx;
mod ring;
mod wake_up;

#[cfg(feature = "ipmb-old")]
pub use bus::Old;
pub use bus::{Lent, Loans, Ours};
#[cfg(feature = "ipc-channel")]
pub use channel::{ByteChannel, TypedChannel};
#[cfg(feature = "iceoryx2")]
pub use iceoryx::{InPlace, Samples, Slices};
pub use ring::{Batches, Ring, received};
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

/// What this program was built without and that measuring `by` needs.
pub fn missing(by: &str) -> Option<&'static str> {
    match by {
        "0.8.5" if !cfg!(feature = "ipmb-old") => Some("built without the feature `ipmb-old`"),
        "ipc-channel" if !cfg!(feature = "ipc-channel") => {
            Some("built without the feature `ipc-channel`")
        }
        "iceoryx2" if !cfg!(feature = "iceoryx2") => Some("built without the feature `iceoryx2`"),
        "rtrb" if !cfg!(feature = "rtrb") => Some("built without the feature `rtrb`"),
        _ => None,
    }
}

/// The names of this end and of the other.
pub fn names(sends_first: bool) -> (&'static str, &'static str) {
    if sends_first { ("a", "b") } else { ("b", "a") }
}
