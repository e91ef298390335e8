//! Who gets a message. A selector is plain data; the sender's endpoint resolves it against the members' labels.

use crate::LabelOp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Who gets a message, and for how long it waits when nobody does yet.
///
/// # Examples
///
/// ```
/// use ipmb::{LabelOp, Selector, SelectorMode};
/// use std::time::Duration;
///
/// let mut selector = Selector::unicast("earth");
/// selector.ttl = Duration::from_secs(5);
/// assert_eq!(selector.mode, SelectorMode::Unicast);
///
/// let everybody_else = Selector::multicast(!LabelOp::from("earth"));
/// assert_eq!(everybody_else.ttl, Duration::ZERO);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Selector {
    /// Which labels match. Sending fails if it is over one of the limits of [`LabelOp`].
    pub label_op: LabelOp,
    /// One or all of those that match.
    pub mode: SelectorMode,
    /// How long the message is parked while nobody matches, to be given to the first that does. A multicast, too, reaches only
    /// the first who joins later, and nobody who joins later if somebody matched at once. The time also covers a unicast that
    /// its receiver had not taken when it died. Zero: the message is gone if nobody matches, and `send` is still `Ok`.
    pub ttl: Duration,
}

impl Selector {
    /// Selects exactly one endpoint with a matching label: the one that joined first. No ttl.
    #[must_use]
    pub fn unicast(label_op: impl Into<LabelOp>) -> Self {
        Self::new(label_op.into(), SelectorMode::Unicast)
    }

    /// Selects every endpoint with a matching label, the sender's own included. No ttl.
    #[must_use]
    pub fn multicast(label_op: impl Into<LabelOp>) -> Self {
        Self::new(label_op.into(), SelectorMode::Multicast)
    }

    fn new(label_op: LabelOp, mode: SelectorMode) -> Self {
        Self {
            label_op,
            mode,
            ttl: Duration::ZERO,
        }
    }
}

/// How many of the matching endpoints get the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SelectorMode {
    /// Exactly one: the one that joined first.
    Unicast,
    /// All that are members when `send` starts, the sender included if its own label matches.
    Multicast,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_selector_does_not_park() {
        for (selector, mode) in [
            (Selector::unicast("a"), SelectorMode::Unicast),
            (
                Selector::multicast(String::from("a")),
                SelectorMode::Multicast,
            ),
        ] {
            assert_eq!(selector.mode, mode);
            assert_eq!(selector.ttl, Duration::ZERO);
            assert_eq!(selector.label_op, LabelOp::from("a"));
        }
    }

    #[test]
    fn every_field_counts_in_a_comparison() {
        let one = Selector::unicast("a");
        let mut waits = one.clone();
        assert_eq!(one, waits);
        waits.ttl = Duration::from_nanos(1);
        assert_ne!(one, waits);
        assert_ne!(one, Selector::multicast("a"));
        assert_ne!(one, Selector::unicast("b"));
    }
}
