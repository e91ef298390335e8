//! Where the members of a bus find each other: a name that the kernel gives to one process only.
//!
//! By default that is an abstract socket address (unix(7)); it vanishes with its holder. With a path it is a socket file,
//! and who may bind it is decided by a lock on a file beside it that is never removed.

use super::{
    fork::Fd,
    process,
    socket::{Channel, Peer, accept, bound, listener},
};
use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{Mode, OFlags},
    io::Errno,
    net::SocketAddrUnix,
};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

/// Longest abstract name in bytes, without the leading NUL.
const NAME_MAX: usize = 107;

/// The place where one bus meets.
#[derive(Debug, Clone)]
pub(crate) enum Rendezvous {
    /// Abstract addresses: of the controller, and of the mark that members are left.
    Abstract {
        controller: SocketAddrUnix,
        members: SocketAddrUnix,
    },
    /// A socket file and its lock file.
    Path { socket: PathBuf, lock: PathBuf },
}

/// Won by the controller: the listening socket, and what keeps others from it.
#[derive(Debug)]
pub(crate) struct Seat {
    listener: Fd,
    _lock: Option<Fd>,
}

/// Held by every member: as long as one is held, a new controller knows that there are members to come back.
#[derive(Debug)]
pub(crate) struct MembersMark(pub(crate) Fd);

impl Rendezvous {
    /// The place of the bus `identifier` of user `owner`.
    pub(crate) fn named(identifier: &str, owner: u32, protocol: u8) -> io::Result<Self> {
        Ok(Self::Abstract {
            controller: abstract_address("ipmb", identifier, owner, protocol)?,
            members: abstract_address("ipmb-members", identifier, owner, protocol)?,
        })
    }

    /// The place at `path`.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        SocketAddrUnix::new(path)?;
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        Ok(Self::Path {
            socket: path.to_owned(),
            lock: lock.into(),
        })
    }

    /// Tries to become the controller. `None` when somebody else is.
    pub(crate) fn win(&self) -> io::Result<Option<Seat>> {
        match self {
            Self::Abstract { controller, .. } => match listener(controller) {
                Ok(listener) => Ok(Some(Seat {
                    listener,
                    _lock: None,
                })),
                Err(e) if Errno::from_io_error(&e) == Some(Errno::ADDRINUSE) => Ok(None),
                Err(e) => Err(e),
            },
            Self::Path { socket, lock } => {
                let lock = open_lock(lock)?;
                if !lock_range(&lock, libc::F_WRLCK, 0)? {
                    return Ok(None);
                }
                // Only the holder of the lock gets here, so the file is a dead controller's.
                match std::fs::remove_file(socket) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
                let listener = listener(&SocketAddrUnix::new(socket)?)?;
                Ok(Some(Seat {
                    listener,
                    _lock: Some(lock),
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
                _ => Err(e),
            },
        }
    }

    /// The mark that there are members. `None` when earlier members are still there: they hold it, and the first that
    /// comes back can pass it on.
    pub(crate) fn mark(&self) -> io::Result<Option<MembersMark>> {
        match self {
            Self::Abstract { members, .. } => match bound(members) {
                Ok(fd) => Ok(Some(MembersMark(fd))),
                Err(e) if Errno::from_io_error(&e) == Some(Errno::ADDRINUSE) => Ok(None),
                Err(e) => Err(e),
            },
            Self::Path { lock, .. } => {
                let fd = open_lock(lock)?;
                Ok(lock_range(&fd, libc::F_WRLCK, 1)?.then_some(MembersMark(fd)))
            }
        }
    }
}

impl Seat {
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

/// An abstract address for the bus. Identifiers that do not fit are hashed; the two kinds of names cannot meet.
fn abstract_address(
    prefix: &str,
    identifier: &str,
    owner: u32,
    protocol: u8,
) -> io::Result<SocketAddrUnix> {
    let mut name = format!("{prefix}/{protocol}/{owner}/={identifier}");
    if name.len() > NAME_MAX {
        name = format!("{prefix}/{protocol}/{owner}/#");
        for byte in Sha256::digest(identifier) {
            let _ = write!(name, "{byte:02x}");
        }
    }
    Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}

fn open_lock(path: &Path) -> io::Result<Fd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?;
    Ok(Fd::new(super::above_stdio(fd)?))
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

/// Whether a peer may be trusted with the bus of `owner`: the owner or root, as far as this process can tell users apart.
pub(crate) fn is_owner_or_root(peer: &Peer, owner: u32) -> bool {
    peer.uid == 0 || (peer.uid == owner && !process::is_unmapped(peer.uid))
}
