//! The ordered channel with handles: a stream socket, and packets in it.
//!
//! There are no sockets that keep packets apart, are reliable and say when the other end is gone; so each packet has a head with its
//! length. It goes whole or not at all, because a socket accepts data only if there is room for the largest packet
//! (`SO_SNDLOWAT`; `sosendcheck`), and then takes all of it in one step. What is not whole is therefore a lie.
//!
//! Handles are put in front of their packet's first byte, and reading stops in front of the next handles. What a `recvmsg` finds no
//! place for in the table of descriptors is gone (`unp_externalize`), so there must be a place for all of them first:
//! the packet is looked at, descriptors are made and given up again, and then it is taken. If another thread of the program takes
//! the last places in between, the handles are lost, and the channel ends with an error rather than with other handles.
//! Looking at the handles, as on Linux, would show nothing here.
//!
//! Every read has room for the most handles that a packet can have, for those that find no room in the buffer would stay open.
//!
//! Whoever made a channel may still have the end that it handed over, and change its flags and options. So no read or write
//! relies on them: all say for themselves that they neither wait nor raise a signal.

use super::{adopt, adopt_raw, dispose, fork::Fd};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    fs::OFlags,
    io::Errno,
    net::{Shutdown, SocketAddrUnix, SocketType, shutdown, sockopt},
};
use std::{io, mem::MaybeUninit};

/// Handles that one packet can carry: the kernel makes a pointer of each, and has 2,048 bytes for them (`sockargs`).
pub(crate) const MAX_HANDLES: usize = 253;

/// Length and number of handles in front of each packet.
const HEAD: usize = 8;
/// Most bytes of a packet.
const LONGEST: usize = 48 << 10;
/// Bytes that a socket holds.
pub(super) const BUFFER: usize = 256 << 10;
/// Room for the handles of a packet, more than any can have.
const CONTROL: usize = 2048;

/// To neither wait nor raise a signal. Sending minds another flag than receiving does (`MSG_NBIO`, which is not in the
/// system's headers); who does not know it minds the socket's own.
const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | 0x20000;

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
    /// It had more handles than were asked for; none of them came, and the packet stays in the channel.
    pub surplus: bool,
}

/// What a packet says of itself.
#[derive(Debug, Clone, Copy)]
struct Head {
    len: usize,
    handles: usize,
}

/// Space of control messages, aligned as they want it.
type Control = [MaybeUninit<u64>; CONTROL / 8];

fn lie(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Sets an option of the socket to a number.
fn set(socket: &Fd, name: libc::c_int, value: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(value).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel reads one number.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Reads an option of the local domain into `value`.
fn local<T>(
    socket: BorrowedFd<'_>,
    name: libc::c_int,
    value: &mut MaybeUninit<T>,
) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_LOCAL,
            name,
            value.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if len as usize != size_of::<T>() {
        return Err(Errno::INVAL.into());
    }
    Ok(())
}

/// Makes a socket one of the library's: what it holds, and when it takes data.
fn furnish(fd: OwnedFd) -> io::Result<Fd> {
    let socket = Fd::new(adopt(fd)?);
    let flags = rustix::fs::fcntl_getfl(&socket)?;
    rustix::fs::fcntl_setfl(&socket, flags | OFlags::NONBLOCK)?;
    set(&socket, libc::SO_NOSIGPIPE, 1)?;
    set(&socket, libc::SO_SNDBUF, BUFFER)?;
    set(&socket, libc::SO_SNDLOWAT, HEAD + LONGEST + CONTROL)?;
    Ok(socket)
}

/// Two connected sockets.
pub(super) fn pair() -> io::Result<(Fd, Fd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    // SAFETY: the call writes two numbers.
    if unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fresh descriptors of nobody else's.
    let (a, b) = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
    Ok((furnish(a)?, furnish(b)?))
}

/// Whether a descriptor that came from somebody else is a connected stream socket of the local domain. Its other end may be
/// closed by now, and then it does not answer every question.
pub(super) fn check(fd: &OwnedFd) -> io::Result<()> {
    if sockopt::socket_type(fd)? != SocketType::STREAM {
        return Err(Errno::PROTOTYPE.into());
    }
    credentials(fd.as_fd()).map(drop)
}

/// Who connected, or listens, at the other end.
fn credentials(socket: BorrowedFd<'_>) -> io::Result<libc::xucred> {
    let mut credentials = MaybeUninit::<libc::xucred>::uninit();
    local(socket, libc::LOCAL_PEERCRED, &mut credentials)?;
    // SAFETY: the call has written all of it.
    let credentials = unsafe { credentials.assume_init() };
    // `XUCRED_VERSION`.
    if credentials.cr_version != 0 {
        return Err(Errno::INVAL.into());
    }
    Ok(credentials)
}

/// Sends some bytes, at once or not at all.
pub(super) fn send_bytes(socket: &Fd, bytes: &[u8]) -> io::Result<()> {
    send_parts(socket, &mut [part(bytes)], None, bytes.len())
}

/// Takes some bytes without waiting. Never where handles are expected.
pub(super) fn take_bytes(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    let mut handles = Vec::new();
    take_parts(socket, &mut [part_mut(bytes)], &mut handles).map(|taken| taken.len)
}

fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

fn part_mut(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

fn message(parts: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all zeros is a message without an address, parts and space, which are filled in.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as libc::c_int;
    message
}

fn send_parts(
    socket: &Fd,
    parts: &mut [libc::iovec],
    control: Option<(&mut Control, usize)>,
    len: usize,
) -> io::Result<()> {
    let mut message = message(parts);
    if let Some((space, used)) = control {
        message.msg_control = space.as_mut_ptr().cast();
        message.msg_controllen = used as libc::socklen_t;
    }
    loop {
        // SAFETY: the message points to parts and to space that are readable for as long as it says.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, FLAGS) };
        if let Ok(sent) = usize::try_from(sent) {
            if sent == len {
                return Ok(());
            }
            // Only an end that somebody else has changed takes a part.
            let _ = shutdown(socket, Shutdown::Both);
            return Err(Errno::PIPE.into());
        }
        let error = io::Error::last_os_error();
        match Errno::from_io_error(&error) {
            Some(Errno::INTR) => {}
            // It says so of handles when the socket is nearly full.
            Some(Errno::MSGSIZE) => return Err(io::ErrorKind::WouldBlock.into()),
            _ => return Err(error),
        }
    }
}

/// What a read has brought.
struct Taken {
    len: usize,
    /// There were handles, and no room for them in the table.
    lost: bool,
}

/// Reads up to the next handles, without waiting; the handles in front are appended.
fn take_parts(
    socket: BorrowedFd<'_>,
    parts: &mut [libc::iovec],
    handles: &mut Vec<OwnedFd>,
) -> io::Result<Taken> {
    let mut lost = false;
    loop {
        let mut space: Control = [const { MaybeUninit::uninit() }; CONTROL / 8];
        let mut message = message(parts);
        message.msg_control = space.as_mut_ptr().cast();
        message.msg_controllen = CONTROL as libc::socklen_t;
        // SAFETY: the message points to parts and to space that are writable for as long as it says.
        let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, FLAGS) };
        let Ok(len) = usize::try_from(len) else {
            let error = io::Error::last_os_error();
            match Errno::from_io_error(&error) {
                Some(Errno::INTR) => continue,
                // The handles are gone, and the data is still there (`soreceive_ctl`).
                Some(Errno::MSGSIZE | Errno::NOBUFS | Errno::NOMEM) if !lost => {
                    lost = true;
                    continue;
                }
                _ => return Err(error),
            }
        };
        let before = handles.len();
        // SAFETY: the kernel has filled the space, and the message says how far.
        let whole = unsafe { adopt_handles(&message, handles) };
        if !whole || message.msg_flags & libc::MSG_CTRUNC != 0 {
            handles.truncate(before);
            lost = true;
        }
        return Ok(Taken { len, lost });
    }
}

/// Appends the handles of a message. False: one could not be taken.
///
/// # Safety
/// The kernel has filled the message.
unsafe fn adopt_handles(message: &libc::msghdr, handles: &mut Vec<OwnedFd>) -> bool {
    let mut whole = true;
    // SAFETY: as the caller promises.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !at.is_null() {
        // SAFETY: the kernel wrote a whole header here.
        let header = unsafe { at.read_unaligned() };
        // SAFETY: a sum; nothing is dereferenced.
        let head = unsafe { libc::CMSG_LEN(0) } as usize;
        let count = (header.cmsg_len as usize).saturating_sub(head) / size_of::<RawFd>();
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            for i in 0..count {
                // SAFETY: the data is `count` numbers long.
                let fd = unsafe { libc::CMSG_DATA(at).cast::<RawFd>().add(i).read_unaligned() };
                if fd < 0 {
                    continue;
                }
                // SAFETY: the kernel opened it for this message, so nobody else owns it.
                match adopt(unsafe { OwnedFd::from_raw_fd(fd) }) {
                    Ok(fd) => handles.push(fd),
                    Err(_) => whole = false,
                }
            }
        }
        // SAFETY: as for the first.
        at = unsafe { libc::CMSG_NXTHDR(message, at) };
    }
    whole
}

impl Channel {
    /// Two connected ends; the second one is for the process `_reader`. Handles find their way without knowing it.
    pub(crate) fn pair(_reader: u32) -> io::Result<(Self, Self)> {
        let (a, b) = pair()?;
        Ok((Self(a), Self(b)))
    }

    /// Takes an end that came from another process, if it is one. It was furnished by its maker; if its other end is closed it
    /// takes no options any more, and can still be read.
    pub(crate) fn from_peer(fd: OwnedFd) -> io::Result<Self> {
        check(&fd)?;
        Ok(Self(Fd::new(fd)))
    }

    /// Connects to a listener. `ConnectionRefused` when its queue is full, or nobody listens.
    pub(crate) fn connect(address: &SocketAddrUnix) -> io::Result<Self> {
        let socket = furnish(stream()?)?;
        rustix::net::connect(&socket, address)?;
        Ok(Self(socket))
    }

    /// The process that connected, or that listens: its user at the time when it did so. Its id is 0 when it has hung up.
    pub(crate) fn peer(&self) -> io::Result<Peer> {
        let credentials = credentials(self.0.as_fd())?;
        let mut pid = MaybeUninit::<libc::pid_t>::uninit();
        let pid = match local(self.0.as_fd(), libc::LOCAL_PEERPID, &mut pid) {
            // SAFETY: the call has written all of it.
            Ok(()) => u32::try_from(unsafe { pid.assume_init() }).unwrap_or(0),
            Err(_) => 0,
        };
        Ok(Peer {
            pid,
            uid: credentials.cr_uid,
            gid: credentials.cr_groups[0],
        })
    }

    /// The other groups of that process: the kernel tells of 16 in all.
    pub(crate) fn peer_groups(&self) -> io::Result<Vec<u32>> {
        let credentials = credentials(self.0.as_fd())?;
        let count = usize::try_from(credentials.cr_ngroups).unwrap_or(0);
        let groups = credentials.cr_groups.iter().take(count).skip(1);
        Ok(groups.copied().collect())
    }

    /// Sends a packet, at once or not at all.
    pub(crate) fn send(&self, bytes: &[u8], handles: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.len() > LONGEST || handles.len() > MAX_HANDLES {
            return Err(Errno::INVAL.into());
        }
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&(bytes.len() as u32).to_ne_bytes());
        head[4..].copy_from_slice(&(handles.len() as u32).to_ne_bytes());
        let mut parts = [part(&head), part(bytes)];
        let len = HEAD + bytes.len();
        if handles.is_empty() {
            return send_parts(&self.0, &mut parts, None, len);
        }
        let mut space: Control = [const { MaybeUninit::zeroed() }; CONTROL / 8];
        let data = handles.len() * size_of::<RawFd>();
        // SAFETY: a sum; nothing is dereferenced.
        let used = unsafe { libc::CMSG_LEN(data as libc::c_uint) } as usize;
        let mut whole = message(&mut []);
        whole.msg_control = space.as_mut_ptr().cast();
        whole.msg_controllen = CONTROL as libc::socklen_t;
        // SAFETY: the space has room for a header and for `MAX_HANDLES` numbers behind it, and is aligned for the header.
        unsafe {
            let at = libc::CMSG_FIRSTHDR(&raw const whole);
            (*at).cmsg_len = used as libc::socklen_t;
            (*at).cmsg_level = libc::SOL_SOCKET;
            (*at).cmsg_type = libc::SCM_RIGHTS;
            for (i, handle) in handles.iter().enumerate() {
                let to = libc::CMSG_DATA(at).cast::<RawFd>().add(i);
                to.write_unaligned(handle.as_raw_fd());
            }
        }
        // Not a byte more than the header says: the kernel takes the whole space for the message.
        send_parts(&self.0, &mut parts, Some((&mut space, used)), len)
    }

    /// Receives a packet without waiting. A packet of length zero is the end of the channel (nobody sends empty
    /// packets). When handles do not fit into this process's table the packet stays in the channel and the error says so.
    #[cfg(test)]
    pub(crate) fn recv(&self, buffer: &mut [u8], handles: &mut Vec<OwnedFd>) -> io::Result<Packet> {
        self.recv_with(buffer, handles, MAX_HANDLES)
    }

    /// The same, where a packet with more than `most` handles is a lie: such a packet need not fit into this process's table
    /// to be found out. It stays in the channel, which is to be dropped.
    pub(crate) fn recv_with(
        &self,
        buffer: &mut [u8],
        handles: &mut Vec<OwnedFd>,
        most: usize,
    ) -> io::Result<Packet> {
        let mut seen = [0; HEAD];
        let Some(head) = self.look(&mut seen, &mut [])? else {
            return Ok(Packet {
                len: 0,
                truncated: false,
                surplus: false,
            });
        };
        let packet = Packet {
            len: head.len.min(buffer.len()),
            truncated: head.len > buffer.len(),
            surplus: head.handles > most,
        };
        if packet.surplus {
            self.look(&mut seen, buffer)?;
            return Ok(packet);
        }
        self.make_sure_of_room(head.handles)?;
        let before = handles.len();
        let lost = self.take(head, buffer, handles)?;
        if lost || handles.len() - before != head.handles {
            handles.truncate(before);
            return Err(lie("a packet with other handles than it says"));
        }
        Ok(packet)
    }

    /// Looks at the first bytes of the next packet and leaves it in the channel.
    #[cfg(test)]
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut seen = [0; HEAD];
        let head = self.look(&mut seen, buffer)?;
        Ok(head.map_or(0, |head| head.len.min(buffer.len())))
    }

    /// Takes the next packet and throws it away, with its handles.
    pub(crate) fn skip(&self) -> io::Result<usize> {
        let mut seen = [0; HEAD];
        let Some(head) = self.look(&mut seen, &mut [])? else {
            return Ok(0);
        };
        let mut handles = Vec::new();
        let taken = self.take(head, &mut [], &mut handles);
        dispose(handles);
        taken?;
        Ok(head.len)
    }

    /// Whether to take the next packet would be to close handles, and maybe to wait for that: never, as
    /// [`Channel::skip`] leaves that to the closing thread.
    pub(crate) fn peek_has_handles(&self) -> bool {
        false
    }

    /// Looks at the head of the next packet and at what follows it. `None` at the end.
    fn look(&self, seen: &mut [u8; HEAD], buffer: &mut [u8]) -> io::Result<Option<Head>> {
        let mut parts = [part_mut(seen), part_mut(buffer)];
        // Without space for handles: those in front are passed over, and stay.
        let mut message = message(&mut parts);
        let len = loop {
            let flags = FLAGS | libc::MSG_PEEK;
            // SAFETY: the message points to parts that are writable for as long as it says.
            let len = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, flags) };
            if let Ok(len) = usize::try_from(len) {
                break len;
            }
            let error = io::Error::last_os_error();
            if Errno::from_io_error(&error) != Some(Errno::INTR) {
                return Err(error);
            }
        };
        if len == 0 {
            return Ok(None);
        }
        let word = |at: usize| {
            let bytes = seen.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes) as usize
        };
        let head = Head {
            len: word(0),
            handles: word(4),
        };
        if len < HEAD || head.len == 0 || head.len > LONGEST {
            return Err(lie("a packet without a head"));
        }
        if len - HEAD < head.len.min(buffer.len()) {
            return Err(lie("a packet that is not whole"));
        }
        Ok(Some(head))
    }

    /// Makes sure that the process has room for so many handles.
    fn make_sure_of_room(&self, count: usize) -> io::Result<()> {
        let mut room = Vec::with_capacity(count);
        for _ in 0..count {
            room.push(rustix::io::fcntl_dupfd_cloexec(&self.0, 3)?);
        }
        Ok(())
    }

    /// Takes a packet that was looked at. True: its handles are lost.
    fn take(&self, head: Head, buffer: &mut [u8], handles: &mut Vec<OwnedFd>) -> io::Result<bool> {
        let mut nothing = [0; HEAD];
        let fits = head.len.min(buffer.len());
        let mut parts = [part_mut(&mut nothing), part_mut(&mut buffer[..fits])];
        let taken = take_parts(self.0.as_fd(), &mut parts, handles)?;
        if taken.len != HEAD + fits {
            return Err(lie("a packet that is not whole"));
        }
        let mut left = head.len - fits;
        let mut rest = [0; 4096];
        while left > 0 {
            let piece = left.min(rest.len());
            let mut parts = [part_mut(&mut rest[..piece])];
            let mut none = Vec::new();
            let taken = take_parts(self.0.as_fd(), &mut parts, &mut none)?;
            if taken.len == 0 || !none.is_empty() {
                return Err(lie("a packet that is not whole"));
            }
            left = left.saturating_sub(taken.len);
        }
        Ok(taken.lost)
    }

    /// Gives the end's descriptor up.
    pub(crate) fn into_handle(self) -> io::Result<OwnedFd> {
        self.0.into_owned()
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

fn stream() -> io::Result<OwnedFd> {
    // SAFETY: a fresh descriptor, or a negative number.
    unsafe { adopt_raw(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)) }
}

/// Binds a listening socket. `AddrInUse` when something lies there.
pub(super) fn listener(address: &SocketAddrUnix) -> io::Result<Fd> {
    let socket = furnish(stream()?)?;
    rustix::net::bind(&socket, address)?;
    rustix::net::listen(&socket, 4096)?;
    Ok(socket)
}

/// Accepts a connection without waiting. Its number is higher than `above`.
pub(super) fn accept(listener: BorrowedFd<'_>, above: RawFd) -> io::Result<Channel> {
    let fd = loop {
        // SAFETY: null for the address, which is not asked for.
        let fd = unsafe {
            libc::accept(
                listener.as_raw_fd(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        if fd >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            break fd;
        }
    };
    // SAFETY: a fresh descriptor, or a negative number.
    let mut fd = unsafe { adopt_raw(fd) }?;
    if fd.as_raw_fd() <= above {
        fd = rustix::io::fcntl_dupfd_cloexec(&fd, above.saturating_add(1))?;
    }
    Ok(Channel(furnish(fd)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handles_of(channel: &Channel, most: usize) -> io::Result<(Packet, Vec<OwnedFd>)> {
        let mut handles = Vec::new();
        let mut buffer = [0; 64];
        let packet = channel.recv_with(&mut buffer, &mut handles, most)?;
        Ok((packet, handles))
    }

    #[test]
    fn packets_run_into_each_other_or_lose_their_handles() {
        let (a, b) = Channel::pair(0).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let handles = [file.as_fd(), file.as_fd()];
        for round in 0..3u8 {
            a.send(&[round; 3], &[]).unwrap();
            a.send(&[round; 60], &handles).unwrap();
            a.send(&[round; 1], &[]).unwrap();
        }
        drop(a);
        for _ in 0..3 {
            let mut start = [0; 2];
            assert_eq!(b.peek(&mut start).unwrap(), 2);
            assert_eq!(handles_of(&b, 0).unwrap().0.len, 3);
            let (packet, handles) = handles_of(&b, 2).unwrap();
            assert_eq!((packet.len, handles.len()), (60, 2));
            assert_eq!(b.skip().unwrap(), 1);
        }
        assert_eq!(handles_of(&b, 0).unwrap().0.len, 0);
        assert!(
            b.send(b"late", &[])
                .is_err_and(|e| crate::sys::is_hangup(&e))
        );
    }

    #[test]
    fn a_packet_goes_in_part_when_the_channel_is_full() {
        let (a, b) = Channel::pair(0).unwrap();
        let mut sent = 0;
        let full = loop {
            match a.send(&[7; LONGEST], &[]) {
                Ok(()) => sent += 1,
                Err(e) => break e,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(sent > 0);
        let file = std::fs::File::open("/dev/null").unwrap();
        let full = a.send(&[7; LONGEST], &[file.as_fd()]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        for _ in 0..sent {
            assert_eq!(b.skip().unwrap(), LONGEST);
        }
        assert_eq!(b.skip().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        a.send(&[7; LONGEST], &[file.as_fd()]).unwrap();
    }

    #[test]
    fn a_packet_with_too_many_handles_is_taken() {
        let (a, b) = Channel::pair(0).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send(b"two", &[file.as_fd(), file.as_fd()]).unwrap();
        for _ in 0..2 {
            let (packet, handles) = handles_of(&b, 1).unwrap();
            assert!(packet.surplus && handles.is_empty());
            assert_eq!(packet.len, 3, "it stays in the channel");
        }
        let (packet, handles) = handles_of(&b, 2).unwrap();
        assert!(!packet.surplus && handles.len() == 2);
    }

    #[test]
    fn a_packet_that_is_not_whole_is_waited_for() {
        let (a, b) = Channel::pair(0).unwrap();
        send_bytes(&a.0, &[9, 0, 0]).unwrap();
        let error = handles_of(&b, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        send_bytes(&a.0, &[0, 0, 0, 0, 0]).unwrap();
        let error = handles_of(&b, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
