//! The controller: keeps the directory and passes introductions on. It never blocks, sees no message of the bus, and
//! holds nothing that grows with a member that does not read.

mod admission;
mod connection;
mod introduction;
mod news;
mod requests;
mod succession;

use super::{
    bus::Bus,
    directory::{self, Directory, Listed, PLAUSIBLE, Writer},
    membership::Events,
    protocol::PACKET_MAX,
};
use crate::sys::{self, AsSource, Interest, MembersMark, Received, Seat, SourceRef, Spare};
use connection::{Connection, Stage};
use introduction::Introduction;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use succession::Absent;

/// How long members of before are waited for.
const SETTLE: Duration = Duration::from_millis(100);
/// How long a connection may take to prove itself.
const PROVE: Duration = Duration::from_secs(5);
/// How far the bus may have come in ids and controllers while this one did not look: so that a liar among the members takes
/// little of them with a directory that it made up.
const AHEAD: u64 = 1 << 40;
/// Connections in all, and those of them that have not proved themselves yet.
const CONNECTIONS: usize = 60_000;
const UNPROVED: usize = 64;
/// Introductions that wait although their makers are gone; each has four handles.
const ORPHANS: usize = 128;
/// Bytes of a member's entry in the directory beside its label, at most; and of all entries, so that they fit into a new one.
const ENTRY: usize = 128;
const DIRECTORY_MAX: usize = directory::SIZE_MAX / 2;
/// Why a connection ends that did nothing wrong.
const GONE: &str = "it is gone";
/// When to look again at a shortage that nobody reports the end of.
const SHORTAGE: Duration = Duration::from_millis(10);

/// Places in the set that the serving thread sleeps on. Given by that thread.
pub(crate) trait Wiring {
    /// Watches a source; returns the token that its events come with.
    fn watch(&mut self, source: SourceRef<'_>, interest: Interest) -> io::Result<u64>;
    fn change(&mut self, source: SourceRef<'_>, token: u64, interest: Interest);
    fn forget(&mut self, source: SourceRef<'_>, token: u64);
}

/// The controller of one bus.
pub(crate) struct Controller {
    seat: Seat,
    seat_token: u64,
    bus: Bus,
    generation: u64,
    writer: Writer,
    mark: Option<Arc<MembersMark>>,
    connections: HashMap<u64, Connection>,
    /// Id to the token of its connection.
    ids: HashMap<u64, u64>,
    listed: BTreeMap<u64, Listed>,
    /// Members of before that have not come back.
    absent: HashMap<u64, Absent>,
    /// Those who were expected until a later directory lacked them: they have left, or a liar has made that up. Their ids are for
    /// nobody but who knows the secret with this hash.
    doubtful: HashMap<u64, [u8; 32]>,
    settle_by: Option<Instant>,
    next_id: u64,
    /// Ids from here on, and generations, are not believed of a directory that is brought: this many were not given in between.
    believed: u64,
    /// Introductions whose makers are gone.
    orphans: VecDeque<Introduction>,
    retry: Option<Instant>,
    /// The directory lacks an entry and is given up; another could not be made yet.
    directory_due: bool,
    /// It was logged that there is no room, and there was none since.
    said_short: bool,
    /// A descriptor to give up when there is no other, so that a joiner can be told.
    spare: Option<Spare>,
    host: Arc<dyn Events>,
}

impl Controller {
    /// Takes the seat. `before`: the last directory that the winner saw; `mark`: the members' mark if it has one; `alone`:
    /// there are no members of before.
    pub(crate) fn new(
        seat: Seat,
        bus: Bus,
        before: Option<Arc<Directory>>,
        mark: Option<Arc<MembersMark>>,
        alone: bool,
        host: Arc<dyn Events>,
        wiring: &mut dyn Wiring,
    ) -> io::Result<Self> {
        let seat_token = wiring.watch(seat.source(), Interest::Readable)?;
        let generation = before
            .as_ref()
            .map_or(1, |d| d.generation().saturating_add(1));
        let next_id = before.as_ref().map_or(1, |d| d.next_id());
        let mut controller = Self {
            seat,
            seat_token,
            bus,
            generation,
            writer: Writer::new(generation, next_id, 0)?,
            mark,
            connections: HashMap::new(),
            ids: HashMap::new(),
            listed: BTreeMap::new(),
            absent: HashMap::new(),
            doubtful: HashMap::new(),
            settle_by: Some(Instant::now() + if alone { Duration::ZERO } else { SETTLE }),
            next_id,
            believed: next_id.max(generation).saturating_add(AHEAD).min(PLAUSIBLE),
            orphans: VecDeque::new(),
            retry: None,
            directory_due: false,
            said_short: false,
            spare: Spare::new().ok(),
            host,
        };
        if let Some(before) = before {
            controller.expect(&before, wiring);
        }
        if alone {
            controller.settle(wiring);
        }
        Ok(controller)
    }

    pub(crate) fn seat_token(&self) -> u64 {
        self.seat_token
    }

    /// When [`Controller::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let late = self.connections.values().filter_map(Connection::is_late_at);
        late.chain(self.settle_by).chain(self.retry).min()
    }

    /// Whether it is known who is on the bus.
    pub(crate) fn settled(&self) -> bool {
        self.settle_by.is_none()
    }

    pub(crate) fn tick(&mut self, now: Instant, wiring: &mut dyn Wiring) {
        if self.settle_by.is_some_and(|by| by <= now) {
            self.settle(wiring);
        }
        if self.retry.is_some_and(|at| at <= now) {
            self.retry = None;
            if self.directory_due {
                self.replace_directory(wiring);
            }
            self.pay_all(wiring);
            self.pass_on(wiring);
            wiring.change(self.seat.source(), self.seat_token, Interest::Readable);
            for (token, connection) in &mut self.connections {
                connection.restore_interest(*token, wiring);
            }
        }
        let is_late = |c: &Connection| c.is_late_at().is_some_and(|at| at <= now);
        let late = self.connections.iter().filter(|(_, c)| is_late(c));
        let late: Vec<u64> = late.map(|(token, _)| *token).collect();
        for token in late {
            self.drop_connection(token, "it did not prove itself in time", wiring);
        }
    }

    /// Something happened to one of its handles. False if the token is none of them.
    pub(crate) fn event(&mut self, event: sys::Event, wiring: &mut dyn Wiring) -> bool {
        if event.token == self.seat_token {
            self.accept(wiring);
            return true;
        }
        if self.connections.contains_key(&event.token) {
            if event.writable {
                self.writable(event.token, wiring);
            }
            if event.readable || event.hangup {
                self.read(event.token, wiring);
            }
            return true;
        }
        let dead: Vec<u64> = self
            .absent
            .iter()
            .filter(|(_, a)| a.process.as_ref().is_some_and(|p| p.1 == event.token))
            .map(|(id, _)| *id)
            .collect();
        for id in &dead {
            self.forget_absent(*id, wiring);
            if self.listed.remove(id).is_some() {
                self.publish(|w| w.left(*id), wiring);
            }
        }
        if !dead.is_empty() {
            self.pass_on(wiring);
            self.settle_if_complete(wiring);
        }
        !dead.is_empty()
    }

    fn read(&mut self, token: u64, wiring: &mut dyn Wiring) {
        let mut buffer = vec![0; PACKET_MAX];
        for _ in 0..64 {
            let Some(connection) = self.connections.get_mut(&token) else {
                return;
            };
            let mut handles = Received::default();
            let most = connection.handles_max();
            let mut recv = || {
                let channel = &connection.channel;
                channel.recv_with(&mut buffer, &mut handles, most)
            };
            let packet = match recv() {
                Err(e) if sys::is_hangup(&e) => recv(),
                other => other,
            };
            let result = match packet {
                Ok(packet) if packet.len == 0 => Err(GONE),
                Ok(packet) if packet.surplus => Err("it sent handles that nobody asked for"),
                Ok(_) if !connection.budget.spend(Instant::now) => Err("it floods the controller"),
                Ok(packet) if packet.truncated => Err("it sent a packet that is too long"),
                Ok(packet) => self.packet(token, &buffer[..packet.len], handles, wiring),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if sys::exhausted(&e).is_some() => {
                    connection.watch_for(Interest::Hangup, token, wiring);
                    self.say_short(format_args!("no handles left to take an introduction: {e}"));
                    self.look_again_soon();
                    return;
                }
                Err(_) => Err(GONE),
            };
            if let Err(why) = result {
                self.drop_connection(token, why, wiring);
                return;
            }
        }
    }

    /// Logs a shortage: once, however often the same is tried until it is over.
    fn say_short(&mut self, what: std::fmt::Arguments<'_>) {
        if !std::mem::replace(&mut self.said_short, true) {
            log::warn!("{what}");
        }
    }

    /// Keeps introductions whose maker is gone, as far as there is room.
    fn adopt(&mut self, pending: VecDeque<Introduction>) {
        for introduction in pending {
            if self.orphans.len() < ORPHANS {
                self.orphans.push_back(introduction);
            } else {
                let from = introduction.from;
                log::warn!("the last words of endpoint {from} are lost: too many wait");
            }
        }
    }

    fn drop_connection(&mut self, token: u64, why: &'static str, wiring: &mut dyn Wiring) {
        let Some(mut connection) = self.connections.remove(&token) else {
            return;
        };
        wiring.forget(connection.channel.source(), token);
        // Who hung up itself comes with that to nobody else.
        if why == GONE {
            for parked in connection.bequeath() {
                self.host.parked(parked);
            }
        }
        let Stage::Member { id } = connection.stage else {
            log::debug!("process {} was not admitted: {why}", connection.peer.pid);
            return;
        };
        if !connection.left {
            let level = match why {
                GONE => log::Level::Info,
                _ => log::Level::Warn,
            };
            log::log!(
                level,
                "endpoint {id}, process {}: {why}",
                connection.peer.pid
            );
        }
        self.ids.remove(&id);
        self.adopt(connection.pending);
        if self.listed.remove(&id).is_some() {
            self.publish(|w| w.left(id), wiring);
        }
        self.pass_on(wiring);
    }
}
