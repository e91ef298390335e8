//! The directory and the word that it has changed. What a member is owed is a state to look at, never a queue.

use super::{Controller, ENTRY, SHORTAGE, Wiring, connection::Connection};
use crate::{
    control::directory::{Full, Listed, Writer},
    sys::{self, Interest},
};
use std::{io, time::Instant};

/// Bytes that these members take in a directory, at most.
pub(super) fn room_for<'a>(members: impl Iterator<Item = &'a Listed>) -> usize {
    members.map(|l| l.label.len() + ENTRY).sum()
}

impl Controller {
    /// Appends to the directory; replaces it when it is full.
    pub(super) fn publish(
        &mut self,
        append: impl FnOnce(&mut Writer) -> Result<(), Full>,
        wiring: &mut dyn Wiring,
    ) {
        // One that is due is written of what is listed then.
        if self.directory_due || append(&mut self.writer).is_err() {
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

    pub(super) fn replace_directory(&mut self, wiring: &mut dyn Wiring) {
        let written = Writer::new(
            self.generation,
            self.next_id,
            room_for(self.listed.values()),
        )
        .and_then(|mut writer| {
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
                self.directory_due = false;
            }
            Err(e) => {
                // Members would go by a directory that lacks an entry: rather by none, until it can be replaced.
                self.say_short(format_args!("the directory could not be replaced: {e}"));
                self.writer.give_up();
                self.directory_due = true;
                self.look_again_soon();
            }
        }
    }

    /// Marks a debt to a member and pays it if there is room.
    pub(super) fn owe(
        &mut self,
        token: u64,
        debt: impl FnOnce(&mut Connection),
        wiring: &mut dyn Wiring,
    ) {
        if let Some(connection) = self.connections.get_mut(&token) {
            debt(connection);
            self.pay(token, wiring);
        }
    }

    pub(super) fn pay(&mut self, token: u64, wiring: &mut dyn Wiring) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        match connection.pay(&self.writer, self.mark.as_deref()) {
            // It knows by now that it has left, and hands nothing over to another.
            Ok(()) => {
                for parked in connection.bequeath() {
                    self.host.parked(parked);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                connection.want_writable(token, wiring);
            }
            Err(e) if sys::exhausted(&e).is_some() => {
                if connection.owes_welcome.is_some() {
                    self.say_short(format_args!("a welcome could not be sent: {e}"));
                }
                self.look_again_soon();
            }
            // A hang-up is noticed by reading.
            Err(_) => {}
        }
    }

    /// Pays what could not be paid for a shortage.
    pub(super) fn pay_all(&mut self, wiring: &mut dyn Wiring) {
        let indebted = self.connections.iter().filter(|(_, c)| c.is_indebted());
        let tokens: Vec<u64> = indebted.map(|(token, _)| *token).collect();
        for token in tokens {
            self.pay(token, wiring);
        }
    }

    /// There is a shortage that nobody reports the end of.
    pub(super) fn look_again_soon(&mut self) {
        self.retry.get_or_insert(Instant::now() + SHORTAGE);
    }

    pub(super) fn writable(&mut self, token: u64, wiring: &mut dyn Wiring) {
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.writable_wanted = false;
            connection.watch_for(Interest::Readable, token, wiring);
        }
        self.pay(token, wiring);
        self.pass_on(wiring);
    }
}
