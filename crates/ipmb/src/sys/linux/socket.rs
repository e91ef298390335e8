//! The ordered channel with handles: a SEQPACKET socket. Non-blocking per call, because the flag of an open file
//! description can be changed by whoever else holds it.

use super::{
    above_stdio,
    closing::{dispose, dispose_owned},
    fork::Fd,
    named,
};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown,
        SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, recv, send,
        sendmsg, shutdown, socket_with, socketpair, sockopt,
    },
};
use std::{
    io::{self, IoSlice},
    mem::{ManuallyDrop, MaybeUninit},
};

/// Handles that one packet can carry (the kernel's `SCM_MAX_FD`).
pub(crate) const MAX_HANDLES: usize = 253;

/// Reads a socket option into `space`; returns how many items it has.
fn option<T: Copy>(socket: &Socket, name: libc::c_int, space: &mut [T]) -> io::Result<usize> {
    let mut len = size_of_val(space) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to the slice, whose items are plain numbers of any value.
    let result = unsafe {
        call!(libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            space.as_mut_ptr().cast(),
            &raw mut len,
        ))
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(len as usize / size_of::<T>())
}

/// Who is at the other end, by the kernel's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// One end of an ordered channel that keeps packet borders and carries handles.
#[derive(Debug)]
pub(crate) struct Channel(Socket);

/// A socket of this family that others can put packets with handles into. What is in its queue at the last close is closed
/// with it, which may wait.
#[derive(Debug)]
pub(super) struct Socket {
    fd: ManuallyDrop<Fd>,
    /// It is another process's end, of which this is a copy, and that process may be using it.
    lent: bool,
}

impl Socket {
    pub(super) fn new(fd: Fd) -> Self {
        Self {
            fd: ManuallyDrop::new(fd),
            lent: false,
        }
    }

    fn lent(fd: Fd) -> Self {
        Self {
            fd: ManuallyDrop::new(fd),
            lent: true,
        }
    }

    fn into_owned(self) -> io::Result<OwnedFd> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped nor used again, so the descriptor is taken once.
        unsafe { ManuallyDrop::take(&mut this.fd) }.into_owned()
    }

    /// Whether a copy has nothing in its queue, into which nobody but this process puts anything.
    fn is_empty(&self) -> bool {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        match read(|| call!(recv(&*self.fd, &mut [0u8; 1][..], flags))) {
            Ok((len, _)) => len == 0,
            Err(e) => e == Errno::AGAIN,
        }
    }

    /// Takes packets out until the queue is empty or the next packet has handles. After a `shutdown` nothing is put into it any
    /// more, so that what is empty stays empty, whoever else has this end.
    fn is_drained(&self) -> bool {
        loop {
            if !matches!(has_handles(self.fd.as_raw_fd()), Ok(false)) {
                return false;
            }
            match read(|| call!(recv(&*self.fd, &mut [0u8; 1][..], RecvFlags::DONTWAIT))) {
                // An empty packet or the end: a packet would come with credentials.
                Ok((0, _)) => {
                    let ask = |on| call!(sockopt::set_socket_passcred(&*self.fd, on)).is_ok();
                    if !ask(true) {
                        return false;
                    }
                    if matches!(has_handles(self.fd.as_raw_fd()), Ok(false)) {
                        return true;
                    }
                    if !ask(false) {
                        return false;
                    }
                }
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _dropping = crate::crash::dropping();
        let at_once = if self.fd.forked() {
            true
        } else if self.lent {
            self.is_empty()
        } else {
            // The other end need not wait for the close.
            call!(shutdown(&*self.fd, Shutdown::Both)).is_ok() && self.is_drained()
        };
        // SAFETY: dropped once, here; `into_owned` forgets `self`.
        let fd = unsafe { ManuallyDrop::take(&mut self.fd) };
        if !at_once {
            dispose_owned([fd]);
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A packet that was received.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Bytes of the packet that are in the buffer.
    pub len: usize,
    /// The packet was longer than the buffer.
    pub truncated: bool,
    /// It had more handles than were asked for; none of them came, and the packet stays in the channel.
    pub surplus: bool,
}

/// So often handles may fail to come through although there is room for them.
const CUT_FOR_NO_REASON: usize = 8;

/// Room beside the handles, for what the maker of a socket can have the kernel add to each packet: credentials, a security
/// label, a process handle (unix(7)). Whoever shares the socket's description can switch that on at any time.
const ADDITIONS: usize = 256;

pub(super) fn part(buffer: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    }
}

/// A message of one part, without an address, and without space for what comes beside its bytes.
pub(super) fn message(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: all zeros is a message without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut *part;
    message.msg_iovlen = 1;
    message
}

pub(super) fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// What a look at a packet found.
struct Seen {
    len: usize,
    truncated: bool,
    /// Not all handles came through.
    short: bool,
}

/// Appends the handles that came with a message. Not by rustix, which keeps the number of a process handle that came beside
/// others to itself: it would stay open. True if not all of them came through.
///
/// # Safety
///
/// The kernel has filled the message in, and nobody has taken its handles.
pub(super) unsafe fn take_handles(message: &libc::msghdr, handles: &mut Vec<OwnedFd>) -> bool {
    const SCM_PIDFD: libc::c_int = 4;
    let mut short = message.msg_flags & libc::MSG_CTRUNC != 0;
    // SAFETY: the caller says so, and the message says how far.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !at.is_null() {
        // SAFETY: the kernel wrote a whole header here.
        let header = unsafe { at.read() };
        // SAFETY: a sum; nothing is dereferenced.
        let head = unsafe { libc::CMSG_LEN(0) } as usize;
        let count = (header.cmsg_len as usize).saturating_sub(head) / size_of::<RawFd>();
        let kind = (header.cmsg_level, header.cmsg_type);
        let is_handles = kind == (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        if is_handles || kind == (libc::SOL_SOCKET, SCM_PIDFD) {
            for i in 0..count {
                // SAFETY: the data is `count` numbers long.
                let fd = unsafe { libc::CMSG_DATA(at).cast::<RawFd>().add(i).read_unaligned() };
                if fd < 0 {
                    continue;
                }
                // SAFETY: the kernel opened it for this message, so nobody else owns it.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                match super::above_stdio(fd) {
                    Ok(fd) if is_handles => handles.push(fd),
                    Ok(_) => {}
                    Err(_) => short = true,
                }
            }
        }
        // SAFETY: as for the first.
        at = unsafe { libc::CMSG_NXTHDR(message, at) };
    }
    short
}

/// Looks at the next packet, whose handles are appended, and leaves it in the channel.
fn peek_message(
    socket: &Socket,
    buffer: &mut [u8],
    handles: &mut Vec<OwnedFd>,
    most: usize,
) -> rustix::io::Result<Seen> {
    const SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_HANDLES)) + ADDITIONS;
    let mut space = [const { MaybeUninit::<u64>::uninit() }; SPACE.div_ceil(8)];
    let room = (rustix::cmsg_space!(ScmRights(most)) + ADDITIONS).min(size_of_val(&space));
    let mut part = part(buffer);
    let mut message = message(&mut part);
    message.msg_control = space.as_mut_ptr().cast();
    message.msg_controllen = room as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | libc::MSG_PEEK;
    // SAFETY: the message points to a buffer and to space that are writable for as long as it says.
    let len = unsafe { call!(later libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags)) };
    let Ok(len) = usize::try_from(len) else {
        crate::crash::point();
        return Err(last_error());
    };
    // SAFETY: the kernel has filled the message in.
    let short = unsafe { take_handles(&message, handles) };
    crate::crash::point();
    Ok(Seen {
        len,
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        short,
    })
}

impl Channel {
    /// Two connected ends; the second one is for the process `_reader`. Handles find their way without knowing it.
    pub(crate) fn pair(_reader: u32) -> io::Result<(Self, Self)> {
        let (a, b) = call!(socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        ))?;
        Ok((
            Self(Socket::new(Fd::new(above_stdio(a)?))),
            Self(Socket::lent(Fd::new(above_stdio(b)?))),
        ))
    }

    /// Takes an end that came from another process, if it is one.
    pub(crate) fn from_peer(fd: OwnedFd) -> io::Result<Self> {
        let domain = call!(sockopt::socket_domain(&fd));
        let kind = call!(sockopt::socket_type(&fd));
        if (domain, kind) != (Ok(AddressFamily::UNIX), Ok(SocketType::SEQPACKET)) {
            dispose(vec![fd]);
            return Err(domain.and(kind).err().unwrap_or(Errno::PROTOTYPE).into());
        }
        Ok(Self(Socket::new(Fd::new(fd))))
    }

    /// Connects to a listener. `WouldBlock` when its queue is full.
    pub(crate) fn connect(address: &SocketAddrUnix) -> io::Result<Self> {
        let fd = new_socket()?;
        call!(connect(&fd, address))?;
        Ok(Self(Socket::new(Fd::new(fd))))
    }

    /// The process that connected, or that listens, at the time it did so. Its id is 0 when it has none here, in another
    /// PID namespace.
    pub(crate) fn peer(&self) -> io::Result<Peer> {
        let mut credentials = libc::ucred {
            pid: 0,
            uid: 0,
            gid: 0,
        };
        let space = std::slice::from_mut(&mut credentials);
        match option(&self.0, libc::SO_PEERCRED, space)? {
            1 => Ok(Peer {
                pid: credentials.pid as u32,
                uid: credentials.uid,
                gid: credentials.gid,
            }),
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// The other groups of that process.
    pub(crate) fn peer_groups(&self) -> io::Result<Vec<u32>> {
        let mut groups = vec![0u32; 64];
        loop {
            match option(&self.0, libc::SO_PEERGROUPS, &mut groups) {
                Ok(count) => {
                    groups.truncate(count);
                    return Ok(groups);
                }
                // There are more; the kernel's limit is 65,536.
                Err(e)
                    if Errno::from_io_error(&e) == Some(Errno::RANGE) && groups.len() < 1 << 16 =>
                {
                    groups.resize(groups.len() * 4, 0);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends a packet, at once or not at all.
    pub(crate) fn send(&self, bytes: &[u8], handles: &[BorrowedFd<'_>]) -> io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if handles.is_empty() {
            retry(|| call!(send(&self.0, bytes, flags)))?;
            return Ok(());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_HANDLES))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(handles)) {
            return Err(Errno::INVAL.into());
        }
        retry(|| {
            call!(sendmsg(
                &self.0,
                &[IoSlice::new(bytes)],
                &mut ancillary,
                flags
            ))
        })?;
        Ok(())
    }

    /// Receives a packet without waiting. A packet of length zero is the end of the channel (nobody sends empty
    /// packets). When handles do not fit into this process's table the packet stays in the channel and the error says
    /// so: they are looked at first and taken only when all came through.
    #[cfg(test)]
    pub(crate) fn recv(&self, buffer: &mut [u8], handles: &mut Vec<OwnedFd>) -> io::Result<Packet> {
        self.recv_with(buffer, handles, MAX_HANDLES)
    }

    /// The same, where a packet with more than `most` handles is a lie: such a packet need not fit into this process's table
    /// to be found out. It stays in the channel, which is to be dropped: nobody asked for what comes with it, and to take it
    /// would be to close that, which may wait.
    pub(crate) fn recv_with(
        &self,
        buffer: &mut [u8],
        handles: &mut Vec<OwnedFd>,
        most: usize,
    ) -> io::Result<Packet> {
        let before = handles.len();
        for _ in 0..CUT_FOR_NO_REASON {
            let seen = read(|| peek_message(&self.0, buffer, handles, most))?;
            let surplus = handles.len() - before > most;
            if surplus || seen.short {
                // While those that came are still here: is there room for one more?
                let room = call!(rustix::io::fcntl_dupfd_cloexec(&self.0, 3));
                dispose(handles.split_off(before));
                match room {
                    // It stays there: its end is the channel's.
                    _ if surplus => {
                        return Ok(Packet {
                            len: seen.len.min(buffer.len()),
                            truncated: seen.truncated,
                            surplus,
                        });
                    }
                    // Somebody may have made room meanwhile; look again.
                    Ok(_) => continue,
                    Err(e) => return Err(e.into()),
                }
            }
            if seen.len > 0 {
                self.skip()?;
            }
            return Ok(Packet {
                len: seen.len.min(buffer.len()),
                truncated: seen.truncated,
                surplus: false,
            });
        }
        // The table had room each time: the other end has made the channel so that handles do not come through.
        Err(Errno::PROTO.into())
    }

    /// Looks at the first bytes of the next packet and leaves it in the channel.
    #[cfg(test)]
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (len, _) = read(|| {
            call!(recv(
                &self.0,
                &mut buffer[..],
                RecvFlags::DONTWAIT | RecvFlags::PEEK,
            ))
        })?;
        Ok(len)
    }

    /// Takes the next packet and throws it away, with its handles: only where it is known to have none, or copies of them are
    /// here, or the wait for their close does not matter.
    pub(crate) fn skip(&self) -> io::Result<usize> {
        let mut nothing = [0u8; 1];
        let (len, _) = read(|| call!(recv(&self.0, &mut nothing[..], RecvFlags::DONTWAIT)))?;
        Ok(len)
    }

    /// The same, but `None`, and nothing is taken, if the packet has handles, or anything else beside its bytes.
    pub(crate) fn skip_plain(&self) -> io::Result<Option<usize>> {
        match has_handles(self.0.as_raw_fd())? {
            true => Ok(None),
            false => self.skip().map(Some),
        }
    }

    /// Gives the end's descriptor up.
    pub(crate) fn into_handle(self) -> io::Result<OwnedFd> {
        self.0.into_owned()
    }

    /// Ends the channel in both directions; what lies in it can still be read by the other end.
    pub(crate) fn close(&self) {
        let _ = call!(shutdown(&self.0, Shutdown::Both));
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    above_stdio(named(
        "socket",
        call!(socket_with(family, kind, flags, None)),
    )?)
}

/// Binds a listening socket. `AddrInUse` when somebody has the name.
pub(crate) fn listener(address: &SocketAddrUnix) -> io::Result<Fd> {
    let fd = bound(address)?;
    call!(listen(&fd, 4096))?;
    Ok(fd)
}

/// Binds a socket that only holds a name.
pub(crate) fn bound(address: &SocketAddrUnix) -> io::Result<Fd> {
    let fd = new_socket()?;
    call!(bind(&fd, address))?;
    Ok(Fd::new(fd))
}

/// Accepts a connection without waiting.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<Channel> {
    let fd = retry(|| {
        call!(accept_with(
            listener,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK
        ))
    })?;
    Ok(Channel(Socket::new(Fd::new(above_stdio(fd)?))))
}

/// Whether the next packet has anything beside its bytes.
fn has_handles(socket: RawFd) -> io::Result<bool> {
    // Qemu makes no call for a message without parts, and says that there is nothing.
    let mut first = [0u8; 1];
    let mut part = part(&mut first);
    let mut message = message(&mut part);
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    read(|| {
        // SAFETY: the message has one buffer, which is valid for as long as it says, and no space beside it.
        let len = unsafe { call!(libc::recvmsg(socket, &raw mut message, flags)) };
        match len {
            0.. => Ok(()),
            _ => Err(last_error()),
        }
    })?;
    Ok(message.msg_flags & libc::MSG_CTRUNC != 0)
}

/// Whether it is a socket of this family that was never connected and does not listen: one that has no queue.
pub(super) fn is_never_connected(fd: &Fd) -> bool {
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    call!(sockopt::socket_domain(fd)) == Ok(AddressFamily::UNIX)
        && call!(sockopt::socket_acceptconn(fd)) == Ok(false)
        && call!(recv(fd, &mut [0u8; 1][..], flags)).err() == Some(Errno::NOTCONN)
}

/// As [`retry`], for reads: when a peer died with unread packets the first read says so, once, and its own last packets
/// follow.
fn read<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    match retry(&mut call) {
        Err(Errno::CONNRESET) => retry(call),
        other => other,
    }
}

pub(super) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
