//! What one source of a wait set has to tell, and what is waited for until it has.

use super::{
    arrivals::Core,
    event::{self, Signal},
    rendezvous::Lobby,
    wake::{Event, Interest, Source},
};
use std::{
    os::windows::io::{AsHandle, AsRawHandle, OwnedHandle},
    sync::{Arc, Weak},
};
use windows_sys::Win32::Foundation::HANDLE;

/// A source in the set. The set does not keep it open, but the event that is waited for.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) token: u64,
    pub(super) interest: Interest,
    pub(super) source: Watched,
    /// The helper that waits for it, if there are any.
    pub(super) group: usize,
    /// A helper has noted it, and waits for it no longer.
    pub(super) noted: bool,
    /// Its end was told, to one who wants to hear that once.
    pub(super) told: bool,
}

#[derive(Debug)]
pub(super) enum Watched {
    Bell(Arc<OwnedHandle>),
    Signal(Arc<Signal>),
    Process(Arc<OwnedHandle>),
    Channel(Weak<Core>, Arc<Signal>),
    Seat(Weak<Lobby>, Arc<Signal>),
}

/// What is waited for; kept open while it is.
#[derive(Debug, Clone)]
pub(super) enum Object {
    Handle(Arc<OwnedHandle>),
    Signal(Arc<Signal>),
}

impl Object {
    pub(super) fn raw(&self) -> HANDLE {
        match self {
            Self::Handle(handle) => handle.as_raw_handle(),
            Self::Signal(signal) => signal.raw(),
        }
    }
}

impl Watched {
    pub(super) fn of(source: Source<'_>) -> Self {
        match source {
            Source::Bell(event) => Self::Bell(event.clone()),
            Source::Signal(signal) => Self::Signal(signal.clone()),
            Source::Process(process) => Self::Process(process.clone()),
            Source::Channel(core) => Self::Channel(Arc::downgrade(core), core.arrived().clone()),
            Source::Seat(lobby) => Self::Seat(Arc::downgrade(lobby), lobby.connected().clone()),
        }
    }

    pub(super) fn is(&self, source: Source<'_>) -> bool {
        match (self, source) {
            (Self::Bell(a), Source::Bell(b)) | (Self::Process(a), Source::Process(b)) => {
                Arc::ptr_eq(a, b)
            }
            (Self::Signal(a), Source::Signal(b)) => Arc::ptr_eq(a, b),
            (Self::Channel(a, _), Source::Channel(b)) => std::ptr::eq(a.as_ptr(), Arc::as_ptr(b)),
            (Self::Seat(a, _), Source::Seat(b)) => std::ptr::eq(a.as_ptr(), Arc::as_ptr(b)),
            _ => false,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Channel(core, _) => core.strong_count() == 0,
            Self::Seat(lobby, _) => lobby.strong_count() == 0,
            _ => false,
        }
    }
}

impl Entry {
    /// What to wait for. Nothing for who wants to hear of hang-ups where there are none, or has heard it.
    pub(super) fn object(&self) -> Option<Object> {
        let listens = self.interest != Interest::Hangup;
        match &self.source {
            Watched::Bell(event) => listens.then(|| Object::Handle(event.clone())),
            Watched::Process(process) => {
                (listens && !self.told).then(|| Object::Handle(process.clone()))
            }
            Watched::Signal(signal) => listens.then(|| Object::Signal(signal.clone())),
            Watched::Seat(_, connected) => listens.then(|| Object::Signal(connected.clone())),
            Watched::Channel(_, arrived) => (!self.told).then(|| Object::Signal(arrived.clone())),
        }
    }

    /// What there is to tell of it. `set`: a wait for it ended. The flag says whether it is to be looked at again before the
    /// next sleep, since what it tells lasts.
    pub(super) fn look(&mut self, set: bool) -> (Option<Event>, bool) {
        let lasts = matches!(
            self.interest,
            Interest::Readable | Interest::ReadableOrWritable
        );
        let mut event = Event {
            token: self.token,
            readable: false,
            writable: false,
            hangup: false,
        };
        let mut again = false;
        match &self.source {
            // The wait has taken the ring.
            Watched::Bell(_) => event.readable = set,
            Watched::Signal(signal) if lasts => {
                event.readable = signal.is_set().unwrap_or(false);
                again = event.readable;
            }
            Watched::Signal(signal) => {
                // What was rung for after this is heard by another ring.
                if set {
                    signal.reset();
                }
                event.readable = set;
            }
            Watched::Process(process) => {
                event.readable = event::is_set(process.as_handle()).unwrap_or(false);
                self.told = event.readable && !lasts;
            }
            Watched::Seat(lobby, _) => {
                event.readable = lobby.upgrade().is_some_and(|lobby| lobby.has_arrivals());
            }
            Watched::Channel(core, _) => {
                let Some(outlook) = core.upgrade().map(|core| core.look()) else {
                    return (None, false);
                };
                event.hangup = outlook.ended && !self.told;
                if lasts {
                    event.readable = outlook.readable;
                    again = outlook.readable || outlook.ended;
                } else {
                    event.readable = self.interest == Interest::Arrivals && outlook.fresh > 0;
                    self.told = outlook.ended;
                }
            }
        }
        let happened = event.readable || event.hangup;
        (happened.then_some(event), again)
    }
}
