//! What of objects that are Mach ports is bytes and books, apart from the system that has such ports: the tests of every
//! system run it.
//!
//! A packet says in its [`head::Head`] which of its handles are ports. Those go ahead of it in a Mach message, a [`letter::Letter`], to the mailbox of
//! the receiving process; a random [`Token`] in both says that they belong together. What came is on the [`shelf::Shelf`]
//! until the packet is taken.

pub(super) mod head;
pub(super) mod letter;
pub(super) mod shelf;

/// Handles that one packet can carry.
pub(super) const MOST: usize = 253;

/// What a packet and the message with its ports have in common, and nobody else knows.
pub(super) type Token = [u32; 4];
