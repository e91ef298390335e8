//! Shared memory that cannot shrink: sealed memfds and their mappings.

use super::{
    closing::dispose,
    fork::{self, Fd},
    named,
};
use crate::sync::process::{AtomicU64, Ordering};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{
        MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate,
        memfd_create,
    },
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
};
use std::{ffi::CStr, io, ptr::NonNull};

/// A sealed shared memory. Its size is fixed for good.
#[derive(Debug)]
pub(crate) struct Memory {
    fd: Fd,
    size: usize,
}

/// What is sealed on top of the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seal {
    /// The size (as ever), and no more seals may be added.
    SizeForGood,
    /// As `SizeForGood`, and whoever maps from now on maps read-only. Map writably before.
    FutureWrite,
}

/// How a mapping may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    Read,
    ReadWrite,
    /// For memory that is sealed against writing. Up to 6.6 Linux refuses to share such a mapping of a descriptor
    /// that is open for writing, so it is a private one, which shows the same pages as nobody can write to them.
    Frozen,
}

/// Learns the size of a page and the limit on the size of files, which takes calls that a sandbox may forbid later. They are
/// known from then on.
pub(super) fn learn_sizes() {
    let _ = call!(rustix::param::page_size());
    let _ = within_file_limit(1);
}

/// Refuses what is over the limit on the size of files: a memory counts as one, and making it would raise a signal that ends
/// the process (SIGXFSZ). The limit is asked for again before a refusal, since it may have been raised.
fn within_file_limit(size: u64) -> io::Result<()> {
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    // Relaxed: a number by itself.
    if size <= KNOWN.load(Ordering::Relaxed) {
        return Ok(());
    }
    let limit = file_limit();
    KNOWN.store(limit, Ordering::Relaxed);
    if size <= limit {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!(
            "{size} bytes of shared memory are over the limit on the size of files (`ulimit -f`), {limit} bytes"
        ),
    ))
}

/// Whether a memory is one of ordinary pages. One of huge pages can be sealed, too, but it can run out of pages when it is
/// touched, which kills who does it; and that it cannot be mapped looks like a shortage that never ends.
pub(super) fn has_ordinary_pages(fd: BorrowedFd<'_>) -> io::Result<bool> {
    /// `f_type` of shmem.
    const SHMEM: i64 = 0x0102_1994;
    // The field's type differs between machines.
    #[allow(clippy::unnecessary_cast)]
    Ok(call!(fstatfs(fd))?.f_type as i64 == SHMEM)
}

/// The limit on the size of files; none if it cannot be asked for. Not by rustix, which panics where a sandbox forbids that.
fn file_limit() -> u64 {
    // SAFETY: plain data that the call fills, or leaves alone when it fails.
    unsafe {
        let mut limit: libc::rlimit64 = std::mem::zeroed();
        match call!(libc::getrlimit64(libc::RLIMIT_FSIZE, &raw mut limit)) {
            0 => limit.rlim_cur,
            _ => u64::MAX,
        }
    }
}

impl Memory {
    /// A new memory of `size` zero bytes whose size is fixed. Add [`Seal::FutureWrite`] with [`Memory::seal`] after mapping.
    pub(crate) fn new(name: &CStr, size: usize) -> io::Result<Self> {
        let _ = crate::fault::on(30).then(|| call!(rustix::process::getppid()));
        within_file_limit(size as u64)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = super::above_stdio(named("memfd_create", call!(memfd_create(name, flags)))?)?;
        call!(ftruncate(&fd, size as u64))?;
        call!(fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW))?;
        Ok(Self {
            fd: Fd::new(fd),
            size,
        })
    }

    /// Takes a memory from another process. Fails unless its size is sealed and is between `min` and `max` bytes.
    pub(crate) fn from_peer(fd: OwnedFd, min: usize, max: usize) -> io::Result<Self> {
        match Self::verify(fd.as_fd(), min, max) {
            Ok(size) => Ok(Self::verified(fd, size)),
            Err(e) => {
                dispose(vec![fd]);
                Err(e)
            }
        }
    }

    fn verify(fd: BorrowedFd<'_>, min: usize, max: usize) -> io::Result<usize> {
        let seals = call!(fcntl_get_seals(fd))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "shared memory that can shrink",
            ));
        }
        if !has_ordinary_pages(fd)? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "shared memory of huge pages",
            ));
        }
        let size = usize::try_from(call!(fstat(fd))?.st_size).unwrap_or(usize::MAX);
        if size < min || size > max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "shared memory of a wrong size",
            ));
        }
        Ok(size)
    }

    /// A memory whose seals and size were looked at.
    pub(super) fn verified(fd: OwnedFd, size: usize) -> Self {
        Self {
            fd: Fd::new(fd),
            size,
        }
    }

    /// Whether this process is a forked child of the one that has it.
    pub(crate) fn forked(&self) -> bool {
        self.fd.forked()
    }

    /// Its descriptor where an owned one is asked for by reference.
    pub(crate) fn as_owned(&self) -> &OwnedFd {
        self.fd.as_owned()
    }

    /// Adds seals.
    pub(crate) fn seal(&mut self, seal: Seal) -> io::Result<()> {
        let size = SealFlags::SHRINK | SealFlags::GROW;
        Ok(call!(fcntl_add_seals(
            &self.fd,
            match seal {
                Seal::SizeForGood => size | SealFlags::SEAL,
                Seal::FutureWrite => size | SealFlags::FUTURE_WRITE | SealFlags::SEAL,
            },
        ))?)
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Maps `len` bytes from the page-aligned `offset` on. The mapping is not inherited by a forked child.
    pub(crate) fn map(
        &self,
        offset: usize,
        len: usize,
        protection: Protection,
    ) -> io::Result<Mapping> {
        if len == 0 || offset.checked_add(len).is_none_or(|end| end > self.size) {
            return Err(Errno::INVAL.into());
        }
        #[cfg(tsan)]
        let sealed = protection == Protection::ReadWrite
            && call!(fcntl_get_seals(&self.fd))?
                .intersects(SealFlags::FUTURE_WRITE | SealFlags::WRITE);
        #[cfg(tsan)]
        if protection != Protection::Frozen
            && !sealed
            && let Some(start) = super::one_mapping::share(self.fd.as_fd(), len)
        {
            return Ok(Mapping {
                start,
                len,
                generation: fork::generation(),
            });
        }
        let (prot, flags) = match protection {
            Protection::Read => (ProtFlags::READ, MapFlags::SHARED),
            Protection::ReadWrite => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
            Protection::Frozen => (ProtFlags::READ, MapFlags::PRIVATE),
        };
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing that Rust knows of.
        let start = unsafe {
            call!(later mmap(
                std::ptr::null_mut(),
                len,
                prot,
                flags,
                &self.fd,
                offset as u64,
            ))
        }?;
        let mapping = Mapping {
            start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?,
            len,
            generation: fork::generation(),
        };
        #[cfg(tsan)]
        if protection == Protection::ReadWrite {
            super::one_mapping::enter(self.fd.as_fd(), len, mapping.start);
        }
        // SAFETY: the range was mapped just now; the advice changes only what a forked child inherits.
        let _ = unsafe { call!(madvise(start, len, Advice::LinuxDontFork)) };
        Ok(mapping)
    }

    /// Maps all of it.
    pub(crate) fn map_all(&self, protection: Protection) -> io::Result<Mapping> {
        self.map(0, self.size, protection)
    }

    /// Its descriptor. Fails with `EBADF` in a forked child.
    pub(crate) fn into_handle(self) -> io::Result<OwnedFd> {
        self.fd.into_owned()
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A mapping of shared memory; unmapped when dropped. Other processes may write to it at any time unless it is
/// frozen, so it hands out raw pointers only.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    generation: u32,
}

// SAFETY: a mapping is an address range of the process, not of a thread; it hands out raw pointers only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// First byte. Valid for `len()` bytes as long as the mapping lives.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether this is a forked child, which never had the mapping.
    pub(crate) fn forked(&self) -> bool {
        fork::forked_since(self.generation)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _dropping = crate::crash::dropping();
        if self.forked() {
            // The child never had the mapping; something else may lie there by now.
            return;
        }
        #[cfg(tsan)]
        if !super::one_mapping::leave(self.start) {
            return;
        }
        // SAFETY: the range is ours since `mmap`, and nothing borrowed from `self` outlives it.
        let _ = unsafe { call!(munmap(self.start.as_ptr().cast(), self.len)) };
    }
}
