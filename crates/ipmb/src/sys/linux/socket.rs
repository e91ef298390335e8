//! The ordered channel with handles: a SEQPACKET socket. Non-blocking per call, because the flag of an open file
//! description can be changed by whoever else holds it.

use super::{above_stdio, fork::Fd};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix,
        SocketFlags, SocketType, accept_with, bind, connect, listen, recv, recvmsg, send, sendmsg,
        shutdown, socket_with, socketpair, sockopt,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
};

/// Handles that one packet can carry (the kernel's `SCM_MAX_FD`).
pub(crate) const MAX_HANDLES: usize = 253;

/// Who is at the other end, by the kernel's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// One end of an ordered channel that keeps packet borders and carries handles.
#[derive(Debug)]
pub(crate) struct Channel(Fd);

/// A packet that was received.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Bytes of the packet that are in the buffer.
    pub len: usize,
    /// The packet was longer than the buffer.
    pub truncated: bool,
}

impl Channel {
    /// Two connected ends.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((
            Self(Fd::new(above_stdio(a)?)),
            Self(Fd::new(above_stdio(b)?)),
        ))
    }

    /// Takes an end that came from another process, if it is one.
    pub(crate) fn from_peer(fd: OwnedFd) -> io::Result<Self> {
        if sockopt::socket_domain(&fd)? != AddressFamily::UNIX
            || sockopt::socket_type(&fd)? != SocketType::SEQPACKET
        {
            return Err(Errno::PROTOTYPE.into());
        }
        Ok(Self(Fd::new(fd)))
    }

    /// Connects to a listener. `WouldBlock` when its queue is full.
    pub(crate) fn connect(address: &SocketAddrUnix) -> io::Result<Self> {
        let fd = above_stdio(socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?)?;
        connect(&fd, address)?;
        Ok(Self(Fd::new(fd)))
    }

    /// The process that connected, or that listens, at the time it did so.
    pub(crate) fn peer(&self) -> io::Result<Peer> {
        let c = sockopt::socket_peercred(&self.0)?;
        Ok(Peer {
            pid: c.pid.as_raw_nonzero().get() as u32,
            uid: c.uid.as_raw(),
            gid: c.gid.as_raw(),
        })
    }

    /// Sends a packet, at once or not at all.
    pub(crate) fn send(&self, bytes: &[u8], handles: &[BorrowedFd<'_>]) -> io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if handles.is_empty() {
            retry(|| send(&self.0, bytes, flags))?;
            return Ok(());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_HANDLES))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(handles)) {
            return Err(Errno::INVAL.into());
        }
        retry(|| sendmsg(&self.0, &[IoSlice::new(bytes)], &mut ancillary, flags))?;
        Ok(())
    }

    /// Receives a packet without waiting. A packet of length zero is the end of the channel (nobody sends empty
    /// packets). When handles do not fit into this process's table the packet stays in the channel and the error says
    /// so: they are looked at first and taken only when all came through.
    pub(crate) fn recv(&self, buffer: &mut [u8], handles: &mut Vec<OwnedFd>) -> io::Result<Packet> {
        let before = handles.len();
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC | RecvFlags::PEEK;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_HANDLES))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = read(|| {
            recvmsg(
                &self.0,
                &mut [IoSliceMut::new(buffer)],
                &mut ancillary,
                flags,
            )
        })?;
        let mut short = message.flags.contains(ReturnFlags::CTRUNC);
        for item in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = item {
                for fd in fds {
                    match above_stdio(fd) {
                        Ok(fd) => handles.push(fd),
                        Err(_) => short = true,
                    }
                }
            }
        }
        if short {
            handles.truncate(before);
            return Err(Errno::MFILE.into());
        }
        if message.bytes > 0 {
            self.skip()?;
        }
        Ok(Packet {
            len: message.bytes.min(buffer.len()),
            truncated: message.flags.contains(ReturnFlags::TRUNC),
        })
    }

    /// Looks at the first bytes of the next packet and leaves it in the channel.
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (len, _) = read(|| {
            recv(
                &self.0,
                &mut buffer[..],
                RecvFlags::DONTWAIT | RecvFlags::PEEK,
            )
        })?;
        Ok(len)
    }

    /// Takes the next packet and throws it away, with its handles.
    pub(crate) fn skip(&self) -> io::Result<usize> {
        let mut nothing = [0u8; 1];
        let (len, _) = read(|| recv(&self.0, &mut nothing[..], RecvFlags::DONTWAIT))?;
        Ok(len)
    }

    /// Ends the channel in both directions; what lies in it can still be read by the other end.
    pub(crate) fn close(&self) {
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Binds a listening socket. `AddrInUse` when somebody has the name.
pub(crate) fn listener(address: &SocketAddrUnix) -> io::Result<Fd> {
    let fd = bound(address)?;
    listen(&fd, 4096)?;
    Ok(fd)
}

/// Binds a socket that only holds a name.
pub(crate) fn bound(address: &SocketAddrUnix) -> io::Result<Fd> {
    let fd = above_stdio(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)?;
    bind(&fd, address)?;
    Ok(Fd::new(fd))
}

/// Accepts a connection without waiting.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<Channel> {
    let fd = retry(|| accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK))?;
    Ok(Channel(Fd::new(above_stdio(fd)?)))
}

/// As [`retry`], for reads: when a peer died with unread packets the first read says so, once, and its own last packets
/// follow.
fn read<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    match retry(&mut call) {
        Err(Errno::CONNRESET) => retry(call),
        other => other,
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
