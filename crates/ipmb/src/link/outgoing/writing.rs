//! Messages into the ring.

use super::{Outgoing, Parcel, Refusal};
use crate::{
    link::{
        layout::{BlockRef, Kind, RecordHead, UUID, WORD},
        pool::Lease,
        runs::{Origin, Run},
    },
    sync::{copy_to_shared, prefetch_to_write},
    sys::{self, AsHandle, BorrowedHandle},
};
use std::{io, sync::Arc, time::Instant};

/// So many bytes before they are written their cache line is asked for: it is the receiver's, who read it a round ago.
const AHEAD: u64 = 256;

impl Outgoing {
    /// Whether a payload of so many bytes goes into the ring itself.
    #[inline]
    pub(crate) fn fits_inline(&self, len: usize) -> bool {
        len <= self.inline_max
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
        if self.write.free() > 2 * AHEAD {
            let ahead = self.write.offset(at.wrapping_add(AHEAD));
            // SAFETY: an offset lies inside the ring.
            prefetch_to_write(unsafe { self.records.ring().add(ahead) });
        }
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
    pub(super) fn make_room(&mut self, size: u64) -> Result<(), Refusal> {
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

    pub(super) fn may_send_handles(&mut self, count: usize) -> Result<(), Refusal> {
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
}
