//! Room in a link: blocks, what is lacking, and how to sleep until there is more.

use super::{Outgoing, Refusal};
use crate::{
    link::{
        doorbell::{Mode, fence_before_look},
        layout::{FENCES_REACH_WRITER, RecordHead},
        pool::Lease,
        side,
    },
    sync::Ordering,
};

/// What is known of the room in a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    /// Up to where the ring was given back.
    head: u64,
    /// How many blocks the receiver had let go of.
    released: u32,
    /// How many blocks were given up here, unused.
    given_up: u32,
}

/// Room that was looked for in vain. Made under the lock under which there was too little: others may notice what is given
/// back from then on, and whoever waits must find out by comparing, since nobody rings for that again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lack {
    /// How much, in bytes.
    pub wanted: usize,
    known: Room,
    /// A block may help. Those that are given up because the ring is full are no news for who waits for the ring.
    of_block: bool,
}

/// How to sleep for space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sleep {
    /// There is room by now.
    NotNow,
    /// Until the side channel says something.
    Sound,
    /// For a moment only. The system refused to fence the receiver, which may have overlooked the announcement; or a thread of this
    /// side has a block that it may give up unused, and nobody rings for that.
    Short,
}

impl Outgoing {
    /// A block for a payload of `len` bytes, of which `front` stand before the bulk.
    pub(crate) fn lease(&mut self, len: usize, front: usize) -> Result<Lease, Refusal> {
        self.refresh()?;
        let head = self.write.head();
        match self.pool.lease(len, front, head, &self.returns) {
            Ok(Some(lease)) => Ok(lease),
            Ok(None) => Err(Refusal::Full(Lack {
                wanted: len,
                known: self.room(),
                of_block: true,
            })),
            Err(e) => Err(Refusal::Io(e)),
        }
    }

    /// A block as [`Outgoing::lease`] has it, if it could be sent now with so many handles beside it.
    pub(crate) fn lease_to_send(
        &mut self,
        len: usize,
        front: usize,
        handles: usize,
    ) -> Result<Lease, Refusal> {
        self.make_room(RecordHead::LARGEST_OF_BLOCK)?;
        self.may_send_handles(handles)?;
        let lease = self.lease(len, front)?;
        if self.pool.is_fresh(&lease)
            && let Err(refusal) = self.may_send_handles(handles + 1)
        {
            self.take_back(&lease);
            return Err(refusal);
        }
        Ok(lease)
    }

    /// Gives a block back unused.
    pub(crate) fn abandon(&mut self, lease: &Lease) {
        self.pool.abandon(lease);
        self.given_up = self.given_up.wrapping_add(1);
    }

    /// Gives a block back that was leased under the same lock: for nobody else has it ever been taken.
    pub(crate) fn take_back(&mut self, lease: &Lease) {
        self.pool.abandon(lease);
    }

    /// What is lacking for who waits behind others.
    pub(crate) fn lack(&mut self) -> Lack {
        // Who waits would else go by what was known before them.
        let _ = self.refresh();
        Lack {
            wanted: 0,
            known: self.room(),
            of_block: true,
        }
    }

    /// Too little room in the ring for so many bytes, or too many handles under way, by what is known now.
    #[cold]
    pub(super) fn full(&self, wanted: usize) -> Refusal {
        Refusal::Full(Lack {
            wanted,
            known: self.room(),
            of_block: false,
        })
    }

    /// Announces that a thread of this side is about to sleep on the side channel for what it lacks.
    pub(crate) fn sleep_for_space(&mut self, lack: &Lack) -> Result<Sleep, Refusal> {
        if side::drain(&self.side).is_err() {
            self.break_off("the receiver floods the side channel");
            return Err(Refusal::Broken("the receiver floods the side channel"));
        }
        // After the news of it were thrown away: whoever looks later must not find it, and take the announcement back.
        self.look_for_acceptance();
        let fast = self.space.mode() == Mode::Fast;
        self.space.announce(self.records.sleep());
        let fenced = fence_before_look(fast);
        self.refresh()?;
        if self.has_changed(lack) {
            self.awake();
            return Ok(Sleep::NotNow);
        }
        Ok(match fenced && !self.pool.lends() {
            true => Sleep::Sound,
            false => Sleep::Short,
        })
    }

    /// How to wait until another thread, which sleeps for space already or is about to, has looked. What changes after this look
    /// wakes that one.
    pub(crate) fn follow(&self, lack: &Lack) -> Sleep {
        match (self.has_moved(lack), self.pool.lends()) {
            (true, _) => Sleep::NotNow,
            (false, false) => Sleep::Sound,
            (false, true) => Sleep::Short,
        }
    }

    /// After a sleep for space.
    pub(crate) fn awake(&mut self) {
        let flags = self.returns.flags().load(Ordering::Relaxed);
        let fast = self.offer.is_none() && flags & FENCES_REACH_WRITER != 0;
        self.space.wake(self.records.sleep(), fast);
    }

    /// Whether there may be more room than there was.
    pub(crate) fn has_moved(&self, lack: &Lack) -> bool {
        self.has_changed(lack)
            || self.returns.index().load(Ordering::Relaxed) != self.write.head()
            || self.pool.released(&self.returns) != self.released
    }

    fn has_changed(&self, lack: &Lack) -> bool {
        let (now, known) = (self.room(), lack.known);
        // Who lacks a place in the ring looks again for a block, too: others may wait until it has looked.
        (now.head, now.released) != (known.head, known.released)
            || lack.of_block && now.given_up != known.given_up
    }

    fn room(&self) -> Room {
        Room {
            head: self.write.head(),
            released: self.released,
            given_up: self.given_up,
        }
    }
}
