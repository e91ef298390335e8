//! What a receive does while there is nothing: it spins a little, then sleeps.

use super::{Inbox, LOCAL, State};
use crate::endpoint::biased::Guard;
use crate::{
    link::{doorbell::fence_before_look, incoming::Trouble},
    sync::Ordering,
    sys::{self, Event},
};
use std::time::{Duration, Instant};

/// Sleep when the system refused to fence a sender.
const SHORT: Duration = Duration::from_millis(1);

impl Inbox {
    /// Waits for a message: spins a little, then sleeps.
    #[cold]
    pub(super) fn wait<'s>(
        &'s self,
        mut state: Guard<'s, State>,
        deadline: Option<Instant>,
    ) -> Guard<'s, State> {
        if state.asleep > 0 {
            state.waiting += 1;
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            state = state.wait(&self.followers, left, |state| state.asleep > 0);
            state.waiting -= 1;
            return state;
        }
        let bulk = std::mem::take(&mut state.bulk);
        let tried = state.spin.begin(bulk);
        if let Some(time) = tried
            && self.spin(&mut state, time, deadline)
        {
            return state;
        }
        let (asleep, fenced) = self.prepare(&mut state);
        if !asleep {
            return state;
        }
        let start = Instant::now();
        let mut timeout = deadline.map(|d| d.saturating_duration_since(start));
        if !fenced {
            timeout = Some(timeout.map_or(SHORT, |t| t.min(SHORT)));
        }
        let slept;
        (state, slept) = self.sleep(state, timeout);
        if !fenced {
            self.look_at_sleepers(&mut state);
        }
        // A sleep that was shorter than spinning would have been: spin longer next time, as if this time's had not been in vain.
        if slept && let Some(tried) = tried {
            state.spin.slept(start.elapsed(), tried);
        }
        state
    }

    /// Looks at the active links for a while; true if there is something.
    fn spin(&self, state: &mut State, time: Duration, deadline: Option<Instant>) -> bool {
        let start = Instant::now();
        let mut looks = 0;
        loop {
            for _ in 0..32 {
                if self.has_something(state) {
                    state.spin.paid();
                    return true;
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            // A wait that its caller cuts short says nothing of how long to look.
            if deadline.is_some_and(|d| d <= now) {
                return false;
            }
            if now - start >= time {
                state.spin.was_vain();
                return false;
            }
            looks += 1;
            if state.spin.gives_way(looks) {
                sys::yield_now();
                state.spin.gave_way(now.elapsed());
            }
        }
    }

    /// Announces to the senders of all active links that this side sleeps, and looks once more. Returns whether it may
    /// sleep now, and for as long as it likes.
    pub(super) fn prepare(&self, state: &mut State) -> (bool, bool) {
        let mut everybody = false;
        state.turn = 0;
        let announced: Vec<usize> = state.active.drain(..).collect();
        for slot in &announced {
            if let Some(Some(link)) = state.links.get_mut(*slot) {
                everybody |= link.announce_sleep();
            }
        }
        let fenced = fence_before_look(everybody);
        for slot in announced {
            if let Some(Some(link)) = state.links.get_mut(slot)
                && (link.looks_ready() || link.hung_up)
            {
                link.awake();
                state.active.push_back(slot);
            }
        }
        let something = !state.active.is_empty()
            || !state.local.is_empty()
            || self.arrived.load(Ordering::Acquire);
        (!something, fenced)
    }

    /// Sleeps on the set, without the lock, and marks the links whose senders rang.
    pub(super) fn sleep<'s>(
        &'s self,
        mut state: Guard<'s, State>,
        timeout: Option<Duration>,
    ) -> (Guard<'s, State>, bool) {
        let mut events = std::mem::take(&mut state.events);
        events.clear();
        state.asleep += 1;
        drop(state);
        if let Err(e) = self.set.wait(&mut events, timeout) {
            log::error!("cannot wait for messages: {e}");
        }
        let mut state = self.state();
        state.asleep -= 1;
        if state.waiting > 0 && state.asleep == 0 {
            self.followers.notify_one();
        }
        let rang = !events.is_empty();
        self.hear(&mut state, &mut events);
        state.events = events;
        (state, rang)
    }

    /// Hears bells and hang-ups without sleeping. A side that is never idle would not learn whose senders are gone.
    pub(super) fn listen(&self, state: &mut State) {
        // The thread that sleeps hears them.
        if state.asleep > 0 {
            return;
        }
        let mut events = std::mem::take(&mut state.events);
        events.clear();
        if let Err(e) = self.set.wait(&mut events, Some(Duration::ZERO)) {
            log::error!("cannot look for messages: {e}");
        }
        self.hear(state, &mut events);
        state.events = events;
    }

    /// Marks the links whose senders rang or hung up.
    fn hear(&self, state: &mut State, events: &mut Vec<Event>) {
        state.heard = Instant::now();
        for event in events.drain(..) {
            if event.token == LOCAL {
                continue;
            }
            let slot = (event.token / 2) as usize;
            let Some(Some(link)) = state.links.get_mut(slot) else {
                continue;
            };
            if event.token % 2 == 1 {
                link.hung_up = true;
            } else if let Err(Trouble::Broken(reason)) = link.rang() {
                self.break_off(state, slot, reason);
                continue;
            }
            if link.sleeps() {
                link.awake();
                state.active.push_back(slot);
            }
        }
    }
}
