//! Taking the bus over from a controller that is gone, and handing it over. Until every member of before is back or dead, or
//! some time has passed, the bus is not *settled* and nobody new is admitted.

use super::{Controller, Wiring};
use crate::{
    control::directory::{Directory, Listed, MEMBERS, Reader, Writer},
    sys::{self, AsSource, Interest, OwnHandle},
};
use std::{collections::HashMap, sync::Arc};

/// A process and the token of its death notice. All members in it share one: a directory that somebody made up could name
/// thousands in a process that never ends.
pub(super) type Watch = (Arc<OwnHandle>, u64);

/// A member of before that has not come back.
#[derive(Debug)]
pub(super) struct Absent {
    pub(super) listed: Listed,
    /// Its process, if it can be watched.
    pub(super) process: Option<Watch>,
}

impl Controller {
    /// Learns from the last directory who should come back. They are listed from the start: should this controller be killed
    /// before it is settled, its directory is the last, and nobody must be missing from it.
    pub(super) fn expect(&mut self, before: &Arc<Directory>, wiring: &mut dyn Wiring) {
        let mut reader = Reader::new(before.clone());
        match reader.catch_up() {
            Ok(()) => self.forget_leavers(&reader, wiring),
            Err(e) => log::warn!("the last directory is only partly readable: {e}"),
        }
        let given = |id: &u64| *id < self.believed;
        let ids = reader.members.keys().copied().filter(given);
        let next = ids.max().map_or(0, |id| id + 1);
        let next = next.max(Some(before.next_id()).filter(given).unwrap_or(0));
        self.next_id = self.next_id.max(next);
        self.writer.follows(self.generation, self.next_id);
        let same_space = before.pid_space() != 0 && before.pid_space() == sys::pid_space();
        let mut watches: HashMap<(u32, u64), Watch> = HashMap::new();
        for absent in self.absent.values() {
            if let Some(watch) = &absent.process {
                watches.insert((absent.listed.pid, absent.listed.start_time), watch.clone());
            }
        }
        for (id, member) in reader.members {
            if self.ids.contains_key(&id) || self.absent.contains_key(&id) || id >= self.believed {
                continue;
            }
            // A liar may have brought both directories: the one without a member, and the one with its id for another.
            let secret = self.doubtful.get(&id);
            if secret.is_some_and(|secret| *secret != member.listed.secret_hash) {
                continue;
            }
            let mut process = None;
            let key = (member.listed.pid, member.listed.start_time);
            if let Some(watch) = watches.get(&key).filter(|_| same_space) {
                process = Some(watch.clone());
            } else if same_space {
                match life_of(&member.listed) {
                    Life::Dead => continue,
                    Life::Unknown => {}
                    Life::Watched(handle) => {
                        if let Ok(token) = wiring.watch(handle.source(), Interest::Readable) {
                            let watch = (Arc::new(handle), token);
                            watches.insert(key, watch.clone());
                            process = Some(watch);
                        }
                    }
                }
            }
            let listed = member.listed;
            self.listed.insert(id, listed.clone());
            self.publish(|w| w.joined(&listed), wiring);
            self.absent.insert(id, Absent { listed, process });
        }
    }

    /// Who is expected by an earlier directory than this one, and is not in this one, has left in the meantime. If it comes back
    /// all the same, this one was forged.
    fn forget_leavers(&mut self, reader: &Reader, wiring: &mut dyn Wiring) {
        let left = |id: &&u64| !reader.members.contains_key(id);
        let leavers: Vec<u64> = self.absent.keys().filter(left).copied().collect();
        for id in leavers {
            if let Some(listed) = self.forget_absent(id, wiring)
                && self.doubtful.len() < MEMBERS
            {
                self.doubtful.insert(id, listed.secret_hash);
            }
            self.listed.remove(&id);
            self.publish(|w| w.left(id), wiring);
        }
    }

    pub(super) fn forget_absent(&mut self, id: u64, wiring: &mut dyn Wiring) -> Option<Listed> {
        let absent = self.absent.remove(&id)?;
        if let Some((handle, token)) = absent.process
            && let Some(handle) = Arc::into_inner(handle)
        {
            wiring.forget(handle.source(), token);
        }
        Some(absent.listed)
    }

    pub(super) fn settle_if_complete(&mut self, wiring: &mut dyn Wiring) {
        // Without a single member back nothing is known of those of before; and a single one may have lied about the others.
        let awaited = self.absent.len() + self.doubtful.len();
        if !self.settled() && awaited == 0 && !self.ids.is_empty() {
            self.settle(wiring);
        }
    }

    /// From now on the directory is the truth, and new endpoints are admitted.
    pub(super) fn settle(&mut self, wiring: &mut dyn Wiring) {
        self.settle_by = None;
        let unwatched: Vec<u64> = self
            .absent
            .iter()
            .filter(|(_, a)| a.process.is_none() || crate::fault::on(19))
            .map(|(id, _)| *id)
            .collect();
        for id in unwatched {
            self.forget_absent(id, wiring);
            self.listed.remove(&id);
            self.publish(|w| w.left(id), wiring);
        }
        // Those who are alive but did not come in time (stopped, most likely) stay members.
        if self.mark.is_none() {
            self.mark = self.bus.rendezvous.mark().ok().flatten().map(Arc::new);
        }
        self.publish(Writer::settled, wiring);
        // Who is not yet a member is told nothing before its welcome.
        let members: Vec<u64> = self.ids.values().copied().collect();
        for token in members {
            self.owe(token, |c| c.owes_look = true, wiring);
        }
        let waiting: Vec<u64> = self.connections.keys().copied().collect();
        for token in waiting {
            self.admit(token, wiring);
        }
        self.pass_on(wiring);
    }

    /// Hands the role over, or ends the bus if nobody is left: the directory says that `leaver` has left, and then that it stands for nothing any more.
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
        if !self.has_others(leaver.unwrap_or(0)) && self.mark.is_some() {
            self.seat.clean_up();
        }
        wiring.forget(self.seat.source(), self.seat_token);
        for (token, connection) in &self.connections {
            wiring.forget(connection.channel.source(), *token);
        }
        let absent: Vec<u64> = self.absent.keys().copied().collect();
        for id in absent {
            self.forget_absent(id, wiring);
        }
    }

    /// Whether anybody but `id` is a member. Who has left is none, though its channel may still be open. Who has died since the thread last slept is not, though its event is still to come.
    pub(crate) fn has_others(&self, id: u64) -> bool {
        let lives = |absent: &Absent| {
            let process = absent.process.as_ref();
            process.is_none_or(|(handle, _)| !sys::has_ended(handle))
        };
        let stays = |token| self.connections.get(token).is_some_and(|c| !c.left);
        let mut members = self.ids.iter();
        members.any(|(other, token)| *other != id && stays(token))
            || self.absent.values().any(lives)
    }
}

/// What is known of a member's process.
enum Life {
    Dead,
    /// Alive when it was looked at; its handle tells when it ends.
    Watched(OwnHandle),
    /// A sandbox forbids to look, or there are no handles left: then only time tells.
    Unknown,
}

fn life_of(listed: &Listed) -> Life {
    match sys::watch_process(listed.pid) {
        Ok(process) => {
            let start = sys::start_time(listed.pid);
            let known = listed.start_time != 0;
            let other = start != 0 && known && start != listed.start_time;
            match other || sys::has_ended(&process) {
                true => Life::Dead,
                // Whoever listed it could not look, or says so of a process that it made up: it has to come by itself.
                false if start != 0 && !known => Life::Unknown,
                false => Life::Watched(process),
            }
        }
        Err(e) if sys::is_no_process(&e) => Life::Dead,
        Err(_) => Life::Unknown,
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
