//! The sender's end of a link. Used by one thread at a time, under its endpoint's lock.

mod room;
mod untaken;
mod writing;

pub(crate) use room::{Lack, Sleep};

use super::{
    doorbell::{Sleeper, Watcher},
    handles::Handles,
    layout::{FENCES_REACH_WRITER, Facts, HEADER, Head, RETURNS, RecordHead},
    pool::Pool,
    ring::{Boundaries, Lie, WriteIndex},
    runs::Runs,
};
use crate::{
    sync::Ordering,
    sys::{
        self, AsHandle, Bell, BorrowedHandle, Channel, Memory, Protection, Ringer, Seal,
        fences_reach_us,
    },
};
use std::{io, sync::Arc, time::Duration};

/// A message as the link takes it.
#[derive(Clone, Copy)]
pub(crate) struct Parcel<'a> {
    pub uuid: &'a [u8; 16],
    /// The payload, in two parts.
    pub head: &'a [u8],
    pub tail: &'a [u8],
    pub objects: u8,
    pub regions: u8,
    /// The objects, then the regions.
    pub handles: &'a [BorrowedHandle<'a>],
}

impl Parcel<'_> {
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }
}

/// Why a link did not take a message.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// No room; the receiver will make some and ring.
    Full(Lack),
    /// The user has too many handles under way. Nobody will ring; look again in a while.
    Busy(io::Error),
    /// Something ran out, or the system refused.
    Io(io::Error),
    /// The receiver is dead, or lies.
    Broken(&'static str),
}

/// The receiver's ends, kept until it has accepted them.
#[derive(Debug)]
pub(crate) struct Offer {
    records: Memory,
    returns: Memory,
    bell: Bell,
    side: Channel,
}

impl Offer {
    /// The handles to introduce the link with, in the order in which [`super::incoming::Incoming::accept`] takes them.
    pub(crate) fn handles(&self) -> [BorrowedHandle<'_>; 4] {
        [
            self.records.as_handle(),
            self.returns.as_handle(),
            self.bell.as_handle(),
            self.side.as_handle(),
        ]
    }
}

/// The sender's end of a link.
#[derive(Debug)]
pub(crate) struct Outgoing {
    records: Head,
    returns: Head,
    write: WriteIndex,
    ringer: Ringer,
    side: Arc<Channel>,
    messages: Watcher,
    space: Sleeper,
    pool: Pool,
    /// The room there is, as last seen.
    released: u32,
    given_up: u32,
    handles: Handles,
    offer: Option<Offer>,
    runs: Runs,
    broken: Option<&'static str>,
    capacity: usize,
    inline_max: usize,
    boundaries: Boundaries,
}

impl Outgoing {
    /// A new link to the process `reader` (0: not known) with a ring of `capacity` bytes whose indices start at `start`.
    pub(crate) fn new(reader: u32, capacity: usize, start: u64) -> io::Result<Self> {
        let mut records = Memory::new(c"ipmb-records", HEADER + capacity)?;
        let mut returns = Memory::new(c"ipmb-returns", RETURNS)?;
        let (ringer, bell) = sys::bell()?;
        let (ours, theirs) = Channel::pair(reader)?;
        ringer.carry(&theirs);
        let start = start & !7;
        let facts = Facts {
            flags: if fences_reach_us() {
                FENCES_REACH_WRITER
            } else {
                0
            },
            capacity: capacity as u64,
            start,
        };
        let records_head = Head::init_records(records.map_all(Protection::ReadWrite)?, facts);
        let returns_head = Head::init_returns(returns.map_all(Protection::ReadWrite)?, start);
        records.seal(Seal::FutureWrite)?;
        returns.seal(Seal::SizeForGood)?;
        Ok(Self {
            records: records_head,
            returns: returns_head,
            write: WriteIndex::new(start, capacity as u64),
            ringer,
            side: Arc::new(ours),
            messages: Watcher::new(),
            space: Sleeper::new(),
            pool: Pool::default(),
            released: 0,
            given_up: 0,
            handles: Handles::default(),
            offer: Some(Offer {
                records,
                returns,
                bell,
                side: theirs,
            }),
            runs: Runs::default(),
            broken: None,
            capacity,
            inline_max: capacity / 16,
            boundaries: Boundaries::new(capacity),
        })
    }

    /// The side channel: it hangs up when the receiver dies, and is readable when the receiver has made room.
    pub(crate) fn side(&self) -> &Arc<Channel> {
        &self.side
    }

    /// What to introduce the link with, while the receiver has not accepted it.
    pub(crate) fn offer(&mut self) -> Option<&Offer> {
        self.look_for_acceptance();
        self.offer.as_ref()
    }

    /// Lets go of the receiver's ends once it has them: only then does its death hang up the side channel.
    pub(crate) fn look_for_acceptance(&mut self) {
        if self.offer.is_none() || self.returns.accepted().load(Ordering::Acquire) == 0 {
            return;
        }
        self.offer = None;
        let flags = self.returns.flags().load(Ordering::Relaxed);
        self.space
            .wake(self.records.sleep(), flags & FENCES_REACH_WRITER != 0);
    }

    /// Whether the receiver has closed its end. Only once it has accepted the link: before that its end is here.
    pub(crate) fn has_hung_up(&self) -> bool {
        sys::wait_for(&*self.side, Some(Duration::ZERO)).is_ok_and(|(_, hangup)| hangup)
    }

    /// Up to where it is written, if the receiver has the link and has taken all that lay in it.
    pub(crate) fn quiet_at(&mut self) -> Option<u64> {
        let accepted = self.offer().is_none();
        let taken = self.refresh().is_ok() && self.write.head() == self.write.tail();
        (accepted && taken && !self.pool.is_in_use(&self.returns)).then(|| self.write.tail())
    }

    /// No more is written; what lies in the link can still be read. Returns why: the first reason that there was, whoever
    /// notices it.
    pub(crate) fn break_off(&mut self, reason: &'static str) -> &'static str {
        let reason = *self.broken.get_or_insert(reason);
        self.side.close();
        reason
    }

    /// Looks at how far the receiver has come. It must be at the border of a record: from there on what is under way is
    /// read again when it dies, and a place within a payload of its choice would be taken for a record.
    fn look_at_head(&mut self) -> Result<(), Lie> {
        let mut seen = self.write;
        seen.refresh(self.returns.index())?;
        let (from, to) = (self.write.head(), seen.head());
        let mut at = self.boundaries.last(from, to);
        while at != to {
            if at % 8 != 0 || to.wrapping_sub(at) > to.wrapping_sub(from) {
                return Err(Lie);
            }
            at = at.wrapping_add(self.head_at(at).ok_or(Lie)?.size());
        }
        self.write = seen;
        Ok(())
    }

    /// The head of the record at an index, a multiple of 8.
    fn head_at(&self, index: u64) -> Option<RecordHead> {
        let offset = self.write.offset(index);
        // SAFETY: inside the ring, aligned; this side wrote it and nobody else can.
        let word = unsafe { crate::sync::load_shared(self.records.ring().add(offset).cast()) };
        RecordHead::from_word(word)
    }

    fn refresh(&mut self) -> Result<(), Refusal> {
        if self.look_at_head().is_err() {
            self.break_off("the receiver gave back what it never had");
            return Err(Refusal::Broken("the receiver gave back what it never had"));
        }
        self.released = self.pool.released(&self.returns);
        let head = self.write.head();
        let passed = |end: u64| head.wrapping_sub(end) as i64 >= 0;
        self.handles.passed(passed);
        self.runs.passed(head);
        Ok(())
    }

    /// Up to where the receiver has given back, and up to where it is written.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    #[allow(dead_code)] // The liars ask, who are not built for every system.
    pub(crate) fn books(&self) -> (u64, u64) {
        (self.write.head(), self.write.tail())
    }
}
