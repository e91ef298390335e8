//! Messages that come in a rush are taken in batches.
//!
//! A receiver that is as quick as its sender takes each message while the next is written: every cache line of the ring then
//! travels between the cores once or twice per message, and both wait for it. One that looks away for a moment finds
//! several, for the same travels. That is worth a delay only where the next message is there within that moment anyway,
//! so it takes many short waits in a row to begin, and ends when a batch is small: of messages that come one by one, or of
//! answers, at most one in 33 is delayed, by the shortest time.

/// A wait of at most so many looks is short.
const SHORT: u32 = 4;
/// Short waits in a row before the first batch.
const ROW: u32 = 32;
/// Pauses ([`std::hint::spin_loop`]) to look away for, at first and at most: some 0.5 and 2.5 µs where it was measured (a
/// pause differs between processors).
const PAUSES: [u32; 2] = [32, 128];
/// For so many pauses at least one message has to come.
const PACE: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Rush {
    pauses: u32,
    row: u32,
    /// How many messages there had been at the last wait.
    received: u64,
}

impl Rush {
    /// Before a wait, when `received` messages have been received in all: how many pauses to look away for.
    #[inline]
    pub(super) fn pauses(&mut self, received: u64) -> u32 {
        let batch = received.wrapping_sub(self.received);
        self.received = received;
        if self.row >= ROW {
            self.row = 0;
            self.pauses = PAUSES[0];
        } else if self.pauses > 0 {
            self.pauses = if batch >= u64::from(self.pauses / PACE) {
                (self.pauses * 2).min(PAUSES[1])
            } else if self.pauses > PAUSES[0] {
                self.pauses / 2
            } else {
                0
            };
        }
        self.pauses
    }

    /// The wait took so many looks in vain.
    #[inline]
    pub(super) fn waited(&mut self, looks: u32) {
        if self.pauses == 0 {
            self.row = if looks <= SHORT { self.row + 1 } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits between which `batch` messages were received, and which end after `looks`.
    fn waits(rush: &mut Rush, received: &mut u64, batch: u64, looks: u32, count: u32) -> u32 {
        let mut pauses = 0;
        for _ in 0..count {
            *received += batch;
            pauses = rush.pauses(*received);
            rush.waited(looks);
        }
        pauses
    }

    #[test]
    fn a_rush_is_taken_one_by_one() {
        let (mut rush, mut received) = (Rush::default(), 0);
        assert_eq!(waits(&mut rush, &mut received, 1, 2, ROW), 0);
        assert_eq!(waits(&mut rush, &mut received, 1, 0, 1), PAUSES[0]);
        assert_eq!(waits(&mut rush, &mut received, 20, 0, 10), PAUSES[1]);
    }

    #[test]
    fn messages_that_come_one_by_one_are_delayed() {
        let (mut rush, mut received) = (Rush::default(), 0);
        assert_eq!(waits(&mut rush, &mut received, 1, SHORT + 1, 10_000), 0);
        // Answers so quick that they look like a rush, and the end of one.
        let mut delayed = 0;
        for _ in 0..10_000 {
            delayed += u32::from(waits(&mut rush, &mut received, 1, SHORT, 1) > 0);
        }
        assert!(delayed < 10_000 / ROW, "{delayed}");
        waits(&mut rush, &mut received, 20, 0, 10);
        assert_eq!(waits(&mut rush, &mut received, 1, 0, 3), 0);
    }
}
