//! The lock file of a bus at a path: who holds the seat, and that there are members.
//!
//! The locks belong to open file descriptions (`F_OFD_SETLK`): they go with the last descriptor, in whatever process that is, and
//! however it ends. A member's descriptor can be handed to the next one, and the lock with it.

use super::{above_stdio, fork::Fd};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd},
    fs::{Gid, Mode, OFlags, Stat, Uid, fchown, fstat, stat},
    io::Errno,
};
use std::{io, os::unix::fs::FileTypeExt as _, path::Path};

/// A byte of the file, which one description can lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) enum Place {
    /// Who holds the seat.
    Seat,
    /// That there are members.
    Members,
}

/// An open lock file.
#[derive(Debug)]
pub(in crate::sys) struct LockFile(Fd);

impl LockFile {
    /// Opens the lock file, or makes it. A file of another user in a sticky directory must not be opened to be made
    /// (`protected_regular`, proc_sys_fs(5)), so the two are tried apart.
    pub(in crate::sys) fn open(path: &Path, owner: u32) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        loop {
            let fresh = match call!(rustix::fs::open(path, flags, Mode::empty())) {
                Ok(fd) => return Ok(Self(Fd::new(above_stdio(fd)?))),
                Err(Errno::NOENT) => flags | OFlags::CREATE | OFlags::EXCL,
                Err(e) => return Err(e.into()),
            };
            match call!(rustix::fs::open(path, fresh, Mode::from_raw_mode(0o600))) {
                Ok(fd) => {
                    let fd = Fd::new(above_stdio(fd)?);
                    if call!(rustix::process::geteuid()).as_raw() != owner {
                        // Made by root: the owner takes turns with it.
                        let _ = call!(fchown(&fd, Some(Uid::from_raw(owner)), None::<Gid>));
                    }
                    return Ok(Self(fd));
                }
                // Somebody else was faster.
                Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Its descriptor, which goes on holding the locks.
    pub(in crate::sys) fn into_fd(self) -> Fd {
        self.0
    }

    /// Takes a lock; false when somebody else has it.
    pub(in crate::sys) fn try_lock(&self, place: Place) -> io::Result<bool> {
        // SAFETY: all zero bytes is a valid value of this plain C structure, padding included.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = place as libc::off_t;
        lock.l_len = 1;
        // SAFETY: the descriptor is open and the structure is complete; the kernel only reads it.
        if unsafe {
            call!(libc::fcntl(
                self.0.as_raw_fd(),
                libc::F_OFD_SETLK,
                &raw const lock
            ))
        } == 0
        {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match Errno::from_io_error(&error) {
            Some(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            _ => Err(error),
        }
    }

    /// Whether it is the file that lies at `path` now.
    pub(in crate::sys) fn is_at(&self, path: &Path) -> bool {
        same_file(call!(fstat(&self.0)), call!(stat(path)))
    }

    /// Whether a descriptor is one of the same file.
    pub(in crate::sys) fn is(&self, other: impl AsFd) -> bool {
        same_file(call!(fstat(&self.0)), call!(fstat(other)))
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn same_file(a: rustix::io::Result<Stat>, b: rustix::io::Result<Stat>) -> bool {
    matches!((a, b), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Whether a socket lies at the path, which otherwise must be free.
pub(in crate::sys) fn has_socket(path: &Path) -> io::Result<bool> {
    match call!(std::fs::symlink_metadata(path)) {
        Ok(metadata) if metadata.file_type().is_socket() => Ok(true),
        Ok(_) => Err(at(path, occupied())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(at(path, e)),
    }
}

/// What lies in the way.
pub(in crate::sys) fn occupied() -> io::Error {
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        "something that is no socket lies at the bus's path",
    )
}

/// Names the file with an error, and what the user can do about it. A shortage stays as it is: its number says what ran out.
pub(in crate::sys) fn at(path: &Path, error: io::Error) -> io::Error {
    if crate::sys::exhausted(&error).is_some() {
        return error;
    }
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "; its directory must exist",
        io::ErrorKind::PermissionDenied => "; this user must be let into its directory, and to it",
        io::ErrorKind::ReadOnlyFilesystem => "; take a path that can be written to",
        io::ErrorKind::AlreadyExists => "; remove it, or take another path",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{}: {error}{remedy}", path.display()))
}
