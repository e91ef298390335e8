//! A connection to the controller: who is at its other end, how far it has come, and what it is owed.

use super::{PROVE, Wiring, introduction::Introduction};
use crate::{
    control::{
        budget::Budget,
        directory::Writer,
        membership::Parked,
        protocol::{self, LEFT_HANDLES, Nonce, Proof, ToMember},
    },
    sys::{AsHandle, AsSource, Channel, Interest, MembersMark, Peer},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    time::Instant,
};

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Stage {
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
pub(super) struct Registration {
    pub(super) proof: Proof,
    pub(super) secret: [u8; 16],
    pub(super) label: Vec<u8>,
    pub(super) receives: bool,
    /// The id that it says it had.
    pub(super) before: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) channel: Channel,
    pub(super) peer: Peer,
    pub(super) nonce: Nonce,
    pub(super) stage: Stage,
    pub(super) since: Instant,
    pub(super) watches: bool,
    /// It was admitted and does not know yet.
    pub(super) owes_welcome: Option<Proof>,
    pub(super) owes_look: bool,
    pub(super) owes_directory: bool,
    /// Answers that it waits for.
    pub(super) owes_done: u32,
    pub(super) pending: VecDeque<Introduction>,
    /// Receiver and number of the introductions that were not kept: one of each receiver.
    pub(super) put_off: BTreeMap<u64, u64>,
    /// Those of them that it is to make again.
    pub(super) owes_again: BTreeMap<u64, u64>,
    pub(super) writable_wanted: bool,
    /// What its channel is watched for.
    pub(super) interest: Interest,
    pub(super) left: bool,
    pub(super) budget: Budget,
    /// What it leaves behind, in good order or not at all: it keeps all of it itself until its leave is confirmed.
    pub(super) estate: Vec<Parked>,
    /// Handles and bytes of that.
    pub(super) estate_size: (usize, usize),
    /// When the last of that came, until it is taken.
    pub(super) parked_at: Option<Instant>,
    /// It was logged that not all of it is kept.
    pub(super) left_too_much: bool,
}

impl Connection {
    /// Tells the member what it is owed, as far as its channel has room.
    pub(super) fn pay(&mut self, directory: &Writer, mark: Option<&MembersMark>) -> io::Result<()> {
        // Before all else: until then it is no member by its own books.
        if let Stage::Member { id } = self.stage
            && let Some(proof) = self.owes_welcome
        {
            let mut handles = vec![directory.memory().as_handle()];
            handles.extend(mark.map(AsHandle::as_handle));
            let packet = protocol::encode(&ToMember::Welcome { proof, id });
            self.channel.send(&packet, &handles)?;
            self.owes_welcome = None;
        }
        if self.owes_directory {
            let packet = protocol::encode(&ToMember::Directory);
            self.channel
                .send(&packet, &[directory.memory().as_handle()])?;
            self.owes_directory = false;
        }
        if self.owes_look {
            self.channel.send(&protocol::encode(&ToMember::Look), &[])?;
            self.owes_look = false;
        }
        while let Some((to, link)) = self.owes_again.first_key_value() {
            let (to, packet) = (*to, protocol::encode(&ToMember::Again { link: *link }));
            self.channel.send(&packet, &[])?;
            self.owes_again.remove(&to);
        }
        while self.owes_done > 0 {
            self.channel.send(&protocol::encode(&ToMember::Done), &[])?;
            self.owes_done -= 1;
        }
        Ok(())
    }

    /// It waits for another answer. One who never reads them may ask for more than can be counted.
    pub(super) fn owe_done(&mut self) {
        self.owes_done = self.owes_done.saturating_add(1);
    }

    /// What it leaves behind when it has left. It is to be taken when nobody else can get it any more: when the leaver has its
    /// answer, which it can read whatever happens here, or is gone without. Until then it would hand it to the next controller.
    pub(super) fn bequeath(&mut self) -> Vec<Parked> {
        if !self.left {
            return Vec::new();
        }
        (self.estate_size, self.parked_at) = ((0, 0), None);
        std::mem::take(&mut self.estate)
    }

    /// Most handles that its next packet can have.
    pub(super) fn handles_max(&self) -> usize {
        match self.stage {
            Stage::Hello | Stage::Waiting(_) => 0,
            // The last directory and the members' mark.
            Stage::Proof { .. } => 2,
            Stage::Member { .. } => 1 + LEFT_HANDLES,
        }
    }

    pub(super) fn is_indebted(&self) -> bool {
        self.owes_welcome.is_some()
            || self.owes_directory
            || self.owes_look
            || self.owes_done > 0
            || !self.owes_again.is_empty()
    }

    /// Whether it has not yet shown that it knows the token.
    pub(super) fn is_unproved(&self) -> bool {
        matches!(self.stage, Stage::Hello | Stage::Proof { .. })
    }

    /// When it is too late to prove itself. Whatever else a member begins may take as long as it likes.
    pub(super) fn is_late_at(&self) -> Option<Instant> {
        self.is_unproved().then(|| self.since + PROVE)
    }

    pub(super) fn want_writable(&mut self, token: u64, wiring: &mut dyn Wiring) {
        if !self.writable_wanted {
            self.writable_wanted = true;
            self.watch_for(Interest::ReadableOrWritable, token, wiring);
        }
    }

    /// Watches its channel for something else. Not for the same again: a watch that is renewed reports a hang-up that was
    /// reported before, and while there are no handles for what lies before it, that would go round and round.
    pub(super) fn watch_for(&mut self, interest: Interest, token: u64, wiring: &mut dyn Wiring) {
        if std::mem::replace(&mut self.interest, interest) != interest {
            wiring.change(self.channel.source(), token, interest);
        }
    }

    pub(super) fn restore_interest(&mut self, token: u64, wiring: &mut dyn Wiring) {
        let interest = if self.writable_wanted {
            Interest::ReadableOrWritable
        } else {
            Interest::Readable
        };
        self.watch_for(interest, token, wiring);
    }
}
