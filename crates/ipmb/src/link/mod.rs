//! The data path: a link is the one-way path from one endpoint to another.
//!
//! Four things make a link. **Records**: a shared memory that the sender writes and the receiver maps read-only; it
//! holds the ring. **Returns**: a shared memory that the receiver writes; it holds how far the ring was read, and
//! whether the receiver sleeps. A **bell** wakes the receiver, which can only wait for it. A **side channel** carries handles, wakes a sender that waits for space, and hangs up
//! when either side dies. Payloads that are too large for the ring lie in blocks ([`pool`]), memories that the sender writes and
//! whose handles go over the side channel. Nothing shared has two writers, so nothing shared needs to be undone when a process dies.

pub(crate) mod doorbell;
mod handles;
pub(crate) mod incoming;
pub(crate) mod layout;
pub(crate) mod outgoing;
pub(crate) mod pool;
pub(crate) mod ring;
pub(crate) mod runs;
mod side;
