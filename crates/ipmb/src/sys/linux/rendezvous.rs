//! Where the members of a bus find each other: a name that the kernel gives to one process only.
//!
//! By default that is an abstract socket address (unix(7)); it vanishes with its holder. With a path it is a socket file,
//! and who may bind it is decided by a lock on a file beside it. The last one to leave removes both; who finds the files of
//! dead processes uses them again.

use super::{
    closing::dispose_owned,
    fork::Fd,
    lock_file::{LockFile, Place, at, has_socket, occupied},
    socket::{Channel, Peer, accept, bound, is_never_connected, listener},
};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, FileType, Mode, OFlags, chmodat, fstat},
    io::Errno,
    net::{Shutdown, SocketAddrUnix, shutdown, sockopt},
};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    io,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
};

/// Bytes on the way to a member, as the kernel counts them: some twenty packets. It doubles the number.
const QUEUE: usize = 8 << 10;

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
    lock: LockFile,
    lock_path: PathBuf,
    socket: PathBuf,
}

/// Held by every member: as long as one is held, a new controller knows that there are members to come back.
#[derive(Debug)]
pub(crate) struct MembersMark {
    fd: ManuallyDrop<Fd>,
    /// It was handed over, and may be anything.
    foreign: bool,
}

impl MembersMark {
    /// Takes a mark that came from another process.
    pub(crate) fn from_peer(fd: OwnedFd) -> io::Result<Self> {
        let fd = ManuallyDrop::new(Fd::new(fd));
        Ok(Self { fd, foreign: true })
    }
}

impl MembersMark {
    fn own(fd: Fd) -> Self {
        Self {
            fd: ManuallyDrop::new(fd),
            foreign: false,
        }
    }
}

impl Drop for MembersMark {
    fn drop(&mut self) {
        let _dropping = crate::crash::dropping();
        let may_wait = self.foreign && !self.fd.forked() && !is_never_connected(&self.fd);
        // SAFETY: dropped once, here.
        let fd = unsafe { ManuallyDrop::take(&mut self.fd) };
        if may_wait {
            dispose_owned([fd]);
        }
    }
}

impl AsFd for MembersMark {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Rendezvous {
    /// The place of the bus `identifier` of user `owner`. Whoever may connect, everybody finds it.
    pub(crate) fn named(identifier: &str, owner: u32, _shared: bool) -> io::Result<Self> {
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
                let lock = LockFile::open(lock_path, *owner).map_err(|e| at(lock_path, e))?;
                if !lock.try_lock(Place::Seat)? || !lock.is_at(lock_path) {
                    return Ok(None);
                }
                // Only the holder of the lock gets here, so a socket is a dead controller's.
                if has_socket(socket)? {
                    call!(std::fs::remove_file(socket)).map_err(|e| at(socket, e))?;
                }
                let listener =
                    listener(&SocketAddrUnix::new(socket)?).map_err(|e| at(socket, e))?;
                if *shared || call!(rustix::process::geteuid()).as_raw() != *owner {
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
                Ok(fd) => Ok(Some(MembersMark::own(fd))),
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
                let file = LockFile::open(lock, *owner).map_err(|e| at(lock, e))?;
                let is_free = file.try_lock(Place::Members)?;
                Ok(is_free.then(|| MembersMark::own(file.into_fd())))
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
        files.lock.is(mark)
    }

    /// Removes what lies in the file system. Only for the last one on the bus, with the seat and the mark in its hands: nobody
    /// else can have won on these files then, and who has opened the lock file finds that it is no longer there.
    pub(crate) fn clean_up(&self) {
        if let Some(files) = &self.files
            && !crate::fault::on(21)
        {
            let _ = call!(std::fs::remove_file(&files.socket));
            let _ = call!(std::fs::remove_file(&files.lock_path));
        }
    }

    /// Takes a connection that waits, with the kernel's word on who made it.
    pub(crate) fn accept(&self) -> io::Result<(Channel, Peer)> {
        let channel = accept(self.listener.as_fd())?;
        // Packets to a member are small. What one that reads nothing keeps under way of this user's handles, of which all its
        // processes have a limited number together (unix(7), ETOOMANYREFS), is a part of that: by default all of it.
        let _ = call!(sockopt::set_socket_send_buffer_size(&channel, QUEUE));
        let peer = channel.peer()?;
        Ok((channel, peer))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _dropping = crate::crash::dropping();
        if self.listener.forked() {
            return;
        }
        // Who has connected and was not accepted may have put anything into its queue, which closes with the listener.
        let _ = call!(shutdown(&self.listener, Shutdown::Both));
        while accept(self.listener.as_fd()).is_ok() {}
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

/// Lets everybody connect, whatever the umask is: the access rules say who gets in. The path is not followed a second time,
/// since what lies there may have been exchanged.
fn open_to_all(socket: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = super::above_stdio(call!(rustix::fs::open(socket, flags, Mode::empty()))?)?;
    if !FileType::from_raw_mode(call!(fstat(&file))?.st_mode).is_socket() {
        return Err(occupied());
    }
    let name = file.as_raw_fd().to_string();
    call!(chmodat(
        super::held::own_descriptors()?,
        name,
        Mode::from_raw_mode(0o666),
        AtFlags::empty(),
    ))?;
    Ok(())
}
