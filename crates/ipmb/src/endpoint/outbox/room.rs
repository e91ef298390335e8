//! Who is told of room in a link that was full: programs that keep a queue per receiver instead of waiting in `send`.
//!
//! The serving thread listens at such a link's side channel. What it hears there, and the end of a link, is news that
//! [`Outbox::tell_of_room`] keeps until the program asks for it; a descriptor becomes readable meanwhile.

use super::Outbox;
use crate::{endpoint::core::Core, link::outgoing::Sleep, sys::Ringer};
use std::{collections::HashSet, io};

/// What is asked for and what there is to tell.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    awaited: HashSet<u64>,
    news: Vec<u64>,
    ringer: Option<Ringer>,
}

impl Outbox {
    /// The descriptor that is readable while there is news.
    pub(crate) fn room_ringer(&mut self) -> io::Result<&Ringer> {
        if self.rooms.ringer.is_none() {
            let ringer = Ringer::local()?;
            if !self.rooms.news.is_empty() {
                ringer.ring();
            }
            self.rooms.ringer = Some(ringer);
        }
        self.rooms
            .ringer
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Asks for news of room at `peer`. False: nobody may tell; look again in a while.
    pub(crate) fn watch_room(&mut self, core: &Core, peer: u64) -> bool {
        let Some(link) = self.link(peer) else {
            core.orders.introduce();
            return false;
        };
        let number = link.number;
        // Its leader listens to the receiver, and tells when it is done.
        if link.gate.is_led() {
            self.rooms.awaited.insert(peer);
            return true;
        }
        let told = match link.out.sleep_for_space(link.out.refused().1) {
            Ok(Sleep::Sound) => true,
            Ok(Sleep::Short) => false,
            // There is room already, or the next try finds out what is wrong with the link.
            Ok(Sleep::NotNow) | Err(_) => {
                self.rooms.awaited.insert(peer);
                self.tell_of_room(peer);
                return true;
            }
        };
        self.rooms.awaited.insert(peer);
        core.orders.listen(number, true);
        told
    }

    /// There may be room at `peer`, or its link has ended.
    pub(crate) fn tell_of_room(&mut self, peer: u64) {
        if self.rooms.awaited.remove(&peer) {
            self.rooms.news.push(peer);
            if let Some(ringer) = &self.rooms.ringer {
                ringer.ring();
            }
        }
    }

    /// Takes the news.
    pub(crate) fn take_rooms(&mut self) -> Vec<u64> {
        if let Some(ringer) = &self.rooms.ringer {
            ringer.clear();
        }
        std::mem::take(&mut self.rooms.news)
    }
}
