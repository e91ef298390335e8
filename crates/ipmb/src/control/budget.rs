//! How much a connection may say: far more than anybody needs who keeps to the protocol.

use std::time::{Duration, Instant};

/// Packets in a [`WINDOW`].
const PACKETS: u32 = 32_768;
const WINDOW: Duration = Duration::from_secs(1);

/// Counts the packets of one connection.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: PACKETS,
            since: now,
        }
    }

    /// Another packet came. False: it is a flood. The clock is read once per window's worth.
    pub(super) fn spend(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            return true;
        }
        let now = now();
        let flood = now.saturating_duration_since(self.since) < WINDOW;
        *self = Self::new(now);
        !flood
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_not_told_from_a_busy_member() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for round in 1..10 {
            for _ in 0..PACKETS {
                assert!(budget.spend(|| unreachable!()));
            }
            assert!(budget.spend(|| start + WINDOW * round));
        }
        let mut budget = Budget::new(start);
        let said = (0..).take_while(|_| budget.spend(|| start + WINDOW / 2));
        assert_eq!(said.count(), PACKETS as usize);
    }
}
