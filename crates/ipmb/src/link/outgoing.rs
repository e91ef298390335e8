//! The sender's end of a link. Used by one thread at a time, under its endpoint's lock.

use super::{
    doorbell::{Mode, Sleeper, Watcher, fence_before_look},
    handles::Handles,
    layout::{
        BlockRef, FENCES_REACH_WRITER, Facts, HEADER, Head, Kind, RETURNS, RecordHead, UUID, WORD,
    },
    pool::{Lease, Pool},
    ring::{Boundaries, Lie, WriteIndex},
    runs::{Origin, Run, Runs},
    side,
};
use crate::{
    sync::{Ordering, copy_to_shared},
    sys::{
        self, AsHandle, Bell, BorrowedHandle, Channel, Memory, Protection, Ringer, Seal,
        fences_reach_us,
    },
};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

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

/// A message that the receiver had not taken when it died.
#[derive(Debug)]
pub(crate) struct Untaken {
    pub uuid: [u8; 16],
    pub payload: Vec<u8>,
    pub origin: Arc<Origin>,
    pub deadline: Option<Instant>,
}

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

    /// Where the unicast messages that the receiver has not taken may go when it dies.
    pub(crate) fn untaken_origins(&mut self) -> impl Iterator<Item = &Arc<Origin>> {
        let _ = self.refresh();
        self.runs.origins(self.write.head())
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

    /// Whether a payload of so many bytes goes into the ring itself.
    #[inline]
    pub(crate) fn fits_inline(&self, len: usize) -> bool {
        len <= self.inline_max
    }

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
    fn full(&self, wanted: usize) -> Refusal {
        Refusal::Full(Lack {
            wanted,
            known: self.room(),
            of_block: false,
        })
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

    /// Gives a block back unused.
    pub(crate) fn abandon(&mut self, lease: &Lease) {
        self.pool.abandon(lease);
        self.given_up = self.given_up.wrapping_add(1);
    }

    /// Gives a block back that was leased under the same lock: for nobody else has it ever been taken.
    pub(crate) fn take_back(&mut self, lease: &Lease) {
        self.pool.abandon(lease);
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

    /// Writes a message that has no handles and differs from the last one in its payload only. False, and nothing is
    /// written, if it is another, or this link has other business first: then use [`Outgoing::write`].
    #[inline]
    pub(crate) fn append(
        &mut self,
        uuid: &[u8; 16],
        head: &[u8],
        tail: &[u8],
        origin: Option<&Arc<Origin>>,
    ) -> bool {
        let len = head.len() + tail.len();
        let size = ((WORD + len + 7) & !7) as u64;
        let at = self.write.tail();
        let offset = self.write.offset(at);
        let Some(last) = &mut self.runs.last else {
            return false;
        };
        if len > self.inline_max
            || self.write.free() < size
            || size > (self.capacity - offset) as u64
            || self.offer.is_some()
            || self.broken.is_some()
            || !last.covers(uuid, origin, None)
        {
            return false;
        }
        last.end = at.wrapping_add(size);
        self.put_bytes(offset, &RecordHead::plain(len as u32).to_ne_bytes());
        self.put_bytes(offset + WORD, head);
        if !tail.is_empty() {
            self.put_bytes(offset + WORD + head.len(), tail);
        }
        self.publish(size);
        true
    }

    /// Writes a message with its payload.
    #[inline]
    pub(crate) fn write(
        &mut self,
        parcel: &Parcel<'_>,
        origin: Option<&Arc<Origin>>,
        deadline: Option<Instant>,
    ) -> Result<(), Refusal> {
        if self.offer.is_some() {
            self.look_for_acceptance();
        }
        let head = RecordHead {
            kind: Kind::Inline,
            len: parcel.len() as u32,
            has_uuid: self.is_another_type(parcel.uuid),
            has_attachments: !parcel.handles.is_empty(),
            objects: parcel.objects,
            regions: parcel.regions,
        };
        self.make_room(head.size())?;
        if !parcel.handles.is_empty() {
            self.send_handles(None, parcel.handles)?;
        }
        self.put(head, parcel, &[parcel.head, parcel.tail], origin, deadline);
        Ok(())
    }

    /// Writes a message whose payload was put into a block. An error leaves the lease as it is.
    pub(crate) fn write_block(
        &mut self,
        parcel: &Parcel<'_>,
        lease: &Lease,
        origin: Option<&Arc<Origin>>,
        deadline: Option<Instant>,
    ) -> Result<(), Refusal> {
        self.look_for_acceptance();
        let (reference, memory) = self
            .pool
            .reference(lease)
            .ok_or(Refusal::Broken("a block was lost"))?;
        let head = RecordHead {
            kind: Kind::Block,
            len: BlockRef::SIZE as u32,
            has_uuid: self.is_another_type(parcel.uuid),
            has_attachments: memory.is_some() || !parcel.handles.is_empty(),
            objects: parcel.objects,
            regions: parcel.regions,
        };
        if memory.is_some() || !parcel.handles.is_empty() {
            // `send_handles` needs all of `self`; a copy of the handle ends the borrow of the pool.
            let memory = match memory.map(|m| sys::duplicate(m.as_handle())) {
                Some(Ok(memory)) => Some(memory),
                Some(Err(e)) => return Err(Refusal::Io(e)),
                None => None,
            };
            self.make_room(head.size())?;
            let memory = memory.as_ref().map(AsHandle::as_handle);
            self.send_handles(memory, parcel.handles)?;
        } else {
            self.make_room(head.size())?;
        }
        self.put(head, parcel, &[&reference.to_bytes()], origin, deadline);
        self.pool.published(lease, self.write.tail());
        Ok(())
    }

    /// Makes sure that a record of `size` bytes can be put in one piece at the tail.
    #[inline]
    fn make_room(&mut self, size: u64) -> Result<(), Refusal> {
        if self.broken.is_some() {
            return Err(Refusal::Broken(self.broken.unwrap_or_default()));
        }
        let to_end = (self.capacity - self.write.offset(self.write.tail())) as u64;
        let pad = if size > to_end { to_end } else { 0 };
        if self.write.free() < size + pad {
            self.refresh()?;
            if self.write.free() < size + pad {
                return Err(self.full(size as usize));
            }
        }
        if pad > 0 {
            // Published together with the record: the receiver never sees a pad alone.
            self.put_word(
                self.write.tail(),
                RecordHead::pad((pad - 8) as u32).to_word(),
            );
        }
        Ok(())
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

    fn may_send_handles(&mut self, count: usize) -> Result<(), Refusal> {
        if !self.handles.may_send(count) && !crate::fault::on(17) {
            self.refresh()?;
            if !self.handles.may_send(count) {
                return Err(self.full(0));
            }
        }
        Ok(())
    }

    /// Sends the handles ahead of their record.
    #[cold]
    fn send_handles(
        &mut self,
        memory: Option<BorrowedHandle<'_>>,
        handles: &[BorrowedHandle<'_>],
    ) -> Result<(), Refusal> {
        self.may_send_handles(handles.len() + usize::from(memory.is_some()))?;
        match self.handles.send(&self.side, memory, handles) {
            Ok(()) => Ok(()),
            Err(e) => Err(match sys::exhausted(&e) {
                Some(crate::Resource::HandlesInFlight) => Refusal::Busy(e),
                _ if e.kind() == io::ErrorKind::WouldBlock => Refusal::Busy(e),
                _ if sys::is_hangup(&e) => {
                    self.break_off("the receiver is gone");
                    Refusal::Broken("the receiver is gone")
                }
                _ => Refusal::Io(e),
            }),
        }
    }

    /// Puts a record at the tail, where `make_room` found room, and publishes it.
    #[inline]
    fn put(
        &mut self,
        head: RecordHead,
        parcel: &Parcel<'_>,
        body: &[&[u8]],
        origin: Option<&Arc<Origin>>,
        deadline: Option<Instant>,
    ) {
        let mut at = self.write.tail();
        let offset = self.write.offset(at);
        let mut skipped = 0;
        if head.size() > (self.capacity - offset) as u64 {
            skipped = (self.capacity - offset) as u64;
            at = at.wrapping_add(skipped);
        }
        self.put_word(at, head.to_word());
        let mut to = self.write.offset(at) + WORD;
        if head.has_uuid {
            self.put_bytes(to, parcel.uuid);
            to += UUID;
        }
        if head.has_attachments {
            self.put_bytes(to, &self.handles.number().to_le_bytes());
            to += 8;
        }
        for part in body {
            self.put_bytes(to, part);
            to += part.len();
        }
        let end = at.wrapping_add(head.size());
        if head.has_attachments {
            self.handles.recorded(end);
        }
        self.note(end, parcel.uuid, origin, deadline);
        self.publish(skipped + head.size());
    }

    /// Publishes what was written at the tail, and wakes the receiver if it sleeps.
    #[inline]
    fn publish(&mut self, len: u64) {
        let before = self.write.tail();
        self.write.publish(len, self.records.index());
        self.boundaries.note(before, self.write.tail());
        if self.messages.must_ring(self.returns.sleep()) {
            self.ringer.ring();
        }
    }

    /// Enters a record into the books that say what becomes of it when the receiver dies.
    #[inline]
    fn note(
        &mut self,
        end: u64,
        uuid: &[u8; 16],
        origin: Option<&Arc<Origin>>,
        deadline: Option<Instant>,
    ) {
        if let Some(last) = &mut self.runs.last
            && last.covers(uuid, origin, deadline)
        {
            last.end = end;
            return;
        }
        // The ring may never get full.
        if self.runs.are_many() {
            let _ = self.refresh();
        }
        self.runs.begin(Run {
            end,
            uuid: *uuid,
            origin: origin.cloned(),
            deadline,
        });
    }

    /// Whether the receiver has to be told the type, as it is not that of the record before.
    #[inline]
    fn is_another_type(&self, uuid: &[u8; 16]) -> bool {
        self.runs
            .last
            .as_ref()
            .is_none_or(|last| last.uuid != *uuid)
    }

    #[inline]
    fn put_word(&self, index: u64, word: u64) {
        self.put_bytes(self.write.offset(index), &word.to_ne_bytes());
    }

    #[inline]
    fn put_bytes(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.capacity);
        // SAFETY: inside the ring, which is mapped for as long as `self` lives; the bytes from the tail on that
        // `make_room` found free are this side's alone.
        unsafe { copy_to_shared(bytes, self.records.ring().add(offset)) };
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

    /// Up to where the receiver has given back, and up to where it is written.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    #[allow(dead_code)] // The liars ask, who are not built for every system.
    pub(crate) fn books(&self) -> (u64, u64) {
        (self.write.head(), self.write.tail())
    }

    /// What a dead receiver had not taken, in its order, and how many messages of it are lost. Take it once.
    pub(crate) fn untaken(&mut self) -> (Vec<Untaken>, u64) {
        let (mut untaken, mut lost) = (Vec::new(), 0);
        if self.look_at_head().is_err() {
            log::warn!("a dead receiver's books are wrong; using what it said last");
        }
        self.runs.end();
        let (mut at, end) = (self.write.head(), self.write.tail());
        let mut uuid = None;
        while at != end && end.wrapping_sub(at) as i64 > 0 {
            let offset = self.write.offset(at);
            let Some(head) = self.head_at(at) else {
                break;
            };
            let next = at.wrapping_add(head.size());
            if head.kind == Kind::Pad {
                at = next;
                continue;
            }
            self.runs.passed(at);
            let run = self.runs.first();
            uuid = run.map(|r| r.uuid).or(uuid);
            let body = self.bytes(offset + head.body_at(), head.len as usize);
            let payload = match head.kind {
                Kind::Block => body
                    .try_into()
                    .ok()
                    .and_then(|b| self.pool.payload(BlockRef::from_bytes(b))),
                _ => Some(body),
            };
            match (run, payload, uuid) {
                (Some(run), Some(payload), Some(uuid))
                    if head.objects == 0 && head.regions == 0 && run.origin.is_some() =>
                {
                    if let Some(origin) = &run.origin {
                        untaken.push(Untaken {
                            uuid,
                            payload: payload.to_vec(),
                            origin: origin.clone(),
                            deadline: run.deadline,
                        });
                    }
                }
                // A multicast reached everybody else on their own links.
                (Some(run), ..) if run.origin.is_none() => {}
                _ => lost += 1,
            }
            at = next;
        }
        (untaken, lost)
    }

    fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        let len = len.min(self.capacity.saturating_sub(offset));
        // SAFETY: inside the ring; only this side writes, and not while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.records.ring().add(offset).as_ptr(), len) }
    }
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
