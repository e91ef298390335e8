//! The ordered channel with handles: a stream socket, and packets in it.
//!
//! There are no sockets that keep packets apart, are reliable and say when the other end is gone; so each packet has a head with its
//! length. It goes whole or not at all, because a socket accepts data only if there is room for the largest packet
//! (`SO_SNDLOWAT`; `sosendcheck`), and then takes all of it in one step. What is not whole is therefore a lie.
//!
//! What a `recvmsg` finds no place for in the table of descriptors is gone (`unp_externalize`), so there must be a place for all of them first:
//! the packet is looked at, descriptors are made and given up again, and then it is taken. If another thread of the program takes
//! the last places in between, the handles are lost, and the channel ends with an error rather than with other handles.
//! Looking at the handles, as on Linux, would show nothing here.
//!
//! A packet is looked at and then taken, in two steps. Two threads that read news at the same time may take each other's; that does not
//! show, as all news are of one length and without handles. Handles are read by one thread.
//!
//! Every read has room for the most handles that a packet can have, for those that find no room in the buffer would stay open.
//!
//! Ports do not go through a socket. They are sent to the mailbox of the receiving process first, then the packet: so what a packet
//! names is there when it is seen. A sender that dies in between, or whose packet finds no room after all, leaves ports behind
//! that nobody asks for; the shelf of the mailbox bounds them.

use super::{
    closing, dispose,
    fork::Fd,
    handle::duplicate_fd,
    mach::SendRight,
    mailbox,
    socket::{
        self, LOCKED, LONGEST, MAX_HANDLES, Socket, Taken, credentials, furnish, lie, local,
        message, part, part_mut, receive, send_with, stream, take_parts,
    },
};
use crate::sys::{
    BorrowedHandle, Handle, Received,
    ports::head::{HEAD, Head},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, BorrowedFd, RawFd},
    io::Errno,
    net::{Shutdown, SocketAddrUnix, shutdown},
};
use std::{io, mem::MaybeUninit, sync::OnceLock};

/// Who is at the other end, by the kernel's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Nothing: packets are taken out one by one.
#[derive(Debug, Default)]
pub(crate) struct Ahead(());

/// One end of an ordered channel that keeps packet borders and carries handles.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: Socket,
    /// The process that is to read; 0 if the socket's other end is the one.
    reader: u32,
    /// A right to its mailbox, once it was needed.
    mailbox: OnceLock<SendRight>,
    /// Handles may come in both directions, so the other end may have an anchor, too.
    connected: bool,
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

impl Channel {
    fn new(socket: Socket, reader: u32) -> Self {
        Self {
            socket,
            reader,
            mailbox: OnceLock::new(),
            connected: false,
        }
    }

    fn connected(socket: Fd) -> Self {
        Self {
            connected: true,
            ..Self::new(Socket::receiving(socket), 0)
        }
    }

    /// Two connected ends; the second one is for the process `reader`, which ports are sent to (0: this one).
    pub(crate) fn pair(reader: u32) -> io::Result<(Self, Self)> {
        let (ours, theirs) = socket::pair()?;
        Ok((
            Self::new(Socket::new(ours), reader),
            Self::new(Socket::lent(theirs), 0),
        ))
    }

    /// Takes an end that came from another process, if it is one. It was furnished by its maker; if its other end is closed it
    /// takes no options any more, and can still be read.
    pub(crate) fn from_peer(handle: Handle) -> io::Result<Self> {
        Ok(Self::new(Socket::receiving(socket::from_peer(handle)?), 0))
    }

    /// Connects to a listener. `ConnectionRefused` when its queue is full, or nobody listens.
    pub(crate) fn connect(address: &SocketAddrUnix) -> io::Result<Self> {
        let socket = furnish(stream()?)?;
        rustix::net::connect(&socket, address)?;
        Ok(Self::connected(socket))
    }

    /// Accepts a connection without waiting. Its number is higher than `above`.
    pub(super) fn accept(listener: BorrowedFd<'_>, above: RawFd) -> io::Result<Self> {
        Ok(Self::connected(socket::accept(listener, above)?))
    }

    /// Who connected, or listens: the user at the time when it did so, and the process that has touched the other end last, which
    /// can be one that it was handed to. Its id is 0 when it has hung up.
    pub(crate) fn peer(&self) -> io::Result<Peer> {
        let credentials = credentials(self.socket.as_fd())?;
        let mut pid = MaybeUninit::<libc::pid_t>::uninit();
        let pid = match local(self.socket.as_fd(), libc::LOCAL_PEERPID, &mut pid) {
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
        let credentials = credentials(self.socket.as_fd())?;
        let count = usize::try_from(credentials.cr_ngroups).unwrap_or(0);
        let groups = credentials.cr_groups.iter().take(count).skip(1);
        Ok(groups.copied().collect())
    }

    /// Sends a packet, at once or not at all. The first time that it has ports it asks the system for the mailbox of the
    /// process that reads: that is a question to launchd, and waits for its answer.
    pub(crate) fn send(&self, bytes: &[u8], handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
        if bytes.len() > LONGEST || handles.len() > MAX_HANDLES {
            return Err(Errno::INVAL.into());
        }
        let is_port = |handle: &BorrowedHandle<'_>| matches!(handle, BorrowedHandle::Port(_));
        let mut head = Head::new(bytes.len(), handles.iter().map(is_port));
        let (mut descriptors, mut ports) = (Vec::new(), Vec::new());
        for handle in handles {
            match handle {
                BorrowedHandle::Fd(fd) => descriptors.push(*fd),
                BorrowedHandle::Port(port) => ports.push(port.name()),
            }
        }
        if !ports.is_empty() {
            self.make_sure_that_it_goes()?;
            head.token = mailbox::send(self.mailbox()?, &ports)?;
        }
        let head = head.to_bytes();
        let mut parts = [part(&head), part(bytes)];
        let len = HEAD + bytes.len();
        send_with(self.socket.as_fd(), &mut parts, &descriptors, len)
    }

    /// Whether a packet would go now: ports that went ahead of one that does not go would be left behind. Another thread can still take
    /// the room.
    fn make_sure_that_it_goes(&self) -> io::Result<()> {
        // `IN` for the other end's end, which is read. What it was sent would be taken all the same, and lost.
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN | PollFlags::OUT)];
        poll(&mut fds, Some(&Timespec::default()))?;
        let is = fds[0].revents();
        if is.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Err(Errno::PIPE.into());
        }
        match is.contains(PollFlags::OUT) {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// The mailbox of the process that reads.
    fn mailbox(&self) -> io::Result<&SendRight> {
        if let Some(mailbox) = self.mailbox.get() {
            return Ok(mailbox);
        }
        let reader = match self.reader {
            0 => self.peer()?.pid,
            reader => reader,
        };
        if reader == 0 {
            return Err(Errno::PIPE.into());
        }
        let mailbox = mailbox::of(reader)?;
        Ok(self.mailbox.get_or_init(|| mailbox))
    }

    /// Receives a packet without waiting. A packet of length zero is the end of the channel (nobody sends empty
    /// packets). When handles do not fit into this process's table the packet stays in the channel and the error says so.
    #[cfg(test)]
    pub(crate) fn recv(&self, buffer: &mut [u8], handles: &mut Vec<Handle>) -> io::Result<Packet> {
        self.recv_with(buffer, handles, MAX_HANDLES)
    }

    /// The same, where a packet with more than `most` handles is a lie: such a packet need not fit into this process's table
    /// to be found out. It stays in the channel, which is to be dropped.
    pub(crate) fn recv_with(
        &self,
        buffer: &mut [u8],
        handles: &mut Vec<Handle>,
        most: usize,
    ) -> io::Result<Packet> {
        let Some(head) = self.look(&mut [])? else {
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
            self.look(buffer)?;
            return Ok(packet);
        }
        self.make_sure_of_room(head.descriptors())?;
        let mut ports = Self::ports(&head)?;
        let mut descriptors = Received::default();
        let lost = self.take(head, buffer, &mut descriptors)?;
        let mut descriptors = std::mem::take(&mut *descriptors).into_iter();
        let mut ports = std::mem::take(&mut *ports).into_iter();
        let arranged = head.arrange(&mut descriptors, &mut ports);
        match arranged {
            Some(arranged) if !lost => {
                handles.extend(arranged);
                Ok(packet)
            }
            arranged => {
                let all = arranged.into_iter().flatten();
                dispose(all.chain(descriptors).chain(ports).collect());
                Err(lie("a packet with other handles than it says"))
            }
        }
    }

    /// Looks at the first bytes of the next packet and leaves it in the channel.
    #[cfg(test)]
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let head = self.look(buffer)?;
        Ok(head.map_or(0, |head| head.len.min(buffer.len())))
    }

    /// Takes the next packet and throws it away, with its handles.
    pub(crate) fn skip(&self) -> io::Result<usize> {
        let Some(head) = self.look(&mut [])? else {
            return Ok(0);
        };
        let _ports = Self::ports(&head);
        let mut handles = Received::default();
        self.take(head, &mut [], &mut handles)?;
        Ok(head.len)
    }

    /// The ports of a packet, which came before it.
    fn ports(head: &Head) -> io::Result<Received> {
        if head.ports() == 0 {
            return Ok(Received::default());
        }
        let ports = mailbox::take(&head.token);
        let ports = ports.ok_or_else(|| lie("a packet whose ports did not come"))?;
        let ports: Vec<Handle> = ports.into_iter().map(Handle::Port).collect();
        Ok(ports.into())
    }

    pub(crate) fn recv_next(
        &self,
        _ahead: &mut Ahead,
        _behind: usize,
        buffer: &mut [u8],
        handles: &mut Vec<Handle>,
    ) -> io::Result<Packet> {
        self.recv_with(buffer, handles, MAX_HANDLES)
    }

    /// The same, but `None` where that would be to wait for closes: [`Channel::skip`] leaves them to the closing thread.
    pub(crate) fn skip_plain(&self) -> io::Result<Option<usize>> {
        self.skip().map(Some)
    }

    /// Looks at the head of the next packet and at what follows it. `None` at the end.
    fn look(&self, buffer: &mut [u8]) -> io::Result<Option<Head>> {
        let mut seen = [0; HEAD];
        let mut parts = [part_mut(&mut seen), part_mut(buffer)];
        // Without space for handles: those in front are passed over, and stay.
        let mut message = message(&mut parts);
        // SAFETY: the message points to parts that are writable for as long as it says.
        let len = unsafe { receive(self.socket.as_fd(), &mut message, libc::MSG_PEEK, LOCKED) }?;
        if len == 0 {
            return Ok(None);
        }
        let head = Head::from_bytes(&seen).filter(|head| len >= HEAD && head.len <= LONGEST);
        let head = head.ok_or_else(|| lie("a packet without a head"))?;
        if len - HEAD < head.len.min(buffer.len()) {
            return Err(lie("a packet that is not whole"));
        }
        Ok(Some(head))
    }

    /// Makes sure that the process has room for so many handles.
    fn make_sure_of_room(&self, count: usize) -> io::Result<()> {
        let mut room = Vec::with_capacity(count);
        for _ in 0..count {
            room.push(rustix::io::fcntl_dupfd_cloexec(&self.socket, 3)?);
        }
        Ok(())
    }

    /// Takes a packet that was looked at. True: its handles are lost.
    fn take(&self, head: Head, buffer: &mut [u8], handles: &mut Received) -> io::Result<bool> {
        let mut nothing = [0; HEAD];
        let fits = head.len.min(buffer.len());
        let mut parts = [part_mut(&mut nothing), part_mut(&mut buffer[..fits])];
        let taken = self.take_parts(&mut parts, handles)?;
        if taken.len != HEAD + fits {
            return Err(lie("a packet that is not whole"));
        }
        let mut left = head.len - fits;
        let mut rest = [0; 4096];
        while left > 0 {
            let piece = left.min(rest.len());
            let mut parts = [part_mut(&mut rest[..piece])];
            let mut none = Received::default();
            let taken = self.take_parts(&mut parts, &mut none)?;
            if taken.len == 0 || !none.is_empty() {
                return Err(lie("a packet that is not whole"));
            }
            left = left.saturating_sub(taken.len);
        }
        Ok(taken.lost)
    }

    /// The next part of a packet that was seen: if it is not there, somebody else has taken of it.
    fn take_parts(&self, parts: &mut [libc::iovec], handles: &mut Received) -> io::Result<Taken> {
        take_parts(self.socket.as_fd(), parts, handles, LOCKED).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => lie("a packet that is not whole"),
            _ => e,
        })
    }

    /// Gives the end's descriptor up.
    pub(crate) fn into_handle(self) -> io::Result<Handle> {
        self.socket.into_owned().map(Handle::from)
    }

    /// Ends the channel in both directions; what lies in it can still be read by the other end, and then the end. What the other
    /// end sends after that is lost, until it reads so or this end is dropped.
    ///
    /// Not for an end that gets handles from one that has an anchor: a send from there can lock up with the kernel's search for garbage.
    /// The search has a lock that giving up those handles wants, which is done with this end locked (`sorflush`, `unp_discard`); it
    /// waits for the anchored end; that is locked by the send, which waits for this one (`uipc_send`). So it is for the side channels of
    /// links: their senders' ends have no anchor, and get no handles but from liars,
    /// who can lock the kernel up without this library.
    pub(crate) fn close(&self) {
        debug_assert!(!self.connected, "the other end may have an anchor");
        // What can no longer be read here would leave its ports on the shelf.
        if mailbox::has_some() {
            let most = socket::BUFFER / HEAD;
            let _ = (0..most)
                .take_while(|_| matches!(self.skip(), Ok(n) if n > 0))
                .count();
        }
        self.socket.end();
        // Who waits for it here hears it, too.
        if let Ok(fd) = duplicate_fd(self.as_fd()) {
            closing::drop_elsewhere(vec![Box::new(Deaf(Fd::new(fd)))]);
        }
    }
}

/// Reads nothing more from when it is dropped on. What lies in the queue is closed then, which may wait.
struct Deaf(Fd);

impl Drop for Deaf {
    fn drop(&mut self) {
        if !self.0.forked() {
            let _ = shutdown(&self.0, Shutdown::Read);
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::AsHandle;

    fn handles_of(channel: &Channel, most: usize) -> io::Result<(Packet, Vec<Handle>)> {
        let mut handles = Vec::new();
        let mut buffer = [0; 64];
        let packet = channel.recv_with(&mut buffer, &mut handles, most)?;
        Ok((packet, handles))
    }

    #[test]
    fn packets_run_into_each_other_or_lose_their_handles() {
        let (a, b) = Channel::pair(0).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let handles = [file.as_handle(), file.as_handle()];
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
    }

    #[test]
    fn who_reads_no_more_is_not_taken_for_gone() {
        let (a, b) = Channel::pair(0).unwrap();
        a.send(b"last", &[]).unwrap();
        a.close();
        assert_eq!(handles_of(&b, 0).unwrap().0.len, 4);
        assert_eq!(handles_of(&b, 0).unwrap().0.len, 0);
        let (_, hung_up) = super::super::wait_for(&a, None).unwrap();
        assert!(hung_up, "its end is heard here, too");
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = b.send(b"late", &[file.as_handle()]).unwrap_err();
        assert!(crate::sys::is_hangup(&error));
        let set = super::super::WaitSet::new().unwrap();
        let never = b.send(b"late", &[set.as_handle()]).unwrap_err();
        assert!(!crate::sys::is_hangup(&never), "nobody could take it");
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
        let full = a.send(&[7; LONGEST], &[file.as_handle()]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        for _ in 0..sent {
            assert_eq!(b.skip().unwrap(), LONGEST);
        }
        assert_eq!(b.skip().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        a.send(&[7; LONGEST], &[file.as_handle()]).unwrap();
    }

    #[test]
    fn a_packet_with_too_many_handles_is_taken() {
        let (a, b) = Channel::pair(0).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send(b"two", &[file.as_handle(), file.as_handle()])
            .unwrap();
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
        socket::send_bytes(a.socket.as_fd(), &[9, 0, 0]).unwrap();
        let error = handles_of(&b, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        socket::send_bytes(a.socket.as_fd(), &[0; HEAD - 3]).unwrap();
        let error = handles_of(&b, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
