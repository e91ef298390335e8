//! A message as it is sent, and why it was not.

use super::Outbox;
use crate::{
    Encoder, MemoryRegion, Object, SendError,
    endpoint::core::Core,
    link::{
        outgoing::{Lack, Parcel, Refusal},
        runs::Origin,
    },
    sys::{self, AsHandle, BorrowedHandle, Handle},
};
use smallvec::SmallVec;
use std::{io, sync::Arc, time::Instant};

/// A message as it is sent.
pub(crate) struct Sending<'a> {
    pub uuid: [u8; 16],
    pub head: &'a [u8],
    pub tail: &'a [u8],
    pub objects: &'a [Object],
    pub regions: &'a [MemoryRegion],
    /// It goes to one receiver at most, so its regions may give their own handles away.
    pub gives: bool,
    /// Who may get it now; who may not counts as full. `None`: everybody.
    pub may: Option<&'a dyn Fn(u64) -> bool>,
}

/// The handles that a message's regions are sent with: those made for it; `None` where the region gives its own away.
pub(crate) struct RegionHandles(SmallVec<[Option<Handle>; 4]>);

impl<'a> Sending<'a> {
    /// An encoded payload with nothing else.
    #[inline]
    pub(crate) fn plain(uuid: [u8; 16], payload: &'a Encoder<'_>) -> Self {
        Self {
            uuid,
            head: payload.head(),
            tail: payload.tail(),
            objects: &[],
            regions: &[],
            gives: false,
            may: None,
        }
    }

    /// Bytes of the payload.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// It has nothing but a payload.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.objects.is_empty() && self.regions.is_empty()
    }

    /// A handle for each region: they are counted.
    pub(crate) fn handles(&self) -> io::Result<RegionHandles> {
        let handle = |region: &MemoryRegion| match self.gives && region.lend().is_some() {
            true => Ok(None),
            false => region.try_clone_handle().map(Some),
        };
        let handles: io::Result<_> = self.regions.iter().map(handle).collect();
        handles.map(RegionHandles)
    }

    /// The objects, then the regions.
    pub(crate) fn borrowed<'b>(&'b self, handles: &'b RegionHandles) -> Vec<BorrowedHandle<'b>> {
        let objects = self.objects.iter().map(AsHandle::as_handle);
        let made = handles
            .0
            .iter()
            .map(|handle| Some(handle.as_ref()?.as_handle()));
        let regions = self.regions.iter().zip(made);
        let regions = regions.filter_map(|(region, made)| made.or_else(|| region.lend()));
        objects.chain(regions).collect()
    }

    /// The handles are on their way.
    pub(crate) fn sent(&self, handles: &RegionHandles) {
        for (region, made) in self.regions.iter().zip(&handles.0) {
            if made.is_none() {
                region.given();
            }
        }
    }

    #[inline]
    pub(crate) fn parcel<'b>(&'b self, handles: &'b [BorrowedHandle<'b>]) -> Parcel<'b> {
        Parcel {
            uuid: &self.uuid,
            head: self.head,
            tail: self.tail,
            objects: self.objects.len() as u8,
            regions: self.regions.len() as u8,
            handles,
        }
    }
}

/// Why a message did not go into a link.
#[derive(Debug)]
pub(crate) enum Attempt {
    Full(Lack),
    /// A shortage whose end nobody reports.
    Busy(io::Error),
    /// The caller, who chooses the receivers, keeps it for later.
    NotChosen,
    /// It would pass an earlier message whose receiver seems to be dead.
    Held,
    /// There is no link yet.
    NoLink,
    /// The link was replaced or ended while the payload was copied. To be tried again at once.
    Lost,
    Broken(&'static str),
    Error(SendError),
}

impl Outbox {
    /// Puts a message into the link to `target`, large ones under the lock. `Attempt::Large` is for those who can copy
    /// without it.
    pub(crate) fn put(
        &mut self,
        core: &Core,
        target: u64,
        message: &Sending<'_>,
        origin: Option<&Arc<Origin>>,
        deadline: Option<Instant>,
    ) -> Result<(), Attempt> {
        let len = message.len();
        if target == core.membership.status().id {
            core.inbox.push_local(message).map_err(Attempt::Error)?;
            return self.count(Ok(()), len);
        }
        self.mark_regions(target, message)?;
        let link = self.link(target).ok_or(Attempt::NoLink)?;
        let handles = message.handles().map_err(|e| Attempt::Error(io_error(e)))?;
        let borrowed = message.borrowed(&handles);
        let parcel = message.parcel(&borrowed);
        let written = if link.out.fits_inline(len) {
            link.out.write(&parcel, origin, deadline)
        } else {
            let front = message.head.len();
            match link.out.lease_to_send(len, front, borrowed.len()) {
                Ok(lease) => {
                    lease.fill(message.head, message.tail);
                    let written = link.out.write_block(&parcel, &lease, origin, deadline);
                    if written.is_err() {
                        link.out.take_back(&lease);
                    }
                    written
                }
                Err(refusal) => Err(refusal),
            }
        };
        if written.is_ok() {
            message.sent(&handles);
        }
        self.count(written, len)
    }

    /// A region that goes to another user is never used again by a registry.
    pub(crate) fn mark_regions(&self, target: u64, message: &Sending<'_>) -> Result<(), Attempt> {
        // Most messages have none: they are spared the system call below.
        if message.regions.is_empty() {
            return Ok(());
        }
        let members = self.reader.as_ref().map(|r| &r.members);
        let uid = members.and_then(|m| m.get(&target)).map(|m| m.listed.uid);
        if uid == Some(sys::uid()) {
            return Ok(());
        }
        for region in message.regions {
            match region.mark_foreign() {
                Err(e) if e.kind() != io::ErrorKind::PermissionDenied => {
                    return Err(Attempt::Error(io_error(e)));
                }
                // Not of its owner's user: then it was marked when it came here.
                _ => {}
            }
        }
        Ok(())
    }

    /// Enters a success into the statistics, and says what a refusal means.
    #[inline]
    pub(crate) fn count(
        &mut self,
        written: Result<(), Refusal>,
        len: usize,
    ) -> Result<(), Attempt> {
        match written {
            Ok(()) => {
                self.stats.sent += 1;
                self.stats.sent_bytes += len as u64;
                Ok(())
            }
            Err(Refusal::Full(_)) if crate::fault::on(13) => Ok(()),
            Err(Refusal::Full(lack)) => Err(Attempt::Full(lack)),
            Err(Refusal::Busy(e)) => Err(Attempt::Busy(e)),
            Err(Refusal::Io(e)) => Err(Attempt::Error(io_error(e))),
            Err(Refusal::Broken(reason)) => Err(Attempt::Broken(reason)),
        }
    }
}

pub(crate) fn io_error(error: io::Error) -> SendError {
    crate::Error::io("sending a message", error).into()
}
