//! Where the members of a bus find each other: a socket file, and a lock on a file beside it, which the kernel gives to one
//! process only.
//!
//! There are no names that vanish with their holder and are the same in all sessions of a user, so a bus without a path lies at
//! one of its own: `/var/tmp/ipmb-UID/` and a hash of the identifier. (The system does not clean `/var/tmp`; it does clean
//! `/tmp` and the user's own temporary folder, with locked files in them.) The directory is the owner's and nobody else's, and everybody may pass
//! through: the access rules say who gets in. The last one to leave removes the files and the directory; who finds the files
//! of dead processes uses them again.
//!
//! A controller that dies hangs up before its seat is free: the kernel closes the descriptors of a process from the highest number
//! down (`fdt_invalidate`), and [`Seat::accept`] gives connections higher numbers than the lock has.

use super::{
    above_stdio,
    channel::{Channel, Peer},
    closing::dispose_owned,
    fork::Fd,
    handle::descriptor,
    lock_file::{LockFile, Place, at, has_socket},
    socket::{BACKLOG, accept, listener},
};
use crate::sys::Handle;
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd},
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, fchmod, fchown, lstat, mkdir, open,
    },
    io::Errno,
    net::SocketAddrUnix,
};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    io,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
};

/// Where the directories of buses without a path are.
const PLACE: &str = "/var/tmp";

/// So often the last member of another bus may remove the directory while this one makes it.
const PATIENCE: usize = 64;

/// The place where one bus meets.
#[derive(Debug, Clone)]
pub(crate) struct Rendezvous {
    socket: PathBuf,
    /// Where the socket is made, until all who may connect can.
    fresh: PathBuf,
    lock: PathBuf,
    owner: u32,
    /// Others than the owner may connect.
    shared: bool,
    /// The owner's directory, if the place is not a path that the program named.
    directory: Option<PathBuf>,
}

/// Won by the controller: the listening socket, and what keeps others from it.
#[derive(Debug)]
pub(crate) struct Seat {
    listener: ManuallyDrop<Fd>,
    lock: LockFile,
    place: Rendezvous,
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
    pub(crate) fn from_peer(handle: Handle) -> io::Result<Self> {
        let fd = ManuallyDrop::new(Fd::new(descriptor(handle)?));
        Ok(Self { fd, foreign: true })
    }
}

impl Drop for MembersMark {
    fn drop(&mut self) {
        let may_wait = self.foreign && !self.fd.forked();
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
    /// The place of the bus `identifier` of user `owner`. The number is that of this way of naming and stays: programs of all
    /// versions must meet to tell each other which they speak.
    pub(crate) fn named(identifier: &str, owner: u32, _shared: bool) -> io::Result<Self> {
        let directory = PathBuf::from(format!("{PLACE}/ipmb-{owner}"));
        let mut name = "1.".to_owned();
        for byte in Sha256::digest(identifier) {
            let _ = write!(name, "{byte:02x}");
        }
        let mut place = Self::at(&directory.join(name), owner, true)?;
        place.directory = Some(directory);
        Ok(place)
    }

    /// The place at `path`. `shared`: not for the owner and root only.
    pub(crate) fn at(path: &Path, owner: u32, shared: bool) -> io::Result<Self> {
        let beside = |end: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        let fresh = beside("~");
        SocketAddrUnix::new(&fresh)?;
        Ok(Self {
            socket: path.to_owned(),
            fresh,
            lock: beside(".lock"),
            owner,
            shared,
            directory: None,
        })
    }

    /// Opens the lock file, or makes it, with the directory that it lies in.
    fn open_lock(&self) -> io::Result<LockFile> {
        let Some(directory) = &self.directory else {
            // Before a lock file is made that would stay.
            has_socket(&self.socket)?;
            return LockFile::open(&self.lock, self.owner).map_err(|e| at(&self.lock, e));
        };
        let mut tries = 0;
        loop {
            make_directory(directory, self.owner)?;
            let opened = check_directory(directory, self.owner)
                .and_then(|()| LockFile::open(&self.lock, self.owner));
            match opened {
                Err(e) if e.kind() == io::ErrorKind::NotFound && tries < PATIENCE => tries += 1,
                other => return other.map_err(|e| at(&self.lock, e)),
            }
        }
    }

    /// Tries to become the controller. `None` when somebody else is.
    pub(crate) fn win(&self) -> io::Result<Option<Seat>> {
        let lock = self.open_lock()?;
        if !lock.try_lock(Place::Seat)? || !lock.is_at(&self.lock) {
            return Ok(None);
        }
        // Only the holder of the lock gets here, so the sockets are those of dead controllers. Nobody but the owner could have
        // connected before the mode is set, and who is refused for that does not come back; so it is set elsewhere.
        let at_fresh = |e| at(&self.fresh, e);
        if has_socket(&self.fresh)? {
            std::fs::remove_file(&self.fresh).map_err(at_fresh)?;
        }
        let listener = listener(&SocketAddrUnix::new(&self.fresh)?).map_err(at_fresh)?;
        // Whatever the umask is: who may write to it may connect.
        let others = self.shared || super::uid() != self.owner;
        let mode = Mode::from_raw_mode(if others { 0o666 } else { 0o600 });
        chmodat(CWD, &self.fresh, mode, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| at_fresh(e.into()))?;
        has_socket(&self.socket)?;
        std::fs::rename(&self.fresh, &self.socket).map_err(|e| at(&self.socket, e))?;
        Ok(Some(Seat {
            listener: ManuallyDrop::new(listener),
            lock,
            place: self.clone(),
        }))
    }

    /// Connects to the controller. `None` when there is none at this moment.
    pub(crate) fn connect(&self) -> io::Result<Option<Channel>> {
        if let Some(directory) = &self.directory {
            match check_directory(directory, self.owner) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e),
            }
        }
        match Channel::connect(&SocketAddrUnix::new(&self.socket)?) {
            Ok(channel) => Ok(Some(channel)),
            Err(e) => match Errno::from_io_error(&e) {
                // Nobody listens, or the queue is full; the file is not there (yet).
                Some(Errno::CONNREFUSED | Errno::NOENT) => Ok(None),
                _ => Err(at(&self.socket, e)),
            },
        }
    }

    /// The mark that there are members. `None` when earlier members are still there: they hold it, and the first that
    /// comes back can pass it on. It is good with a seat that was won after it only if [`Seat::goes_with`] says so.
    pub(crate) fn mark(&self) -> io::Result<Option<MembersMark>> {
        let file = self.open_lock()?;
        let is_free = file.try_lock(Place::Members)?;
        Ok(is_free.then(|| MembersMark {
            fd: ManuallyDrop::new(file.into_fd()),
            foreign: false,
        }))
    }
}

impl Seat {
    /// Whether a mark belongs to the same lock file: its last holder may have removed the one that the mark was taken on.
    pub(crate) fn goes_with(&self, mark: &MembersMark) -> bool {
        self.lock.is(mark)
    }

    /// Removes what lies in the file system. Only for the last one on the bus, with the seat and the mark in its hands: nobody
    /// else can have won on these files then, and who has opened the lock file finds that it is no longer there.
    pub(crate) fn clean_up(&self) {
        if crate::fault::on(21) {
            return;
        }
        let _ = std::fs::remove_file(&self.place.socket);
        let _ = std::fs::remove_file(&self.place.fresh);
        let _ = std::fs::remove_file(&self.place.lock);
        if let Some(directory) = &self.place.directory {
            // Unless there is another bus in it.
            let _ = std::fs::remove_dir(directory);
        }
    }

    /// Takes a connection that waits, with the kernel's word on who made it.
    pub(crate) fn accept(&self) -> io::Result<(Channel, Peer)> {
        let channel = Channel::accept(self.listener.as_fd(), self.lock.as_fd().as_raw_fd())?;
        let peer = channel.peer()?;
        Ok((channel, peer))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let forked = self.listener.forked();
        if !forked {
            // Nobody comes any more. Who did and was not accepted hears the end at once; what it may have put into its queue
            // closes with the listener, and that may wait.
            if self.lock.is_at(&self.place.lock) && has_socket(&self.place.socket).unwrap_or(false)
            {
                let _ = std::fs::remove_file(&self.place.socket);
            }
            let above = self.lock.as_fd().as_raw_fd();
            let one = |_: &usize| {
                let socket = accept(self.listener.as_fd(), above);
                socket.map(|socket| dispose_owned([socket])).is_ok()
            };
            let _ = (0..BACKLOG).take_while(one).count();
        }
        // SAFETY: dropped once, here.
        let listener = unsafe { ManuallyDrop::take(&mut self.listener) };
        if !forked {
            dispose_owned([listener]);
        }
    }
}

impl AsFd for Seat {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Makes the owner's directory, if it is not there.
fn make_directory(directory: &Path, owner: u32) -> io::Result<()> {
    match mkdir(directory, Mode::from_raw_mode(0o711)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = match open(directory, flags, Mode::empty()) {
        Ok(fd) => above_stdio(fd)?,
        // The last member of another bus took it for an empty one.
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    // Whatever the umask is.
    fchmod(&made, Mode::from_raw_mode(0o711))?;
    if super::uid() != owner {
        // Made by root, for the owner to use.
        fchown(&made, Some(Uid::from_raw(owner)), None::<Gid>)?;
    }
    Ok(())
}

/// Whether the directory is one in which nobody but the owner and root can put anything.
fn check_directory(directory: &Path, owner: u32) -> io::Result<()> {
    let found = lstat(directory)?;
    let is_directory = FileType::from_raw_mode(found.st_mode).is_dir();
    let is_theirs = found.st_uid == owner || found.st_uid == 0;
    if is_directory && is_theirs && found.st_mode & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{} was taken by user {}, or others may write to it; remove it, or give the bus a path",
            directory.display(),
            found.st_uid
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_before_its_connections_are_closed() {
        let name = format!("ipmb-seat-{}", std::process::id());
        let place = Rendezvous::named(&name, super::super::uid(), false).unwrap();
        let mark = place.mark().unwrap().unwrap();
        assert!(place.mark().unwrap().is_none());
        // Numbers below the lock's become free.
        let low: Vec<_> = (0..4)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        let seat = place.win().unwrap().unwrap();
        drop(low);
        assert!(place.win().unwrap().is_none() && seat.goes_with(&mark));
        let member = place.connect().unwrap().unwrap();
        let (connection, peer) = seat.accept().unwrap();
        assert!(connection.as_fd().as_raw_fd() > seat.lock.as_fd().as_raw_fd());
        assert_eq!(
            (peer.pid, peer.uid),
            (super::super::pid(), super::super::uid())
        );
        assert_eq!(member.peer().unwrap().uid, super::super::uid());
        seat.clean_up();
        drop((seat, mark));
        assert!(place.connect().unwrap().is_none());
        assert!(!place.lock.exists() && !place.socket.exists());
    }
}
