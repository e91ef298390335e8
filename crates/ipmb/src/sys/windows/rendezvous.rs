//! Where the members of a bus find each other: named pipes whose names carry the SID of the bus's owner.
//!
//! There are three, each in the name space of the machine, which all sessions share. The *seat* has one instance, which
//! nobody can connect to: making it is winning the election, and it is free when its maker's handle is closed, however that
//! comes. At the *place* the controller listens; it is a name of its own since what is connected to it keeps the name in
//! use. The *mark* is like the seat, but its handle is handed on from member to member.

use super::{
    channel::Channel,
    event::Signal,
    handle::check,
    pipe::{self, Instances},
    security,
    transfer::Peer,
};
use crate::sys::Handle;
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    io,
    os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use windows_sys::Win32::{
    Foundation::{
        ERROR_ACCESS_DENIED, ERROR_FILE_NOT_FOUND, ERROR_IO_INCOMPLETE, ERROR_IO_PENDING,
        ERROR_PIPE_BUSY, ERROR_PIPE_CONNECTED,
    },
    System::{
        IO::{CancelIoEx, GetOverlappedResult, OVERLAPPED},
        Pipes::{ConnectNamedPipe, PIPE_UNLIMITED_INSTANCES},
    },
};

/// Ends that wait for somebody to connect, so that many can do so at the same time.
const WAITING: usize = 8;

/// The place where one bus meets.
#[derive(Debug, Clone)]
pub(crate) struct Rendezvous {
    seat: Arc<[u16]>,
    place: Arc<[u16]>,
    mark: Arc<[u16]>,
}

/// Held by every member: as long as one is held, a new controller knows that there are members to come back.
#[derive(Debug)]
pub(crate) struct MembersMark(OwnedHandle);

impl MembersMark {
    /// Takes a mark that came from another process.
    pub(crate) fn from_peer(handle: Handle) -> io::Result<Self> {
        Ok(Self(handle))
    }
}

impl AsHandle for MembersMark {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.0.as_handle()
    }
}

fn unsupported<T>(why: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

impl Rendezvous {
    /// The place of the bus `identifier` of user `owner`. `shared`: not for the owner and the system only.
    pub(crate) fn named(identifier: &str, owner: u32, shared: bool) -> io::Result<Self> {
        if owner != super::uid() {
            return unsupported("on Windows a bus belongs to the user who joins it");
        }
        if shared {
            return unsupported("on Windows the owner of a bus cannot let others in");
        }
        let sid = security::own_sid()?;
        // Names of pipes take no difference between `a` and `A`, and are short.
        let mut hash = String::new();
        for byte in Sha256::digest(identifier) {
            let _ = write!(hash, "{byte:02x}");
        }
        // The number is that of this way of naming and stays, as do the names.
        let name = |what: &str| {
            let name = format!(r"\\.\pipe\ipmb.{what}.1.{sid}.{hash}");
            security::wide(&name).into()
        };
        Ok(Self {
            seat: name("seat"),
            place: name("bus"),
            mark: name("members"),
        })
    }

    /// Paths are no names of pipes.
    pub(crate) fn at(_path: &Path, _owner: u32, _shared: bool) -> io::Result<Self> {
        unsupported("on Windows a bus has no path; leave the option out")
    }

    /// Tries to become the controller. `None` when somebody else is.
    pub(crate) fn win(&self) -> io::Result<Option<Seat>> {
        let Some(seat) = hold(&self.seat)? else {
            return Ok(None);
        };
        Seat::new(seat, self.place.clone()).map(Some)
    }

    /// Connects to the controller. `None` when there is none at this moment.
    pub(crate) fn connect(&self) -> io::Result<Option<Channel>> {
        let end = match pipe::connect(&self.place) {
            Ok(end) => end,
            Err(e) => {
                return match super::code(&e) {
                    // Nobody listens, or all ends are taken at the moment.
                    Some(ERROR_FILE_NOT_FOUND | ERROR_PIPE_BUSY) => Ok(None),
                    _ => Err(e),
                };
            }
        };
        match Channel::of_client(end) {
            Ok(channel) => Ok(Some(channel)),
            // It is gone again.
            Err(e) if super::is_hangup(&e) || super::is_no_process(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The mark that there are members. `None` when earlier members are still there: they hold it, and the first that
    /// comes back can pass it on.
    pub(crate) fn mark(&self) -> io::Result<Option<MembersMark>> {
        Ok(hold(&self.mark)?.map(MembersMark))
    }
}

/// Makes the one end of a pipe that nobody can connect to. `None` when there is one.
fn hold(name: &[u16]) -> io::Result<Option<OwnedHandle>> {
    let only = Instances {
        most: 1,
        first: true,
    };
    match pipe::listen(name, &only, security::sealed_object()?) {
        Ok(handle) => Ok(Some(handle)),
        Err(e) if matches!(super::code(&e), Some(ERROR_ACCESS_DENIED | ERROR_PIPE_BUSY)) => {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Won by the controller: the seat, and ends that wait for others to connect.
#[derive(Debug)]
pub(crate) struct Seat {
    _seat: OwnedHandle,
    lobby: Arc<Lobby>,
}

/// Ends that wait.
#[derive(Debug)]
pub(super) struct Lobby {
    place: Arc<[u16]>,
    ends: Mutex<Vec<Waiting>>,
    /// Set when somebody may have connected.
    connected: Arc<Signal>,
}

/// An end that waits for somebody to connect.
struct Waiting {
    end: Option<OwnedHandle>,
    overlapped: Box<OVERLAPPED>,
    under_way: bool,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

// SAFETY: the kernel's pointer leads into a box that stays until the operation is done.
unsafe impl Send for Waiting {}

impl Waiting {
    fn new(place: &[u16], first: bool, connected: &Signal) -> io::Result<Self> {
        let instances = Instances {
            most: PIPE_UNLIMITED_INSTANCES,
            first,
        };
        let end = pipe::listen(place, &instances, security::owner_only()?)?;
        let mut waiting = Self {
            end: Some(end),
            overlapped: Box::default(),
            under_way: false,
        };
        waiting.begin(connected)?;
        Ok(waiting)
    }

    fn begin(&mut self, connected: &Signal) -> io::Result<()> {
        *self.overlapped = OVERLAPPED {
            hEvent: connected.raw(),
            ..OVERLAPPED::default()
        };
        let Some(end) = &self.end else { return Ok(()) };
        // SAFETY: an open handle; the structure lies in a box that stays until the operation is done.
        let begun =
            check(unsafe { ConnectNamedPipe(end.as_raw_handle(), &raw mut *self.overlapped) });
        self.under_way = false;
        match begun {
            Ok(()) => {}
            Err(e) => match super::code(&e) {
                Some(ERROR_IO_PENDING) => self.under_way = true,
                // Somebody was faster than the call.
                Some(ERROR_PIPE_CONNECTED) => {}
                // Somebody was, and is gone again: the end is used up, and is found so by who takes it.
                _ if super::is_hangup(&e) => {}
                _ => return Err(e),
            },
        }
        Ok(())
    }

    /// Whether somebody has connected.
    fn is_done(&mut self, connected: &Signal) -> bool {
        let Some(end) = &self.end else { return true };
        if !self.under_way {
            return true;
        }
        let mut len = 0;
        // SAFETY: the operation was begun on this handle with this structure.
        let done = check(unsafe {
            GetOverlappedResult(
                end.as_raw_handle(),
                &raw const *self.overlapped,
                &raw mut len,
                0,
            )
        });
        match done {
            Ok(()) => {
                self.under_way = false;
                true
            }
            Err(e) if super::code(&e) == Some(ERROR_IO_INCOMPLETE) => false,
            // The thread that began it has ended: begin again.
            Err(_) => {
                self.under_way = false;
                self.begin(connected).is_err() || !self.under_way
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(end) = self.end.as_ref().filter(|_| self.under_way) else {
            return;
        };
        let mut len = 0;
        // SAFETY: as in `is_done`; done or cancelled, so that the wait ends, and the kernel does not use the box any more.
        unsafe {
            CancelIoEx(end.as_raw_handle(), &raw const *self.overlapped);
            GetOverlappedResult(
                end.as_raw_handle(),
                &raw const *self.overlapped,
                &raw mut len,
                1,
            );
        }
    }
}

impl Lobby {
    fn ends(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connected(&self) -> &Arc<Signal> {
        &self.connected
    }

    /// Whether somebody waits to be accepted.
    pub(super) fn has_arrivals(&self) -> bool {
        self.look(&mut self.ends())
    }

    /// Brings the event in line with what the ends say. To begin to wait at one end resets it, so all are looked at after.
    fn look(&self, ends: &mut [Waiting]) -> bool {
        self.connected.reset();
        let done = ends.iter_mut().any(|end| end.is_done(&self.connected));
        if done {
            self.connected.set();
        }
        done
    }
}

impl Seat {
    fn new(seat: OwnedHandle, place: Arc<[u16]>) -> io::Result<Self> {
        let connected = Arc::new(Signal::new()?);
        let first = match Waiting::new(&place, true, &connected) {
            // Ends that were connected to a dead controller keep the name in use; or somebody squats it.
            Err(e) if super::code(&e) == Some(ERROR_ACCESS_DENIED) => {
                let end = Waiting::new(&place, false, &connected)?;
                if !end
                    .end
                    .as_ref()
                    .map_or(Ok(false), |end| security::is_ours(end.as_handle()))?
                {
                    return Err(e);
                }
                end
            }
            other => other?,
        };
        let seat = Self {
            _seat: seat,
            lobby: Arc::new(Lobby {
                place,
                ends: Mutex::new(vec![first]),
                connected,
            }),
        };
        seat.lobby.fill(&mut seat.lobby.ends())?;
        Ok(seat)
    }

    /// There are no files.
    pub(crate) fn goes_with(&self, _mark: &MembersMark) -> bool {
        true
    }

    /// There are no files.
    pub(crate) fn clean_up(&self) {}

    /// Takes a connection that waits, with the system's word on who made it.
    pub(crate) fn accept(&self) -> io::Result<(Channel, Peer)> {
        let lobby = &self.lobby;
        let mut ends = lobby.ends();
        loop {
            // One more first, so that there is always one to connect to.
            lobby.fill(&mut ends)?;
            let done = ends
                .iter_mut()
                .position(|end| end.is_done(&lobby.connected));
            let Some(done) = done else {
                lobby.look(&mut ends);
                return Err(io::ErrorKind::WouldBlock.into());
            };
            let end = ends.swap_remove(done).end.take();
            let channel = end.map(Channel::of_server);
            let again = lobby.fill(&mut ends);
            lobby.look(&mut ends);
            match channel {
                Some(Ok(channel)) => {
                    let peer = channel.peer()?;
                    return Ok((channel, peer));
                }
                Some(Err(e)) if super::exhausted(&e).is_some() => return Err(e),
                // It is gone again.
                Some(Err(e)) => log::debug!("a connection came to nothing: {e}"),
                None => {}
            }
            again?;
        }
    }

    pub(super) fn lobby(&self) -> &Arc<Lobby> {
        &self.lobby
    }
}

impl Lobby {
    fn fill(&self, ends: &mut Vec<Waiting>) -> io::Result<()> {
        while ends.len() < WAITING {
            match Waiting::new(&self.place, false, &self.connected) {
                Ok(end) => ends.push(end),
                Err(_) if !ends.is_empty() => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
