//! What an endpoint receives with: its incoming links, and when to sleep.
//!
//! Links that had messages lately are *active* and looked at in turn. The others are *asleep*, each for itself: its sender
//! rings for the next message. So an endpoint with a thousand quiet links and a busy one looks at the busy one only, and
//! going to sleep touches only what was active. While the endpoint is busy it looks at the sleeping ones now and then,
//! so that a flood on one link does not keep others waiting.

use super::outbox::Sending;
use crate::{
    Error, MemoryRegion, Message, MessageBox, Object, Options, Payload, RecvError, Selector,
    SendError, Stats,
    link::{
        doorbell::fence_before_sleep,
        incoming::{Incoming, Record, Trouble},
    },
    sync::{AtomicBool, Ordering},
    sys::{self, AsHandle, BorrowedHandle, Event, Handle, Interest, Ringer, WaitSet},
};
use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

const LOCAL: u64 = u64::MAX;
/// Messages taken from one link before the next one's turn.
const TURN: u32 = 64;
/// Links from one sender: it may have made a new one before the old one was read to its end.
const LINKS_PER_PEER: usize = 4;
/// Sleep when the system refused to fence a sender.
const SHORT: Duration = Duration::from_millis(1);

pub(crate) struct Inbox {
    state: Mutex<State>,
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
    spin_max: Duration,
}

struct State {
    links: Vec<Option<Incoming>>,
    active: VecDeque<usize>,
    turn: u32,
    since_look: usize,
    /// A thread sleeps on the set.
    led: bool,
    waiting: usize,
    local: VecDeque<Local>,
    scratch: Vec<u8>,
    events: Vec<Event>,
    spin: Duration,
    stats: Stats,
}

#[derive(Default)]
struct Arrivals {
    links: Vec<Incoming>,
    /// The last link of each sender.
    seen: HashMap<u64, u64>,
    local: VecDeque<Local>,
    local_bytes: usize,
    ended: Option<RecvError>,
    closed: bool,
}

/// A message of this endpoint to itself.
struct Local {
    uuid: [u8; 16],
    payload: Vec<u8>,
    objects: Vec<Object>,
    regions: Vec<MemoryRegion>,
}

/// How long a receive may wait.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    None,
    For(Option<Duration>),
}

impl Inbox {
    pub(crate) fn new(options: &Options) -> io::Result<Self> {
        let set = WaitSet::new()?;
        let local = Ringer::local()?;
        set.add(&local, LOCAL, Interest::Arrivals)?;
        let alone = std::thread::available_parallelism().map_or(1, usize::from) < 2;
        Ok(Self {
            state: Mutex::new(State {
                links: Vec::new(),
                active: VecDeque::new(),
                turn: 0,
                since_look: 0,
                led: false,
                waiting: 0,
                local: VecDeque::new(),
                scratch: Vec::new(),
                events: Vec::new(),
                spin: Duration::ZERO,
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
            spin_max: if alone { Duration::ZERO } else { options.spin },
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn may_spin(&self) -> bool {
        !self.spin_max.is_zero()
    }

    pub(crate) fn add_to(&self, stats: &mut Stats) {
        let state = self.state();
        stats.received = state.stats.received;
        stats.received_bytes = state.stats.received_bytes;
        stats.skipped = state.stats.skipped;
        stats.links_in = state.links.iter().flatten().count() as u64;
    }

    /// Another endpoint made a link. Called on the serving thread, which must not wait for a receiving one. After a change
    /// of the controller an introduction may come a second time; a sender numbers its links upwards.
    pub(crate) fn introduced(&self, from: u64, number: u64, handles: Vec<Handle>) {
        if self
            .arrivals()
            .seen
            .get(&from)
            .is_some_and(|n| *n >= number)
        {
            return;
        }
        let link = match Incoming::accept(from, handles, self.payload_max) {
            Ok(link) => link,
            Err(e) => {
                log::warn!("a link from endpoint {from} was refused: {e}");
                return;
            }
        };
        let mut arrivals = self.arrivals();
        let theirs = arrivals.links.iter().filter(|l| l.peer == from).count();
        if arrivals.closed || theirs >= LINKS_PER_PEER {
            link.side().close();
            return;
        }
        arrivals.seen.insert(from, number);
        arrivals.links.push(link);
        drop(arrivals);
        self.arrive();
    }

    fn arrive(&self) {
        self.arrived.store(true, Ordering::Release);
        self.local.ring();
    }

    /// A message of the endpoint to itself.
    pub(crate) fn push_local(&self, message: &Sending<'_>) -> Result<(), SendError> {
        let len = message.head.len() + message.tail.len();
        let copy = || -> io::Result<Local> {
            let mut payload = Vec::new();
            payload
                .try_reserve_exact(len)
                .map_err(|_| io::ErrorKind::OutOfMemory)?;
            payload.extend_from_slice(message.head);
            payload.extend_from_slice(message.tail);
            let objects = message.objects.iter().map(Object::clone);
            let regions = message.regions.iter().map(MemoryRegion::clone);
            Ok(Local {
                uuid: message.uuid,
                payload,
                objects: objects.collect::<io::Result<_>>()?,
                regions: regions.collect::<io::Result<_>>()?,
            })
        };
        let local = copy().map_err(super::outbox::io_error)?;
        let mut arrivals = self.arrivals();
        if arrivals.closed {
            return Ok(());
        }
        // A fixed part, so that empty messages are bounded, too.
        let cost = len + 64;
        if arrivals.local_bytes.saturating_add(cost) > self.local_max {
            return Err(SendError::SelfQueueFull {
                limit: self.local_max,
            });
        }
        arrivals.local_bytes += cost;
        arrivals.local.push_back(local);
        drop(arrivals);
        self.arrive();
        Ok(())
    }

    /// The membership has ended: when nothing is left to receive, that is the answer.
    pub(crate) fn end(&self, error: RecvError) {
        self.arrivals().ended = Some(error);
        self.arrive();
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
    pub(crate) fn poll_handle(&self) -> BorrowedHandle<'_> {
        if !self.polled.swap(true, Ordering::SeqCst) {
            // What came before anybody asked: the first look finds it and goes to sleep properly.
            self.local.ring();
        }
        self.set.as_fd()
    }

    fn take_arrivals(&self, state: &mut State) -> Option<RecvError> {
        if !self.arrived.load(Ordering::Acquire) {
            return None;
        }
        let mut arrivals = self.arrivals();
        state.local.append(&mut arrivals.local);
        arrivals.local_bytes = 0;
        for link in arrivals.links.drain(..) {
            let theirs = state.links.iter().flatten().filter(|l| l.peer == link.peer);
            if theirs.count() >= LINKS_PER_PEER {
                log::warn!("endpoint {} makes too many links", link.peer);
                link.side().close();
                continue;
            }
            let slot = match state.links.iter().position(Option::is_none) {
                Some(slot) => slot,
                None => {
                    state.links.push(None);
                    state.links.len() - 1
                }
            };
            let bell = self
                .set
                .add(link.bell(), slot as u64 * 2, Interest::Arrivals);
            let side = self
                .set
                .add(link.side(), slot as u64 * 2 + 1, Interest::Hangup);
            if let Err(e) = bell.and(side) {
                log::warn!("a link from endpoint {} was refused: {e}", link.peer);
                self.set.remove(link.bell());
                link.side().close();
                continue;
            }
            state.links[slot] = Some(link);
            state.active.push_back(slot);
        }
        match &arrivals.ended {
            // It stays, and so does the flag.
            Some(error) => Some(error.clone()),
            None => {
                self.arrived.store(false, Ordering::Release);
                None
            }
        }
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

    /// Receives a message.
    #[inline]
    pub(crate) fn recv<R: MessageBox>(&self, patience: Patience) -> Result<Message<R>, RecvError> {
        let mut state = self.state();
        let mut deadline = None;
        loop {
            let ended = self.take_arrivals(&mut state);
            if let Some(result) = self.take(&mut state) {
                if state.waiting > 0 && !state.led {
                    self.followers.notify_one();
                }
                return result;
            }
            if let Some(error) = ended {
                return Err(error);
            }
            let Patience::For(timeout) = patience else {
                if self.polled.load(Ordering::Relaxed) {
                    // Every link has to be asleep, and every old ring heard, before the set says something new.
                    let quiet = loop {
                        if !self.prepare(&mut state).0 {
                            break false;
                        }
                        let rang;
                        (state, rang) = self.sleep(state, Some(Duration::ZERO));
                        if !rang {
                            break true;
                        }
                    };
                    if !quiet {
                        continue;
                    }
                } else if self.has_something(&state) {
                    continue;
                }
                return Err(RecvError::Empty);
            };
            // The clock is read only when there is nothing to do.
            let deadline = *deadline.get_or_insert_with(|| {
                timeout.and_then(|timeout| Instant::now().checked_add(timeout))
            });
            if deadline.is_some_and(|d| d <= Instant::now()) {
                return Err(RecvError::Timeout);
            }
            state = self.wait(state, deadline);
        }
    }

    fn has_something(&self, state: &State) -> bool {
        self.arrived.load(Ordering::Relaxed)
            || !state.local.is_empty()
            || state.active.iter().any(|slot| {
                state.links[*slot]
                    .as_ref()
                    .is_some_and(Incoming::looks_ready)
            })
    }

    /// Takes the next message from the links whose turn it is.
    #[inline]
    fn take<R: MessageBox>(&self, state: &mut State) -> Option<Result<Message<R>, RecvError>> {
        let mut shortage = None;
        let mut empty = 0;
        state.since_look += 1;
        if state.since_look > 64 + 16 * state.links.len() {
            self.look_at_sleepers(state);
        }
        if !state.local.is_empty()
            && let Some(result) = take_local(state)
        {
            return Some(result);
        }
        while empty < state.active.len() {
            let slot = *state.active.front()?;
            let Some(link) = state.links.get_mut(slot).and_then(Option::as_mut) else {
                state.active.pop_front();
                continue;
            };
            match link.next() {
                Ok(Some(record)) => {
                    state.turn += 1;
                    let bytes = record.len;
                    state.since_look += bytes / 4096;
                    let result = finish(link, record, &mut state.scratch, self.region_max);
                    match &result {
                        Some(_) => {
                            state.stats.received += 1;
                            state.stats.received_bytes += bytes as u64;
                        }
                        None => state.stats.skipped += 1,
                    }
                    if state.turn >= TURN {
                        state.turn = 0;
                        state.active.rotate_left(1);
                    }
                    if result.is_some() {
                        return result;
                    }
                }
                Ok(None) => {
                    if link.hung_up && !link.looks_ready() {
                        self.remove(state, slot);
                        continue;
                    }
                    empty += 1;
                    state.turn = 0;
                    state.active.rotate_left(1);
                }
                Err(Trouble::Exhausted(e)) => {
                    shortage = Some(e);
                    empty += 1;
                    state.turn = 0;
                    state.active.rotate_left(1);
                }
                Err(Trouble::Broken(reason)) => {
                    log::warn!("the link from endpoint {} is dropped: {reason}", link.peer);
                    self.remove(state, slot);
                }
            }
        }
        shortage.map(|e| Err(Error::io("taking what came with a message", e).into()))
    }

    /// Looks at the links that sleep: their bells are not heard while this side is busy.
    #[cold]
    fn look_at_sleepers(&self, state: &mut State) {
        state.since_look = 0;
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

    /// Waits for a message: spins a little, then sleeps.
    #[cold]
    fn wait<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'s, State> {
        if state.led {
            state.waiting += 1;
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            state = match left {
                None => self
                    .followers
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.followers
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
            state.waiting -= 1;
            return state;
        }
        if self.spin(&mut state, deadline) {
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
        // A sleep that was shorter than spinning would have been: spin longer next time.
        if slept && start.elapsed() < self.spin_max {
            state.spin = (state.spin * 2).clamp(Duration::from_micros(4), self.spin_max);
        }
        state
    }

    /// Looks at the active links for a while; true if there is something.
    fn spin(&self, state: &mut State, deadline: Option<Instant>) -> bool {
        if self.spin_max.is_zero() {
            return false;
        }
        let start = Instant::now();
        let budget = state.spin.max(Duration::from_micros(2));
        let mut rounds = 0u32;
        loop {
            for _ in 0..32 {
                if self.has_something(state) {
                    state.spin = (state.spin * 2).clamp(Duration::from_micros(4), self.spin_max);
                    return true;
                }
                std::hint::spin_loop();
            }
            rounds += 1;
            let now = Instant::now();
            if now - start >= budget || deadline.is_some_and(|d| d <= now) {
                state.spin /= 2;
                return false;
            }
            if rounds % 8 == 0 {
                sys::yield_now();
            }
        }
    }

    /// Announces to the senders of all active links that this side sleeps, and looks once more. Returns whether it may
    /// sleep now, and for as long as it likes.
    fn prepare(&self, state: &mut State) -> (bool, bool) {
        let mut everybody = false;
        let announced: Vec<usize> = state.active.drain(..).collect();
        for slot in &announced {
            if let Some(Some(link)) = state.links.get_mut(*slot) {
                everybody |= link.announce_sleep();
            }
        }
        let fenced = fence_before_sleep(everybody);
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
    fn sleep<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        timeout: Option<Duration>,
    ) -> (MutexGuard<'s, State>, bool) {
        let mut events = std::mem::take(&mut state.events);
        events.clear();
        state.led = true;
        drop(state);
        if let Err(e) = self.set.wait(&mut events, timeout) {
            log::error!("cannot wait for messages: {e}");
        }
        let mut state = self.state();
        state.led = false;
        if state.waiting > 0 {
            self.followers.notify_one();
        }
        let rang = !events.is_empty();
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
            }
            if link.sleeps() {
                link.awake();
                state.active.push_back(slot);
            }
        }
        state.events = events;
        (state, rang)
    }
}

/// Decodes a record, takes it off, and makes a message of it. `None` if its type is not taken.
#[inline]
fn finish<R: MessageBox>(
    link: &mut Incoming,
    mut record: Record,
    scratch: &mut Vec<u8>,
    region_max: u64,
) -> Option<Result<Message<R>, RecvError>> {
    if !R::accepts(&record.uuid) {
        link.taken(&record);
        return None;
    }
    let decoded = {
        let taken = TakenOnDrop(link, &record);
        // SAFETY: the payload lies in the ring or in a mapped block, which stay until the record is taken off.
        let mut payload = unsafe { Payload::from_shared(record.payload, record.len, scratch) };
        let decoded = R::decode(&record.uuid, &mut payload);
        drop(payload);
        drop(taken);
        decoded
    };
    let payload = match decoded {
        Ok(payload) => payload,
        Err(error) => return Some(Err(error.into())),
    };
    let mut message = Message::new(Selector::unicast(crate::LabelOp::True), payload);
    if !record.handles.is_empty() {
        let regions = record.handles.split_off(usize::from(record.objects));
        message.objects = record.handles.into_iter().map(Object::from).collect();
        for region in regions {
            match MemoryRegion::from_fd(region, region_max) {
                Ok(region) => message.memory_regions.push(region),
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
    Some(Ok(message))
}

/// Takes a record off also when decoding it panics: it would be first in line for ever.
struct TakenOnDrop<'l>(&'l mut Incoming, &'l Record);

impl Drop for TakenOnDrop<'_> {
    fn drop(&mut self) {
        self.0.taken(self.1);
    }
}

fn take_local<R: MessageBox>(state: &mut State) -> Option<Result<Message<R>, RecvError>> {
    while let Some(local) = state.local.pop_front() {
        if !R::accepts(&local.uuid) {
            state.stats.skipped += 1;
            continue;
        }
        state.stats.received += 1;
        state.stats.received_bytes += local.payload.len() as u64;
        let payload = match R::decode(&local.uuid, &mut Payload::new(&local.payload)) {
            Ok(payload) => payload,
            Err(error) => return Some(Err(error.into())),
        };
        let mut message = Message::new(Selector::unicast(crate::LabelOp::True), payload);
        message.objects = local.objects;
        message.memory_regions = local.regions;
        return Some(Ok(message));
    }
    None
}
