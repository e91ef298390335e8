//! One sleeper for many.

use crate::sync::{Condvar, Mutex, MutexGuard};
use std::{sync::PoisonError, time::Instant};

/// Lets one thread at a time sleep for something, while others wait for what it finds.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    led: bool,
    /// How many leaders there were.
    past: u64,
    /// Threads that wait until the leader is done.
    waiting: u32,
}

/// The thread that sleeps; the others look for themselves when it is done.
pub(crate) struct Leader<'g>(&'g Gate);

/// A thread that waits until the leader of now is done.
pub(crate) struct Follower<'g> {
    gate: &'g Gate,
    past: u64,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Becomes the leader if there is none.
    pub(crate) fn lead(&self) -> Result<Leader<'_>, Follower<'_>> {
        let mut state = self.state();
        if state.led {
            let past = state.past;
            return Err(Follower { gate: self, past });
        }
        state.led = true;
        Ok(Leader(self))
    }

    /// Whether a thread sleeps, or is about to.
    pub(crate) fn is_led(&self) -> bool {
        self.state().led
    }
}

impl Follower<'_> {
    /// Waits until the leader is done, or the time is over. `None`, in models: there is no time.
    pub(crate) fn wait(self, until: Option<Instant>) {
        let mut state = self.gate.state();
        state.waiting += 1;
        while state.past == self.past {
            let changed = &self.gate.changed;
            state = match until {
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    let waited = changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.waiting -= 1;
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.led = false;
        state.past += 1;
        // To notify nobody is a system call, too.
        let waited_for = state.waiting > 0;
        drop(state);
        if waited_for && !crate::weakness::on(9) {
            self.0.changed.notify_all();
        }
    }
}
