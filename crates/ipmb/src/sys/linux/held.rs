//! Shared memory whose holders can be counted: what a memory region is made of.

use super::{
    Mapping, Memory, Protection, above_stdio,
    closing::dispose,
    fork::Fd,
    holders,
    memory::{has_ordinary_pages, learn_sizes},
};
use crate::{
    error::Error,
    sync::process::{AtomicBool, AtomicPtr, Ordering},
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{
        CWD, Mode, OFlags, SealFlags, fchmod, fcntl_add_seals, fcntl_get_seals, fcntl_getfl, fstat,
        openat,
    },
    io::Errno,
};
use std::{ffi::CString, io, os::fd::AsRawFd, ptr};

/// The mode bit by which a memory is known to have left its owner's user. It stands in the inode, so that every
/// process sees it, and a memfd has no other use for it.
const FOREIGN: Mode = Mode::SVTX;

/// One counted handle of a shared memory: an open file description of its own, with a lock byte.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Memory,
    /// Whether a caller may have duplicated the descriptor, so that the description outlives this handle.
    exposed: AtomicBool,
    /// Whether the descriptor was also put into a socket for good: then whoever takes it out has the lock.
    given: AtomicBool,
}

/// What is made of the raw descriptor shares its description, and the lock.
#[cfg(test)]
pub(crate) const COUNTS_COPIES: bool = false;

impl Held {
    /// A new memory of `size` zero bytes and its first handle.
    pub(crate) fn new(size: usize) -> io::Result<Self> {
        if isize::try_from(size).is_err() {
            return Err(Errno::NOMEM.into());
        }
        Self::enter(Memory::new(c"ipmb-region", size)?)
    }

    fn enter(memory: Memory) -> io::Result<Self> {
        holders::enter(memory.as_fd())?;
        Ok(Self::entered(memory))
    }

    fn entered(memory: Memory) -> Self {
        Self {
            memory,
            exposed: AtomicBool::new(false),
            given: AtomicBool::new(false),
        }
    }

    /// Takes over a handle that [`Held::into_handle`] or [`Held::try_clone_handle`] made, here or in another process, after
    /// checking that it is one: a peer may hand over anything.
    pub(crate) fn from_handle(fd: OwnedFd, limit: u64) -> Result<Self, Error> {
        let fd = above_stdio(fd).map_err(|error| Error::io("fcntl", error))?;
        match verify(fd.as_fd(), limit) {
            Ok(size) => Ok(Self::entered(Memory::verified(fd, size))),
            Err(error) => {
                dispose(vec![fd]);
                Err(error)
            }
        }
    }

    /// A new handle of the memory that any descriptor of it names.
    pub(crate) fn open(fd: BorrowedFd<'_>) -> Result<Self, Error> {
        let size = verify(fd, u64::MAX)?;
        let own = reopen(fd).map_err(|error| Error::io("opening /proc/self/fd", error))?;
        Self::enter(Memory::verified(own, size)).map_err(|error| Error::io("fcntl", error))
    }

    /// One more handle of the same memory.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.alive()?;
        Self::enter(Memory::verified(
            reopen(self.memory.as_fd())?,
            self.memory.size(),
        ))
    }

    /// One more handle of the same memory, to be handed over.
    pub(crate) fn try_clone_handle(&self) -> io::Result<OwnedFd> {
        self.alive()?;
        let fd = reopen(self.memory.as_fd())?;
        holders::enter(fd.as_fd())?;
        Ok(fd)
    }

    /// This handle, to be handed over. It goes on counting.
    pub(crate) fn into_handle(self) -> io::Result<OwnedFd> {
        self.alive()?;
        if self.exposed.load(Ordering::Relaxed) {
            // The caller may have a duplicate, which would keep the lock after the receiver was killed.
            return self.try_clone_handle();
        }
        // `Drop` would give the lock up, so the parts are moved out around it.
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped nor used again, so the memory is taken once; the flag needs no drop.
        unsafe { ptr::read(&this.memory) }.into_handle()
    }

    /// This handle, to be put into a socket. Once it is there, call [`Held::given`]. `None` if the caller of the library may
    /// have a duplicate, which would keep the lock after the receiver was killed.
    pub(crate) fn lend(&self) -> Option<BorrowedFd<'_>> {
        (!self.exposed.load(Ordering::Relaxed) && !self.forked()).then(|| self.memory.as_fd())
    }

    /// The count is with what was lent; dropping this handle does not end it.
    pub(crate) fn given(&self) {
        self.given.store(true, Ordering::Relaxed);
    }

    /// The descriptor for the caller to use as it likes.
    pub(crate) fn expose(&self) -> &OwnedFd {
        self.exposed.store(true, Ordering::Relaxed);
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
        self.memory.size()
    }

    /// Maps all of it, which must be more than nothing.
    pub(crate) fn map(&self, protection: Protection) -> io::Result<Mapping> {
        self.alive()?;
        self.memory.map_all(protection)
    }

    /// Whether anybody else has a handle.
    pub(crate) fn has_others(&self) -> io::Result<bool> {
        self.alive()?;
        holders::has_others(self.memory.as_fd())
    }

    /// How many handles there are besides this one.
    pub(crate) fn count_others(&self) -> io::Result<u32> {
        self.alive()?;
        holders::count_others(self.memory.as_fd())
    }

    /// Makes the memory immutable for everybody, or fails with `EBUSY`.
    pub(crate) fn freeze(&mut self) -> io::Result<()> {
        self.alive()?;
        if crate::fault::on(22) {
            return Ok(());
        }
        Ok(call!(fcntl_add_seals(&self.memory, SealFlags::WRITE))?)
    }

    /// Whether nobody can ever write to the memory again, nor change its size.
    pub(crate) fn is_frozen(&self) -> io::Result<bool> {
        self.alive()?;
        Ok(call!(fcntl_get_seals(&self.memory))?
            .contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW))
    }

    /// Notes for every process that the memory was given to another user. Call before it is.
    pub(crate) fn mark_foreign(&self) -> io::Result<()> {
        self.alive()?;
        let mode = Mode::from_raw_mode(call!(fstat(&self.memory))?.st_mode);
        if mode.contains(FOREIGN) {
            return Ok(());
        }
        Ok(call!(fchmod(&self.memory, mode | FOREIGN))?)
    }

    /// Whether the memory was given to another user.
    pub(crate) fn is_foreign(&self) -> io::Result<bool> {
        self.alive()?;
        Ok(Mode::from_raw_mode(call!(fstat(&self.memory))?.st_mode).contains(FOREIGN))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _dropping = crate::crash::dropping();
        if !self.forked() && !self.given.load(Ordering::Relaxed) {
            // Not left to the close: a duplicate that the caller made, or that a fork caught, may live on.
            holders::leave(self.memory.as_fd());
        }
    }
}

/// Checks what came from somebody else before anything is mapped, and returns the size.
fn verify(fd: BorrowedFd<'_>, limit: u64) -> Result<usize, Error> {
    let seals = match call!(fcntl_get_seals(fd)) {
        Ok(seals) => seals,
        Err(Errno::INVAL | Errno::BADF) => return Err(Error::NotARegion("no shared memory")),
        Err(error) => return Err(Error::io("fcntl", error)),
    };
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
        return Err(Error::NotARegion("its size is not sealed"));
    }
    if seals.contains(SealFlags::FUTURE_WRITE) && !seals.contains(SealFlags::WRITE) {
        return Err(Error::NotARegion("somebody else alone may write to it"));
    }
    if !has_ordinary_pages(fd).map_err(|error| Error::io("fstatfs", error))? {
        return Err(Error::NotARegion("no plain shared memory"));
    }
    let flags = call!(fcntl_getfl(fd)).map_err(|error| Error::io("fcntl", error))?;
    if flags & OFlags::ACCMODE != OFlags::RDWR {
        return Err(Error::NotARegion(
            "its descriptor is not open for both reading and writing",
        ));
    }
    #[allow(clippy::unnecessary_cast)] // The type differs between targets.
    let size = call!(fstat(fd))
        .map_err(|error| Error::io("fstat", error))?
        .st_size as i64;
    let size = u64::try_from(size).map_err(|_| Error::NotARegion("its size is negative"))?;
    let limit = limit.min(isize::MAX as u64);
    if size > limit {
        return Err(Error::RegionTooLarge { size, limit });
    }
    usize::try_from(size).map_err(|_| Error::RegionTooLarge { size, limit })
}

/// Another open file description of the same memory.
fn reopen(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let name = CString::new(fd.as_raw_fd().to_string())?;
    // Without waiting: whoever made the memory may have taken a lease on it (fcntl(2), F_SETLEASE), and to open what is
    // leased waits for its holder, by default for 45 seconds.
    let how = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match call!(openat(own_descriptors()?, &*name, how, Mode::empty())) {
        Ok(fd) => above_stdio(fd),
        Err(Errno::AGAIN) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "whoever made this memory holds a lease on it",
        )),
        Err(error) => Err(error.into()),
    }
}

/// Opens what a sandbox that is entered later may take away. Where it is missing already, cloning a region says so.
pub(crate) fn prepare(_app_group: Option<&str>) -> io::Result<()> {
    let _ = own_descriptors();
    learn_sizes();
    Ok(())
}

/// `/proc/self/fd`, opened once: handles can be made too after a sandbox took the path away.
pub(super) fn own_descriptors() -> io::Result<BorrowedFd<'static>> {
    static DIRECTORY: AtomicPtr<Fd> = AtomicPtr::new(ptr::null_mut());
    let known = DIRECTORY.load(Ordering::Acquire);
    // SAFETY: null or a leaked box that was published with Release.
    if let Some(directory) = unsafe { known.as_ref() } {
        // A forked child must not look into its parent.
        if !directory.forked() {
            return Ok(directory.as_fd());
        }
    }
    let directory = call!(openat(
        CWD,
        c"/proc/self/fd",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ))
    .map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::PERM => io::Error::new(
            io::Error::from(error).kind(),
            "a further handle of a region takes /proc/self/fd, which is not here: mount /proc, or join before it goes",
        ),
        other => other.into(),
    })?;
    let fresh = Box::into_raw(Box::new(Fd::new(above_stdio(directory)?)));
    let current =
        match DIRECTORY.compare_exchange(known, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh,
            Err(other) => {
                // SAFETY: `fresh` came from `Box::into_raw` just now and was not published.
                drop(unsafe { Box::from_raw(fresh) });
                other
            }
        };
    // SAFETY: published, thus leaked; never null here.
    Ok(unsafe { (*current).as_fd() })
}
