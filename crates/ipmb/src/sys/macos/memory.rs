//! Shared memory that cannot shrink: POSIX shared memory and its mappings.
//!
//! The kernel lets a POSIX shared memory be given a size once and never again (`pshm_truncate`), so the size of one that
//! has a size is fixed. Its pages belong to nothing but itself: no file can be cut under a mapping.
//!
//! A descriptor that was opened for reading only can neither be mapped writably nor be made more of: the mapping's highest
//! protection has no write (`pshm_mmap`), and opening `/dev/fd/N` gives another descriptor of the same open file. So each memory is
//! opened twice before its name goes, and [`Memory::seal`] says which of the two stays.
//!
//! The name is random, and is there for a few microseconds: a process that is killed just then leaves the name of an empty memory
//! behind, until the system restarts.

use super::{
    adopt_raw, closing,
    fork::{self, Fd},
    handle::descriptor,
    libproc::{self, SharedMemory},
};
use crate::sys::Handle;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};
use std::{
    ffi::{CStr, CString},
    io,
    ptr::NonNull,
    sync::OnceLock,
};

/// Sizes are multiples of it, on machines with smaller pages, too: a process of the other architecture maps the same.
pub(super) const PAGE: usize = 16 << 10;

/// Longest name (`PSHMNAMLEN`).
const NAME_MAX: usize = 31;

/// The application group that names begin with.
static APP_GROUP: OnceLock<String> = OnceLock::new();

/// Notes what a sandbox wants names to begin with.
pub(super) fn note_app_group(app_group: Option<&str>) {
    if let Some(group) = app_group {
        APP_GROUP.get_or_init(|| group.to_owned());
    }
}

pub(super) fn app_group() -> Option<&'static str> {
    APP_GROUP.get().map(String::as_str)
}

/// A shared memory. Its size is fixed for good.
#[derive(Debug)]
pub(crate) struct Memory {
    fd: Fd,
    /// Of one's own memory that is not sealed: another open file, for reading only.
    read_only: Option<Fd>,
    size: usize,
}

/// What is sealed on top of the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seal {
    /// The size (as ever), and no more seals may be added.
    SizeForGood,
    /// As `SizeForGood`, and what is handed over from now on can be mapped read-only. Map writably before.
    FutureWrite,
}

/// How a mapping may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    Read,
    ReadWrite,
    /// A copy, which nobody can write to. Who handed over a read-only descriptor may have a writable one itself.
    Frozen,
}

/// The size up to whole pages.
pub(super) fn whole_pages(size: usize) -> Option<usize> {
    size.max(1).checked_next_multiple_of(PAGE)
}

/// A new memory of `size` bytes, a multiple of [`PAGE`], that is opened for reading and writing, and for reading only.
pub(super) fn create(size: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let size = libc::off_t::try_from(size).map_err(|_| Errno::NOMEM)?;
    loop {
        let name = fresh_name()?;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
        // SAFETY: the name ends with NUL; the mode is passed as the call takes it.
        let fd = unsafe { libc::shm_open(name.as_ptr(), flags, 0o600 as libc::c_uint) };
        // SAFETY: a fresh descriptor, or a negative number.
        let fd = match unsafe { adopt_raw(fd) } {
            Ok(fd) => fd,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(e) => {
                // The name is there if the descriptor was, and could not be moved out of 0–2.
                // SAFETY: as above. The name is nobody else's: it is too long to be met by chance.
                unsafe { libc::shm_unlink(name.as_ptr()) };
                return Err(e);
            }
        };
        // SAFETY: as above.
        let read_only = unsafe { libc::shm_open(name.as_ptr(), libc::O_RDONLY, 0 as libc::c_uint) };
        // SAFETY: a fresh descriptor, or a negative number.
        let read_only = unsafe { adopt_raw(read_only) };
        // SAFETY: as above.
        unsafe { libc::shm_unlink(name.as_ptr()) };
        let read_only = read_only?;
        // The size is good and the memory has none yet, so what the system calls invalid (`pshm_truncate`) is a shortage.
        rustix::fs::ftruncate(&fd, size as u64).map_err(|e| match e {
            Errno::INVAL => Errno::NOMEM,
            other => other,
        })?;
        return Ok((fd, read_only));
    }
}

fn fresh_name() -> io::Result<CString> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let mut name = match app_group() {
        Some(group) => format!("{group}/"),
        None => "/ipmb.".to_owned(),
    };
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    for byte in random {
        if name.len() < NAME_MAX {
            name.push(char::from(LETTERS[usize::from(byte % 32)]));
        }
    }
    Ok(CString::new(name)?)
}

/// Looks at what came from somebody else, before anything is mapped.
pub(super) fn look_at(fd: BorrowedFd<'_>) -> io::Result<(SharedMemory, usize)> {
    let info = libproc::shared_memory(fd)?;
    let size = usize::try_from(info.stat.vst_size).unwrap_or(usize::MAX);
    Ok((info, size))
}

impl Memory {
    /// A new memory of `size` zero bytes or a little more, whose size is fixed. Add [`Seal::FutureWrite`] with [`Memory::seal`]
    /// after mapping. The system takes no name.
    pub(crate) fn new(_name: &CStr, size: usize) -> io::Result<Self> {
        let size = whole_pages(size).ok_or(Errno::NOMEM)?;
        let (fd, read_only) = create(size)?;
        Ok(Self {
            fd: Fd::new(fd),
            read_only: Some(Fd::new(read_only)),
            size,
        })
    }

    /// Takes a memory from another process. Fails unless its size is fixed and is between `min` and `max` bytes, up to whole
    /// pages.
    pub(crate) fn from_peer(handle: Handle, min: usize, max: usize) -> io::Result<Self> {
        let fd = descriptor(handle)?;
        // One without a size could still be given one.
        let looked = look_at(fd.as_fd()).and_then(|(_, size)| {
            if size < min.max(1) || size > max.saturating_add(PAGE - 1) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "shared memory of a wrong size",
                ));
            }
            Ok(size)
        });
        match looked {
            Ok(size) => Ok(Self::looked_at(fd, size)),
            Err(e) => {
                closing::dispose(vec![fd]);
                Err(e)
            }
        }
    }

    /// A memory whose kind and size were looked at.
    pub(super) fn looked_at(fd: OwnedFd, size: usize) -> Self {
        Self {
            fd: Fd::new(fd),
            read_only: None,
            size,
        }
    }

    /// Whether this process is a forked child of the one that has it.
    pub(crate) fn forked(&self) -> bool {
        self.fd.forked()
    }

    /// Its descriptor where an owned one is asked for by reference.
    pub(super) fn as_owned(&self) -> &Handle {
        self.fd.as_owned()
    }

    /// Adds seals: gives one of the two descriptors up.
    pub(crate) fn seal(&mut self, seal: Seal) -> io::Result<()> {
        let read_only = self.read_only.take().ok_or(Errno::PERM)?;
        match seal {
            // Every memory's is, and there are no more seals.
            Seal::SizeForGood => {}
            Seal::FutureWrite => self.fd = read_only,
        }
        Ok(())
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Maps all of it. The mapping is not inherited by a forked child.
    pub(crate) fn map_all(&self, protection: Protection) -> io::Result<Mapping> {
        match protection {
            Protection::Read => Mapping::new(self.fd.as_fd(), 0, self.size, ProtFlags::READ),
            Protection::ReadWrite => Mapping::new(
                self.fd.as_fd(),
                0,
                self.size,
                ProtFlags::READ | ProtFlags::WRITE,
            ),
            Protection::Frozen => {
                Mapping::new(self.fd.as_fd(), 0, self.size, ProtFlags::READ)?.copied()
            }
        }
    }

    /// Its descriptor. Fails with `EBADF` in a forked child.
    pub(crate) fn into_handle(self) -> io::Result<Handle> {
        self.fd.into_owned().map(Handle::from)
    }
}

/// What may be handed over.
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
    /// Maps `len` bytes from the offset, a multiple of [`PAGE`], on.
    pub(super) fn new(
        fd: BorrowedFd<'_>,
        offset: usize,
        len: usize,
        protection: ProtFlags,
    ) -> io::Result<Self> {
        if len == 0 {
            return Err(Errno::INVAL.into());
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing that Rust knows of.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                protection,
                MapFlags::SHARED,
                fd,
                offset as u64,
            )
        }?;
        let mapping = Self {
            start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?,
            len,
            generation: fork::generation(),
        };
        // SAFETY: the range was mapped just now; the call changes only what a forked child inherits.
        unsafe { libc::minherit(start, len, libc::VM_INHERIT_NONE) };
        Ok(mapping)
    }

    /// A copy, which nobody can write to. The memory may change meanwhile, if its maker lies; what comes of that is what the
    /// copy has.
    pub(super) fn copied(self) -> io::Result<Self> {
        // SAFETY: as in `new`.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                self.len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let copy = Self {
            start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?,
            len: self.len,
            generation: self.generation,
        };
        // SAFETY: the copy is this call's alone and as long as the memory, which is mapped while `self` lives.
        unsafe {
            crate::sync::copy_from_shared(self.start, copy.start.as_ptr(), self.len);
            rustix::mm::mprotect(start, self.len, rustix::mm::MprotectFlags::READ)?;
        }
        // SAFETY: as in `new`.
        unsafe { libc::minherit(start, self.len, libc::VM_INHERIT_NONE) };
        Ok(copy)
    }

    /// Whether this process is a forked child of the one that mapped it, and has no mapping.
    pub(crate) fn forked(&self) -> bool {
        fork::forked_since(self.generation)
    }

    /// First byte. Valid for `len()` bytes as long as the mapping lives.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.forked() {
            // The child never had the mapping; something else may lie there by now.
            return;
        }
        // SAFETY: the range is ours since `mmap`, and nothing borrowed from `self` outlives it.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_that_was_handed_over_read_only_is_written() {
        let mut memory = Memory::new(c"sealed", 1).unwrap();
        let own = memory.map_all(Protection::ReadWrite).unwrap();
        memory.seal(Seal::FutureWrite).unwrap();
        let given = memory.as_fd().try_clone_to_owned().unwrap();
        let mut theirs = Memory::from_peer(given.into(), 1, 1).unwrap();
        assert!(theirs.map_all(Protection::ReadWrite).is_err());
        assert!(theirs.seal(Seal::FutureWrite).is_err());
        let view = theirs.map_all(Protection::Read).unwrap();
        // SAFETY: inside the mapping; the call fails, or the test does.
        let made_more = unsafe {
            rustix::mm::mprotect(
                view.start().as_ptr().cast(),
                view.len(),
                rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE,
            )
        };
        assert!(made_more.is_err());
        // SAFETY: inside both mappings, which nobody else has.
        unsafe {
            own.start().as_ptr().write_volatile(7);
            assert_eq!(view.start().as_ptr().read_volatile(), 7);
        }
    }

    #[test]
    fn a_memory_changes_its_size() {
        let memory = Memory::new(c"size", PAGE + 1).unwrap();
        assert_eq!(memory.size(), 2 * PAGE);
        assert!(rustix::fs::ftruncate(&memory, 1).is_err());
        assert!(rustix::fs::ftruncate(&memory, 1 << 20).is_err());
        assert_eq!(look_at(memory.as_fd()).unwrap().1, 2 * PAGE);
    }

    #[test]
    fn something_else_is_taken_for_memory() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Memory::from_peer(OwnedFd::from(file).into(), 0, 1 << 20).is_err());
        let memory = Memory::new(c"small", 1).unwrap();
        assert!(Memory::from_peer(memory.into_handle().unwrap(), PAGE + 1, 1 << 20).is_err());
    }
}
