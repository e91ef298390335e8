//! The serving thread: one per process while it has endpoints. It serves the control channels of all of them and the
//! controllers that this process hosts, and sleeps when nothing happens. No message of the bus passes through it.

use super::{
    controller::{Controller, Wiring},
    member::{Bus, Events, Member, Membership, Next, Parked, Phase},
    protocol::ToController,
};
use crate::{
    JoinError,
    sys::{
        self, AsHandle, BorrowedHandle, Channel, Event, Handle, Interest, Memory, Protection,
        Ringer, WaitSet,
    },
};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Handles that a leaver may leave behind, and bytes.
const LEFT_HANDLES: usize = 64;
const LEFT_BYTES: usize = 64 << 20;

/// A leaver that finds no controller so many times is the last one.
const LAST_TRY: u32 = 8;

const COMMANDS: u64 = 0;

enum Command {
    Join(u64, Box<Member>),
    /// A new outgoing link: watch its side channel.
    Watch(u64, u64, Arc<Channel>),
    /// Whether more than the death of a link's receiver is news.
    Listen(u64, u64, bool),
    Unwatch(u64, u64),
    /// Introductions are due.
    Introduce(u64),
    /// Tell the endpoint when the directory changes, or no longer.
    WatchDirectory(u64, bool),
    /// Tell the endpoint when this time has come.
    ExpireAt(u64, Option<Instant>),
    StopReceiving(u64),
    Leave(u64, Vec<Parked>),
    /// Forget the member at once, without a word to the controller.
    Abandon(u64),
    Stop,
}

struct Shared {
    commands: Mutex<Vec<Command>>,
    ringer: Ringer,
    next: crate::sync::AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
    generation: u32,
}

impl Shared {
    fn command(&self, command: Command) {
        self.commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(command);
        self.ringer.ring();
    }
}

/// Keeps the serving thread alive; the last one ends it.
struct Lease(Arc<Shared>);

impl Drop for Lease {
    fn drop(&mut self) {
        if sys::fork::forked_since(self.0.generation) {
            return;
        }
        self.0.command(Command::Stop);
        let thread = self
            .0
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

static RUNNING: Mutex<Option<std::sync::Weak<Lease>>> = Mutex::new(None);

fn lease() -> io::Result<Arc<Lease>> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(lease) = running.as_ref().and_then(std::sync::Weak::upgrade)
        && !sys::fork::forked_since(lease.0.generation)
    {
        return Ok(lease);
    }
    // At once while the process has one thread; later it takes the kernel some milliseconds.
    sys::fences_reach_us();
    let set = WaitSet::new()?;
    let ringer = Ringer::local()?;
    set.add(&ringer, COMMANDS, Interest::Arrivals)?;
    let shared = Arc::new(Shared {
        commands: Mutex::new(Vec::new()),
        ringer,
        next: crate::sync::AtomicU64::new(1),
        thread: Mutex::new(None),
        generation: sys::fork::generation(),
    });
    let reactor = Reactor {
        shared: shared.clone(),
        wires: Wires { set, next: 1 },
        members: HashMap::new(),
        controllers: HashMap::new(),
        sources: HashMap::new(),
        stop: false,
    };
    let thread = sys::spawn("ipmb", move || reactor.run())?;
    *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    let lease = Arc::new(Lease(shared));
    *running = Some(Arc::downgrade(&lease));
    Ok(lease)
}

/// Gives the serving thread orders about one endpoint.
#[derive(Clone)]
pub(crate) struct Orders {
    shared: Arc<Shared>,
    member: u64,
}

impl Orders {
    fn give(&self, command: Command) {
        if !sys::fork::forked_since(self.shared.generation) {
            self.shared.command(command);
        }
    }

    /// Watch the side channel of a new outgoing link.
    pub(crate) fn watch(&self, link: u64, side: Arc<Channel>) {
        self.give(Command::Watch(self.member, link, side));
    }

    /// The link is accepted, so that only its death is news; or `arrivals` are news for a while.
    pub(crate) fn listen(&self, link: u64, arrivals: bool) {
        self.give(Command::Listen(self.member, link, arrivals));
    }

    pub(crate) fn unwatch(&self, link: u64) {
        self.give(Command::Unwatch(self.member, link));
    }

    /// Introductions are due.
    pub(crate) fn introduce(&self) {
        self.give(Command::Introduce(self.member));
    }

    /// Tell, or no longer tell, when the directory changes.
    pub(crate) fn watch_directory(&self, on: bool) {
        self.give(Command::WatchDirectory(self.member, on));
    }

    /// Tell the endpoint at this time that something it keeps has expired.
    pub(crate) fn expire_at(&self, at: Option<Instant>) {
        self.give(Command::ExpireAt(self.member, at));
    }

    pub(crate) fn stop_receiving(&self) {
        self.give(Command::StopReceiving(self.member));
    }

    pub(crate) fn leave(&self, parked: Vec<Parked>) {
        self.give(Command::Leave(self.member, parked));
    }
}

/// Keeps an endpoint served. Dropping it forgets the member.
pub(crate) struct Served {
    /// Dropped after the member was abandoned; the last one waits for the thread's end.
    _lease: Arc<Lease>,
    orders: Orders,
}

impl Served {
    /// Starts a membership; `membership` tells how it goes.
    pub(crate) fn start(
        bus: Bus,
        membership: Arc<Membership>,
        make_events: impl FnOnce(Orders) -> Arc<dyn Events>,
    ) -> Result<Self, JoinError> {
        let lease = lease().map_err(|e| JoinError::io("starting the serving thread", e))?;
        let orders = Orders {
            shared: lease.0.clone(),
            member: lease.0.next.fetch_add(1, crate::sync::Ordering::Relaxed),
        };
        let events = make_events(orders.clone());
        let member = Member::new(bus, membership, events)
            .map_err(|e| JoinError::io("drawing a random number", e))?;
        orders.give(Command::Join(orders.member, Box::new(member)));
        Ok(Self {
            _lease: lease,
            orders,
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.orders.give(Command::Abandon(self.orders.member));
    }
}

struct Wires {
    set: WaitSet,
    next: u64,
}

impl Wiring for Wires {
    fn watch(&mut self, handle: BorrowedHandle<'_>, interest: Interest) -> io::Result<u64> {
        let token = self.next;
        self.set.add(handle, token, interest)?;
        self.next += 1;
        Ok(token)
    }

    fn change(&mut self, handle: BorrowedHandle<'_>, token: u64, interest: Interest) {
        if let Err(e) = self.set.change(handle, token, interest) {
            log::warn!("a watch could not be changed: {e}");
        }
    }

    fn forget(&mut self, handle: BorrowedHandle<'_>, _token: u64) {
        self.set.remove(handle);
    }
}

/// What a token of the set stands for; what is not here belongs to a controller.
enum Source {
    Control(u64, Arc<Channel>),
    Side(u64, u64, Arc<Channel>),
}

struct Reactor {
    shared: Arc<Shared>,
    wires: Wires,
    members: HashMap<u64, Member>,
    controllers: HashMap<u64, Controller>,
    sources: HashMap<u64, Source>,
    stop: bool,
}

impl Reactor {
    fn run(mut self) {
        let mut events = Vec::new();
        while !self.stop {
            let now = Instant::now();
            self.tick(now);
            let deadlines = self.members.values().flat_map(|m| [m.retry, m.expiry]);
            let deadlines = deadlines.flatten();
            let deadlines = deadlines.chain(self.controllers.values().filter_map(|c| c.deadline()));
            let timeout = deadlines.min().map(|d| d.saturating_duration_since(now));
            events.clear();
            if let Err(e) = self.wires.set.wait(&mut events, timeout) {
                log::error!("the serving thread cannot wait: {e}");
                return;
            }
            for event in events.drain(..) {
                self.event(event);
            }
            let commands = std::mem::take(
                &mut *self
                    .shared
                    .commands
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            for command in commands {
                self.command(command);
            }
        }
        let controllers: Vec<u64> = self.controllers.keys().copied().collect();
        for key in controllers {
            self.give_up(key, None);
        }
    }

    fn tick(&mut self, now: Instant) {
        let keys: Vec<u64> = self.controllers.keys().copied().collect();
        for key in keys {
            if let Some(controller) = self.controllers.get_mut(&key)
                && controller.deadline().is_some_and(|d| d <= now)
            {
                controller.tick(now, &mut self.wires);
            }
        }
        for member in self.members.values_mut() {
            if member.expiry.is_some_and(|at| at <= now) {
                member.expiry = None;
                member.events.expired();
            }
        }
        let due: Vec<u64> = self
            .members
            .iter()
            .filter(|(_, m)| m.retry.is_some_and(|at| at <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            self.seek(key);
        }
    }

    fn event(&mut self, event: Event) {
        if event.token == COMMANDS {
            return;
        }
        match self.sources.get(&event.token) {
            Some(Source::Control(key, _)) => {
                let key = *key;
                if event.writable {
                    self.introduce(key);
                }
                if event.readable || event.hangup {
                    self.read(key);
                }
            }
            Some(Source::Side(key, link, _)) => {
                let (key, link) = (*key, *link);
                if let Some(member) = self.members.get(&key) {
                    member.events.clone().side_news(link, event.hangup);
                }
            }
            None => {
                for controller in self.controllers.values_mut() {
                    if controller.event(event, &mut self.wires) {
                        break;
                    }
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Join(key, mut member) => {
                member.retry = Some(Instant::now());
                self.members.insert(key, *member);
                self.seek(key);
            }
            Command::Watch(key, link, side) => {
                match self.wires.watch(side.as_fd(), Interest::Arrivals) {
                    Ok(token) => drop(self.sources.insert(token, Source::Side(key, link, side))),
                    Err(e) => log::warn!("a link could not be watched: {e}"),
                }
            }
            Command::Listen(key, link, arrivals) => {
                let interest = match arrivals {
                    true => Interest::Arrivals,
                    false => Interest::Hangup,
                };
                if let Some(token) = self.side_token(key, link)
                    && let Some(Source::Side(_, _, side)) = self.sources.get(&token)
                {
                    self.wires.change(side.as_fd(), token, interest);
                }
            }
            Command::Unwatch(key, link) => {
                if let Some(token) = self.side_token(key, link)
                    && let Some(Source::Side(_, _, side)) = self.sources.remove(&token)
                {
                    self.wires.forget(side.as_fd(), token);
                }
            }
            Command::Introduce(key) => self.introduce(key),
            Command::WatchDirectory(key, on) => {
                if let Some(member) = self.members.get_mut(&key) {
                    member.watches = on;
                    if member.is_member() {
                        member.send(&ToController::Watch(on), &[]);
                    }
                }
            }
            Command::ExpireAt(key, at) => {
                if let Some(member) = self.members.get_mut(&key) {
                    member.expiry = at;
                }
            }
            Command::StopReceiving(key) => {
                if let Some(member) = self.members.get_mut(&key) {
                    member.receives = false;
                    if member.is_member() {
                        member.send(&ToController::StopReceiving, &[]);
                    }
                }
            }
            Command::Leave(key, parked) => self.leave(key, parked),
            Command::Abandon(key) => self.end(key),
            Command::Stop => self.stop = true,
        }
    }

    fn side_token(&self, key: u64, link: u64) -> Option<u64> {
        self.sources
            .iter()
            .find(|(_, s)| matches!(s, Source::Side(k, l, _) if *k == key && *l == link))
            .map(|(token, _)| *token)
    }

    /// Connects to the controller, or becomes it.
    fn seek(&mut self, key: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        member.retry = None;
        if member.channel.is_some() {
            // It was only short of handles.
            self.read(key);
            return;
        }
        let found = member.bus.rendezvous.connect();
        match found {
            Ok(Some(channel)) => {
                if let Err(error) = member.greet(channel) {
                    member.fail(error);
                    self.end(key);
                    return;
                }
                let Some(channel) = member.channel.clone() else {
                    return;
                };
                match self.wires.watch(channel.as_fd(), Interest::Readable) {
                    Ok(token) => {
                        self.sources.insert(token, Source::Control(key, channel));
                    }
                    Err(e) => {
                        member.fail(JoinError::io("watching the controller", e));
                        self.end(key);
                    }
                }
            }
            Ok(None) => self.run_for_it(key),
            Err(e) => {
                member.fail(JoinError::io("connecting to the controller", e));
                self.end(key);
            }
        }
    }

    /// Nobody is the controller: try to win the seat.
    fn run_for_it(&mut self, key: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        if member.may_host() {
            match member.bus.rendezvous.win() {
                Ok(Some(seat)) => {
                    let before = member.membership.status().directory.clone();
                    let controller = Controller::new(
                        seat,
                        member.bus.clone(),
                        before,
                        member.mark.clone(),
                        member.events.clone(),
                        &mut self.wires,
                    );
                    match controller {
                        Ok(controller) => {
                            member.hosts = Some(controller.seat_token());
                            self.controllers.insert(controller.seat_token(), controller);
                            self.seek(key);
                        }
                        Err(e) => {
                            member.fail(JoinError::io("hosting the controller", e));
                            self.end(key);
                        }
                    }
                    return;
                }
                Ok(None) => {}
                Err(e) => {
                    member.fail(JoinError::io("binding the bus's name", e));
                    self.end(key);
                    return;
                }
            }
        }
        // Somebody has the name and does not listen yet, or its queue is full, or nobody wants it.
        member.tries = (member.tries + 1).min(16);
        if member.leaving.is_some() && !member.may_host() && member.tries >= LAST_TRY {
            self.left(key);
            return;
        }
        let pause = match member.may_host() {
            true => Duration::from_micros(100) * member.tries,
            false => Duration::from_millis(1) * (1 << member.tries.min(5)),
        };
        member.retry = Some(Instant::now() + pause);
    }

    fn read(&mut self, key: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        match member.read() {
            Next::Nothing => {
                if member.owes_introductions && member.is_member() {
                    self.introduce(key);
                }
                self.leave_if_joined(key);
            }
            Next::Seek => {
                self.disconnect(key);
                self.seek(key);
            }
            Next::End => {
                if self.members.get(&key).is_some_and(|m| m.leaving.is_some()) {
                    self.left(key);
                } else {
                    self.end(key);
                }
            }
        }
    }

    fn disconnect(&mut self, key: u64) {
        if let Some(member) = self.members.get_mut(&key) {
            member.disconnected();
        }
        let tokens: Vec<u64> = self
            .sources
            .iter()
            .filter(|(_, s)| matches!(s, Source::Control(k, _) if *k == key))
            .map(|(token, _)| *token)
            .collect();
        for token in tokens {
            if let Some(Source::Control(_, channel)) = self.sources.remove(&token) {
                self.wires.forget(channel.as_fd(), token);
            }
        }
    }

    /// Sends the introductions that are due; asks to be told of room if there was none.
    fn introduce(&mut self, key: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        if !member.is_member() {
            member.owes_introductions = true;
            return;
        }
        let Some(channel) = member.channel.clone() else {
            return;
        };
        let before = member.owes_introductions;
        member.owes_introductions = !member.events.clone().introduce(&channel);
        if member.owes_introductions || before {
            let interest = match member.owes_introductions {
                true => Interest::ReadableOrWritable,
                false => Interest::Readable,
            };
            let token = self
                .sources
                .iter()
                .find(|(_, s)| matches!(s, Source::Control(k, _) if *k == key))
                .map(|(token, _)| *token);
            if let Some(token) = token {
                self.wires.change(channel.as_fd(), token, interest);
            }
        }
    }

    fn leave(&mut self, key: u64, parked: Vec<Parked>) {
        if let Some(member) = self.members.get_mut(&key) {
            member.leaving = Some(parked);
            self.leave_if_joined(key);
        }
    }

    /// The leaver hosts the controller: others take over. What it has parked goes to whoever does.
    fn leave_the_seat(&mut self, key: u64, seat: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        let id = member.membership.status().id;
        member.hosts = None;
        member.gave_up = true;
        let nothing_parked = member.leaving.as_ref().is_none_or(Vec::is_empty);
        let alone = !self
            .controllers
            .get(&seat)
            .is_some_and(|c| c.has_others(id));
        self.give_up(seat, Some(id));
        if nothing_parked || alone {
            self.left(key);
        } else {
            self.disconnect(key);
        }
    }

    /// A leave is complete.
    fn left(&mut self, key: u64) {
        if let Some(member) = self.members.get_mut(&key) {
            let lost = member.leaving.take().map_or(0, |p| p.len());
            if lost > 0 {
                log::warn!("{lost} parked messages are lost: nobody took them over");
            }
            member.membership.change(|s| s.phase = Phase::Left);
            member.events.ended();
        }
        self.end(key);
    }

    /// Sends what a leaver leaves behind, and its farewell.
    fn leave_if_joined(&mut self, key: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        if !member.is_member() || member.leaving.is_none() || member.said_good_bye {
            return;
        }
        if let Some(seat) = member.hosts {
            self.leave_the_seat(key, seat);
            return;
        }
        member.said_good_bye = true;
        let parked = member.leaving.as_mut().map(std::mem::take);
        let parked = parked.unwrap_or_default();
        let (mut handles, mut bytes, mut lost) = (0, 0, 0);
        for message in parked {
            handles += message.objects.len() + message.regions.len();
            bytes += message.payload.len();
            if handles > LEFT_HANDLES || bytes > LEFT_BYTES || !park(member, &message) {
                lost += 1;
            }
        }
        if lost > 0 {
            log::warn!("{lost} parked messages are lost: more than a leaver may leave behind");
        }
        member.send(&ToController::Leave, &[]);
    }

    fn give_up(&mut self, seat: u64, leaver: Option<u64>) {
        if let Some(controller) = self.controllers.remove(&seat) {
            controller.give_up(leaver, &mut self.wires);
        }
    }

    /// Forgets a member.
    fn end(&mut self, key: u64) {
        self.disconnect(key);
        let Some(member) = self.members.remove(&key) else {
            return;
        };
        if let Some(seat) = member.hosts {
            self.give_up(seat, None);
        }
        let tokens: Vec<u64> = self
            .sources
            .iter()
            .filter(|(_, s)| matches!(s, Source::Side(k, ..) if *k == key))
            .map(|(token, _)| *token)
            .collect();
        for token in tokens {
            if let Some(Source::Side(_, _, side)) = self.sources.remove(&token) {
                self.wires.forget(side.as_fd(), token);
            }
        }
    }
}

/// Sends one parked message to the controller.
fn park(member: &Member, message: &Parked) -> bool {
    let send = || -> io::Result<()> {
        let memory = Memory::new(c"ipmb-parked", message.payload.len().max(1))?;
        let mapping = memory.map_all(Protection::ReadWrite)?;
        // SAFETY: the mapping has room for the payload and is not shared yet.
        unsafe { crate::sync::copy_to_shared(&message.payload, mapping.start()) };
        drop(mapping);
        let mut handles = vec![memory.as_fd()];
        let attached = message.objects.iter().chain(&message.regions);
        handles.extend(attached.map(Handle::as_fd));
        let packet = super::protocol::encode(&ToController::Park {
            uuid: message.uuid,
            label_op: message.label_op.clone(),
            multicast: message.multicast,
            remaining_ms: u64::try_from(message.remaining.as_millis()).unwrap_or(u64::MAX),
            len: message.payload.len() as u64,
            objects: message.objects.len() as u8,
            regions: message.regions.len() as u8,
        });
        match &member.channel {
            Some(channel) => channel.send(&packet, &handles),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    };
    send()
        .inspect_err(|e| log::warn!("a parked message could not be handed over: {e}"))
        .is_ok()
}
