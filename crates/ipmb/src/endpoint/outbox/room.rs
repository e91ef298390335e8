//! Room in links that were full: whoever waits for it sleeps here, or has the serving thread listen.
//!
//! Some wait in `send`. Programs that keep a queue per receiver are told instead: what the serving thread hears of a link, and its end,
//! is news that [`Outbox::tell_of_room`] keeps until the program asks for it; a descriptor becomes readable meanwhile.
//!
//! All who wait for one link share an announcement and a side channel, and each lacks something else. So whoever takes a ring out of the
//! channel, or the announcement back, lets the others look for themselves.

use super::{Attempt, Outbox, Sending};
use crate::{
    endpoint::core::Core,
    link::outgoing::{Lack, Sleep},
    sys::Ringer,
};
use std::{collections::HashMap, io};

/// What is asked for and what there is to tell.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// What was lacking at those of whose room the program wants to hear.
    awaited: HashMap<u64, Lack>,
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

    /// What it means that a message could not go to `target`. Who chooses the receivers keeps a queue for each: it must learn whose
    /// message it is, be it for want of room, of a link or of handles, and what was lacking is remembered for
    /// [`Outbox::watch_room`].
    #[cold]
    pub(crate) fn refused(
        &mut self,
        sending: &Sending<'_>,
        target: u64,
        attempt: Attempt,
    ) -> Attempt {
        if sending.may.is_none() {
            return attempt;
        }
        let lack = match &attempt {
            Attempt::NotChosen => return attempt,
            Attempt::Full(lack) => Some(*lack),
            // Nobody rings when this is over.
            _ => {
                self.tell_of_room(target);
                None
            }
        };
        if let Some(link) = self.link(target) {
            // The older one, if nobody has asked since: what changed between them is news.
            link.refused = lack.map(|lack| link.refused.unwrap_or(lack));
        }
        match attempt {
            Attempt::Busy(_) | Attempt::NoLink => Attempt::NotChosen,
            other => other,
        }
    }

    /// Asks for news of room at `peer`. False: nobody may tell; look again in a while.
    pub(crate) fn watch_room(&mut self, core: &Core, peer: u64) -> bool {
        let awaited = self.rooms.awaited.get(&peer).copied();
        let Some(link) = self.link(peer) else {
            core.orders.introduce();
            return false;
        };
        let Some(lack) = awaited.or(link.refused) else {
            return false;
        };
        link.refused = None;
        self.rooms.awaited.insert(peer, lack);
        match self.listen(core, peer, &lack) {
            Sleep::NotNow => {
                self.tell_of_room(peer);
                true
            }
            Sleep::Sound => true,
            Sleep::Short => false,
        }
    }

    /// Has the serving thread listen for what is lacking at `target`, or whoever does so already.
    pub(super) fn listen(&mut self, core: &Core, target: u64, lack: &Lack) -> Sleep {
        let Some(link) = self.link(target) else {
            return Sleep::NotNow;
        };
        let number = link.number;
        // Its leader listens to the receiver, and pumps and tells when it is done.
        if link.gate.is_led() {
            return link.out.follow(lack);
        }
        let sleep = self.sleep_for_space(target, lack);
        if sleep != Sleep::NotNow {
            core.orders.listen(number, true);
        }
        sleep
    }

    /// Announces that somebody sleeps for what is lacking at `target`. `NotNow` also where the next try finds out what is wrong.
    pub(crate) fn sleep_for_space(&mut self, target: u64, lack: &Lack) -> Sleep {
        let awaited = self.rooms.awaited.get(&target).copied();
        let Some(link) = self.link(target) else {
            return Sleep::NotNow;
        };
        let sleep = link.out.sleep_for_space(lack).unwrap_or(Sleep::NotNow);
        let is_news = awaited.is_some_and(|lack| link.out.has_moved(&lack));
        if is_news || sleep == Sleep::NotNow {
            self.tell_of_room(target);
        }
        sleep
    }

    /// There may be room at `peer`, or its link has ended.
    pub(crate) fn tell_of_room(&mut self, peer: u64) {
        if self.rooms.awaited.remove(&peer).is_some() {
            if !self.rooms.news.contains(&peer) {
                self.rooms.news.push(peer);
            }
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
