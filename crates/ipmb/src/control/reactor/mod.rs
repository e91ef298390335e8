//! The serving thread: one per process while it has endpoints. It serves the control channels of all of them and the
//! controllers that this process hosts, and sleeps when nothing happens. Of messages only those pass
//! through it that a leaver had parked.

mod election;
mod leaving;
mod orders;
mod thread;

pub(crate) use orders::{Orders, Served};

use super::{
    controller::{Controller, Wiring},
    member::{Member, Next},
};
use crate::{
    JoinError,
    sys::{AsSource, Channel, Event, Interest, SourceRef, WaitSet},
};
use orders::Command;
use std::{
    collections::HashMap,
    io,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};
use thread::Shared;

/// A leaver that finds no controller so many times is the last one: after some 60 ms, or 0.8 s if it has something to hand over.
const LAST_TRY: u32 = 8;
const LAST_TRY_TO_HAND_OVER: u32 = 32;

/// When to look again at a shortage that nobody reports the end of.
const SHORTAGE: Duration = Duration::from_millis(10);

/// How long to leave a controller alone that does not do its work.
const SHUN: Duration = Duration::from_millis(50);

const COMMANDS: u64 = 0;

struct Wires {
    set: WaitSet,
    next: u64,
}

impl Wiring for Wires {
    fn watch(&mut self, source: SourceRef<'_>, interest: Interest) -> io::Result<u64> {
        let token = self.next;
        self.set.add(source, token, interest)?;
        self.next += 1;
        Ok(token)
    }

    fn change(&mut self, source: SourceRef<'_>, token: u64, interest: Interest) {
        if let Err(e) = self.set.change(source, token, interest) {
            log::warn!("a watch could not be changed: {e}");
        }
    }

    fn forget(&mut self, source: SourceRef<'_>, _token: u64) {
        self.set.remove(source);
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
                self.fail_all(e);
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
                    self.pay(key);
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
                match self.wires.watch(side.source(), Interest::Arrivals) {
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
                    self.wires.change(side.source(), token, interest);
                }
            }
            Command::Unwatch(key, link) => {
                if let Some(token) = self.side_token(key, link)
                    && let Some(Source::Side(_, _, side)) = self.sources.remove(&token)
                {
                    self.wires.forget(side.source(), token);
                }
            }
            Command::Introduce(key) => {
                if let Some(member) = self.members.get_mut(&key) {
                    member.owes_introductions = true;
                    self.pay(key);
                }
            }
            Command::WatchDirectory(key, on) => {
                if let Some(member) = self.members.get_mut(&key) {
                    member.watch(on);
                    self.pay(key);
                }
            }
            Command::ExpireAt(key, at) => {
                if let Some(member) = self.members.get_mut(&key) {
                    member.expiry = at;
                }
            }
            Command::Distrust(key, directory) => {
                // By now it may have another one.
                let still = |m: &Member| {
                    let current = m.membership.status().directory.clone();
                    m.is_member() && current.is_some_and(|d| Arc::ptr_eq(&d, &directory))
                };
                if self.members.get(&key).is_some_and(still) {
                    log::warn!("the controller's directory makes no sense; looking for another");
                    self.shun(key);
                }
            }
            Command::StopReceiving(key) => {
                if let Some(member) = self.members.get_mut(&key) {
                    member.stop_receiving();
                    self.pay(key);
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

    fn read(&mut self, key: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        match member.read() {
            Next::Nothing => self.pay(key),
            Next::Pause => {
                member.paused = true;
                member.retry_in(SHORTAGE);
                self.watch_control(key);
            }
            Next::Seek => {
                self.disconnect(key);
                if self.members.get(&key).is_some_and(Member::is_due) {
                    self.seek(key);
                }
            }
            Next::Shun => self.shun(key),
            Next::End => {
                if self.members.get(&key).is_some_and(|m| m.leaving.is_some()) {
                    self.left(key);
                } else {
                    self.end(key);
                }
            }
        }
    }

    /// Breaks with the controller for a while.
    fn shun(&mut self, key: u64) {
        self.disconnect(key);
        if let Some(member) = self.members.get_mut(&key) {
            member.retry = None;
            member.retry_in(SHUN);
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
                self.wires.forget(channel.source(), token);
            }
        }
    }

    /// Tells the controller what it has to be told, as far as there is room.
    fn pay(&mut self, key: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        match member.pay() {
            Ok(()) => {
                member.wants_room = false;
                self.leave_if_joined(key);
            }
            Err(e) => member.owes_because(&e),
        }
        self.watch_control(key);
    }

    /// Watches the channel to the controller for what matters now.
    fn watch_control(&mut self, key: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        let interest = match (member.paused, member.wants_room) {
            (true, _) => Interest::Hangup,
            (false, true) => Interest::ReadableOrWritable,
            (false, false) => Interest::Readable,
        };
        if std::mem::replace(&mut member.interest, interest) == interest {
            return;
        }
        for (token, source) in &self.sources {
            if let Source::Control(of, channel) = source
                && *of == key
            {
                self.wires.change(channel.source(), *token, interest);
            }
        }
    }

    /// Nothing can be served any more: somebody closed the library's descriptors.
    fn fail_all(&mut self, error: io::Error) {
        log::error!("the serving thread cannot wait: {error}");
        let error = JoinError::io("waiting for events", error);
        let members: Vec<u64> = self.members.keys().copied().collect();
        for key in members {
            if let Some(member) = self.members.get_mut(&key) {
                member.fail(error.clone());
            }
            self.end(key);
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
                self.wires.forget(side.source(), token);
            }
        }
    }
}
