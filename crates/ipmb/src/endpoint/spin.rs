//! How long a side that waits looks again and again before it sleeps, and whether it gives its core away in between.
//!
//! To give way is a system call, and helps only if the other side waits for this very core. Whether it does cannot be
//! asked cheaply, but it shows: what the other side does on another core comes without giving way, what it would do on this one
//! comes after the time is over. So a wait in vain makes the next ones give way, the more of them the more often it happens.
//!
//! Where more processes run than there are cores, waits that end in time are a waste, too: the receiver that senders wait for may
//! share its core with some of them, and everybody loses the time. That shows as well, and to see it costs nothing: a sender that
//! comes back late to a look had lost its core to somebody meanwhile. So it gives way for some waits to come, at every look, and
//! if others did run, it naps: while it is not ready to run, the receiver has a core more often, and empties more of the ring at a time.
//!
//! Beside a large message the other side copies as long as this one just did, or will: a wait for that may take longer, and says less
//! when it is in vain. But a side that gave way and is back at once knows that the other one does not copy here.

use std::time::Duration;

/// The shortest time to look for.
const SHORTEST: Duration = Duration::from_micros(2);
/// What a wait may take longer beside a large message, at most: a receiver's a millisecond in all, by default.
const LARGE: Duration = Duration::from_micros(850);
/// A sender that waits for space for one may look longer by so many times as much: it is not idle, and what it waits for is
/// seldom more than a receiver that has lost its core for a moment.
const FOR_SPACE: u32 = 4;
/// Waits that give way after one that was in vain without, at first and at most: four times as many each time, one less for each
/// wait that was not in vain. Not many more: two sides that give way to each other stay on one core, and who is woken from a sleep
/// is put on an idle one.
const GIVE_WAY: [u32; 2] = [1, 64];
/// As many at most beside large messages.
const LARGE_GIVE_WAY: u32 = 8;
/// A sender that comes back to a look later than this had lost its core: a look takes some 3 µs.
const AWAY: Duration = Duration::from_micros(100);
/// Waits to come that give way then, at every look, until one is back before `ALONE` and nobody ran.
const CROWDED: u32 = 64;
const ALONE: Duration = Duration::from_micros(4);
/// What it naps for then. In that time a receiver takes hundreds of small messages from each of eight senders, and as a rule not all that
/// a ring holds.
pub(crate) const NAP: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(crate) struct Spin {
    time: Duration,
    most: Duration,
    /// How many times as long as a copy a wait beside a large message may be longer.
    patience: u32,
    /// What the other side may be copying meanwhile takes about so long.
    copy: Duration,
    /// Waits to come that give way.
    giving_way: u32,
    /// What that will be after the next vain one.
    next: u32,
    /// Waits to come that give way at every look, as others want the core.
    crowded: u32,
}

impl Spin {
    /// Looks for `time` at first, and for `most` at most. Zero: never looks again.
    pub(crate) fn new(time: Duration, most: Duration) -> Self {
        Self {
            time: time.min(most),
            most,
            patience: 1,
            copy: Duration::ZERO,
            giving_way: 0,
            next: GIVE_WAY[0],
            crowded: 0,
        }
    }

    /// The same for a sender that waits for space: at first it looks for as long as it may.
    pub(crate) fn for_space(most: Duration) -> Self {
        Self {
            patience: FOR_SPACE,
            ..Self::new(most, most)
        }
    }

    /// Whether it has been worth while lately.
    #[inline]
    pub(crate) fn is_worth_while(&self) -> bool {
        !self.time.is_zero()
    }

    /// How long this wait may look, beside a message of so many bytes. `None`: it sleeps at once.
    pub(crate) fn begin(&mut self, bytes: usize) -> Option<Duration> {
        self.copy = Duration::from_nanos(bytes as u64).min(LARGE);
        let most = self.longest();
        (!self.most.is_zero()).then(|| self.time.clamp(SHORTEST, most.max(SHORTEST)))
    }

    /// Whether to give way after so many looks of a wait. Once is enough, as a rule: the other side then runs until it waits.
    /// Where others came first, after twice as many again.
    pub(crate) fn gives_way(&self, looks: u32) -> bool {
        self.is_crowded() || self.giving_way > 0 && looks.is_power_of_two()
    }

    /// So long it was since the last look, and nobody was given way to.
    pub(crate) fn looked_again(&mut self, after: Duration) {
        if after > AWAY && !self.is_large() {
            self.crowded = CROWDED;
        }
    }

    /// Giving way took so long. If the other side had used this core to copy a large message, it would have taken longer.
    pub(crate) fn gave_way(&mut self, took: Duration) {
        if !others_ran(took) {
            self.crowded = 0;
        }
        if self.is_large() && took < self.copy / 32 {
            self.giving_way = 0;
            self.next = (self.next / 4).max(GIVE_WAY[0]);
        }
    }

    /// Whether others want the core, as far as is known.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded > 0 && !self.is_large()
    }

    /// Beside a large message a wait may be in vain though the other side runs.
    fn is_large(&self) -> bool {
        self.copy > self.most
    }

    /// The longest that this wait may look.
    fn longest(&self) -> Duration {
        let times = if self.is_large() { self.patience } else { 1 };
        self.most + self.copy * times
    }

    /// What was waited for came in time.
    pub(crate) fn paid(&mut self) {
        self.crowded = self.crowded.saturating_sub(1);
        if self.giving_way > 0 {
            self.giving_way -= 1;
        } else {
            self.next = (self.next - 1).max(GIVE_WAY[0]);
        }
        self.grow(self.time);
    }

    /// The time was over.
    pub(crate) fn was_vain(&mut self) {
        self.crowded = self.crowded.saturating_sub(1);
        if self.giving_way > 0 {
            self.giving_way -= 1;
        } else {
            let most = if self.is_large() {
                LARGE_GIVE_WAY
            } else {
                GIVE_WAY[1]
            };
            self.giving_way = self.next.min(most);
            self.next = (self.next * 4).min(GIVE_WAY[1]);
        }
        self.time /= 2;
    }

    /// It slept for `slept` after it had looked for `tried`. Where that is less than it may look, it looks longer the next
    /// time, as if this time had not been in vain.
    pub(crate) fn slept(&mut self, slept: Duration, tried: Duration) {
        if slept < self.longest() {
            self.grow(tried);
        }
    }

    fn grow(&mut self, from: Duration) {
        let most = self.longest();
        self.time = (from * 2).clamp(2 * SHORTEST, most.max(2 * SHORTEST));
    }
}

/// Whether somebody else ran on the core while this side gave it away for so long.
pub(crate) fn others_ran(took: Duration) -> bool {
    took >= ALONE
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(50);

    #[test]
    fn a_side_whose_peer_is_on_another_core_makes_a_system_call_per_wait() {
        let mut spin = Spin::new(MOST, MOST);
        for _ in 0..1_000_000 {
            assert!(!spin.gives_way(1));
            spin.paid();
        }
    }

    #[test]
    fn sides_on_one_core_wait_for_nothing_again_and_again() {
        let mut spin = Spin::new(MOST, MOST);
        let mut vain = 0;
        for _ in 0..100_000 {
            if spin.gives_way(1) {
                spin.paid();
            } else {
                vain += 1;
                spin.was_vain();
            }
        }
        // Some are: who sleeps may be woken on another core.
        assert!((100_000 / 100..100_000 / 50).contains(&vain), "{vain}");
    }

    #[test]
    fn senders_that_look_keep_others_from_a_core_that_they_share() {
        let mut spin = Spin::for_space(MOST);
        spin.begin(0);
        spin.looked_again(AWAY);
        assert!(!spin.is_crowded());
        for others_are_gone in [false, true] {
            spin.looked_again(2 * AWAY);
            let mut given = 0;
            for _ in 0..10 * CROWDED {
                if (1..10).all(|looks| spin.gives_way(looks)) {
                    given += 1;
                    spin.gave_way(if others_are_gone {
                        ALONE / 2
                    } else {
                        2 * ALONE
                    });
                }
                spin.paid();
            }
            assert_eq!(given, if others_are_gone { 1 } else { CROWDED });
            assert!(!spin.is_crowded());
        }
        spin.begin(1 << 20);
        spin.looked_again(2 * AWAY);
        assert!(!spin.gives_way(1));
    }

    #[test]
    fn who_waits_beside_large_messages_gives_way_to_nobody() {
        let mut spin = Spin::new(MOST, MOST);
        // On one core the other side copies meanwhile, and it is worth it; once it is on another core nobody does.
        for (took, calls) in [
            (Duration::from_micros(300), 8),
            (Duration::from_micros(5), 1),
        ] {
            for _ in 0..3 {
                spin.begin(1 << 20);
                spin.was_vain();
            }
            let mut given = 0;
            for _ in 0..100 {
                spin.begin(1 << 20);
                if spin.gives_way(1) {
                    given += 1;
                    spin.gave_way(took);
                }
                spin.paid();
            }
            assert!((1..=calls).contains(&given), "{given} of {took:?}");
        }
    }

    #[test]
    fn the_time_leaves_its_limits() {
        let mut spin = Spin::new(Duration::ZERO, MOST);
        assert!(!spin.is_worth_while());
        assert_eq!(Spin::for_space(MOST).begin(0), Some(MOST));
        for (spin, times) in [(&mut spin, 1), (&mut Spin::for_space(MOST), FOR_SPACE)] {
            for (bytes, longer) in [
                (0, Duration::ZERO),
                (10_000, Duration::from_micros(10)),
                (100_000, Duration::from_micros(100) * times),
                (usize::MAX, LARGE * times),
                (0, Duration::ZERO),
            ] {
                for _ in 0..100 {
                    let time = spin.begin(bytes).unwrap();
                    assert!((SHORTEST..=MOST + longer).contains(&time), "{time:?}");
                    spin.paid();
                }
                assert_eq!(spin.begin(bytes), Some(MOST + longer));
            }
        }
        for _ in 0..100 {
            spin.was_vain();
            assert!((SHORTEST..=MOST).contains(&spin.begin(0).unwrap()));
        }
        assert!(!spin.is_worth_while());
    }

    #[test]
    fn who_is_to_sleep_at_once_looks_for_a_large_message() {
        let mut spin = Spin::new(Duration::ZERO, Duration::ZERO);
        spin.paid();
        assert_eq!(spin.begin(1 << 30), None);
    }
}
