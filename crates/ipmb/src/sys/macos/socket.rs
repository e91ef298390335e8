//! Stream sockets, as the channel and the bells use them.
//!
//! Handles are put in front of the first byte of what they are sent with, and reading stops in front of the next handles.
//!
//! Whoever made a channel may still have the end that it handed over, and change its flags and options. So no read or write
//! relies on them: all say for themselves that they do not wait, and, where the kernel knows `MSG_NOSIGNAL`, that they raise no
//! signal. Older ones have only the option.

use super::{
    adopt, adopt_raw,
    anchor::anchor,
    closing,
    fork::Fd,
    handle::{descriptor, duplicate_fd},
};
use crate::sys::{Handle, Received, ports::head::HEAD};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    fs::OFlags,
    io::{Errno, FdFlags},
    net::{Shutdown, SocketAddrUnix, SocketType, shutdown, sockopt},
};
use std::{
    io,
    mem::{ManuallyDrop, MaybeUninit},
    thread,
    time::{Duration, Instant},
};

/// Handles that one packet can carry: the kernel makes a pointer of each, and has 2,048 bytes for them (`sockargs`).
pub(crate) const MAX_HANDLES: usize = crate::sys::ports::MOST;

/// Most bytes of a packet, without its head.
pub(super) const LONGEST: usize = 48 << 10;
/// Bytes that a socket holds.
pub(super) const BUFFER: usize = 256 << 10;
/// Most connections that wait to be accepted. The system may let fewer wait.
pub(super) const BACKLOG: usize = 4096;
/// Room for the handles of a packet, more than any can have.
const CONTROL: usize = 2048;

/// To neither wait nor raise a signal. Both ways to say the former: `MSG_DONTWAIT`, and `MSG_NBIO`, which is not in the system's
/// headers and is what sending looks at where there is too little room (`sosendcheck`).
pub(super) const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | 0x20000;

/// Space of control messages, aligned as they want it.
type Control = [MaybeUninit<u64>; CONTROL / 8];

pub(super) fn lie(what: &'static str) -> io::Error {
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
pub(super) fn local<T>(
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
///
/// Newer kernels say that there is room (`filt_sowrite_common`) only if the other end's buffer for what it receives has room for
/// the low-water mark, too. They do not ask for that when something is sent.
pub(super) fn furnish(fd: OwnedFd) -> io::Result<Fd> {
    let socket = Fd::new(adopt(fd)?);
    let flags = rustix::fs::fcntl_getfl(&socket)?;
    rustix::fs::fcntl_setfl(&socket, flags | OFlags::NONBLOCK)?;
    let options = [
        (libc::SO_NOSIGPIPE, 1),
        (libc::SO_SNDBUF, BUFFER),
        (libc::SO_RCVBUF, BUFFER),
        // No more than the buffer is believed, so it comes last.
        (libc::SO_SNDLOWAT, HEAD + LONGEST + CONTROL),
    ];
    for (name, value) in options {
        match set(&socket, name, value) {
            // A connection that was closed before it was accepted takes no options any more (`sosetoptlock`). It is read to its
            // end.
            Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => break,
            other => other?,
        }
    }
    Ok(socket)
}

/// A socket that others can put packets with handles into. What is in its queue at the last close is closed with it, which may wait,
/// and so the closing thread does it.
#[derive(Debug)]
pub(super) struct Socket {
    fd: ManuallyDrop<Fd>,
    /// It is another process's end, of which this is a copy, and that process may be using it. Only this process has put
    /// anything into it.
    lent: bool,
    /// Of one that handles arrive by.
    anchor: Option<Fd>,
}

impl Socket {
    fn with(fd: Fd, lent: bool, anchor: Option<Fd>) -> Self {
        let fd = ManuallyDrop::new(fd);
        Self { fd, lent, anchor }
    }

    pub(super) fn new(fd: Fd) -> Self {
        Self::with(fd, false, None)
    }

    pub(super) fn lent(fd: Fd) -> Self {
        Self::with(fd, true, None)
    }

    /// One that handles arrive by.
    pub(super) fn receiving(fd: Fd) -> Self {
        let anchor = anchor(&fd);
        Self::with(fd, false, anchor)
    }

    pub(super) fn into_owned(self) -> io::Result<OwnedFd> {
        let mut this = ManuallyDrop::new(self);
        drop(this.anchor.take());
        // SAFETY: `this` is never dropped nor used again, so the descriptor is taken once.
        unsafe { ManuallyDrop::take(&mut this.fd) }.into_owned()
    }

    /// Lets the other end read what lies in it, and then its end. To end the other direction, too, would empty the queue
    /// (`sorflush`), which may wait.
    pub(super) fn end(&self) {
        let _ = shutdown(&*self.fd, Shutdown::Write);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let at_once = self.fd.forked() || self.lent;
        if !at_once {
            // The other end need not wait for the close.
            self.end();
        }
        // SAFETY: dropped once, here; `into_owned` forgets `self`.
        let fd = unsafe { ManuallyDrop::take(&mut self.fd) };
        if !at_once {
            // The last reference is not to be the one under way.
            closing::dispose_owned(self.anchor.take().into_iter().chain([fd]));
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Two connected sockets.
pub(super) fn pair() -> io::Result<(Fd, Fd)> {
    let (a, b) = two()?;
    Ok((furnish(a)?, furnish(b)?))
}

/// The same, as the system makes them.
pub(super) fn two() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    // SAFETY: the call writes two numbers.
    if unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fresh descriptors of nobody else's.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Puts one handle into a socket.
pub(super) fn put(into: BorrowedFd<'_>, handle: BorrowedFd<'_>) -> io::Result<()> {
    send_handles(into, &mut [part(&[0])], &[handle], 1)
}

/// Takes what came from somebody else, if it is a connected stream socket of the local domain. Its other end may be closed by
/// now, and then it does not answer every question.
pub(super) fn from_peer(handle: Handle) -> io::Result<Fd> {
    let fd = descriptor(handle)?;
    match check(&fd) {
        Ok(()) => Ok(Fd::new(fd)),
        Err(e) => {
            closing::dispose(vec![fd]);
            Err(e)
        }
    }
}

fn check(fd: &OwnedFd) -> io::Result<()> {
    if sockopt::socket_type(fd)? != SocketType::STREAM {
        return Err(Errno::PROTOTYPE.into());
    }
    credentials(fd.as_fd()).map(drop)
}

/// Who connected, or listens, at the other end.
pub(super) fn credentials(socket: BorrowedFd<'_>) -> io::Result<libc::xucred> {
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
pub(super) fn send_bytes(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    send_parts(socket, &mut [part(bytes)], None, bytes.len())
}

/// Takes some bytes, and none while the queue is locked. Handles that come with them are not wanted.
pub(super) fn take_bytes(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    let mut handles = Received::default();
    let parts = &mut [part_mut(bytes)];
    take_parts(socket, parts, &mut handles, Duration::ZERO).map(|taken| taken.len)
}

pub(super) fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

pub(super) fn part_mut(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

pub(super) fn message(parts: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all zeros is a message without an address, parts and space, which are filled in.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as libc::c_int;
    message
}

/// Sends the parts, with handles in front, at once or not at all.
pub(super) fn send_with(
    socket: BorrowedFd<'_>,
    parts: &mut [libc::iovec],
    handles: &[BorrowedFd<'_>],
    len: usize,
) -> io::Result<()> {
    if handles.is_empty() {
        return send_parts(socket, parts, None, len);
    }
    match send_handles(socket, parts, handles, len) {
        // An end that reads no more says so of handles, and of nothing else (`sbappendcontrol`); but so do handles that cannot be
        // sent to anybody.
        Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) && can_be_sent(handles) => {
            Err(Errno::PIPE.into())
        }
        other => other,
    }
}

/// Whether these handles can be sent: tried with sockets that nobody else has.
fn can_be_sent(handles: &[BorrowedFd<'_>]) -> bool {
    let sent = |(from, _to): (Fd, Fd)| send_handles(from.as_fd(), &mut [part(&[0])], handles, 1);
    pair().and_then(sent).is_ok()
}

fn send_handles(
    socket: BorrowedFd<'_>,
    parts: &mut [libc::iovec],
    handles: &[BorrowedFd<'_>],
    len: usize,
) -> io::Result<()> {
    let mut space: Control = [const { MaybeUninit::zeroed() }; CONTROL / 8];
    let data = handles.len().min(MAX_HANDLES) * size_of::<RawFd>();
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
        for (i, handle) in handles.iter().take(MAX_HANDLES).enumerate() {
            let to = libc::CMSG_DATA(at).cast::<RawFd>().add(i);
            to.write_unaligned(handle.as_raw_fd());
        }
    }
    // Not a byte more than the header says: the kernel takes the whole space for the message.
    send_parts(socket, parts, Some((&mut space, used)), len)
}

fn send_parts(
    socket: BorrowedFd<'_>,
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
            let _ = shutdown(socket, Shutdown::Write);
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

/// So long a read is tried again that finds the queue locked.
pub(super) const LOCKED: Duration = Duration::from_secs(1);
/// So often it is tried again without a pause.
const YIELDS: u32 = 8;

/// Receives into a message, without waiting for one.
///
/// The kernel locks the queue while it looks through it itself (`unp_scan`), and says then, too, that there is nothing, of a queue that
/// has something in it. Nobody but another who has the socket can keep it locked for longer than `patience`: `BUSY`, by which the link
/// ends. In a queue that is at its end there is nothing, so a lock hides the end: `AGAIN`. The next read sees it, and there is one, since
/// who waits for a channel to be readable is told again, and of its end without a read (`EV_EOF`).
///
/// # Safety
/// The message points to parts and to space that are writable for as long as it says.
pub(super) unsafe fn receive(
    socket: BorrowedFd<'_>,
    message: &mut libc::msghdr,
    flags: libc::c_int,
    patience: Duration,
) -> rustix::io::Result<usize> {
    let (mut tries, mut first) = (0, None);
    loop {
        // SAFETY: as the caller promises.
        let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut *message, FLAGS | flags) };
        if let Ok(len) = usize::try_from(len) {
            return Ok(len);
        }
        match Errno::from_io_error(&io::Error::last_os_error()) {
            Some(Errno::INTR) => {}
            Some(Errno::AGAIN) if rustix::io::ioctl_fionread(socket)? > 0 => {
                if first.get_or_insert_with(Instant::now).elapsed() >= patience {
                    return Err(Errno::BUSY);
                }
                match tries {
                    0..YIELDS => thread::yield_now(),
                    _ => thread::sleep(Duration::from_micros(50 << (tries - YIELDS).min(4))),
                }
                tries += 1;
            }
            error => return Err(error.unwrap_or(Errno::IO)),
        }
    }
}

/// What a read has brought.
pub(super) struct Taken {
    pub len: usize,
    /// There were handles, and no room for them in the table.
    pub lost: bool,
}

/// Reads up to the next handles, as [`receive`] does; the handles in front are appended.
pub(super) fn take_parts(
    socket: BorrowedFd<'_>,
    parts: &mut [libc::iovec],
    handles: &mut Received,
    patience: Duration,
) -> io::Result<Taken> {
    let mut lost = false;
    loop {
        let mut space: Control = [const { MaybeUninit::uninit() }; CONTROL / 8];
        let mut message = message(parts);
        message.msg_control = space.as_mut_ptr().cast();
        message.msg_controllen = CONTROL as libc::socklen_t;
        // SAFETY: the message points to parts and to space that are writable for as long as it says.
        let len = match unsafe { receive(socket, &mut message, 0, patience) } {
            Ok(len) => len,
            // The handles are gone, and the data is still there (`soreceive_ctl`). `MFILE` comes from `fdalloc`.
            Err(Errno::MSGSIZE | Errno::NOBUFS | Errno::NOMEM | Errno::MFILE) if !lost => {
                lost = true;
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let before = handles.len();
        // SAFETY: the kernel has filled the space, and the message says how far.
        let whole = unsafe { adopt_handles(&message, handles) };
        if !whole || message.msg_flags & libc::MSG_CTRUNC != 0 {
            drop(Received::from(handles.split_off(before)));
            lost = true;
        }
        return Ok(Taken { len, lost });
    }
}

/// Appends the handles of a message. False: one could not be made as the library wants them.
///
/// # Safety
/// The kernel has filled the message.
unsafe fn adopt_handles(message: &libc::msghdr, handles: &mut Received) -> bool {
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
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                // As `adopt` does, but for an end here, which may wait.
                let fd = match fd.as_raw_fd() {
                    0..=2 => duplicate_fd(fd.as_fd()).map_err(|_| fd),
                    _ => match rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC) {
                        Ok(()) => Ok(fd),
                        Err(_) => Err(fd),
                    },
                };
                whole &= fd.is_ok();
                handles.push(fd.unwrap_or_else(|fd| fd).into());
            }
        }
        // SAFETY: as for the first.
        at = unsafe { libc::CMSG_NXTHDR(message, at) };
    }
    whole
}

pub(super) fn stream() -> io::Result<OwnedFd> {
    // SAFETY: a fresh descriptor, or a negative number.
    unsafe { adopt_raw(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)) }
}

/// Binds a listening socket. `AddrInUse` when something lies there.
pub(super) fn listener(address: &SocketAddrUnix) -> io::Result<Fd> {
    let socket = furnish(stream()?)?;
    rustix::net::bind(&socket, address)?;
    rustix::net::listen(&socket, BACKLOG as i32)?;
    Ok(socket)
}

/// Accepts a connection without waiting. Its number is higher than `above`.
pub(super) fn accept(listener: BorrowedFd<'_>, above: RawFd) -> io::Result<Fd> {
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
    furnish(fd)
}
