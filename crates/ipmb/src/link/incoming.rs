//! The receiver's end of a link. Everything that the sender can write is hostile: it is read once, checked against this
//! side's own books, and only then used.

use super::{
    doorbell::{self, Mode, Sleeper, Watcher},
    layout::{
        BLOCKS, BlockRef, CAPACITY_MAX, FENCES_REACH_WRITER, HEADER, Head, Kind, RETURNS,
        RecordHead, UUID, WORD, invalid,
    },
    pool,
    ring::ReadIndex,
    side::{self, TakeError},
};
use crate::{
    sync::{Ordering, copy_from_shared, load_shared},
    sys::{
        self, Ahead, AsHandle, Bell, Channel, Handle, Mapping, Memory, Protection, Received,
        Ringer, fences_reach_us,
    },
};
use std::{io, ptr::NonNull, sync::Arc};

/// After so many messages without a sleep the sender need not fence any more.
const HOT: u32 = 64;

/// Records, returns, bell, side channel.
const LINK_HANDLES: usize = 4;

/// So often a sender may ring without a message between: one that rings once per sleep does it once.
const IN_VAIN: u32 = 64;

/// The message at the head of a link, not yet taken off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    /// First byte of the payload, in memory that the sender may still write to.
    pub payload: NonNull<u8>,
    pub len: usize,
    /// It has handles: first so many objects, then regions. Take them with [`Incoming::take_handles`].
    pub has_handles: bool,
    pub objects: u8,
    /// Bytes of the record.
    size: u64,
    /// The block that the payload lies in.
    block: Option<BlockRef>,
}

impl Record {
    /// What it takes to copy it, in small messages.
    #[inline]
    pub(crate) fn cost(&self) -> usize {
        1 + self.len / 4096
    }

    /// Bytes that may be read at the payload: in a ring it ends where the next record may begin.
    #[inline]
    pub(crate) fn readable(&self) -> usize {
        match self.block {
            None => self.len.next_multiple_of(WORD),
            Some(_) => self.len,
        }
    }
}

/// Why nothing could be taken from a link.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The message stays first in line until there is room for its handles or its memory.
    Exhausted(io::Error),
    /// A payload of so many bytes, which is over the limit here. The record has nothing to read; take it off.
    TooLarge(Record, usize),
    /// The sender does not keep to the protocol; drop the link.
    Broken(&'static str),
}

/// Why a link was not accepted.
#[derive(Debug)]
pub(crate) struct Unaccepted {
    pub error: io::Error,
    /// Those of the link if it is only for want of memory, and nothing if its sender is at fault.
    pub handles: Received,
}

impl From<io::Error> for Unaccepted {
    fn from(error: io::Error) -> Self {
        Self {
            error,
            handles: Received::default(),
        }
    }
}

/// The receiver's end of a link.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Id of the sending endpoint.
    pub(crate) peer: u64,
    records: Head,
    returns: Head,
    read: ReadIndex,
    bell: Bell,
    side: Arc<Channel>,
    messages: Sleeper,
    space: Watcher,
    capacity: u64,
    payload_max: usize,
    /// Type of the last message.
    uuid: [u8; 16],
    has_uuid: bool,
    blocks: Vec<Option<Arc<Mapping>>>,
    /// How often the block of a number was used.
    uses: [u32; BLOCKS],
    /// Handles of the record at the head; not yet all of them after a shortage.
    handles: Received,
    /// Those of records behind it.
    ahead: Ahead,
    /// Messages until the sender need not fence any more.
    until_hot: u32,
    can_be_fast: bool,
    /// Rings without a message since the head was here.
    rung_in_vain: (u64, u32),
    /// The sender is gone; what lies in the ring is still to be read.
    pub(crate) hung_up: bool,
    /// The user keeps the block of the record at the head.
    kept: bool,
    /// Index of the last record whose handles and block were found. It may stay at the head.
    attached: Option<u64>,
}

/// A block that its sender does not use again before this is dropped. It outlives its link.
#[derive(Debug)]
pub(crate) struct Kept {
    number: usize,
    /// How often the block was used, this time included.
    uses: u32,
    _mapping: Arc<Mapping>,
    records: Head,
    returns: Head,
    side: Arc<Channel>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.returns.forked() {
            return;
        }
        // Release: what was read there was read before.
        self.returns
            .released(self.number)
            .store(self.uses, Ordering::Release);
        if doorbell::sleeps(self.records.sleep()) {
            side::tell(&self.side);
        }
    }
}

impl Incoming {
    /// Accepts a link with the handles that its sender offered. The error has them when there was no memory to accept it now;
    /// no further handle is needed. `own`: any bell of this process's own.
    pub(crate) fn accept(
        peer: u64,
        mut handles: Received,
        payload_max: usize,
        own: &Ringer,
    ) -> Result<Self, Unaccepted> {
        let wrong = || invalid("an introduction with a wrong number of handles");
        if handles.len() != LINK_HANDLES {
            return Err(wrong().into());
        }
        let mut next = || -> io::Result<Handle> { handles.next().ok_or_else(wrong) };
        let records = Memory::from_peer(next()?, HEADER, HEADER + CAPACITY_MAX)?;
        let returns = Memory::from_peer(next()?, RETURNS, RETURNS)?;
        let bell = Bell::from_peer(next()?, own)?;
        let side = Channel::from_peer(next()?)?;
        let mapped = records
            .map_all(Protection::Read)
            .and_then(|records| Ok((records, returns.map_all(Protection::ReadWrite)?)));
        let (records, returns) = match mapped {
            Ok(mapped) => mapped,
            Err(error) if sys::exhausted(&error).is_some() => {
                return Err(Unaccepted {
                    error,
                    handles: vec![
                        records.into_handle()?,
                        returns.into_handle()?,
                        bell.into_handle()?,
                        side.into_handle()?,
                    ]
                    .into(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        let (records, facts) = Head::open_records(records)?;
        let returns = Head::open_returns(returns)?;
        let link = Self {
            peer,
            records,
            returns,
            read: ReadIndex::new(facts.start, facts.capacity),
            bell,
            side: Arc::new(side),
            messages: Sleeper::new(),
            space: Watcher::new(),
            capacity: facts.capacity,
            payload_max,
            uuid: [0; 16],
            has_uuid: false,
            blocks: Vec::new(),
            uses: [0; BLOCKS],
            handles: Received::default(),
            ahead: Ahead::default(),
            until_hot: HOT,
            can_be_fast: facts.flags & FENCES_REACH_WRITER != 0,
            rung_in_vain: (facts.start, 0),
            hung_up: false,
            kept: false,
            attached: None,
        };
        if fences_reach_us() {
            link.returns
                .flags()
                .store(FENCES_REACH_WRITER, Ordering::Relaxed);
        }
        // Release: the flags come first.
        link.returns.accepted().store(1, Ordering::Release);
        side::tell(&link.side);
        Ok(link)
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(crate) fn side(&self) -> &Channel {
        &self.side
    }

    /// Whether there may be a message: a look without obligations.
    #[inline]
    pub(crate) fn looks_ready(&self) -> bool {
        self.read.available() > 0
            || self.records.index().load(Ordering::Relaxed) != self.read.head()
    }

    /// The message at the head if it is of the usual kind: its payload lies in the ring, and its type is that of the one
    /// before. `None`: ask [`Incoming::next`].
    #[inline]
    pub(crate) fn next_plain(&mut self) -> Option<Record> {
        if self.read.available() == 0 && self.read.refresh(self.records.index()).is_err() {
            return None;
        }
        let available = self.read.available().min(self.read.contiguous());
        if available < WORD as u64 || !self.has_uuid {
            return None;
        }
        // SAFETY: the head is a multiple of 8, as is all that was ever taken off, and a word lies there whole.
        let word = unsafe { load_shared(self.at(0).cast()) };
        let len = RecordHead::plain_len(word)? as usize;
        let size = (WORD as u64 + len as u64 + 7) & !7;
        (size <= available && len <= self.payload_max).then(|| Record {
            payload: self.at(WORD),
            len,
            has_handles: false,
            objects: 0,
            size,
            block: None,
        })
    }

    /// Type of the message that [`Incoming::next`] returned.
    #[inline]
    pub(crate) fn uuid(&self) -> &[u8; 16] {
        &self.uuid
    }

    /// The handles of the message that [`Incoming::next`] returned.
    pub(crate) fn take_handles(&mut self) -> Received {
        std::mem::take(&mut self.handles)
    }

    /// The message that [`Incoming::next`] returned is not taken off, and will be returned again: these are its handles.
    pub(crate) fn put_back(&mut self, handles: Received) {
        self.handles = handles;
    }

    /// Whether the user keeps the block of the message that [`Incoming::next`] returned.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept
    }

    /// The message at the head, if there is one. Call [`Incoming::taken`] when it was copied out.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Record>, Trouble> {
        loop {
            if self.read.available() == 0 {
                let seen = self.read.refresh(self.records.index());
                seen.map_err(|_| Trouble::Broken("an index outside the ring"))?;
                if self.read.available() == 0 {
                    return Ok(None);
                }
            }
            if self.read.available() < WORD as u64 || self.read.head() % 8 != 0 {
                return Err(Trouble::Broken("a record that is cut"));
            }
            // SAFETY: the head lies in the ring, at a multiple of 8, so a word lies there whole.
            let word = unsafe { load_shared(self.at(0).cast()) };
            let head = RecordHead::from_word(word).ok_or(Trouble::Broken("an unknown record"))?;
            let size = head.size();
            if size > self.read.available() || size > self.read.contiguous() {
                return Err(Trouble::Broken(
                    "a record that is longer than what was published",
                ));
            }
            if head.kind == Kind::Pad {
                // It ends where the ring does and is published with a record behind it: otherwise a liar could have
                // this side skip pads for ever.
                if size != self.read.contiguous() || size == self.read.available() {
                    return Err(Trouble::Broken("a pad out of place"));
                }
                self.read.advance(size);
                continue;
            }
            return self.record(head).map(Some);
        }
    }

    #[inline]
    fn record(&mut self, head: RecordHead) -> Result<Record, Trouble> {
        let mut at = WORD;
        if head.has_uuid {
            let mut uuid = [0; UUID];
            self.copy(at, &mut uuid);
            (self.uuid, self.has_uuid) = (uuid, true);
            at += UUID;
        }
        if !self.has_uuid {
            return Err(Trouble::Broken("a record without a type"));
        }
        let mut record = Record {
            payload: self.at(head.body_at()),
            len: head.len as usize,
            has_handles: false,
            objects: head.objects,
            size: head.size(),
            block: None,
        };
        if head.has_attachments || head.kind == Kind::Block {
            self.attach(head, at, &mut record)?;
        } else if head.objects != 0 || head.regions != 0 {
            return Err(Trouble::Broken("a record without its handles"));
        }
        if crate::fault::on(15) && record.len > 64 << 20 {
            return Err(Trouble::Broken("a payload over the limit"));
        }
        if record.len > self.payload_max {
            let size = std::mem::take(&mut record.len);
            return Err(Trouble::TooLarge(record, size));
        }
        Ok(record)
    }

    /// Fetches the handles of a record and finds its block.
    #[cold]
    fn attach(&mut self, head: RecordHead, at: usize, record: &mut Record) -> Result<(), Trouble> {
        // Its handles are here then, and its block is mapped.
        let again = self.attached == Some(self.read.head());
        let mut reference = None;
        if head.kind == Kind::Block {
            let mut bytes = [0; BlockRef::SIZE];
            if head.len as usize != bytes.len() {
                return Err(Trouble::Broken("a block reference of a wrong length"));
            }
            self.copy(head.body_at(), &mut bytes);
            let mut found = BlockRef::from_bytes(&bytes);
            found.fresh &= !again;
            if found.block as usize >= BLOCKS {
                return Err(Trouble::Broken("a block number over the limit"));
            }
            reference = Some(found);
        }
        let fresh = reference.is_some_and(|r| r.fresh);
        if again {
            // Nothing to fetch.
        } else if head.has_attachments {
            let mut number = [0; 8];
            self.copy(at, &mut number);
            let count = usize::from(fresh) + head.handles();
            let number = u64::from_le_bytes(number);
            let behind = match count {
                1 => self.alike_behind(head.size()),
                _ => 0,
            };
            let (ahead, handles) = (&mut self.ahead, &mut self.handles);
            match side::take(&self.side, ahead, behind, number, count, handles) {
                Ok(()) => {}
                Err(TakeError::Exhausted(e)) => return Err(Trouble::Exhausted(e)),
                Err(TakeError::Broken(why)) => return Err(Trouble::Broken(why)),
            }
        } else if fresh || head.objects != 0 || head.regions != 0 {
            return Err(Trouble::Broken("a record without its handles"));
        }
        if let Some(reference) = reference {
            let len = usize::try_from(reference.len).unwrap_or(usize::MAX);
            let at = usize::from(reference.at);
            let (start, size) = self.block(reference, len > self.payload_max)?;
            if size.checked_sub(at).is_none_or(|room| room < len) {
                return Err(Trouble::Broken("a payload that is longer than its block"));
            }
            if let Some(start) = start {
                // SAFETY: inside the mapping, as was just checked.
                record.payload = unsafe { start.add(at) };
            }
            record.len = len;
            record.block = Some(reference);
        }
        if fresh {
            drop(self.handles.remove(0));
        }
        record.has_handles = !self.handles.is_empty();
        self.attached = Some(self.read.head());
        Ok(())
    }

    /// How many records follow the first `size` bytes that have one handle each and no block, as far as the sender's index was
    /// seen. That is what it has written there now, and need not be so any more when they are read.
    fn alike_behind(&self, size: u64) -> usize {
        let end = self.read.available().min(self.read.contiguous());
        let mut at = size;
        let mut count = 0;
        while count < sys::AHEAD_MAX && at + WORD as u64 <= end {
            // SAFETY: the head and the sizes of records are multiples of 8, so a word lies there whole.
            let word = unsafe { load_shared(self.at(at as usize).cast()) };
            match RecordHead::from_word(word) {
                Some(next) if next.kind == Kind::Inline && next.handles() == 1 => at += next.size(),
                _ => break,
            }
            count += 1;
        }
        count
    }

    /// Where a block is mapped, and its size; the first of the handles is its memory if it is fresh. It is not mapped if it is
    /// for this one payload only, which is too large.
    fn block(
        &mut self,
        reference: BlockRef,
        too_large: bool,
    ) -> Result<(Option<NonNull<u8>>, usize), Trouble> {
        let unread = reference.once && too_large;
        let number = reference.block as usize;
        if self.blocks.len() <= number {
            self.blocks.resize_with(number + 1, || None);
        }
        if reference.fresh {
            let handle = self
                .handles
                .first()
                .ok_or(Trouble::Broken("a block without its memory"))?;
            // A copy, so that a shortage leaves the handles complete for the next try.
            let memory = sys::duplicate(handle.as_handle()).map_err(Trouble::Exhausted)?;
            let most = match unread {
                true => isize::MAX as usize,
                false => pool::size_max(self.payload_max),
            };
            let memory = match Memory::from_peer(memory, 1, most) {
                Ok(memory) => memory,
                Err(e) if sys::exhausted(&e).is_some() => return Err(Trouble::Exhausted(e)),
                Err(_) => {
                    return Err(Trouble::Broken(
                        "a block that is no sealed memory of a possible size",
                    ));
                }
            };
            self.blocks[number] = None;
            if unread {
                return Ok((None, memory.size()));
            }
            let mapped: usize = self.blocks.iter().flatten().map(|m| m.len()).sum();
            if mapped.saturating_add(memory.size()) > pool::mapped_max(self.payload_max) {
                return Err(Trouble::Broken("more memory in blocks than a sender needs"));
            }
            match memory.map_all(Protection::Read) {
                Ok(mapping) => self.blocks[number] = Some(Arc::new(mapping)),
                Err(e) if crate::sys::exhausted(&e).is_some() => return Err(Trouble::Exhausted(e)),
                Err(_) => return Err(Trouble::Broken("a block that cannot be mapped")),
            }
        }
        let mapping = self.blocks[number].as_ref();
        let mapping = mapping.ok_or(Trouble::Broken("a block that never came"))?;
        Ok((Some(mapping.start()), mapping.len()))
    }

    /// Takes the message off and gives its bytes back, before anybody acts on it: what a dead receiver had not given back
    /// goes to somebody else.
    #[inline]
    pub(crate) fn taken(&mut self, record: &Record) {
        if let Some(reference) = record.block {
            self.let_go(reference);
        }
        self.read.advance(record.size);
        self.read.give_back(self.returns.index());
        if self.space.must_ring(self.records.sleep()) {
            side::tell(&self.side);
        }
        if self.until_hot > 0 {
            self.until_hot -= 1;
            if self.until_hot == 0 && self.can_be_fast {
                self.messages.wake(self.returns.sleep(), true);
            }
        }
    }

    /// Lets go of a record's block.
    #[cold]
    fn let_go(&mut self, reference: BlockRef) {
        let number = reference.block as usize % BLOCKS;
        if reference.once {
            self.blocks[number] = None;
        }
        self.uses[number] = self.uses[number].wrapping_add(1);
        if self.kept {
            // It is let go of when the user has done with it.
            self.kept = false;
            return;
        }
        // Release: what was read there was read before.
        self.returns
            .released(number)
            .store(self.uses[number], Ordering::Release);
    }

    /// Keeps the block of the message that [`Incoming::next`] returned beyond [`Incoming::taken`], for as long as the `Kept`
    /// lives. `None` if its payload lies in the ring, or is kept already.
    pub(crate) fn keep(&mut self, record: &Record) -> Option<Kept> {
        let number = record.block?.block as usize % BLOCKS;
        let mapping = self.blocks.get(number)?.clone()?;
        // Two of them would each let go of it.
        if std::mem::replace(&mut self.kept, true) {
            return None;
        }
        Some(Kept {
            number,
            uses: self.uses[number].wrapping_add(1),
            _mapping: mapping,
            records: self.records.clone(),
            returns: self.returns.clone(),
            side: self.side.clone(),
        })
    }

    /// The sender rang. A ring can come late, when its message was taken; but then there was a message.
    pub(crate) fn rang(&mut self) -> Result<(), Trouble> {
        let (head, rings) = &mut self.rung_in_vain;
        if *head != self.read.head() {
            (*head, *rings) = (self.read.head(), 0);
        }
        *rings += 1;
        if *rings > IN_VAIN && !self.looks_ready() {
            return Err(Trouble::Broken("it rings and has no message"));
        }
        Ok(())
    }

    /// Whether the sender rings for the next message.
    pub(crate) fn sleeps(&self) -> bool {
        self.messages.mode() == Mode::Asleep
    }

    /// Announces a sleep. Returns whether the fence that must follow has to reach the sender.
    pub(crate) fn announce_sleep(&mut self) -> bool {
        let fast = self.messages.mode() == Mode::Fast;
        self.messages.announce(self.returns.sleep());
        fast
    }

    /// No longer asleep.
    pub(crate) fn awake(&mut self) {
        self.until_hot = HOT;
        self.messages.wake(self.returns.sleep(), false);
    }

    #[inline]
    fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!((self.read.offset() + offset) as u64 <= self.capacity);
        // SAFETY: the callers have checked that the record's bytes lie in the ring.
        unsafe { self.records.ring().add(self.read.offset() + offset) }
    }

    fn copy(&self, offset: usize, to: &mut [u8]) {
        assert!((self.read.offset() + offset + to.len()) as u64 <= self.capacity);
        // SAFETY: inside the ring by the assertion.
        unsafe { copy_from_shared(self.at(offset), to.as_mut_ptr(), to.len()) };
    }
}
