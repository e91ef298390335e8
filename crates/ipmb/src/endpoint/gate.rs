//! One sleeper for many.

use crate::sync::{Condvar, Mutex};
use std::{sync::PoisonError, time::Instant};

/// Lets one thread at a time sleep for something, while others wait for what it finds.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    led: Mutex<bool>,
    changed: Condvar,
}

/// The thread that sleeps; the others look for themselves when it is done.
pub(crate) struct Leader<'g>(&'g Gate);

impl Gate {
    /// Becomes the leader, or returns `None` after another one is done or the time is over.
    pub(crate) fn lead(&self, until: Option<Instant>) -> Option<Leader<'_>> {
        let mut led = self.led.lock().unwrap_or_else(PoisonError::into_inner);
        if !*led {
            *led = true;
            return Some(Leader(self));
        }
        let _done = match until {
            None => self
                .changed
                .wait(led)
                .unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.changed
                    .wait_timeout(led, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        None
    }

    /// Whether a thread sleeps, or is about to.
    pub(crate) fn is_led(&self) -> bool {
        *self.led.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        *self.0.led.lock().unwrap_or_else(PoisonError::into_inner) = false;
        if !crate::weakness::on(9) {
            self.0.changed.notify_all();
        }
    }
}
