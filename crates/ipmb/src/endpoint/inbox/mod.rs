//! What an endpoint receives with: its incoming links, and when to sleep.
//!
//! Links that had messages lately are *active* and looked at in turn. The others are *asleep*, each for itself: its sender
//! rings for the next message. So an endpoint with a thousand quiet links and a busy one looks at the busy one only, and
//! going to sleep touches only what was active. While the endpoint is busy it looks at the sleeping ones now and then,
//! so that a flood on one link does not keep others waiting.
//!
//! | file | job |
//! |---|---|
//! | here | which link is next |
//! | `arrivals.rs` | what other threads put in: new links, messages to oneself, the end |
//! | `rush.rs` | whether messages come in a rush, to be taken in batches |
//! | `sleep.rs` | spinning and sleeping |
//! | `unpack.rs` | from a record to a message |

mod arrivals;
mod rush;
mod sleep;
mod unpack;

use super::{
    biased::{BiasedLock, Guard},
    spin::Spin,
};
use crate::{
    DecodeError, Error, Message, MessageBox, Options, RecvError, Stats,
    link::incoming::{Incoming, Record, Trouble},
    message::Attached,
    sync::{AtomicBool, Condvar, Mutex, Ordering},
    sys::{self, BorrowedWaitable, Event, Interest, Ringer, WaitSet},
};
use arrivals::{Arrivals, Local};
use rush::Rush;
use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};
use unpack::{decode, unpack, unpack_local};

const LOCAL: u64 = u64::MAX;
/// A busy receiver asks the system for hang-ups after so long: that costs a call.
const LISTEN: Duration = Duration::from_secs(1);
/// Looks at a link before the clock is read.
const BRIEFLY: u32 = 32;
/// Messages taken from one link before the next one's turn, see [`Record::cost`].
const TURN: usize = 64;
/// Messages that a receive skips between two looks at the clock, or skips at all if it must not wait.
const SKIPS: u32 = 4096;

pub(crate) struct Inbox {
    state: BiasedLock<State>,
    followers: Condvar,
    set: WaitSet,
    local: Ringer,
    arrivals: Mutex<Arrivals>,
    /// There is something in `arrivals`.
    arrived: AtomicBool,
    /// The user waits for the set.
    polled: AtomicBool,
    payload_max: usize,
    region_max: u64,
    local_max: usize,
    /// How long to look for messages or for space before a sleep, at most.
    spin: Duration,
}

struct State {
    links: Vec<Option<Incoming>>,
    active: VecDeque<usize>,
    /// Messages that may be taken from the first active link before others are looked at. Zero when anything else has
    /// to be done first.
    turn: usize,
    /// Messages until the next look at the links that sleep.
    until_look: usize,
    /// When the system was asked for hang-ups last.
    heard: Instant,
    /// Threads that sleep on the set: one, and others that only try.
    asleep: u32,
    /// Somebody waits for the set elsewhere: a receive that only tried has said that there is nothing, and none has tried since.
    said_empty: bool,
    waiting: usize,
    local: VecDeque<Local>,
    /// There was no memory for the first of those: a look at the links comes before the next try.
    links_first: bool,
    scratch: Vec<u8>,
    events: Vec<Event>,
    rush: Rush,
    spin: Spin,
    /// Bytes of the last message since the last wait that was not received the usual way, as none is that lies in a block.
    bulk: usize,
    /// What to say when nothing is found.
    verdict: Option<RecvError>,
    stats: Stats,
}

impl State {
    /// The next link is first.
    fn end_turn(&mut self) {
        if self.turn > 0 {
            self.until_look = self.until_look.saturating_sub(TURN - self.turn);
        }
        self.turn = 0;
        if self.active.len() > 1 {
            self.active.rotate_left(1);
        }
    }

    /// A record of the link whose turn it is did not decode. Without memory it was not taken off.
    #[cold]
    fn undecoded(&mut self, record: &Record, error: Error) -> RecvError {
        if let Error::Exhausted(..) = error {
            self.stats.received -= 1;
            self.stats.received_bytes -= record.len as u64;
            self.let_others_come_first();
        }
        error.into()
    }

    /// A message waits for memory: others have their turn, those whose links sleep too.
    fn let_others_come_first(&mut self) {
        if self.turn > 0 {
            self.end_turn();
        }
        self.until_look = 0;
    }
}

/// What a look at the links found.
enum Found {
    /// A message at the head of the link in this slot.
    Record(usize, Record),
    /// A message with a payload of so many bytes, which is too large.
    TooLarge(usize, Record, usize),
    /// A message of the endpoint to itself.
    Local,
    Nothing,
    /// A message that stays first in line until there is room for what came with it.
    Shortage(io::Error),
}

/// How long a receive may wait.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    None,
    For(Option<Duration>),
}

/// When a receive's time is over, by its first look at the clock.
fn deadline_of(
    timeout: Option<Duration>,
    deadline: &mut Option<Option<Instant>>,
) -> Option<Instant> {
    *deadline.get_or_insert_with(|| timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
}

impl Inbox {
    pub(crate) fn new(options: &Options) -> io::Result<Self> {
        let set = WaitSet::new()?;
        let local = Ringer::local()?;
        set.add(&local, LOCAL, Interest::Arrivals)?;
        let alone = std::thread::available_parallelism().map_or(1, usize::from) < 2;
        let spin = if alone { Duration::ZERO } else { options.spin };
        Ok(Self {
            state: BiasedLock::new(State {
                links: Vec::new(),
                active: VecDeque::new(),
                turn: 0,
                until_look: 0,
                heard: Instant::now(),
                asleep: 0,
                said_empty: false,
                waiting: 0,
                local: VecDeque::new(),
                links_first: false,
                scratch: Vec::new(),
                events: Vec::new(),
                rush: Rush::default(),
                spin: Spin::new(Duration::ZERO, spin),
                bulk: 0,
                verdict: None,
                stats: Stats::default(),
            }),
            followers: Condvar::new(),
            set,
            local,
            arrivals: Mutex::default(),
            arrived: AtomicBool::new(false),
            polled: AtomicBool::new(false),
            payload_max: options.max_payload,
            region_max: options.max_region,
            local_max: options.self_queue,
            spin,
        })
    }

    #[inline]
    fn state(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    /// How those who send look for space.
    pub(crate) fn spin_for_space(&self) -> Spin {
        Spin::for_space(self.spin)
    }

    pub(crate) fn add_to(&self, stats: &mut Stats) {
        let state = self.state();
        stats.received = state.stats.received;
        stats.received_bytes = state.stats.received_bytes;
        stats.skipped = state.stats.skipped;
        stats.links_in = state.links.iter().flatten().count() as u64;
    }

    /// Takes no more; links hang up, so that their senders send elsewhere.
    pub(crate) fn close(&self) {
        self.arrivals().closed = true;
        let mut state = self.state();
        self.take_arrivals(&mut state);
        for slot in 0..state.links.len() {
            self.remove(&mut state, slot);
        }
        state.local.clear();
    }

    /// The descriptor that is readable when there may be a message after a receive said that there is none.
    pub(crate) fn poll_handle(&self) -> BorrowedWaitable<'_> {
        if !self.polled.swap(true, Ordering::SeqCst) {
            // What came before anybody asked: the first look finds it and goes to sleep properly.
            self.local.ring();
        }
        sys::waitable(&self.set)
    }

    fn remove(&self, state: &mut State, slot: usize) {
        if let Some(link) = state.links.get_mut(slot).and_then(Option::take) {
            self.set.remove(link.bell());
            self.set.remove(link.side());
            link.side().close();
        }
        state.active.retain(|s| *s != slot);
        state.turn = 0;
    }

    /// The sender does not keep to the protocol: its link ends, and it gets no other.
    #[cold]
    fn break_off(&self, state: &mut State, slot: usize, reason: &str) {
        if let Some(Some(link)) = state.links.get(slot) {
            log::warn!("the link from endpoint {} is dropped: {reason}", link.peer);
            self.arrivals().ban(link.peer);
        }
        self.remove(state, slot);
    }

    /// Receives a message. The usual case stands here: a small one without handles, on the link whose turn it is. Its
    /// payload is decoded to where the caller wants it: to move a message about costs as much as all the rest.
    #[inline]
    pub(crate) fn recv<R: MessageBox>(&self, patience: Patience) -> Result<Message<R>, RecvError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut usual = self.usual(state);
        if usual.is_none() && matches!(patience, Patience::For(_)) && self.watch_briefly(state) {
            usual = self.usual(state);
        }
        if let Some((slot, record)) = usual
            && let Some(Some(link)) = state.links.get_mut(slot)
            && R::accepts(link.uuid())
        {
            // The end of the turn is not for here.
            state.turn = state.turn.saturating_sub(record.cost()).max(1);
            state.stats.received += 1;
            state.stats.received_bytes += record.len as u64;
            let payload = decode::<R>(link, &record, &mut state.scratch);
            if state.waiting > 0 && state.asleep == 0 {
                self.followers.notify_one();
            }
            return match payload {
                Ok(payload) => Ok(Message::received(payload, Attached::default())),
                Err(error) => Err(state.undecoded(&record, error)),
            };
        }
        self.recv_slowly(guard, patience)
    }

    /// The record at the head of the link whose turn it is, if nothing else is to be done first and it is a plain one.
    #[inline]
    fn usual(&self, state: &mut State) -> Option<(usize, Record)> {
        if state.turn <= 1 || self.arrived.load(Ordering::Acquire) {
            return None;
        }
        let slot = *state.active.front()?;
        let record = state.links.get_mut(slot)?.as_mut()?.next_plain()?;
        Some((slot, record))
    }

    /// Watches the link whose turn it is for the time of a round trip, if spinning has been worth while. True if there may be
    /// something: the answer to what was just sent is taken without reading the clock or looking at anything else.
    #[inline]
    fn watch_briefly(&self, state: &mut State) -> bool {
        if state.turn <= 1 || !state.spin.is_worth_while() {
            return false;
        }
        let Some(Some(link)) = state.active.front().and_then(|slot| state.links.get(*slot)) else {
            return false;
        };
        for _ in 0..state.rush.pauses(state.stats.received) {
            std::hint::spin_loop();
        }
        for looks in 0..BRIEFLY {
            if link.looks_ready() || self.arrived.load(Ordering::Relaxed) {
                state.rush.waited(looks);
                return true;
            }
            std::hint::spin_loop();
        }
        state.rush.waited(BRIEFLY);
        false
    }

    #[inline(never)]
    fn recv_slowly<'s, R: MessageBox>(
        &'s self,
        mut state: Guard<'s, State>,
        patience: Patience,
    ) -> Result<Message<R>, RecvError> {
        let mut deadline = None;
        let mut skipped = 0u32;
        state.said_empty &= matches!(patience, Patience::For(_));
        loop {
            let result = match self.find(&mut state) {
                Found::Record(slot, record) => self.unpack::<R>(&mut state, slot, record),
                Found::TooLarge(slot, record, size) => {
                    let refused = self.refuse::<R>(&mut state, slot, &record, size);
                    refused.map(|error| Err(error.into()))
                }
                Found::Local => unpack_local(self, &mut state),
                Found::Shortage(e) => {
                    Some(Err(Error::io("taking what came with a message", e).into()))
                }
                Found::Nothing => {
                    state = self.idle(state, patience, &mut deadline)?;
                    continue;
                }
            };
            if let Some(result) = result {
                self.let_others_look(&mut state);
                return result;
            }
            skipped += 1;
            if skipped % SKIPS == 0 {
                let given_up = self.give_up_skipping(patience, &mut deadline);
                given_up.map_err(|e| self.without(&mut state, e))?;
            }
        }
    }

    /// A flood of messages that are not taken must not hold a receive longer than it may wait.
    #[cold]
    fn give_up_skipping(
        &self,
        patience: Patience,
        deadline: &mut Option<Option<Instant>>,
    ) -> Result<(), RecvError> {
        let Patience::For(timeout) = patience else {
            // There may be more: who polls has to come back.
            self.local.ring();
            return Err(RecvError::Empty);
        };
        match deadline_of(timeout, deadline) {
            Some(deadline) if deadline <= Instant::now() => Err(RecvError::Timeout),
            _ => Ok(()),
        }
    }

    fn unpack<R: MessageBox>(
        &self,
        state: &mut State,
        slot: usize,
        record: Record,
    ) -> Option<Result<Message<R>, RecvError>> {
        let link = state.links.get_mut(slot)?.as_mut()?;
        let result = unpack(link, record, &mut state.scratch, self.region_max);
        match &result {
            Some(Err(RecvError::Exhausted(..))) => state.let_others_come_first(),
            Some(_) => {
                state.bulk = record.len;
                state.stats.received += 1;
                state.stats.received_bytes += record.len as u64;
            }
            None => state.stats.skipped += 1,
        }
        result
    }

    /// Takes a record off whose payload is too large. `None` if its type is not taken anyway.
    #[cold]
    fn refuse<R: MessageBox>(
        &self,
        state: &mut State,
        slot: usize,
        record: &Record,
        size: usize,
    ) -> Option<DecodeError> {
        let link = state.links.get_mut(slot)?.as_mut()?;
        drop(link.take_handles());
        link.taken(record);
        if !R::accepts(link.uuid()) {
            state.stats.skipped += 1;
            return None;
        }
        state.stats.received += 1;
        let limit = self.payload_max;
        Some(DecodeError(format!(
            "it has {size} bytes, this endpoint takes {limit} (option `max_payload`)"
        )))
    }

    /// Finds the next message.
    fn find(&self, state: &mut State) -> Found {
        if self.arrived.load(Ordering::Acquire) {
            self.take_arrivals(state);
        }
        if state.turn == 0 {
            match state.until_look.checked_sub(1) {
                Some(left) => state.until_look = left,
                None => self.look_at_sleepers(state),
            }
        }
        if !state.local.is_empty() && !std::mem::take(&mut state.links_first) {
            return Found::Local;
        }
        let mut shortage = None;
        let mut empty = 0;
        while empty < state.active.len() {
            let Some(&slot) = state.active.front() else {
                break;
            };
            let Some(link) = state.links.get_mut(slot).and_then(Option::as_mut) else {
                state.active.pop_front();
                continue;
            };
            if crate::fault::on(14)
                && crate::sys::wait_for(link.side(), Some(Duration::ZERO)).is_ok_and(|w| w.1)
            {
                self.remove(state, slot);
                continue;
            }
            match link.next() {
                Ok(Some(record)) => {
                    if state.turn == 0 {
                        state.turn = TURN;
                    }
                    match state.turn.checked_sub(record.cost()) {
                        Some(left @ 1..) => state.turn = left,
                        _ => state.end_turn(),
                    }
                    return Found::Record(slot, record);
                }
                Ok(None) => {
                    if link.hung_up && !link.looks_ready() {
                        self.remove(state, slot);
                        continue;
                    }
                    empty += 1;
                    // The turn of an only link goes on with its next message.
                    if state.active.len() > 1 {
                        state.end_turn();
                    }
                }
                Err(Trouble::Exhausted(e)) => {
                    shortage = Some(e);
                    empty += 1;
                    state.end_turn();
                    state.until_look = 0;
                }
                Err(Trouble::TooLarge(record, size)) => {
                    state.end_turn();
                    return Found::TooLarge(slot, record, size);
                }
                Err(Trouble::Broken(reason)) => self.break_off(state, slot, reason),
            }
        }
        match shortage {
            Some(shortage) => Found::Shortage(shortage),
            None if !state.local.is_empty() => Found::Local,
            None => Found::Nothing,
        }
    }

    /// There is nothing: gives up, or waits until there may be something.
    #[cold]
    fn idle<'s>(
        &'s self,
        mut state: Guard<'s, State>,
        patience: Patience,
        deadline: &mut Option<Option<Instant>>,
    ) -> Result<Guard<'s, State>, RecvError> {
        // It was said before the look that found nothing.
        if let Some(error) = state.verdict.clone() {
            return Err(self.without(&mut state, error));
        }
        let Patience::For(timeout) = patience else {
            if self.polled.load(Ordering::Relaxed) {
                // Every link has to be asleep, and every old ring heard, before the set says something new.
                loop {
                    if !self.prepare(&mut state).0 {
                        return Ok(state);
                    }
                    let rang;
                    (state, rang) = self.sleep(state, Some(Duration::ZERO));
                    if !rang {
                        state.said_empty = true;
                        return Err(self.without(&mut state, RecvError::Empty));
                    }
                }
            }
            // Who only ever tries never sleeps.
            match state.until_look.checked_sub(1) {
                Some(left) => state.until_look = left,
                None => {
                    self.look_at_sleepers(&mut state);
                    self.listen(&mut state);
                }
            }
            if self.has_something(&state) {
                return Ok(state);
            }
            return Err(self.without(&mut state, RecvError::Empty));
        };
        // The clock is read only when there is nothing to do.
        let deadline = deadline_of(timeout, deadline);
        if deadline.is_some_and(|d| d <= Instant::now()) {
            return Err(self.without(&mut state, RecvError::Timeout));
        }
        Ok(self.wait(state, deadline))
    }

    /// A receive ends without a message, and may have been the one that was woken: the next one looks for itself.
    #[cold]
    fn without(&self, state: &mut State, error: RecvError) -> RecvError {
        self.let_others_look(state);
        error
    }

    /// A receive ends. Whoever sleeps on the set, here or elsewhere, is not rung for by links that this thread has woken, and may have
    /// lost the rings that this one heard.
    #[inline]
    fn let_others_look(&self, state: &mut State) {
        if state.asleep == 0 && state.waiting > 0 {
            self.followers.notify_one();
        }
        let others = state.asleep > 0 || state.said_empty;
        if others && (!state.active.is_empty() || self.has_something(state)) {
            state.said_empty = false;
            self.local.ring();
        }
    }

    fn has_something(&self, state: &State) -> bool {
        self.arrived.load(Ordering::Relaxed)
            || !state.local.is_empty()
            || state.active.iter().any(|slot| {
                let link = state.links[*slot].as_ref();
                link.is_some_and(|link| link.looks_ready() || link.hung_up)
            })
    }

    /// Looks at the links that sleep: their bells are not heard while this side is busy.
    #[cold]
    fn look_at_sleepers(&self, state: &mut State) {
        state.until_look = TURN + 16 * state.links.len();
        if state.heard.elapsed() >= LISTEN {
            self.listen(state);
        }
        for (slot, link) in state.links.iter_mut().enumerate() {
            if let Some(link) = link
                && link.sleeps()
                && link.looks_ready()
            {
                link.awake();
                state.active.push_back(slot);
            }
        }
    }
}
