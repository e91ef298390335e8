//! Who gets a message.

use crate::LabelOp;
use std::time::Duration;

/// Who gets a message, and for how long it waits when nobody does yet.
#[derive(Debug, Clone)]
pub struct Selector {
    /// Which labels match.
    pub label_op: LabelOp,
    /// One or all of those that match.
    pub mode: SelectorMode,
    /// How long the message is parked while nobody matches; zero: not at all.
    pub ttl: Duration,
}

/// How many of the matching endpoints get the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectorMode {
    /// Exactly one.
    Unicast,
    /// All of them.
    Multicast,
}
