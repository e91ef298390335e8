//! Sleep and wake across processes, pollable.
//!
//! A bell is a pair of sockets: the sender of a link has the one that is written to, the receiver the one that is read. Each end
//! has its own buffer and state, so the receiver can read and close its end and do nothing else to the sender. A ring is
//! a byte. When there is no room for another one, some are there to be heard, and one more would say nothing new. The first byte
//! can have a handle in front (`anchor.rs`), which is closed by who hears it.
//!
//! A [`WaitSet`] is a kqueue. It takes the bytes out of a bell before it says that it rang: whoever then looks for a message
//! finds the one that the bell was rung for, and the next ring is a new byte.

use super::{
    Channel, Seat, adopt_raw, anchor,
    fork::Fd,
    socket::{self, Socket},
};
use crate::{
    sync::process::{AtomicUsize, Ordering},
    sys::{AsHandle, Handle},
};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    io::Errno,
};
use std::{
    collections::HashMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What a wait set can watch: a descriptor, or a bell's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceRef<'a> {
    fd: BorrowedFd<'a>,
    is_bell: bool,
}

/// Has something to watch.
pub(crate) trait AsSource {
    fn source(&self) -> SourceRef<'_>;
}

macro_rules! sources {
    ($is_bell:literal: $($type:ty),*) => {
        $(impl AsSource for $type {
            fn source(&self) -> SourceRef<'_> {
                SourceRef {
                    fd: self.as_fd(),
                    is_bell: $is_bell,
                }
            }
        })*
    };
}
sources!(false: Channel, Fd, Seat);
sources!(true: Bell, Ringer);

impl AsSource for SourceRef<'_> {
    fn source(&self) -> SourceRef<'_> {
        *self
    }
}

impl<T: AsSource> AsSource for &T {
    fn source(&self) -> SourceRef<'_> {
        (**self).source()
    }
}

/// Rings the bell of one sleeper.
#[derive(Debug)]
pub(crate) struct Ringer {
    rings: Socket,
    /// Of a bell within this process: the sleeper's end.
    hears: Option<Fd>,
}

/// The sleeper's end of a [`Ringer`], to be added to a [`WaitSet`].
#[derive(Debug)]
pub(crate) struct Bell(Socket);

/// A new bell.
pub(crate) fn bell() -> io::Result<(Ringer, Bell)> {
    let (rings, hears) = socket::pair()?;
    let ringer = Ringer {
        rings: Socket::new(rings),
        hears: None,
    };
    Ok((ringer, Bell(Socket::lent(hears))))
}

impl Ringer {
    /// A bell within this process.
    pub(crate) fn local() -> io::Result<Self> {
        let (rings, hears) = socket::pair()?;
        Ok(Self {
            rings: Socket::new(rings),
            hears: Some(hears),
        })
    }

    /// Wakes the sleeper. Never blocks. It fails when the sleeper is gone, or has so much to hear that it is awake.
    pub(crate) fn ring(&self) {
        let _ = socket::send_bytes(self.rings.as_fd(), &[1]);
    }

    /// Keeps what lies in the end of a channel that is handed over together with the bell, until the bell is first heard, even if
    /// the sender goes before. If the system has no room for that, it stays only as long as its sender does.
    pub(crate) fn carry(&self, side: &Channel) {
        if anchor::is_of_use()
            && let Err(e) = socket::put(self.rings.as_fd(), side.as_fd())
        {
            log::debug!("what lies in a link until it is accepted is lost with its sender: {e}");
        }
    }

    /// A handle of its own to poll, of a bell within this process: readable until [`clear`](Self::clear).
    pub(crate) fn handle(&self) -> io::Result<Handle> {
        super::duplicate(self.as_handle())
    }

    /// Takes what was rung since the last call, of a bell within this process.
    pub(crate) fn clear(&self) {
        if let Some(hears) = &self.hears {
            hear(hears.as_fd());
        }
    }
}

/// The end that can be waited for, if it is here.
impl AsFd for Ringer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let hears = self.hears.as_ref().map(AsFd::as_fd);
        hears.unwrap_or_else(|| self.rings.as_fd())
    }
}

impl Bell {
    /// Takes a bell that came from another process, if it is a stream socket. `_never_added`: not needed here.
    pub(crate) fn from_peer(handle: Handle, _never_added: &Ringer) -> io::Result<Self> {
        Ok(Self(Socket::new(socket::from_peer(handle)?)))
    }

    /// Gives the bell's descriptor up.
    pub(crate) fn into_handle(self) -> io::Result<Handle> {
        self.0.into_owned().map(Handle::from)
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes what was rung so far. A bounded number of bytes, more than a socket holds: a flood ends, and what is left of it is
/// followed by another byte when somebody means it.
fn hear(fd: BorrowedFd<'_>) {
    let mut bytes = [0; 4096];
    for _ in 0..(2 * socket::BUFFER).div_ceil(bytes.len()) {
        if !matches!(socket::take_bytes(fd, &mut bytes), Ok(n) if n == bytes.len()) {
            return;
        }
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

/// What a descriptor was added for.
#[derive(Debug, Clone, Copy)]
struct Watched {
    /// Which addition this is, as the kqueue repeats it with each event.
    addition: usize,
    token: u64,
    interest: Interest,
    is_bell: bool,
}

/// A set of descriptors to sleep on. Itself pollable: readable when an event waits in it.
///
/// The kqueue knows descriptors by their number; what they were added for stands beside it. A descriptor that is closed takes
/// itself out of the kqueue, and who gets its number overwrites what stands here when it is added. News of the one before, which were
/// on their way then, are told by the number of the addition.
#[derive(Debug)]
pub(crate) struct WaitSet {
    queue: Fd,
    watched: Mutex<HashMap<RawFd, Watched>>,
    additions: AtomicUsize,
}

/// Events taken at a time.
const EVENTS: usize = 64;

impl WaitSet {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a fresh descriptor, or a negative number.
        let queue = Fd::new(unsafe { adopt_raw(libc::kqueue()) }?);
        Ok(Self {
            queue,
            watched: Mutex::default(),
            additions: AtomicUsize::new(0),
        })
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<RawFd, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(
        &self,
        source: impl AsSource,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let SourceRef { fd, is_bell } = source.source();
        // Relaxed: only that no two are alike.
        let addition = self.additions.fetch_add(1, Ordering::Relaxed);
        let watched = Watched {
            addition,
            token,
            interest,
            is_bell,
        };
        // Before the kqueue can say anything about it.
        self.watched().insert(fd.as_raw_fd(), watched);
        let added = self.arm(fd, interest, addition);
        if added.is_err() {
            self.remove(source);
        }
        added
    }

    fn arm(&self, fd: BorrowedFd<'_>, interest: Interest, addition: usize) -> io::Result<()> {
        let queue = self.queue.as_fd();
        let ident = fd.as_raw_fd() as usize;
        let clear = match interest {
            Interest::Arrivals | Interest::Hangup => libc::EV_CLEAR,
            Interest::Readable | Interest::ReadableOrWritable => 0,
        };
        // An end is reported whatever is asked for. For hang-ups only, data is reported when the buffer is full: the mark is no
        // higher than that. `wait` passes it over.
        let (low_water, at_least) = match interest {
            Interest::Hangup => (libc::NOTE_LOWAT, i32::MAX as isize),
            _ => (0, 0),
        };
        change(
            queue,
            ident,
            libc::EVFILT_READ,
            libc::EV_ADD | clear,
            low_water,
            at_least,
            addition,
        )?;
        if interest == Interest::ReadableOrWritable {
            let filter = libc::EVFILT_WRITE;
            change(queue, ident, filter, libc::EV_ADD, 0, 0, addition)?;
        }
        Ok(())
    }

    fn disarm(&self, fd: BorrowedFd<'_>) {
        for filter in [libc::EVFILT_READ, libc::EVFILT_WRITE] {
            // It need not be there.
            let ident = fd.as_raw_fd() as usize;
            let _ = change(self.queue.as_fd(), ident, filter, libc::EV_DELETE, 0, 0, 0);
        }
    }

    /// Watches for something else from now on. What is there already is reported anew.
    pub(crate) fn change(
        &self,
        source: impl AsSource,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        // Adding it again would change neither what clears an event nor the other filter.
        self.disarm(source.source().fd);
        self.add(source, token, interest)
    }

    pub(crate) fn remove(&self, source: impl AsSource) {
        // A forked child has no kqueue, and the lock may be another thread's of its parent.
        if self.queue.forked() {
            return;
        }
        let fd = source.source().fd;
        self.disarm(fd);
        self.watched().remove(&fd.as_raw_fd());
    }

    /// Sleeps until something happens or the timeout is over, and appends what happened. A signal does not end it
    /// early by more than one return without events, nor does news of something that nobody asked for.
    pub(crate) fn wait(
        &self,
        events: &mut Vec<Event>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        // SAFETY: all zeros is a valid value of this plain C structure.
        let mut space: [libc::kevent; EVENTS] = unsafe { std::mem::zeroed() };
        let timeout = timeout.map(timespec);
        let timeout = timeout
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the call writes at most so many events to the space; the timeout is null or valid.
        let count = unsafe {
            libc::kevent(
                self.queue.as_raw_fd(),
                std::ptr::null(),
                0,
                space.as_mut_ptr(),
                EVENTS as libc::c_int,
                timeout,
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            };
        };
        let watched = self.watched();
        for event in space.iter().take(count) {
            let fd = event.ident as RawFd;
            let Some(of) = watched.get(&fd).copied() else {
                continue;
            };
            if of.addition != event.udata.addr() {
                continue;
            }
            let hangup = event.flags & (libc::EV_EOF | libc::EV_ERROR) != 0;
            if of.interest == Interest::Hangup && !hangup {
                continue;
            }
            if of.is_bell {
                // SAFETY: it is in the set, so it is open: its owner takes it out, under the lock, before it closes it.
                hear(unsafe { BorrowedFd::borrow_raw(fd) });
            }
            events.push(Event {
                token: of.token,
                readable: event.filter == libc::EVFILT_READ,
                writable: event.filter == libc::EVFILT_WRITE,
                hangup,
            });
        }
        Ok(())
    }
}

impl AsFd for WaitSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

/// Changes what a kqueue watches. It repeats `mark` with each event.
pub(super) fn change(
    queue: BorrowedFd<'_>,
    ident: usize,
    filter: i16,
    flags: u16,
    filter_flags: u32,
    data: isize,
    mark: usize,
) -> io::Result<()> {
    let change = libc::kevent {
        ident,
        filter,
        flags,
        fflags: filter_flags,
        data,
        udata: std::ptr::without_provenance_mut(mark),
    };
    loop {
        // SAFETY: one change is read; there is no room for events, so an error is the call's own.
        let result = unsafe {
            libc::kevent(
                queue.as_raw_fd(),
                &raw const change,
                1,
                std::ptr::null_mut(),
                0,
                std::ptr::null(),
            )
        };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // A change that was interrupted has been made.
        if Errno::from_io_error(&error) != Some(Errno::INTR) {
            return Err(error);
        }
    }
}

/// A duration as the kernel takes it.
fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        // The kernel takes no more than this, some three years.
        tv_sec: libc::time_t::try_from(duration.as_secs().min(100_000_000)).unwrap_or(0),
        tv_nsec: libc::c_long::from(duration.subsec_nanos() as i32),
    }
}

/// Sleeps until the handle is readable or hung up. Returns what happened; nothing after a signal or the timeout.
pub(crate) fn wait_for(
    source: impl AsSource,
    timeout: Option<Duration>,
) -> io::Result<(bool, bool)> {
    let mut poll = libc::pollfd {
        fd: source.source().fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let timeout = timeout.map_or(-1, |timeout| {
        // Up, so that what is left of a millisecond is not polled away.
        let millis = timeout.as_nanos().div_ceil(1_000_000);
        libc::c_int::try_from(millis).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: one structure, which the call reads and writes.
    if unsafe { libc::poll(&raw mut poll, 1, timeout) } < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::Interrupted => Ok((false, false)),
            _ => Err(error),
        };
    }
    Ok((
        poll.revents & libc::POLLIN != 0,
        poll.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(set: &WaitSet) -> Vec<Event> {
        let mut events = Vec::new();
        set.wait(&mut events, Some(Duration::ZERO)).unwrap();
        events
    }

    #[test]
    fn a_ring_is_lost_or_heard_twice() {
        let (ringer, bell) = bell().unwrap();
        let set = WaitSet::new().unwrap();
        ringer.ring();
        set.add(&bell, 7, Interest::Arrivals).unwrap();
        for _ in 0..3 {
            let events = happened(&set);
            assert_eq!(events.len(), 1);
            assert!(events[0].token == 7 && events[0].readable && !events[0].hangup);
            assert!(happened(&set).is_empty());
            // Many more than a socket has room for.
            for _ in 0..2 * socket::BUFFER {
                ringer.ring();
            }
        }
        drop(ringer);
        assert!(happened(&set).iter().any(|e| e.hangup));
    }

    #[test]
    fn a_hang_up_is_confused_with_a_message() {
        let (here, there) = Channel::pair(0).unwrap();
        let set = WaitSet::new().unwrap();
        set.add(&here, 1, Interest::Hangup).unwrap();
        there.send(b"message", &[]).unwrap();
        assert!(happened(&set).is_empty());
        set.change(&here, 1, Interest::ReadableOrWritable).unwrap();
        let events = happened(&set);
        assert!(events.iter().any(|e| e.readable) && events.iter().any(|e| e.writable));
        assert!(!events.iter().any(|e| e.hangup));
        set.change(&here, 1, Interest::Hangup).unwrap();
        assert!(happened(&set).is_empty());
        drop(there);
        let events = happened(&set);
        assert!(events.len() == 1 && events[0].hangup);
        set.remove(&here);
        assert!(happened(&set).is_empty());
    }
}
