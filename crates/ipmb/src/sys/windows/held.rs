//! Shared memory whose holders can be counted: what a memory region is made of.
//!
//! Each holder has one handle of the section, and the kernel counts the handles of an object in all processes; those of a
//! killed process are gone with it. A handle that goes with a packet is put into its receiver's table, so it counts on the
//! way, too.
//!
//! The exact size stands in a last page of its own, since the kernel rounds the size of a section up.
//!
//! A *frozen* region has no handle that could write, and no such handle can be got from those that it has. But nobody can
//! see whether whoever froze it has kept one, or a mapping. So a process that did not freeze it itself reads a copy, made
//! at first use, when it asks for bytes that never change.

use super::{
    Mapping, Protection, duplicate,
    handle::{access_and_count, duplicate_for},
    memory::{self, PAGE, READ_ONLY, Unfit, is_writable, section},
};
use crate::{
    error::Error,
    sync::{AtomicBool, Ordering, SharedU32, SharedU64},
    sys::{BorrowedHandle, Handle},
};
use std::{
    io,
    os::windows::io::{AsHandle, OwnedHandle},
    ptr::NonNull,
    sync::Arc,
};

const MAGIC: u64 = u64::from_le_bytes(*b"ipmb-reg");

// Where things stand in the last page.
const AT_MAGIC: usize = 0;
const AT_SIZE: usize = 8;
/// Not 0: the memory was given to another user.
const AT_FOREIGN: usize = 16;

/// The last page of a region.
struct Last {
    _mapping: Mapping,
    start: NonNull<u8>,
}

impl Last {
    /// Maps a region, whose payload has `pages` bytes.
    fn of(section: BorrowedHandle<'_>, protection: Protection, pages: usize) -> io::Result<Self> {
        let mapping = Mapping::new(section, protection, pages + PAGE)?;
        // SAFETY: the section has one page more than the payload.
        let start = unsafe { mapping.start().add(pages) };
        Ok(Self {
            _mapping: mapping,
            start,
        })
    }

    fn wide(&self, at: usize) -> &SharedU64 {
        // SAFETY: inside the page, aligned; the mapping lives as long as `self`, and everybody accesses it atomically.
        unsafe { self.start.add(at).cast().as_ref() }
    }

    fn foreign(&self) -> &SharedU32 {
        // SAFETY: as above.
        unsafe { self.start.add(AT_FOREIGN).cast().as_ref() }
    }
}

/// One counted handle of a shared memory.
#[derive(Debug)]
pub(crate) struct Held {
    section: OwnedHandle,
    size: usize,
    frozen: bool,
    /// This process froze it, so that nobody can write.
    vouched: bool,
    /// A handle may have been elsewhere than in this library in this process, and somebody may have a mapping of it.
    /// Shared by all handles that were cloned of each other here.
    left: Arc<AtomicBool>,
}

/// What is made of the raw handle is a handle like others.
#[cfg(test)]
pub(crate) const COUNTS_COPIES: bool = true;

impl Held {
    /// A new memory of `size` zero bytes and its first handle.
    pub(crate) fn new(size: usize) -> io::Result<Self> {
        let fits = size.checked_next_multiple_of(PAGE);
        let fits = fits.and_then(|pages| pages.checked_add(PAGE));
        let whole = fits
            .filter(|whole| isize::try_from(*whole).is_ok())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let section = section(whole)?;
        let last = Last::of(section.as_handle(), Protection::ReadWrite, whole - PAGE)?;
        last.wide(AT_SIZE).store(size as u64, Ordering::Relaxed);
        last.wide(AT_MAGIC).store(MAGIC, Ordering::Release);
        Ok(Self {
            section,
            size,
            frozen: false,
            vouched: false,
            left: Arc::new(AtomicBool::new(false)),
        })
    }

    /// Takes over a handle that [`Held::into_handle`] or [`Held::try_clone_handle`] made, here or in another process, after
    /// checking that it is one: a peer may hand over anything.
    pub(crate) fn from_handle(section: Handle, limit: u64) -> Result<Self, Error> {
        let pages = match memory::verify(section.as_handle()) {
            Ok(whole) => whole.checked_sub(PAGE),
            Err(Unfit::NoSection) => return Err(Error::NotARegion("no shared memory")),
            Err(Unfit::NotOfThePageFile) => {
                return Err(Error::NotARegion("no plain shared memory"));
            }
            Err(Unfit::Io(error)) => return Err(Error::io("asking about a section", error)),
        };
        let pages = pages.ok_or(Error::NotARegion("it is too small"))?;
        let too_large = |size| Error::RegionTooLarge { size, limit };
        let smallest = pages.saturating_sub(PAGE - 1) as u64;
        if smallest > limit {
            return Err(too_large(smallest));
        }
        let frozen = !is_writable(section.as_handle())
            .map_err(|error| Error::io("asking about a section", error))?;
        let last = Last::of(section.as_handle(), Protection::Read, pages)
            .map_err(|error| Error::io("mapping a section", error))?;
        if last.wide(AT_MAGIC).load(Ordering::Acquire) != MAGIC {
            return Err(Error::NotARegion("another program made it"));
        }
        // Read once: whoever has it can write here.
        let size = last.wide(AT_SIZE).load(Ordering::Relaxed);
        if size > limit {
            return Err(too_large(size));
        }
        let size = usize::try_from(size)
            .ok()
            .filter(|size| size.checked_next_multiple_of(PAGE) == Some(pages))
            .ok_or(Error::NotARegion("it does not have the size that it says"))?;
        Ok(Self {
            section,
            size,
            frozen,
            vouched: false,
            left: Arc::new(AtomicBool::new(true)),
        })
    }

    /// A new handle of the memory that any handle of it names.
    pub(crate) fn open(section: BorrowedHandle<'_>) -> Result<Self, Error> {
        let own = duplicate(section).map_err(|error| Error::io("DuplicateHandle", error))?;
        Self::from_handle(own, u64::MAX)
    }

    /// One more handle of the same memory.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            section: duplicate(self.section.as_handle())?,
            size: self.size,
            frozen: self.frozen,
            vouched: self.vouched,
            left: self.left.clone(),
        })
    }

    /// Notes that the handle, or a copy, goes elsewhere.
    fn leaves(&self) -> &OwnedHandle {
        // Relaxed: what it guards is read by whoever has the only handle left, and so got it after this.
        self.left.store(true, Ordering::Relaxed);
        &self.section
    }

    /// One more handle of the same memory, to be handed over.
    pub(crate) fn try_clone_handle(&self) -> io::Result<Handle> {
        duplicate(self.leaves().as_handle())
    }

    /// This handle, to be handed over. It goes on counting.
    pub(crate) fn into_handle(self) -> io::Result<Handle> {
        self.leaves();
        Ok(self.section)
    }

    /// This handle, to be put into a channel: the receiver gets one of its own.
    pub(crate) fn lend(&self) -> Option<BorrowedHandle<'_>> {
        Some(self.leaves().as_handle())
    }

    /// What was lent has arrived. This handle counts until it is dropped, which follows.
    pub(crate) fn given(&self) {}

    /// The handle for the caller to use as it likes.
    pub(crate) fn expose(&self) -> &Handle {
        self.leaves()
    }

    /// There is no fork.
    pub(crate) fn forked(&self) -> bool {
        false
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Maps all of it, which must be more than nothing.
    pub(crate) fn map(&self, protection: Protection) -> io::Result<Mapping> {
        let mapping = Mapping::new(self.section.as_handle(), protection, self.size)?;
        let mapping = crate::crash::after(mapping);
        match protection == Protection::Frozen && !self.vouched {
            true => mapping.snapshot(),
            false => Ok(mapping),
        }
    }

    /// Whether anybody else has a handle.
    pub(crate) fn has_others(&self) -> io::Result<bool> {
        Ok(self.count_others()? > 0)
    }

    /// How many handles there are besides this one.
    pub(crate) fn count_others(&self) -> io::Result<u32> {
        let (_, count) = access_and_count(self.section.as_handle())?;
        Ok(count.saturating_sub(1))
    }

    /// Makes the memory immutable for everybody, or fails with `ResourceBusy`: while anybody else has a handle, since every
    /// handle can write.
    pub(crate) fn freeze(&mut self) -> io::Result<()> {
        if crate::fault::on(22) {
            return Ok(());
        }
        if self.has_others()? {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        if self.left.load(Ordering::Relaxed) {
            // Somebody who had it may have kept a mapping without a handle, so that its contents move to a memory that
            // nobody has ever had.
            self.section = self.copy()?;
        }
        // The one handle that can write is closed by this.
        self.section = duplicate_for(self.section.as_handle(), READ_ONLY)?;
        self.frozen = true;
        self.vouched = true;
        Ok(())
    }

    /// A new section with the same contents.
    fn copy(&self) -> io::Result<OwnedHandle> {
        let copy = Self::new(self.size)?;
        if self.size > 0 {
            let from = self.map(Protection::Read)?;
            let to = copy.map(Protection::ReadWrite)?;
            // SAFETY: both mappings have the region's size, and nobody else knows the new one.
            unsafe {
                crate::sync::copy_from_shared(from.start(), to.start().as_ptr(), self.size);
            }
        }
        Ok(copy.section)
    }

    /// Whether nobody can write to the memory by its handles, nor change its size.
    pub(crate) fn is_frozen(&self) -> io::Result<bool> {
        Ok(self.frozen)
    }

    fn last(&self, protection: Protection) -> io::Result<Last> {
        let pages = self.size.next_multiple_of(PAGE);
        Last::of(self.section.as_handle(), protection, pages)
    }

    /// Notes for every process that the memory was given to another user. Call before it is.
    pub(crate) fn mark_foreign(&self) -> io::Result<()> {
        let last = self.last(Protection::ReadWrite)?;
        last.foreign().store(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the memory was given to another user.
    pub(crate) fn is_foreign(&self) -> io::Result<bool> {
        let last = self.last(Protection::Read)?;
        Ok(last.foreign().load(Ordering::Relaxed) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_that_outlived_its_handle_changes_a_frozen_region() {
        let mut region = Held::new(5).unwrap();
        let sent = region.try_clone_handle().unwrap();
        let kept = Mapping::new(sent.as_handle(), Protection::ReadWrite, 5).unwrap();
        assert_eq!(
            region.freeze().unwrap_err().kind(),
            io::ErrorKind::ResourceBusy
        );
        drop(sent);
        // SAFETY: inside the mapping.
        unsafe { kept.start().write_volatile(1) };
        region.freeze().unwrap();
        let frozen = region.map(Protection::Frozen).unwrap();
        // SAFETY: inside the mappings.
        unsafe {
            kept.start().write_volatile(2);
            assert_eq!(frozen.start().read_volatile(), 1);
        }
    }

    #[test]
    fn a_frozen_region_changes_under_who_got_it() {
        // A liar hands out a handle that only reads, and keeps one that writes.
        let liar = Held::new(5).unwrap();
        let sent = duplicate_for(liar.section.as_handle(), READ_ONLY).unwrap();
        let got = Held::from_handle(sent, u64::MAX).unwrap();
        assert!(got.is_frozen().unwrap() && got.map(Protection::ReadWrite).is_err());
        let frozen = got.map(Protection::Frozen).unwrap();
        let writable = liar.map(Protection::ReadWrite).unwrap();
        // SAFETY: inside the mappings.
        unsafe {
            writable.start().write_volatile(9);
            assert_eq!(frozen.start().read_volatile(), 0);
        }
    }

    #[test]
    fn a_size_that_is_a_lie_is_believed() {
        let region = Held::new(PAGE + 1).unwrap();
        for lie in [0, PAGE as u64, 2 * PAGE as u64 + 1, u64::MAX] {
            let last = region.last(Protection::ReadWrite).unwrap();
            last.wide(AT_SIZE).store(lie, Ordering::Relaxed);
            let sent = region.try_clone_handle().unwrap();
            assert!(Held::from_handle(sent, u64::MAX).is_err(), "{lie}");
        }
    }
}
