//! Sleep and wake across processes, pollable.
//!
//! The sender of a link owns an eventfd; the receiver gets an epoll instance that watches it. So the receiver can be
//! woken through it and poll it, but can neither read nor fill the counter, nor change the flags of the description
//! that the sender writes to: a write that could block the sender is out of its reach. The eventfd is never read; every
//! write is an edge.

use super::{Channel, above_stdio, closing::dispose, fork::Fd, named};
use rustix::{
    event::{
        EventfdFlags, PollFd, PollFlags,
        epoll::{self, CreateFlags, EventData, EventFlags},
        eventfd, poll,
    },
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    time::Timespec,
};
use std::{io, time::Duration};

fn new_epoll() -> io::Result<OwnedFd> {
    named("epoll_create1", call!(epoll::create(CreateFlags::CLOEXEC)))
}

/// Rings the bell of one sleeper.
#[derive(Debug)]
pub(crate) struct Ringer(Fd);

/// The sleeper's end of a [`Ringer`], to be added to a [`WaitSet`].
#[derive(Debug)]
pub(crate) struct Bell(Fd);

/// A new bell.
pub(crate) fn bell() -> io::Result<(Ringer, Bell)> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let ringer = above_stdio(named("eventfd2", call!(eventfd(0, flags)))?)?;
    let bell = above_stdio(new_epoll()?)?;
    call!(epoll::add(
        &bell,
        &ringer,
        EventData::new_u64(0),
        EventFlags::IN | EventFlags::ET,
    ))?;
    Ok((Ringer(Fd::new(ringer)), Bell(Fd::new(bell))))
}

impl Ringer {
    /// A bell within this process.
    pub(crate) fn local() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = named("eventfd2", call!(eventfd(0, flags)))?;
        Ok(Self(Fd::new(above_stdio(fd)?)))
    }

    /// Wakes the sleeper. Never blocks and cannot fail in a way that matters: the counter would have to overflow.
    pub(crate) fn ring(&self) {
        let _ = call!(rustix::io::write(&self.0, &1u64.to_ne_bytes()));
    }

    /// Sockets under way need nobody here.
    #[inline]
    pub(crate) fn carry(&self, _side: &Channel) {}

    /// A handle of its own to poll, of a bell within this process: readable until [`clear`](Self::clear).
    pub(crate) fn handle(&self) -> io::Result<OwnedFd> {
        Ok(call!(rustix::io::fcntl_dupfd_cloexec(&self.0, 3))?)
    }

    /// Takes what was rung since the last call, of a bell within this process.
    pub(crate) fn clear(&self) {
        let _ = call!(rustix::io::read(&self.0, &mut [0; 8]));
    }
}

impl AsFd for Ringer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Bell {
    /// Takes a bell that came from another process, if it is an epoll instance. Any ringer of this process's own will do as
    /// `never_added`.
    pub(crate) fn from_peer(fd: OwnedFd, never_added: &Ringer) -> io::Result<Self> {
        // Removing what was never added tells an epoll instance (ENOENT) from anything else (EINVAL) and changes nothing.
        match call!(epoll::delete(&fd, never_added)) {
            Err(Errno::NOENT) => Ok(Self(Fd::new(fd))),
            other => {
                dispose(vec![fd]);
                Err(other.err().unwrap_or(Errno::INVAL).into())
            }
        }
    }

    /// Gives the bell's descriptor up.
    pub(crate) fn into_handle(self) -> io::Result<OwnedFd> {
        self.0.into_owned()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a descriptor in a [`WaitSet`] is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Each time that something arrives; hang-ups too.
    Arrivals,
    /// As long as there is something to read; hang-ups too.
    Readable,
    /// As long as there is something to read or room to write; hang-ups too.
    ReadableOrWritable,
    /// Hang-ups only.
    Hangup,
}

/// Something happened to the descriptor that was added with `token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    pub hangup: bool,
}

/// A set of descriptors to sleep on. Itself pollable: readable when an event waits in it.
#[derive(Debug)]
pub(crate) struct WaitSet(Fd);

impl WaitSet {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Fd::new(above_stdio(new_epoll()?)?)))
    }

    pub(crate) fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(call!(epoll::add(
            &self.0,
            fd,
            EventData::new_u64(token),
            flags(interest),
        ))?)
    }

    pub(crate) fn change(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(call!(epoll::modify(
            &self.0,
            fd,
            EventData::new_u64(token),
            flags(interest),
        ))?)
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = call!(epoll::delete(&self.0, fd));
    }

    /// Sleeps until something happens or the timeout is over, and appends what happened. A signal does not end it
    /// early by more than one return without events.
    pub(crate) fn wait(
        &self,
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let mut space = [const { std::mem::MaybeUninit::uninit() }; 64];
        let timeout = timeout.map(timespec);
        let ready = match call!(epoll::wait(&self.0, &mut space, timeout.as_ref())) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        events.extend(ready.iter().map(|e| {
            let flags = e.flags;
            Event {
                token: e.data.u64(),
                readable: flags.contains(EventFlags::IN),
                writable: flags.contains(EventFlags::OUT),
                hangup: flags.intersects(EventFlags::HUP | EventFlags::RDHUP | EventFlags::ERR),
            }
        }));
        Ok(())
    }
}

impl AsFd for WaitSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn flags(interest: Interest) -> EventFlags {
    match interest {
        Interest::Arrivals => EventFlags::IN | EventFlags::RDHUP | EventFlags::ET,
        Interest::Readable => EventFlags::IN | EventFlags::RDHUP,
        Interest::ReadableOrWritable => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP,
        Interest::Hangup => EventFlags::RDHUP | EventFlags::ET,
    }
}

/// A duration as the kernel takes it.
pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Sleeps until the handle is readable or hung up. Returns what happened; nothing after a signal or the timeout.
pub(crate) fn wait_for(handle: impl AsFd, timeout: Option<Duration>) -> io::Result<(bool, bool)> {
    let handle = handle.as_fd();
    let mut fds = [PollFd::from_borrowed_fd(
        handle,
        PollFlags::IN | PollFlags::RDHUP,
    )];
    match call!(poll(&mut fds, timeout.map(timespec).as_ref())) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let happened = fds[0].revents();
    Ok((
        happened.contains(PollFlags::IN),
        happened.intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR),
    ))
}
