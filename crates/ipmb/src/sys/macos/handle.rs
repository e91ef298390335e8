//! More handles: a second one to the same object, one in reserve, and those that keep others alive under way.

use super::{adopt_raw, closing, fork::Fd};
use crate::sys::{BorrowedHandle, Handle};
use rustix::{
    fd::{BorrowedFd, OwnedFd},
    net::sockopt,
};
use std::io;

/// A second handle to the same kernel object: a descriptor is close-on-exec, never one of 0–2; a port has the same name.
pub(crate) fn duplicate(handle: BorrowedHandle<'_>) -> io::Result<Handle> {
    match handle {
        BorrowedHandle::Fd(fd) => Ok(duplicate_fd(fd)?.into()),
        BorrowedHandle::Port(port) => port.try_clone().map(Handle::Port),
    }
}

pub(super) fn duplicate_fd(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// The descriptor that a handle is. What the library makes of handles that came from others are descriptors: a port is a lie.
pub(super) fn descriptor(handle: Handle) -> io::Result<OwnedFd> {
    match handle {
        Handle::Fd(fd, _) => Ok(fd),
        port @ Handle::Port(_) => {
            dispose(vec![port]);
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a port in place of a descriptor",
            ))
        }
    }
}

/// Closes what came from others and nobody asked for. To give up a port may wait, too: the last right to the port of a file
/// closes the file (`fileport_no_senders`).
pub(crate) fn dispose(handles: Vec<Handle>) {
    let (mut descriptors, mut ports) = (Vec::new(), Vec::new());
    for handle in handles {
        let port = match handle {
            Handle::Fd(fd, port) => {
                descriptors.push(fd);
                port.into_inner()
            }
            Handle::Port(port) => Some(port),
        };
        ports.extend(port);
    }
    if !descriptors.is_empty() {
        closing::dispose(descriptors);
    }
    if !ports.is_empty() {
        closing::drop_elsewhere(vec![Box::new(ports)]);
    }
}

/// A place in the table of descriptors, to have one at hand when the table is full.
#[derive(Debug)]
pub(crate) struct Spare(#[allow(dead_code)] Fd);

impl Spare {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a fresh descriptor, or a negative number.
        Ok(Self(Fd::new(unsafe { adopt_raw(libc::kqueue()) }?)))
    }
}

/// Sockets that are under way in a packet.
///
/// What the kernel takes for garbage there (`anchor.rs`) its sender must not have closed. So the sender keeps a descriptor until the
/// packet was taken, for receivers that have no anchor: on macOS 11, or in a table that is nearly full. If it
/// leaves or is killed before that, or ends the link, they get a socket that is at its end, with nothing in it. Other
/// kinds of descriptors are not concerned, unless they lie in such a socket: as those do that were sent over a link which its
/// receiver has not accepted yet.
#[derive(Debug, Default)]
pub(crate) struct Kept(#[allow(dead_code)] Vec<Fd>);

/// Keeps what must not be closed until the receiver has taken the packet.
pub(crate) fn keep(
    first: Option<BorrowedHandle<'_>>,
    rest: &[BorrowedHandle<'_>],
) -> io::Result<Kept> {
    let mut kept = Vec::new();
    for handle in first.iter().chain(rest) {
        if let BorrowedHandle::Fd(fd) = handle
            && sockopt::socket_type(fd).is_ok()
        {
            kept.push(Fd::new(duplicate_fd(*fd)?));
        }
    }
    Ok(Kept(kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::AsHandle;
    use rustix::fd::AsRawFd;

    #[test]
    fn a_duplicate_is_inherited_or_lands_on_stdio() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let copy = descriptor(duplicate(file.as_handle()).unwrap()).unwrap();
        assert!(copy.as_raw_fd() > 2);
        let flags = rustix::io::fcntl_getfd(&copy).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn a_socket_under_way_is_not_kept() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let kept = keep(Some(socket.as_handle()), &[file.as_handle()]).unwrap();
        assert_eq!(kept.0.len(), 1);
        assert_ne!(kept.0[0].as_raw_fd(), socket.as_raw_fd());
    }
}
