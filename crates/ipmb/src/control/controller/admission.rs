//! Letting endpoints in: accepting connections, proving the token, entering members into the directory.

use super::{
    CONNECTIONS, Controller, DIRECTORY_MAX, ENTRY, UNPROVED, Wiring,
    connection::{Connection, Registration, Stage},
    news::room_for,
};
use crate::{
    control::{
        budget::Budget,
        directory::{Directory, Listed},
        proof::{self, Role, prove},
        protocol::{self, Hello, Refused, ToController, ToMember},
    },
    sys::{self, AsSource, Channel, Interest, MembersMark, Peer, Received, Spare},
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    sync::Arc,
    time::Instant,
};

impl Controller {
    /// Takes the connections that wait.
    pub(super) fn accept(&mut self, wiring: &mut dyn Wiring) {
        for _ in 0..256 {
            // First of all the place that the last one who was turned away has left: it is free once that is closed.
            if self.spare.is_none() {
                match Spare::new() {
                    Ok(spare) => self.spare = Some(spare),
                    Err(e) => return self.stop_accepting(&e, wiring),
                }
            }
            match self.seat.accept() {
                Ok((channel, peer)) => {
                    self.said_short = false;
                    self.greet(channel, peer, wiring);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if sys::exhausted(&e).is_some() => {
                    if !self.turn_one_away() {
                        return self.stop_accepting(&e, wiring);
                    }
                }
                // Whatever it is, it may stay: a sandbox that forbids to accept, for one.
                Err(e) => return self.stop_accepting(&e, wiring),
            }
        }
    }

    /// Leaves connections alone for a while: there is no room for them, or something else is in the way.
    fn stop_accepting(&mut self, why: &io::Error, wiring: &mut dyn Wiring) {
        self.say_short(format_args!("a connection could not be accepted: {why}"));
        // The queue stays readable; do not spin on it.
        wiring.change(self.seat.source(), self.seat_token, Interest::Hangup);
        self.look_again_soon();
    }

    /// There is no descriptor left for another connection: takes one with the spare descriptor, to say so.
    fn turn_one_away(&mut self) -> bool {
        if self.spare.take().is_none() {
            return false;
        }
        let accepted = self.seat.accept();
        let turned_away = accepted.is_ok();
        if let Ok((channel, peer)) = accepted {
            self.say_short(format_args!(
                "no descriptor left to let process {} in",
                peer.pid
            ));
            refuse(&channel, Refused::Full);
        }
        turned_away
    }

    fn greet(&mut self, channel: Channel, peer: Peer, wiring: &mut dyn Wiring) {
        if !self.bus.admits(&peer, &channel) {
            log::info!("process {} of user {} is not admitted", peer.pid, peer.uid);
            return refuse(&channel, Refused::Permission);
        }
        if self.connections.len() >= CONNECTIONS {
            return refuse(&channel, Refused::Full);
        }
        let Ok(nonce) = proof::random() else { return };
        let _ = channel.send(&protocol::encode(&Hello::new(nonce)), &[]);
        let token = match wiring.watch(channel.source(), Interest::Readable) {
            Ok(token) => token,
            Err(e) => {
                log::warn!("a connection could not be watched: {e}");
                return refuse(&channel, Refused::Full);
            }
        };
        self.make_room(wiring);
        self.connections.insert(
            token,
            Connection {
                channel,
                peer,
                nonce,
                stage: Stage::Hello,
                since: Instant::now(),
                watches: false,
                owes_welcome: None,
                owes_look: false,
                owes_directory: false,
                owes_done: 0,
                pending: VecDeque::new(),
                put_off: BTreeMap::new(),
                owes_again: BTreeMap::new(),
                writable_wanted: false,
                interest: Interest::Readable,
                estate: Vec::new(),
                estate_size: (0, 0),
                parked_at: None,
                left_too_much: false,
                left: false,
                budget: Budget::new(Instant::now()),
            },
        );
    }

    /// A flood of connections that prove nothing must not use up the descriptors, nor keep others out: over the bound, the
    /// process that has most of them loses its oldest. Who did not mean it tries again.
    fn make_room(&mut self, wiring: &mut dyn Wiring) {
        let unproved = || self.connections.iter().filter(|(_, c)| c.is_unproved());
        if unproved().count() < UNPROVED {
            return;
        }
        let mut of_process: HashMap<u32, usize> = HashMap::new();
        for (_, connection) in unproved() {
            *of_process.entry(connection.peer.pid).or_default() += 1;
        }
        let most = of_process.into_iter().max_by_key(|(_, count)| *count);
        let oldest = unproved()
            .filter(|(_, c)| most.is_some_and(|(pid, _)| c.peer.pid == pid))
            .min_by_key(|(_, c)| c.since)
            .map(|(token, _)| *token);
        if let Some(token) = oldest {
            self.drop_connection(token, "too many have not proved themselves", wiring);
        }
    }

    pub(super) fn packet(
        &mut self,
        token: u64,
        packet: &[u8],
        handles: Received,
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
    pub(super) fn learn_from(
        &mut self,
        before: Option<u64>,
        mut handles: Received,
        wiring: &mut dyn Wiring,
    ) {
        if before.is_none() || self.settled() || handles.len() > 2 {
            return;
        }
        let directory = handles
            .next()
            .and_then(|h| Directory::memory_from_peer(h).ok())
            .and_then(|m| Directory::open(m).ok());
        if let Some(directory) = directory
            && (self.generation..self.believed).contains(&directory.generation())
        {
            // We were a stranger when we won.
            self.generation = directory.generation() + 1;
            self.expect(&directory, wiring);
        }
        if self.mark.is_none() {
            let mark = handles.next().and_then(|h| MembersMark::from_peer(h).ok());
            self.mark = mark.map(Arc::new);
        }
    }

    /// Admits a connection that has proved itself, if it is time.
    pub(super) fn admit(&mut self, token: u64, wiring: &mut dyn Wiring) {
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
        let doubtful = |id: &u64| self.doubtful.get(id) == Some(&hash);
        let known = known.or_else(|| registration.before.filter(doubtful));
        // Whose secret is in no directory is new, whatever id it says it had.
        if known.is_none() && !settled {
            return;
        }
        // A directory that cannot hold all would hold nobody.
        let room = registration.label.len() + ENTRY;
        if known.is_none() && room_for(self.listed.values()) + room > DIRECTORY_MAX {
            let refused = protocol::encode(&ToMember::Refused(Refused::Full));
            let _ = connection.channel.send(&refused, &[]);
            return self.drop_connection(token, "the directory is full", wiring);
        }
        let id = known.unwrap_or_else(|| {
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
        self.forget_absent(id, wiring);
        self.doubtful.remove(&id);
        let relisted = self.listed.insert(id, listed.clone());
        if relisted.as_ref() != Some(&listed) {
            self.publish(|w| w.joined(&listed), wiring);
        }
        // Not before: all members are told of a new directory, and this one is to get it with its welcome.
        self.ids.insert(id, token);
        // Without handles for it now it is welcomed a little later: to turn it away would be to take its id from it, and to have
        // it enter the directory and leave it again and again.
        self.owe(token, |c| c.owes_welcome = Some(proof), wiring);
        self.pass_on(wiring);
        self.settle_if_complete(wiring);
    }
}

/// Tells a process that it may not join. It is greeted first, so that one of another version learns that.
fn refuse(channel: &Channel, reason: Refused) {
    if let Ok(nonce) = proof::random() {
        let _ = channel.send(&protocol::encode(&Hello::new(nonce)), &[]);
        let _ = channel.send(&protocol::encode(&ToMember::Refused(reason)), &[]);
    }
}
