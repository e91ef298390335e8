//! The controller: keeps the directory and passes introductions on. It never blocks, sees no message of the bus, and
//! holds nothing that grows with a member that does not read.

use super::{
    directory::{Directory, Full, Listed, Reader, Writer},
    member::{Bus, Events, Parked},
    proof::{self, Role, prove},
    protocol::{
        self, Hello, LINK_HANDLES, Nonce, PACKET_MAX, Proof, Refused, ToController, ToMember,
    },
};
use crate::sys::{
    self, AsHandle, BorrowedHandle, Channel, Handle, Interest, MembersMark, Memory, OwnHandle,
    Peer, Protection, Seat,
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long members of before are waited for.
const SETTLE: Duration = Duration::from_millis(100);
/// How long a connection may take to prove itself.
const PROVE: Duration = Duration::from_secs(5);
/// Connections in all.
const CONNECTIONS: usize = 60_000;
/// Introductions of one member that wait for their receivers.
const PENDING: usize = 16;
/// When to look again at a shortage that nobody reports the end of.
const SHORTAGE: Duration = Duration::from_millis(10);
/// Largest payload that a leaver may leave behind.
const PARKED_MAX: u64 = 64 << 20;

/// Places in the set that the serving thread sleeps on. Given by that thread.
pub(crate) trait Wiring {
    /// Watches a handle; returns the token that its events come with.
    fn watch(&mut self, handle: BorrowedHandle<'_>, interest: Interest) -> io::Result<u64>;
    fn change(&mut self, handle: BorrowedHandle<'_>, token: u64, interest: Interest);
    fn forget(&mut self, handle: BorrowedHandle<'_>, token: u64);
}

#[derive(Debug)]
enum Stage {
    Hello,
    Proof {
        member: Nonce,
    },
    /// Proved, and waits until the bus is settled.
    Waiting(Registration),
    Member {
        id: u64,
    },
}

#[derive(Debug)]
struct Registration {
    proof: Proof,
    secret: [u8; 16],
    label: Vec<u8>,
    receives: bool,
    before: Option<u64>,
}

#[derive(Debug)]
struct Introduction {
    from: u64,
    to: u64,
    link: u64,
    handles: Vec<Handle>,
}

#[derive(Debug)]
struct Connection {
    channel: Channel,
    peer: Peer,
    nonce: Nonce,
    stage: Stage,
    since: Instant,
    watches: bool,
    owes_look: bool,
    owes_directory: bool,
    pending: VecDeque<Introduction>,
    writable_wanted: bool,
    left: bool,
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
    settle_by: Option<Instant>,
    next_id: u64,
    /// Introductions whose makers are gone.
    orphans: VecDeque<Introduction>,
    retry: Option<Instant>,
    host: Arc<dyn Events>,
}

#[derive(Debug)]
struct Absent {
    listed: Listed,
    /// Its process and the token of its death notice, if it can be watched.
    process: Option<(OwnHandle, u64)>,
}

impl Controller {
    /// Takes the seat. `before`: the last directory that the winner saw; `mark`: the members' mark if it has one.
    pub(crate) fn new(
        seat: Seat,
        bus: Bus,
        before: Option<Arc<Directory>>,
        mark: Option<Arc<MembersMark>>,
        host: Arc<dyn Events>,
        wiring: &mut dyn Wiring,
    ) -> io::Result<Self> {
        let seat_token = wiring.watch(seat.as_fd(), Interest::Readable)?;
        let generation = before.as_ref().map_or(1, |d| d.generation() + 1);
        let next_id = before.as_ref().map_or(1, |d| d.next_id());
        let fresh_mark = match &mark {
            Some(_) => None,
            None => bus.rendezvous.mark()?.map(Arc::new),
        };
        // With the mark free there are no members of before.
        let settled = before.is_none() && fresh_mark.is_some();
        let mut controller = Self {
            seat,
            seat_token,
            bus,
            generation,
            writer: Writer::new(generation, next_id, 0)?,
            mark: mark.or(fresh_mark),
            connections: HashMap::new(),
            ids: HashMap::new(),
            listed: BTreeMap::new(),
            absent: HashMap::new(),
            settle_by: Some(Instant::now() + if settled { Duration::ZERO } else { SETTLE }),
            next_id,
            orphans: VecDeque::new(),
            retry: None,
            host,
        };
        if let Some(before) = before {
            controller.expect(&before, wiring);
        }
        if settled {
            controller.settle(wiring);
        }
        Ok(controller)
    }

    /// Learns from the last directory who should come back.
    fn expect(&mut self, before: &Arc<Directory>, wiring: &mut dyn Wiring) {
        let mut reader = Reader::new(before.clone());
        if let Err(e) = reader.catch_up() {
            log::warn!("the last directory is only partly readable: {e}");
        }
        self.next_id = self.next_id.max(before.next_id());
        let same_space = before.pid_space() != 0 && before.pid_space() == sys::pid_space();
        for (id, member) in reader.members {
            if self.ids.contains_key(&id) || self.absent.contains_key(&id) {
                continue;
            }
            let mut process = None;
            if same_space {
                match alive(&member.listed) {
                    None => continue,
                    Some(handle) => {
                        process = wiring
                            .watch(handle.as_fd(), Interest::Readable)
                            .ok()
                            .map(|token| (handle, token));
                    }
                }
            }
            let listed = member.listed;
            self.absent.insert(id, Absent { listed, process });
        }
    }

    pub(crate) fn seat_token(&self) -> u64 {
        self.seat_token
    }

    /// When [`Controller::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let proofs = self
            .connections
            .values()
            .filter(|c| matches!(c.stage, Stage::Hello | Stage::Proof { .. }))
            .map(|c| c.since + PROVE);
        proofs.chain(self.settle_by).chain(self.retry).min()
    }

    fn settled(&self) -> bool {
        self.settle_by.is_none()
    }

    pub(crate) fn tick(&mut self, now: Instant, wiring: &mut dyn Wiring) {
        if self.settle_by.is_some_and(|by| by <= now) {
            self.settle(wiring);
        }
        if self.retry.is_some_and(|at| at <= now) {
            self.retry = None;
            self.pass_on(wiring);
            wiring.change(self.seat.as_fd(), self.seat_token, Interest::Readable);
            for (token, connection) in &self.connections {
                if connection.pending.len() < PENDING {
                    connection.restore_interest(*token, wiring);
                }
            }
        }
        let late: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| {
                matches!(c.stage, Stage::Hello | Stage::Proof { .. }) && c.since + PROVE <= now
            })
            .map(|(token, _)| *token)
            .collect();
        for token in late {
            self.drop_connection(token, "it did not prove itself in time", wiring);
        }
    }

    /// Takes the connections that wait.
    pub(crate) fn accept(&mut self, wiring: &mut dyn Wiring) {
        for _ in 0..256 {
            let (channel, peer) = match self.seat.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    log::warn!("a connection could not be accepted: {e}");
                    if sys::exhausted(&e).is_some() {
                        // The queue stays readable; do not spin on it.
                        wiring.change(self.seat.as_fd(), self.seat_token, Interest::Hangup);
                        self.retry.get_or_insert(Instant::now() + SHORTAGE);
                    }
                    return;
                }
            };
            let Ok(nonce) = proof::random() else { return };
            let _ = channel.send(&protocol::encode(&Hello::new(nonce)), &[]);
            if !self.bus.admits(&peer) {
                log::info!("process {} of user {} is not admitted", peer.pid, peer.uid);
                let refused = ToMember::Refused(Refused::Permission);
                let _ = channel.send(&protocol::encode(&refused), &[]);
                continue;
            }
            if self.connections.len() >= CONNECTIONS {
                let refused = ToMember::Refused(Refused::Full);
                let _ = channel.send(&protocol::encode(&refused), &[]);
                continue;
            }
            match wiring.watch(channel.as_fd(), Interest::Readable) {
                Ok(token) => {
                    self.connections.insert(
                        token,
                        Connection {
                            channel,
                            peer,
                            nonce,
                            stage: Stage::Hello,
                            since: Instant::now(),
                            watches: false,
                            owes_look: false,
                            owes_directory: false,
                            pending: VecDeque::new(),
                            writable_wanted: false,
                            left: false,
                        },
                    );
                }
                Err(e) => log::warn!("a connection could not be watched: {e}"),
            }
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
        let dead = self
            .absent
            .iter()
            .find(|(_, a)| a.process.as_ref().is_some_and(|p| p.1 == event.token))
            .map(|(id, _)| *id);
        if let Some(id) = dead {
            self.forget_absent(id, wiring);
            if self.listed.remove(&id).is_some() {
                self.publish(|w| w.left(id), wiring);
                self.pass_on(wiring);
            }
            self.settle_if_complete(wiring);
            return true;
        }
        false
    }

    fn forget_absent(&mut self, id: u64, wiring: &mut dyn Wiring) -> Option<Listed> {
        let absent = self.absent.remove(&id)?;
        if let Some((handle, token)) = &absent.process {
            wiring.forget(handle.as_fd(), *token);
        }
        Some(absent.listed)
    }

    fn read(&mut self, token: u64, wiring: &mut dyn Wiring) {
        let mut buffer = vec![0; PACKET_MAX];
        for _ in 0..64 {
            let Some(connection) = self.connections.get_mut(&token) else {
                return;
            };
            if connection.pending.len() >= PENDING {
                // It stays unread until its introductions have gone on.
                wiring.change(connection.channel.as_fd(), token, Interest::Hangup);
                return;
            }
            let mut handles = Vec::new();
            let packet = match connection.channel.recv(&mut buffer, &mut handles) {
                Err(e) if sys::is_hangup(&e) => connection.channel.recv(&mut buffer, &mut handles),
                other => other,
            };
            let result = match packet {
                Ok(packet) if packet.len == 0 => Err("it is gone"),
                Ok(packet) if packet.truncated => Err("it sent a packet that is too long"),
                Ok(packet) => self.packet(token, &buffer[..packet.len], handles, wiring),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if sys::exhausted(&e).is_some() => {
                    log::warn!("no handles left to take an introduction: {e}");
                    wiring.change(connection.channel.as_fd(), token, Interest::Hangup);
                    self.retry.get_or_insert(Instant::now() + SHORTAGE);
                    return;
                }
                Err(_) => Err("it is gone"),
            };
            if let Err(why) = result {
                self.drop_connection(token, why, wiring);
                return;
            }
        }
    }

    fn packet(
        &mut self,
        token: u64,
        packet: &[u8],
        handles: Vec<Handle>,
        wiring: &mut dyn Wiring,
    ) -> Result<(), &'static str> {
        let Some(connection) = self.connections.get_mut(&token) else {
            return Ok(());
        };
        match &connection.stage {
            Stage::Hello => {
                let hello = protocol::decode::<Hello>(packet)
                    .filter(Hello::is_compatible)
                    .ok_or("it speaks another protocol")?;
                connection.stage = Stage::Proof {
                    member: hello.nonce,
                };
                Ok(())
            }
            Stage::Proof { member } => {
                let Some(ToController::Register {
                    proof,
                    secret,
                    label,
                    receives,
                    before,
                }) = protocol::decode(packet)
                else {
                    return Err("it did not register");
                };
                let token_text = &self.bus.options.token;
                let expected = prove(token_text, Role::Member, member, &connection.nonce);
                if !proof::same(&proof, &expected) {
                    let refused = ToMember::Refused(Refused::Token);
                    let _ = connection.channel.send(&protocol::encode(&refused), &[]);
                    return Err("it has another token");
                }
                crate::Label::decode(&label).map_err(|_| "its label is over a limit")?;
                let registration = Registration {
                    proof: prove(token_text, Role::Controller, member, &connection.nonce),
                    secret,
                    label,
                    receives,
                    before,
                };
                connection.stage = Stage::Waiting(registration);
                self.learn_from(before, handles, wiring);
                self.admit(token, wiring);
                Ok(())
            }
            Stage::Waiting(_) => Err("it spoke before it was admitted"),
            Stage::Member { id } => {
                let id = *id;
                let message = protocol::decode(packet).ok_or("a packet that does not decode")?;
                self.message(token, id, message, handles, wiring)
            }
        }
    }

    /// A member that comes back brings the last directory and the members' mark.
    fn learn_from(&mut self, before: Option<u64>, handles: Vec<Handle>, wiring: &mut dyn Wiring) {
        if before.is_none() || self.settled() || handles.len() > 2 {
            return;
        }
        let mut handles = handles.into_iter();
        let directory = handles
            .next()
            .and_then(|h| Directory::memory_from_peer(h).ok())
            .and_then(|m| Directory::open(m).ok());
        if let Some(directory) = directory
            && directory.generation() >= self.generation
        {
            // We were a stranger when we won.
            self.generation = directory.generation() + 1;
            self.expect(&directory, wiring);
        }
        if self.mark.is_none() {
            self.mark = handles
                .next()
                .map(|h| Arc::new(MembersMark(OwnHandle::new(h))));
        }
    }

    /// Admits a connection that has proved itself, if it is time.
    fn admit(&mut self, token: u64, wiring: &mut dyn Wiring) {
        let settled = self.settled();
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let Stage::Waiting(registration) = &connection.stage else {
            return;
        };
        let hash = proof::hash(&registration.secret);
        // An endpoint that was entered and did not hear of it comes back without an id; its secret tells.
        let known = self
            .absent
            .iter()
            .find(|(_, a)| a.listed.secret_hash == hash)
            .map(|(id, _)| *id);
        let before = registration.before;
        if known.is_none() && before.is_none() && !settled {
            return;
        }
        let free = |id: &u64| {
            !self.ids.contains_key(id)
                && !self.absent.contains_key(id)
                && *id < self.next_id
                && *id > 0
        };
        let id = known.or(before.filter(free)).unwrap_or_else(|| {
            self.next_id += 1;
            self.next_id - 1
        });
        let listed = Listed {
            id,
            pid: connection.peer.pid,
            uid: connection.peer.uid,
            start_time: sys::start_time(connection.peer.pid),
            secret_hash: hash,
            receives: registration.receives,
            label: registration.label.clone(),
        };
        let proof = registration.proof;
        connection.stage = Stage::Member { id };
        self.ids.insert(id, token);
        self.forget_absent(id, wiring);
        let relisted = self.listed.insert(id, listed.clone());
        if relisted.as_ref() != Some(&listed) {
            self.publish(|w| w.joined(&listed), wiring);
        }
        let welcome = protocol::encode(&ToMember::Welcome { proof, id });
        let mut handles = vec![self.writer.memory().as_fd()];
        handles.extend(self.mark.iter().map(|m| m.0.as_fd()));
        let sent = match self.connections.get(&token) {
            Some(c) => c.channel.send(&welcome, &handles),
            None => return,
        };
        match sent {
            Ok(()) => {}
            Err(e) if sys::exhausted(&e).is_some() => {
                log::warn!("a welcome could not be sent: {e}");
                self.drop_connection(token, "there are no handles to welcome it", wiring);
                return;
            }
            Err(_) => {
                self.drop_connection(token, "it is gone", wiring);
                return;
            }
        }
        self.pass_on(wiring);
        self.settle_if_complete(wiring);
    }

    fn settle_if_complete(&mut self, wiring: &mut dyn Wiring) {
        // Without a single member back nothing is known of those of before.
        if !self.settled() && self.absent.is_empty() && !self.ids.is_empty() {
            self.settle(wiring);
        }
    }

    /// From now on the directory is the truth, and new endpoints are admitted.
    fn settle(&mut self, wiring: &mut dyn Wiring) {
        self.settle_by = None;
        let unwatched: Vec<u64> = self
            .absent
            .iter()
            .filter(|(_, a)| a.process.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in unwatched {
            self.forget_absent(id, wiring);
        }
        // Those who are alive but did not come in time (stopped, most likely) stay members.
        let late: Vec<Listed> = self.absent.values().map(|a| a.listed.clone()).collect();
        for listed in late {
            self.listed.insert(listed.id, listed.clone());
            self.publish(|w| w.joined(&listed), wiring);
        }
        if self.mark.is_none() {
            self.mark = self.bus.rendezvous.mark().ok().flatten().map(Arc::new);
        }
        self.publish(Writer::settled, wiring);
        let tokens: Vec<u64> = self.connections.keys().copied().collect();
        for token in &tokens {
            self.owe(*token, |c| c.owes_look = true, wiring);
        }
        for token in tokens {
            self.admit(token, wiring);
        }
        self.pass_on(wiring);
    }

    /// Appends to the directory; replaces it when it is full.
    fn publish(
        &mut self,
        append: impl FnOnce(&mut Writer) -> Result<(), Full>,
        wiring: &mut dyn Wiring,
    ) {
        if append(&mut self.writer).is_err() {
            self.replace_directory(wiring);
        }
        let watchers: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| c.watches)
            .map(|(token, _)| *token)
            .collect();
        for token in watchers {
            self.owe(token, |c| c.owes_look = true, wiring);
        }
    }

    fn replace_directory(&mut self, wiring: &mut dyn Wiring) {
        let room = self.listed.values().map(|l| l.label.len() + 128).sum();
        let written = Writer::new(self.generation, self.next_id, room).and_then(|mut writer| {
            let full = |_| io::Error::new(io::ErrorKind::StorageFull, "the directory is full");
            for listed in self.listed.values() {
                writer.joined(listed).map_err(full)?;
            }
            if self.settle_by.is_none() {
                writer.settled().map_err(full)?;
            }
            Ok(writer)
        });
        match written {
            Ok(writer) => {
                let mut old = std::mem::replace(&mut self.writer, writer);
                let tokens: Vec<u64> = self.ids.values().copied().collect();
                for token in tokens {
                    self.owe(token, |c| c.owes_directory = true, wiring);
                }
                old.give_up();
            }
            Err(e) => {
                // Members would go by a directory that lacks an entry; rather none, and an election.
                log::error!("the directory could not be replaced: {e}");
                self.writer.give_up();
            }
        }
    }

    /// Marks a debt to a member and pays it if there is room.
    fn owe(&mut self, token: u64, debt: impl FnOnce(&mut Connection), wiring: &mut dyn Wiring) {
        if let Some(connection) = self.connections.get_mut(&token) {
            debt(connection);
            self.pay(token, wiring);
        }
    }

    fn pay(&mut self, token: u64, wiring: &mut dyn Wiring) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let mut sent = Ok(());
        if connection.owes_directory {
            let packet = protocol::encode(&ToMember::Directory);
            sent = connection
                .channel
                .send(&packet, &[self.writer.memory().as_fd()]);
            connection.owes_directory = sent.is_err();
        }
        if sent.is_ok() && connection.owes_look {
            let packet = protocol::encode(&ToMember::Look);
            sent = connection.channel.send(&packet, &[]);
            connection.owes_look = sent.is_err();
        }
        match sent {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                connection.want_writable(token, wiring);
            }
            Err(e) if sys::exhausted(&e).is_some() => {
                self.retry.get_or_insert(Instant::now() + SHORTAGE);
                connection.want_writable(token, wiring);
            }
            // A hang-up is noticed by reading.
            Err(_) => {}
        }
    }

    fn writable(&mut self, token: u64, wiring: &mut dyn Wiring) {
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.writable_wanted = false;
            wiring.change(connection.channel.as_fd(), token, Interest::Readable);
        }
        self.pay(token, wiring);
        self.pass_on(wiring);
    }

    fn message(
        &mut self,
        token: u64,
        id: u64,
        message: ToController,
        handles: Vec<Handle>,
        wiring: &mut dyn Wiring,
    ) -> Result<(), &'static str> {
        match message {
            ToController::Register { .. } => Err("it registered twice"),
            ToController::Introduce { to, link } => {
                if handles.len() != LINK_HANDLES {
                    return Err("an introduction with a wrong number of handles");
                }
                let introduction = Introduction {
                    from: id,
                    to,
                    link,
                    handles,
                };
                if let Some(introduction) = self.introduce(introduction, wiring)
                    && let Some(connection) = self.connections.get_mut(&token)
                {
                    connection.pending.push_back(introduction);
                }
                Ok(())
            }
            ToController::Watch(on) => {
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.watches = on;
                }
                // What changed before this arrived.
                self.owe(token, |c| c.owes_look |= on, wiring);
                Ok(())
            }
            ToController::StopReceiving => {
                if let Some(listed) = self.listed.get_mut(&id) {
                    listed.receives = false;
                }
                self.publish(|w| w.stopped_receiving(id), wiring);
                self.done(token);
                Ok(())
            }
            ToController::Park {
                uuid,
                label_op,
                multicast,
                remaining_ms,
                len,
                objects,
                regions,
            } => {
                let (objects, regions) = (usize::from(objects), usize::from(regions));
                if handles.len() != 1 + objects + regions || len > PARKED_MAX {
                    return Err("a parked message of a wrong shape");
                }
                let mut handles = handles.into_iter();
                let payload = handles
                    .next()
                    .and_then(|h| read_payload(h, len as usize).ok())
                    .ok_or("a parked message without its payload")?;
                let objects = handles.by_ref().take(objects).collect();
                self.host.parked(Parked {
                    uuid,
                    label_op,
                    multicast,
                    remaining: Duration::from_millis(remaining_ms),
                    payload,
                    objects,
                    regions: handles.collect(),
                });
                Ok(())
            }
            ToController::Leave => {
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.left = true;
                }
                if self.listed.remove(&id).is_some() {
                    self.publish(|w| w.left(id), wiring);
                }
                self.done(token);
                Ok(())
            }
        }
    }

    fn done(&self, token: u64) {
        if let Some(connection) = self.connections.get(&token) {
            let _ = connection
                .channel
                .send(&protocol::encode(&ToMember::Done), &[]);
        }
    }

    /// Passes an introduction on. Gives it back if its receiver has no room now.
    fn introduce(
        &mut self,
        introduction: Introduction,
        wiring: &mut dyn Wiring,
    ) -> Option<Introduction> {
        let Introduction { from, to, link, .. } = introduction;
        let Some(token) = self.ids.get(&to) else {
            // Its receiver may yet come back.
            if self.absent.contains_key(&to) || self.settle_by.is_some() {
                return Some(introduction);
            }
            if let Some(maker) = self.ids.get(&from).and_then(|t| self.connections.get(t)) {
                let packet = protocol::encode(&ToMember::NoSuchMember { link });
                let _ = maker.channel.send(&packet, &[]);
            }
            return None;
        };
        let connection = self.connections.get_mut(token)?;
        let handles: Vec<BorrowedHandle<'_>> =
            introduction.handles.iter().map(AsHandle::as_fd).collect();
        let packet = protocol::encode(&ToMember::Introduced { from, link });
        match connection.channel.send(&packet, &handles) {
            Ok(()) => None,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                connection.want_writable(*token, wiring);
                Some(introduction)
            }
            Err(e) if sys::exhausted(&e).is_some() => {
                self.retry.get_or_insert(Instant::now() + SHORTAGE);
                Some(introduction)
            }
            // Its end will be read, and then there is no such member.
            Err(_) => Some(introduction),
        }
    }

    /// Tries the introductions that wait, in each member's order.
    fn pass_on(&mut self, wiring: &mut dyn Wiring) {
        for introduction in std::mem::take(&mut self.orphans) {
            if let Some(waiting) = self.introduce(introduction, wiring) {
                self.orphans.push_back(waiting);
            }
        }
        let tokens: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| !c.pending.is_empty())
            .map(|(token, _)| *token)
            .collect();
        for token in tokens {
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            let was_full = connection.pending.len() >= PENDING;
            for introduction in std::mem::take(&mut connection.pending) {
                if let Some(waiting) = self.introduce(introduction, wiring)
                    && let Some(connection) = self.connections.get_mut(&token)
                {
                    connection.pending.push_back(waiting);
                }
            }
            if let Some(connection) = self.connections.get_mut(&token)
                && was_full
                && connection.pending.len() < PENDING
            {
                connection.restore_interest(token, wiring);
            }
        }
    }

    fn drop_connection(&mut self, token: u64, why: &'static str, wiring: &mut dyn Wiring) {
        let Some(connection) = self.connections.remove(&token) else {
            return;
        };
        wiring.forget(connection.channel.as_fd(), token);
        let Stage::Member { id } = connection.stage else {
            log::debug!("process {} was not admitted: {why}", connection.peer.pid);
            return;
        };
        if !connection.left {
            log::info!("endpoint {id}, process {}: {why}", connection.peer.pid);
        }
        self.ids.remove(&id);
        for introduction in connection.pending {
            if self.orphans.len() < 1024 {
                self.orphans.push_back(introduction);
            }
        }
        if self.listed.remove(&id).is_some() {
            self.publish(|w| w.left(id), wiring);
        }
        self.pass_on(wiring);
    }

    /// Hands the role over: the directory says that `leaver` has left, and then that it stands for nothing any more.
    pub(crate) fn give_up(mut self, leaver: Option<u64>, wiring: &mut dyn Wiring) {
        if let Some(id) = leaver
            && self.listed.remove(&id).is_some()
        {
            self.publish(|w| w.left(id), wiring);
        }
        // What members have sent so far is read first.
        let tokens: Vec<u64> = self.connections.keys().copied().collect();
        for token in tokens {
            self.read(token, wiring);
        }
        self.writer.give_up();
        wiring.forget(self.seat.as_fd(), self.seat_token);
        for (token, connection) in &self.connections {
            wiring.forget(connection.channel.as_fd(), *token);
        }
        for absent in self.absent.values() {
            if let Some((handle, token)) = &absent.process {
                wiring.forget(handle.as_fd(), *token);
            }
        }
    }

    /// Whether anybody but `id` is a member.
    pub(crate) fn has_others(&self, id: u64) -> bool {
        self.ids.keys().any(|other| *other != id) || !self.absent.is_empty()
    }
}

impl Connection {
    fn want_writable(&mut self, token: u64, wiring: &mut dyn Wiring) {
        if !self.writable_wanted {
            self.writable_wanted = true;
            wiring.change(self.channel.as_fd(), token, Interest::ReadableOrWritable);
        }
    }

    fn restore_interest(&self, token: u64, wiring: &mut dyn Wiring) {
        let interest = if self.writable_wanted {
            Interest::ReadableOrWritable
        } else {
            Interest::Readable
        };
        wiring.change(self.channel.as_fd(), token, interest);
    }
}

/// A watch on the member's process; `None` if it is dead.
fn alive(listed: &Listed) -> Option<OwnHandle> {
    let process = sys::watch_process(listed.pid).ok()?;
    let same = listed.start_time == 0 || sys::start_time(listed.pid) == listed.start_time;
    (same && !sys::has_ended(&process)).then_some(process)
}

/// Copies a parked payload out of the memory that it came in.
fn read_payload(handle: Handle, len: usize) -> io::Result<Vec<u8>> {
    let memory = Memory::from_peer(handle, 1, PARKED_MAX as usize + 4096)?;
    if len > memory.size() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mapping = memory.map_all(Protection::Read)?;
    let mut payload = Vec::new();
    payload
        .try_reserve_exact(len)
        .map_err(|_| io::ErrorKind::OutOfMemory)?;
    // SAFETY: the mapping and the vector have room for `len` bytes, which are all written.
    unsafe {
        crate::sync::copy_from_shared(mapping.start(), payload.as_mut_ptr(), len);
        payload.set_len(len);
    }
    Ok(payload)
}
