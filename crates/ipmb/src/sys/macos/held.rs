//! Shared memory whose holders are counted: what a memory region is made of.
//!
//! Every handle is a descriptor of one open file description, so the kernel counts them, wherever they are: in processes, and
//! under way. It says whether there is more than one (`PROC_FP_SHARED`), and that is what decides whether a region may
//! be used again. How many there are is found by looking through the descriptors of one's own processes; those under way and
//! those of other users are not seen there, and count as one if nobody else was found.
//!
//! There are no seals. Whoever has the memory can write to it, so it is frozen only while nobody else has it, by moving it: what
//! is handed over from then on is a copy that nobody can write to. Who gets one does not know what its maker has kept, and
//! so reads a copy of its own.
//!
//! A memory has whole pages; one more behind them says how large the region is, and whether it was given to another user.
//! What is written there is believed within the bounds that the kernel vouches for. (A holder that lies about the
//! other user can see what the region is used for later. It could have kept it mapped all the same.)

use super::{
    closing,
    fork::Fd,
    handle::{descriptor, duplicate_fd},
    libproc::{CAN_READ, CAN_WRITE, IS_SHARED, count_descriptors},
    mach,
    memory::{Mapping, Memory, PAGE, Protection, create, look_at, whole_pages},
};
use crate::{
    error::Error,
    sync::{Ordering, SharedU32},
    sys::{AsHandle, BorrowedHandle, Handle},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    mm::ProtFlags,
};
use std::io;

/// Marks the page behind a region.
const MAGIC: u64 = u64::from_le_bytes(*b"ipmb rgn");
/// Places in that page.
const AT_SIZE: usize = 8;
const AT_FOREIGN: usize = 16;

/// One counted handle of a shared memory.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Memory,
    /// In bytes, without the rest of the last page and the page behind.
    size: usize,
    frozen: bool,
}

/// Every descriptor is a handle, whoever made it.
#[cfg(test)]
pub(crate) const COUNTS_COPIES: bool = true;

/// Bytes of the whole pages of a region, and of these with the page behind.
fn lengths(size: usize) -> Option<(usize, usize)> {
    let pages = whole_pages(size)?;
    Some((pages, pages.checked_add(PAGE)?))
}

fn wide(page: &Mapping, at: usize) -> *mut u64 {
    // SAFETY: `at` is a place in the page.
    unsafe { page.start().add(at).as_ptr().cast() }
}

impl Held {
    /// A new memory of `size` zero bytes and its first handle.
    pub(crate) fn new(size: usize) -> io::Result<Self> {
        if isize::try_from(size).is_err() {
            return Err(Errno::NOMEM.into());
        }
        let (pages, total) = lengths(size).ok_or(Errno::NOMEM)?;
        let (fd, _read_only) = create(total)?;
        let page = Mapping::new(fd.as_fd(), pages, PAGE, ProtFlags::READ | ProtFlags::WRITE)?;
        // SAFETY: both places lie in the page, aligned; nobody else has the memory yet.
        unsafe {
            wide(&page, AT_SIZE).write(size as u64);
            wide(&page, 0).write(MAGIC);
        }
        Ok(Self {
            memory: Memory::looked_at(fd, total),
            size,
            frozen: false,
        })
    }

    /// Takes over a handle that [`Held::into_handle`] or [`Held::try_clone_handle`] made, here or in another process, after
    /// checking that it is one: a peer may hand over anything.
    pub(crate) fn from_handle(handle: Handle, limit: u64) -> Result<Self, Error> {
        let fd = descriptor(handle).map_err(|_| Error::NotARegion("a port"))?;
        Self::from_fd(fd, limit)
    }

    fn from_fd(fd: OwnedFd, limit: u64) -> Result<Self, Error> {
        match Self::check(fd.as_fd(), limit) {
            Ok((total, size, frozen)) => Ok(Self {
                memory: Memory::looked_at(fd, total),
                size,
                frozen,
            }),
            Err(e) => {
                closing::dispose(vec![fd]);
                Err(e)
            }
        }
    }

    /// Looks whether a descriptor is one of a region: with the page behind, without it, and whether it is frozen.
    fn check(fd: BorrowedFd<'_>, limit: u64) -> Result<(usize, usize, bool), Error> {
        let (info, total) = look_at(fd).map_err(|_| Error::NotARegion("no shared memory"))?;
        if info.file.open_flags & CAN_READ == 0 {
            return Err(Error::NotARegion("its descriptor is not open for reading"));
        }
        let pages = total.checked_sub(PAGE).filter(|pages| *pages >= PAGE);
        let Some(pages) = pages.filter(|pages| pages % PAGE == 0) else {
            return Err(Error::NotARegion("shared memory of another kind"));
        };
        let page = Mapping::new(fd, pages, PAGE, ProtFlags::READ)
            .map_err(|error| Error::io("mmap", error))?;
        // SAFETY: both places lie in the page, aligned. Volatile: others may write to it, and each is looked at once.
        let (magic, size) = unsafe {
            (
                wide(&page, 0).read_volatile(),
                wide(&page, AT_SIZE).read_volatile(),
            )
        };
        let limit = limit.min(isize::MAX as u64);
        if size > limit {
            return Err(Error::RegionTooLarge { size, limit });
        }
        let fits = usize::try_from(size)
            .ok()
            .filter(|size| magic == MAGIC && lengths(*size).is_some_and(|(_, all)| all == total));
        let Some(size) = fits else {
            return Err(Error::NotARegion("shared memory of another kind"));
        };
        Ok((total, size, info.file.open_flags & CAN_WRITE == 0))
    }

    /// A new handle of the memory that any descriptor or file port of it names.
    pub(crate) fn open(handle: BorrowedHandle<'_>) -> Result<Self, Error> {
        let own = match handle {
            BorrowedHandle::Fd(fd) => duplicate_fd(fd),
            BorrowedHandle::Port(port) => mach::descriptor_of(port),
        };
        Self::from_fd(
            own.map_err(|error| Error::io("a copy of a descriptor", error))?,
            u64::MAX,
        )
    }

    /// One more handle of the same memory.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            memory: Memory::looked_at(self.clone_fd()?, self.memory.size()),
            size: self.size,
            frozen: self.frozen,
        })
    }

    /// One more handle of the same memory, to be handed over.
    pub(crate) fn try_clone_handle(&self) -> io::Result<Handle> {
        self.clone_fd().map(Handle::from)
    }

    fn clone_fd(&self) -> io::Result<OwnedFd> {
        self.alive()?;
        duplicate_fd(self.memory.as_fd())
    }

    /// This handle, to be handed over. It goes on counting.
    pub(crate) fn into_handle(self) -> io::Result<Handle> {
        self.memory.into_handle()
    }

    /// This handle, to be put into a socket. Once it is there, call [`Held::given`].
    pub(crate) fn lend(&self) -> Option<BorrowedHandle<'_>> {
        (!self.forked()).then(|| self.memory.as_handle())
    }

    /// What was lent counts by itself.
    pub(crate) fn given(&self) {}

    /// The descriptor for the caller to use as it likes. What it makes of it counts, too, as does the file port that its raw
    /// handle is.
    pub(crate) fn expose(&self) -> &Handle {
        self.memory.as_owned()
    }

    /// Fails with `EBADF` in a forked child, which has no handle.
    fn alive(&self) -> io::Result<()> {
        if self.forked() {
            return Err(Errno::BADF.into());
        }
        Ok(())
    }

    /// Whether this process is a forked child of the one that has the handle.
    pub(crate) fn forked(&self) -> bool {
        self.memory.forked()
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Maps all of it, which must be more than nothing.
    pub(crate) fn map(&self, protection: Protection) -> io::Result<Mapping> {
        self.alive()?;
        let fd = self.memory.as_fd();
        match protection {
            Protection::Read => Mapping::new(fd, 0, self.size, ProtFlags::READ),
            Protection::ReadWrite => {
                Mapping::new(fd, 0, self.size, ProtFlags::READ | ProtFlags::WRITE)
            }
            Protection::Frozen => Mapping::new(fd, 0, self.size, ProtFlags::READ)?.copied(),
        }
    }

    /// Whether anybody else has a handle.
    pub(crate) fn has_others(&self) -> io::Result<bool> {
        self.alive()?;
        let (info, _) = look_at(self.memory.as_fd())?;
        Ok(info.file.status & IS_SHARED != 0)
    }

    /// How many handles there are besides this one.
    pub(crate) fn count_others(&self) -> io::Result<u32> {
        self.alive()?;
        let (info, _) = look_at(self.memory.as_fd())?;
        if info.file.status & IS_SHARED == 0 {
            return Ok(0);
        }
        let (us, maker) = (super::uid(), info.stat.vst_uid);
        let mut count = count_descriptors(us, info.name());
        if maker != us {
            count += count_descriptors(maker, info.name());
        }
        Ok(u32::try_from(count.saturating_sub(1).max(1)).unwrap_or(u32::MAX))
    }

    /// Makes the memory immutable for everybody, or fails with `EBUSY` while anybody else has it.
    pub(crate) fn freeze(&mut self) -> io::Result<()> {
        if self.frozen {
            return self.alive();
        }
        if self.has_others()? {
            return Err(Errno::BUSY.into());
        }
        let total = self.memory.size();
        let (fd, read_only) = create(total)?;
        // Not inherited, as no descriptor of the library is.
        let fd = Fd::new(fd);
        let from = Mapping::new(self.memory.as_fd(), 0, total, ProtFlags::READ)?;
        let into = Mapping::new(fd.as_fd(), 0, total, ProtFlags::READ | ProtFlags::WRITE)?;
        // SAFETY: two mappings of `total` bytes; nobody else has the new memory yet.
        unsafe { crate::sync::copy_from_shared(from.start(), into.start().as_ptr(), total) };
        self.memory = Memory::looked_at(read_only, total);
        self.frozen = true;
        Ok(())
    }

    /// Whether nobody can ever write to the memory again, nor change its size.
    pub(crate) fn is_frozen(&self) -> io::Result<bool> {
        self.alive()?;
        Ok(self.frozen)
    }

    /// The word that says whether another user has had the memory.
    fn foreign(&self, protection: ProtFlags) -> io::Result<Mapping> {
        self.alive()?;
        let behind = self.memory.size() - PAGE;
        Mapping::new(self.memory.as_fd(), behind, PAGE, protection)
    }

    /// Notes for every process that the memory was given to another user. Call before it is.
    pub(crate) fn mark_foreign(&self) -> io::Result<()> {
        if self.frozen {
            // Nobody uses it again.
            return self.alive();
        }
        let page = self.foreign(ProtFlags::READ | ProtFlags::WRITE)?;
        // Release: nothing is handed over before it is set.
        mark(&page).store(1, Ordering::Release);
        Ok(())
    }

    /// Whether the memory was given to another user.
    pub(crate) fn is_foreign(&self) -> io::Result<bool> {
        let page = self.foreign(ProtFlags::READ)?;
        // Acquire: pairs with the mark.
        Ok(mark(&page).load(Ordering::Acquire) != 0)
    }
}

fn mark(page: &Mapping) -> &SharedU32 {
    // SAFETY: the place lies in the page, aligned, and is only accessed atomically.
    unsafe { page.start().add(AT_FOREIGN).cast().as_ref() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_has_another_size_for_its_receiver() {
        for size in [0, 1, PAGE - 1, PAGE, PAGE + 1] {
            let held = Held::new(size).unwrap();
            let same = Held::from_handle(held.try_clone_handle().unwrap(), u64::MAX).unwrap();
            assert_eq!((held.size(), same.size()), (size, size));
            assert!(same.has_others().unwrap() && held.has_others().unwrap());
            drop(held);
            assert!(!same.has_others().unwrap());
            assert_eq!(same.count_others().unwrap(), 0);
        }
    }

    #[test]
    fn a_page_that_lies_makes_a_region_larger() {
        let held = Held::new(1).unwrap();
        let page = held.foreign(ProtFlags::READ | ProtFlags::WRITE).unwrap();
        for lie in [u64::MAX, 2 * PAGE as u64, PAGE as u64 + 1, 1 << 40] {
            // SAFETY: the place lies in the page, aligned.
            unsafe { wide(&page, AT_SIZE).write_volatile(lie) };
            assert!(Held::from_handle(held.try_clone_handle().unwrap(), u64::MAX).is_err());
        }
    }

    #[test]
    fn a_frozen_region_changes_or_is_written() {
        let mut held = Held::new(5).unwrap();
        let other = held.try_clone().unwrap();
        let busy = held.freeze().unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        drop(other);
        let mapping = held.map(Protection::ReadWrite).unwrap();
        // SAFETY: inside the mapping.
        unsafe { mapping.start().as_ptr().write_volatile(7) };
        drop(mapping);
        held.freeze().unwrap();
        assert!(held.is_frozen().unwrap());
        assert!(held.map(Protection::ReadWrite).is_err());
        let copy = Held::from_handle(held.try_clone_handle().unwrap(), u64::MAX).unwrap();
        assert!(copy.is_frozen().unwrap());
        let view = copy.map(Protection::Frozen).unwrap();
        assert_eq!(view.len(), 5);
        // SAFETY: inside the mapping.
        assert_eq!(unsafe { view.start().as_ptr().read_volatile() }, 7);
    }
}
