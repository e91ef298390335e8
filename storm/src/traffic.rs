//! What a member sends.

use crate::{
    board::{KINDS, Kind, Phase, SLOTS, SURVIVORS, now},
    chance::Chance,
    collector::label_of,
    member::Place,
    note::{self, Load},
};
use ipmb::{BytesMessage, EndpointSender, MemoryRegistry, Message, Selector, SendError};
use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

/// No send to somebody who lives takes so long, whoever is stopped meanwhile: nobody is stopped for a second.
const HANG: Duration = Duration::from_secs(20);

/// The sending thread of a member.
pub struct Traffic {
    place: Place,
    sender: EndpointSender<BytesMessage>,
    chance: Chance,
    /// The last number of each stream that was accepted.
    numbers: [u64; SLOTS],
    /// The last round of each collector that was served.
    collected: [u64; SURVIVORS],
    registry: MemoryRegistry,
    huge: Instant,
}

impl Traffic {
    /// Starts its streams at one.
    pub fn new(place: Place, sender: EndpointSender<BytesMessage>) -> Self {
        Self {
            place,
            sender,
            chance: place.chance(1),
            numbers: [0; SLOTS],
            collected: [0; SURVIVORS],
            registry: MemoryRegistry::default(),
            huge: Instant::now(),
        }
    }

    /// Sends until `done`.
    pub fn run(mut self, done: &AtomicBool) {
        while self.place.board.phase() != Phase::Run && !done.load(SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        // Everybody is met at once: the conductor likes to kill somebody then.
        self.multicast("m", 0..SLOTS);
        while !done.load(SeqCst) {
            let phase = self.place.board.phase();
            if self.place.survives() {
                self.serve_collectors();
            }
            if phase == Phase::Run {
                let most = if self.place.survives() { 96 } else { 32 };
                for _ in 0..self.chance.below(most) {
                    self.one();
                }
                let pause = if self.place.survives() { 10 } else { 30 };
                thread::sleep(self.chance.time(Duration::from_millis(pause)));
            } else {
                self.registry = MemoryRegistry::default();
                thread::sleep(Duration::from_millis(2));
            }
            let mine = self.place.mine();
            mine.phase.store(phase as u32, SeqCst);
        }
    }

    /// Sends something to somebody.
    fn one(&mut self) {
        match self.chance.below(1000) {
            0..700 => {
                let to = self.chance.below(SURVIVORS as u64) as usize;
                self.unicast(to);
            }
            700..900 => {
                let victims = (SLOTS - SURVIVORS) as u64;
                let to = SURVIVORS + self.chance.below(victims) as usize;
                self.unicast(to);
            }
            900..970 => self.multicast("s", 0..SURVIVORS),
            970..985 => self.multicast("m", 0..SLOTS),
            _ => self.pool(),
        }
    }

    /// One message to a slot. To a victim, it may be given up.
    fn unicast(&mut self, to: usize) {
        let (kind, load) = self.load();
        let survivor = to < SURVIVORS;
        let label = format!("{}.{to}", if survivor { "s" } else { "v" });
        let mut selector = Selector::unicast(label);
        if kind == Kind::Ttl {
            selector.ttl = Duration::from_secs(5);
        }
        let number = self.numbers[to] + 1;
        self.begin(to, number);
        let head = self.place.head(kind, self.chance.any(), vec![number]);
        let message = note::write(selector, &head, load, &mut self.registry);
        if survivor {
            let what = || format!("number {number}, a {} to {to}", KINDS[kind as usize]);
            if self.insist(message, what) {
                self.accepted(to, number);
            }
            return;
        }
        match self
            .sender
            .send_timeout(message, Some(Duration::from_millis(20)))
        {
            Ok(()) => self.accepted(to, number),
            Err(e) => match e.kind() {
                SendError::Timeout | SendError::ControllerStopped { .. } => {}
                _ => self.place.violation(&format!("sending to {to}: {e}")),
            },
        }
    }

    /// One message to several slots.
    fn multicast(&mut self, label: &str, to: Range<usize>) {
        let mut numbers = vec![0; SLOTS];
        for to in to.clone() {
            numbers[to] = self.numbers[to] + 1;
            self.begin(to, numbers[to]);
        }
        let (_, mut load) = self.load();
        load.body = load.body.min(256 << 10);
        let selector = Selector::multicast(label);
        let head = self
            .place
            .head(Kind::Multicast, self.chance.any(), numbers.clone());
        let message = note::write(selector, &head, load, &mut self.registry);
        if self.insist(message, || format!("a multicast to {label:?}")) {
            to.for_each(|to| self.accepted(to, numbers[to]));
        }
    }

    /// One message to whichever victim joined first; it may come to a later one, but never twice.
    fn pool(&mut self) {
        let mine = self.place.mine();
        let number = mine.pooled.load(SeqCst) + 1;
        if !self.place.survives() || number >= crate::board::POOL as u64 {
            return;
        }
        let mut selector = Selector::unicast("v");
        selector.ttl = Duration::from_secs(10);
        let head = self.place.head(Kind::Pool, number, vec![]);
        let load = Load {
            body: self.chance.below(512) as usize,
            ..Load::default()
        };
        let message = note::write(selector, &head, load, &mut self.registry);
        mine.pooled.store(number, SeqCst);
        self.insist(message, || "a pool message".into());
    }

    /// Sends what the collectors ask for, to labels that nobody has yet.
    fn serve_collectors(&mut self) {
        let me = self.place.slot;
        for slot in (0..SURVIVORS).filter(|s| *s != me) {
            let round = self.place.board.slots[slot].collect.load(SeqCst);
            while self.collected[slot] < round {
                self.collected[slot] += 1;
                let round = self.collected[slot];
                let mut selector = Selector::unicast(label_of(slot, round));
                selector.ttl = Duration::from_secs(60);
                let head = self.place.head(Kind::Parked, round, vec![]);
                let load = Load {
                    body: self.chance.below(2048) as usize,
                    ..Load::default()
                };
                let message = note::write(selector, &head, load, &mut self.registry);
                self.insist(message, || {
                    format!("a message to collector {slot}, round {round}")
                });
            }
        }
    }

    /// Sends until it is sent. What is handed back is sent again, as the documentation says.
    fn insist(&mut self, mut message: Message<BytesMessage>, what: impl Fn() -> String) -> bool {
        let start = Instant::now();
        loop {
            let error = match self
                .sender
                .send_timeout(message, Some(Duration::from_millis(500)))
            {
                Ok(()) => {
                    self.place.mine().progress.fetch_add(1, SeqCst);
                    return true;
                }
                Err(error) => error,
            };
            match error.kind() {
                SendError::Timeout | SendError::ControllerStopped { .. }
                    if start.elapsed() < HANG => {}
                SendError::SelfQueueFull { .. } if start.elapsed() < HANG => {
                    thread::sleep(Duration::from_millis(1));
                }
                _ => {
                    let what = what();
                    self.place.violation(&format!("sending {what}: {error}"));
                    return false;
                }
            }
            message = error.into_message();
        }
    }

    fn begin(&self, to: usize, number: u64) {
        let Place {
            board,
            slot,
            incarnation,
            ..
        } = self.place;
        let stream = board.stream(slot, incarnation, to);
        if number == 1 {
            let now = now();
            self.place.mine().contact.store(now, SeqCst);
            stream.begun.store(now, SeqCst);
        }
        stream.attempted.store(number, SeqCst);
    }

    fn accepted(&mut self, to: usize, number: u64) {
        self.numbers[to] = number;
        let Place {
            board,
            slot,
            incarnation,
            ..
        } = self.place;
        let stream = board.stream(slot, incarnation, to);
        stream.accepted.store(number, SeqCst);
    }

    /// What is in the next message.
    fn load(&mut self) -> (Kind, Load) {
        let mut load = Load::default();
        let chance = &mut self.chance;
        if self.place.slot == 0 && self.huge.elapsed() > Duration::from_secs(7) {
            self.huge = Instant::now();
            load.body = (64 << 20) + 1 + chance.below(1 << 20) as usize;
            return (Kind::Huge, load);
        }
        let kind = match chance.below(1000) {
            0..600 => Kind::Small,
            600..800 => Kind::Medium,
            800..810 => Kind::Large,
            810..860 => Kind::Object,
            860..900 => Kind::Region,
            900..905 => Kind::Mixed,
            _ => Kind::Ttl,
        };
        load.body = match kind {
            Kind::Medium => chance.below(16 << 10),
            Kind::Large => chance.below(1 << 20),
            Kind::Mixed => chance.below(256 << 10),
            _ => chance.below(256),
        } as usize;
        if matches!(kind, Kind::Object | Kind::Mixed) {
            load.objects = 1 + chance.below(4) as usize;
        }
        if matches!(kind, Kind::Region | Kind::Mixed) {
            load.regions = 1 + chance.below(2) as usize;
            load.region = 1 + chance.below(64 << 10) as usize;
        }
        (kind, load)
    }
}
