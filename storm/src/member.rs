//! One member of the storm: a process with an endpoint that sends, receives and checks.

use crate::{
    board::{self, Board, JOINED, JOINING, KINDS, Kind, LEFT, Phase, SURVIVORS, now},
    chance::Chance,
    collector, note, open,
    traffic::Traffic,
};
use ipmb::{BytesMessage, EndpointReceiver, EndpointSender, MemoryRegion, Options, RecvError};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

/// Where a member stands, for its threads.
#[derive(Clone, Copy)]
pub struct Place {
    /// What all write down.
    pub board: &'static Board,
    /// The bus.
    pub bus: &'static str,
    /// This member's slot.
    pub slot: usize,
    /// Which process in that slot.
    pub incarnation: usize,
    /// Of all chance.
    pub seed: u64,
}

impl Place {
    /// This slot's part of the board.
    pub fn mine(&self) -> &'static board::Slot {
        &self.board.slots[self.slot]
    }

    /// Whether this member is never killed.
    pub fn survives(&self) -> bool {
        self.slot < SURVIVORS
    }

    /// A promise was broken, as this member sees it.
    pub fn violation(&self, what: &str) {
        let Self {
            slot, incarnation, ..
        } = self;
        let text = format!("endpoint {slot}.{incarnation}: {what}");
        self.board.violation(&text);
    }

    /// Random numbers for one use.
    pub fn chance(&self, of: u64) -> Chance {
        let of = of << 32 | (self.slot as u64) << 16 | self.incarnation as u64;
        Chance::new(self.seed, of)
    }
}

/// How this member joins. Survivors do not host the controller, so that it is always one that can be killed.
pub fn options(place: Place, label: ipmb::Label) -> Options {
    let mut options = Options::new(place.bus, label, "storm").self_queue(256 << 20);
    options.controller_affinity = !place.survives() && place.slot % 6 != 0;
    match place.slot % 3 {
        0 => options.link_capacity(64 << 10),
        1 => options.spin(Duration::ZERO),
        _ => options,
    }
}

/// Runs a member until it is told to leave, or killed.
pub fn run(place: Place) {
    let mine = place.mine();
    mine.state.store(JOINING, SeqCst);
    let role = if place.survives() { "s" } else { "v" };
    let label = ipmb::Label::from(["m".into(), role.into(), format!("{role}.{}", place.slot)]);
    let joined = ipmb::join::<BytesMessage, BytesMessage>(
        options(place, label),
        Some(Duration::from_secs(30)),
    );
    let (sender, receiver) = match joined {
        Ok(endpoint) => endpoint,
        Err(e) => {
            place.violation(&format!("could not join: {e}"));
            return;
        }
    };
    let joined_at = now();
    mine.state.store(JOINED, SeqCst);
    let (asked, asks) = mpsc::channel();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let answering = sender.clone();
        scope.spawn(move || answer(place, &answering, &asks));
        if place.survives() {
            scope.spawn(|| collector::run(place, &done));
        }
        let (sending, leaving) = (sender.clone(), &done);
        scope.spawn(move || Traffic::new(place, sending).run(leaving));
        Checker {
            place,
            joined_at,
            asked,
            times: HashMap::new(),
            kept: VecDeque::new(),
            chance: place.chance(2),
        }
        .run(&sender, &receiver, &done);
    });
    let stats = sender.stats();
    let counters = [
        stats.parked,
        stats.rerouted,
        stats.lost,
        stats.dropped,
        stats.expired,
    ];
    for (to, counter) in mine.stats.iter().zip(counters) {
        to.fetch_add(counter, SeqCst);
    }
    drop(receiver);
    if let Err(e) = sender.leave(Some(Duration::from_secs(20))) {
        place.violation(&format!("could not leave: {e}"));
    }
    drop(sender);
    if place.survives() {
        open::count(&mine.open, (0, 0));
    }
    mine.state.store(LEFT, SeqCst);
}

/// Answers probes. A thread of its own: receiving must not wait for sending.
fn answer(place: Place, sender: &EndpointSender<BytesMessage>, asks: &mpsc::Receiver<u64>) {
    let mut none = ipmb::MemoryRegistry::default();
    for probe in asks {
        let head = place.head(Kind::Probe, probe, vec![]);
        let to = ipmb::Selector::unicast(format!("probe.{probe}"));
        let message = note::write(to, &head, note::Load::default(), &mut none);
        // A probe that is gone is no member; one that waits says so itself if no answer comes.
        let _ = sender.send_timeout(message, Some(Duration::from_secs(5)));
    }
}

impl Place {
    /// The head of a message of this member.
    pub fn head(&self, kind: Kind, nonce: u64, numbers: Vec<u64>) -> note::Head {
        note::Head {
            from: self.slot,
            incarnation: self.incarnation,
            kind,
            time: now(),
            nonce,
            numbers,
            objects: 0,
            regions: 0,
        }
    }
}

/// Checks what comes.
struct Checker {
    place: Place,
    joined_at: u64,
    asked: mpsc::Sender<u64>,
    /// When the last message of each sender was sent.
    times: HashMap<(usize, usize), u64>,
    /// Regions that are held for a while.
    kept: VecDeque<(MemoryRegion, u64)>,
    chance: Chance,
}

impl Checker {
    fn run(
        mut self,
        sender: &EndpointSender<BytesMessage>,
        receiver: &EndpointReceiver<BytesMessage>,
        done: &AtomicBool,
    ) {
        let mine = self.place.mine();
        loop {
            match receiver.recv(Some(Duration::from_millis(20))) {
                Ok(message) => {
                    mine.progress.fetch_add(1, SeqCst);
                    if let Err(what) = note::read(message).and_then(|(head, regions)| {
                        self.keep(regions)?;
                        self.check(&head)
                    }) {
                        self.place.violation(&what);
                    }
                    if mine.leave.load(SeqCst) == 0 {
                        continue;
                    }
                }
                Err(RecvError::Timeout) => {}
                Err(e) => {
                    self.place.violation(&format!("could not receive: {e}"));
                    done.store(true, SeqCst);
                    return;
                }
            }
            let phase = self.place.board.phase();
            if phase >= Phase::Quiet
                && let Err(what) = self.release()
            {
                self.place.violation(&what);
            }
            if phase == Phase::Balance && self.place.survives() {
                // Who does not send keeps the directory that it last sent by.
                let to_nobody = ipmb::BytesMessage {
                    format: 0,
                    data: vec![],
                };
                let message = ipmb::Message::new(ipmb::Selector::unicast("nobody"), to_nobody);
                if let Err(e) = sender.send_timeout(message, Some(Duration::from_secs(20))) {
                    self.place.violation(&format!("sending to nobody: {e}"));
                }
                let stats = sender.stats();
                open::count(&mine.open, (stats.links_in, stats.links_out));
            }
            if phase == Phase::Leave || mine.leave.load(SeqCst) != 0 {
                done.store(true, SeqCst);
                return;
            }
        }
    }

    /// Holds a region for a while, and then looks whether it was given to somebody else.
    fn keep(&mut self, regions: Vec<(MemoryRegion, u64)>) -> Result<(), String> {
        self.kept.extend(regions);
        while self.kept.len() > 8 {
            self.look_at_oldest()?;
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), String> {
        while !self.kept.is_empty() {
            self.look_at_oldest()?;
        }
        Ok(())
    }

    fn look_at_oldest(&mut self) -> Result<(), String> {
        match self.kept.pop_front() {
            Some((mut region, seed)) => note::still_holds(&mut region, seed)
                .map_err(|e| format!("a region changed while it was held: {e}")),
            None => Ok(()),
        }
    }

    fn check(&mut self, head: &note::Head) -> Result<(), String> {
        let Place {
            board, slot: me, ..
        } = self.place;
        let (from, incarnation) = (head.from, head.incarnation);
        match head.kind {
            Kind::Probe => {
                let _ = self.asked.send(head.nonce);
                return Ok(());
            }
            Kind::Pool if !board.pool(from, head.nonce) => {
                return Err(format!("received twice: {head:?}"));
            }
            Kind::Pool => return Ok(()),
            _ => {}
        }
        let number = match head.numbers.as_slice() {
            [number] => *number,
            numbers => numbers.get(me).copied().unwrap_or(0),
        };
        let stream = board.stream(from, incarnation, me);
        let last = stream.received.load(SeqCst);
        if number <= last {
            let what = "received twice or out of order";
            return Err(format!("{what}: number {number} after {last}, {head:?}"));
        }
        // Whoever is a member gets everything that is sent from then on.
        let since = self.times.insert((from, incarnation), head.time);
        let member = self.place.survives() || since.is_some_and(|at| at >= self.joined_at);
        if member && number != last + 1 {
            return Err(format!("lost: number {number} after {last}, {head:?}"));
        }
        if number > stream.attempted.load(SeqCst) {
            return Err(format!("number {number} was never sent, {head:?}"));
        }
        stream.received.store(number, SeqCst);
        let mine = self.place.mine();
        if from < SURVIVORS {
            mine.kinds[head.kind as usize % KINDS.len()].fetch_add(1, SeqCst);
            mine.own.fetch_add(u64::from(from == me), SeqCst);
        }
        // Now and then a receiver is busy with something else.
        if self.chance.per_mille(1) {
            thread::sleep(self.chance.time(Duration::from_millis(3)));
        }
        Ok(())
    }
}
