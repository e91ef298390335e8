//! Where the members of a bus find each other: a name that the kernel gives to one process only.
//!
//! By default that is an abstract socket address (unix(7)); it vanishes with its holder. With a path it is a socket file,
//! and who may bind it is decided by a lock on a file beside it. The last one to leave removes both; who finds the files of
//! dead processes uses them again.

use super::{
    fork::Fd,
    socket::{Channel, Peer, accept, bound, listener},
};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chmodat, fchown, fstat, stat},
    io::Errno,
    net::SocketAddrUnix,
};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

/// Longest abstract name in bytes, without the leading NUL.
const NAME_MAX: usize = 107;

/// Bytes of the lock file: who holds the seat, and that there are members.
const SEAT: i64 = 0;
const MEMBERS: i64 = 1;

/// The place where one bus meets.
#[derive(Debug, Clone)]
pub(crate) enum Rendezvous {
    /// Abstract addresses: of the controller, and of the mark that members are left.
    Abstract {
        controller: SocketAddrUnix,
        members: SocketAddrUnix,
    },
    /// A socket file and its lock file.
    Path {
        socket: PathBuf,
        lock: PathBuf,
        owner: u32,
        /// Others than the owner may connect.
        shared: bool,
    },
}

/// Won by the controller: the listening socket, and what keeps others from it.
#[derive(Debug)]
pub(crate) struct Seat {
    listener: Fd,
    files: Option<Files>,
}

/// The files of a seat at a path.
#[derive(Debug)]
struct Files {
    lock: Fd,
    lock_path: PathBuf,
    socket: PathBuf,
}

/// Held by every member: as long as one is held, a new controller knows that there are members to come back.
#[derive(Debug)]
pub(crate) struct MembersMark(Fd);

impl MembersMark {
    /// Takes a mark that came from another process.
    pub(crate) fn from_peer(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(Fd::new(fd)))
    }
}

impl AsFd for MembersMark {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Rendezvous {
    /// The place of the bus `identifier` of user `owner`.
    pub(crate) fn named(identifier: &str, owner: u32) -> io::Result<Self> {
        Ok(Self::Abstract {
            controller: abstract_address("ipmb", identifier, owner)?,
            members: abstract_address("ipmb-members", identifier, owner)?,
        })
    }

    /// The place at `path`. `shared`: not for the owner and root only.
    pub(crate) fn at(path: &Path, owner: u32, shared: bool) -> io::Result<Self> {
        SocketAddrUnix::new(path)?;
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        Ok(Self::Path {
            socket: path.to_owned(),
            lock: lock.into(),
            owner,
            shared,
        })
    }

    /// Tries to become the controller. `None` when somebody else is.
    pub(crate) fn win(&self) -> io::Result<Option<Seat>> {
        match self {
            Self::Abstract { controller, .. } => match listener(controller) {
                Ok(listener) => Ok(Some(Seat {
                    listener,
                    files: None,
                })),
                Err(e) if Errno::from_io_error(&e) == Some(Errno::ADDRINUSE) => Ok(None),
                Err(e) => Err(e),
            },
            Self::Path {
                socket,
                lock: lock_path,
                owner,
                shared,
            } => {
                // Before a lock file is made that would stay.
                has_socket(socket)?;
                let lock = open_lock(lock_path, *owner).map_err(|e| at(lock_path, e))?;
                if !lock_range(&lock, libc::F_WRLCK, SEAT)? || !is_at(&lock, lock_path) {
                    return Ok(None);
                }
                // Only the holder of the lock gets here, so a socket is a dead controller's.
                if has_socket(socket)? {
                    std::fs::remove_file(socket).map_err(|e| at(socket, e))?;
                }
                let listener =
                    listener(&SocketAddrUnix::new(socket)?).map_err(|e| at(socket, e))?;
                if *shared || rustix::process::geteuid().as_raw() != *owner {
                    open_to_all(socket).map_err(|e| at(socket, e))?;
                }
                Ok(Some(Seat {
                    listener,
                    files: Some(Files {
                        lock,
                        lock_path: lock_path.clone(),
                        socket: socket.clone(),
                    }),
                }))
            }
        }
    }

    /// Connects to the controller. `None` when there is none at this moment.
    pub(crate) fn connect(&self) -> io::Result<Option<Channel>> {
        let connected = match self {
            Self::Abstract { controller, .. } => Channel::connect(controller),
            Self::Path { socket, .. } => Channel::connect(&SocketAddrUnix::new(socket)?),
        };
        match connected {
            Ok(channel) => Ok(Some(channel)),
            Err(e) => match Errno::from_io_error(&e) {
                // Nobody listens; the queue is full; the file is not there (yet).
                Some(Errno::CONNREFUSED | Errno::AGAIN | Errno::NOENT) => Ok(None),
                _ => Err(match self {
                    Self::Abstract { .. } => e,
                    Self::Path { socket, .. } => at(socket, e),
                }),
            },
        }
    }

    /// The mark that there are members. `None` when earlier members are still there: they hold it, and the first that
    /// comes back can pass it on. At a path it is good with a seat that was won after it only if [`Seat::goes_with`] says so.
    pub(crate) fn mark(&self) -> io::Result<Option<MembersMark>> {
        match self {
            Self::Abstract { members, .. } => match bound(members) {
                Ok(fd) => Ok(Some(MembersMark(fd))),
                Err(e) if Errno::from_io_error(&e) == Some(Errno::ADDRINUSE) => Ok(None),
                Err(e) => Err(e),
            },
            Self::Path {
                socket,
                lock,
                owner,
                ..
            } => {
                has_socket(socket)?;
                let fd = open_lock(lock, *owner).map_err(|e| at(lock, e))?;
                Ok(lock_range(&fd, libc::F_WRLCK, MEMBERS)?.then_some(MembersMark(fd)))
            }
        }
    }
}

impl Seat {
    /// Whether a mark belongs to the same lock file: its last holder may have removed the one that the mark was taken on.
    pub(crate) fn goes_with(&self, mark: &MembersMark) -> bool {
        let Some(files) = &self.files else {
            return true;
        };
        same_file(fstat(&files.lock), fstat(&mark.0))
    }

    /// Removes what lies in the file system. Only for the last one on the bus, with the seat and the mark in its hands: nobody
    /// else can have won on these files then, and who has opened the lock file finds that it is no longer there.
    pub(crate) fn clean_up(&self) {
        if let Some(files) = &self.files
            && !crate::fault::on(21)
        {
            let _ = std::fs::remove_file(&files.socket);
            let _ = std::fs::remove_file(&files.lock_path);
        }
    }

    /// Takes a connection that waits, with the kernel's word on who made it.
    pub(crate) fn accept(&self) -> io::Result<(Channel, Peer)> {
        let channel = accept(self.listener.as_fd())?;
        let peer = channel.peer()?;
        Ok((channel, peer))
    }
}

impl AsFd for Seat {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// An abstract address for the bus. Identifiers that do not fit are hashed; the two kinds of names cannot meet. The
/// number is that of this way of naming and stays: programs of all versions must meet to tell each other which they speak.
fn abstract_address(prefix: &str, identifier: &str, owner: u32) -> io::Result<SocketAddrUnix> {
    let mut name = format!("{prefix}/1/{owner}/={identifier}");
    if name.len() > NAME_MAX {
        name = format!("{prefix}/1/{owner}/#");
        for byte in Sha256::digest(identifier) {
            let _ = write!(name, "{byte:02x}");
        }
    }
    Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}

/// Opens the lock file, or makes it. A file of another user in a sticky directory must not be opened to be made
/// (`protected_regular`, proc_sys_fs(5)), so the two are tried apart.
fn open_lock(path: &Path, owner: u32) -> io::Result<Fd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    loop {
        let fresh = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => return Ok(Fd::new(super::above_stdio(fd)?)),
            Err(Errno::NOENT) => flags | OFlags::CREATE | OFlags::EXCL,
            Err(e) => return Err(e.into()),
        };
        match rustix::fs::open(path, fresh, Mode::from_raw_mode(0o600)) {
            Ok(fd) => {
                let fd = Fd::new(super::above_stdio(fd)?);
                if rustix::process::geteuid().as_raw() != owner {
                    // Made by root: the owner takes turns with it.
                    let _ = fchown(&fd, Some(Uid::from_raw(owner)), None::<Gid>);
                }
                return Ok(fd);
            }
            // Somebody else was faster.
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Lets everybody connect, whatever the umask is: the access rules say who gets in. The path is not followed a second time,
/// since what lies there may have been exchanged.
fn open_to_all(socket: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = super::above_stdio(rustix::fs::open(socket, flags, Mode::empty())?)?;
    if !FileType::from_raw_mode(fstat(&file)?.st_mode).is_socket() {
        return Err(occupied());
    }
    let name = file.as_raw_fd().to_string();
    chmodat(
        super::held::own_descriptors()?,
        name,
        Mode::from_raw_mode(0o666),
        AtFlags::empty(),
    )?;
    Ok(())
}

/// Whether an open file is the one at `path`.
fn is_at(fd: &Fd, path: &Path) -> bool {
    same_file(fstat(fd), stat(path))
}

fn same_file(
    a: rustix::io::Result<rustix::fs::Stat>,
    b: rustix::io::Result<rustix::fs::Stat>,
) -> bool {
    matches!((a, b), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Whether a socket lies at the path, which otherwise must be free.
fn has_socket(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => Ok(true),
        Ok(_) => Err(at(path, occupied())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(at(path, e)),
    }
}

fn occupied() -> io::Error {
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        "something that is no socket lies at the bus's path",
    )
}

/// Names the file with an error, and what the user can do about it. A shortage stays as it is: its number says what ran out.
fn at(path: &Path, error: io::Error) -> io::Error {
    if super::exhausted(&error).is_some() {
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

/// Takes an open-file-description lock on one byte; false when somebody else has it.
fn lock_range(fd: &Fd, kind: libc::c_int, byte: i64) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte as libc::off_t,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open and the structure is complete; the kernel only reads it.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match Errno::from_io_error(&error) {
        Some(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        _ => Err(error),
    }
}
