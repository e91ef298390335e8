//! Sleep and wake across processes: events, and what else can be waited for.
//!
//! A link has an event that one wait takes. Its sender rings with a handle that may set it; the receiver gets one that
//! may only wait, and there is no way to make more of that.

use super::{
    arrivals::Core,
    channel::Channel,
    event::{self, Signal},
    handle::{self, OwnHandle, duplicate_for},
    rendezvous::{Lobby, Seat},
};
use crate::sys::{BorrowedHandle, Handle};
use std::{
    io,
    os::windows::io::{AsHandle, AsRawHandle, OwnedHandle},
    sync::Arc,
    time::Duration,
};
use windows_sys::Win32::System::Threading::SYNCHRONIZATION_SYNCHRONIZE;

/// What a wait set can watch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceRef<'a>(pub(super) Source<'a>);

/// The same by its kinds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// An event that one wait takes.
    Bell(&'a Arc<OwnedHandle>),
    /// An event that stays set until it was heard.
    Signal(&'a Arc<Signal>),
    Process(&'a Arc<OwnedHandle>),
    Channel(&'a Arc<Core>),
    Seat(&'a Arc<Lobby>),
}

/// Has something to watch.
pub(crate) trait AsSource {
    fn source(&self) -> SourceRef<'_>;
}

impl AsSource for SourceRef<'_> {
    fn source(&self) -> SourceRef<'_> {
        *self
    }
}

impl AsSource for Bell {
    fn source(&self) -> SourceRef<'_> {
        SourceRef(Source::Bell(&self.event))
    }
}

impl AsSource for Ringer {
    fn source(&self) -> SourceRef<'_> {
        SourceRef(match &self.event {
            Rung::Once(event) => Source::Bell(event),
            Rung::UntilHeard(signal) => Source::Signal(signal),
        })
    }
}

impl AsSource for OwnHandle {
    fn source(&self) -> SourceRef<'_> {
        SourceRef(Source::Process(&self.0))
    }
}

impl AsSource for Channel {
    fn source(&self) -> SourceRef<'_> {
        SourceRef(Source::Channel(self.core()))
    }
}

impl AsSource for Seat {
    fn source(&self) -> SourceRef<'_> {
        SourceRef(Source::Seat(self.lobby()))
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
    event: Rung,
}

#[derive(Debug)]
enum Rung {
    /// One sleep takes a ring.
    Once(Arc<OwnedHandle>),
    /// A ring lasts until it is heard.
    UntilHeard(Arc<Signal>),
}

/// The sleeper's end of a [`Ringer`], to be added to a [`WaitSet`](super::WaitSet).
#[derive(Debug)]
pub(crate) struct Bell {
    event: Arc<OwnedHandle>,
}

/// A new bell.
pub(crate) fn bell() -> io::Result<(Ringer, Bell)> {
    let ringer = event::event(false)?;
    let bell = duplicate_for(ringer.as_handle(), SYNCHRONIZATION_SYNCHRONIZE)?;
    Ok((
        Ringer {
            event: Rung::Once(Arc::new(ringer)),
        },
        Bell {
            event: Arc::new(bell),
        },
    ))
}

impl Ringer {
    /// A bell within this process.
    pub(crate) fn local() -> io::Result<Self> {
        let signal = Arc::new(Signal::new()?);
        Ok(Self {
            event: Rung::UntilHeard(signal),
        })
    }

    /// Wakes the sleeper. Never blocks.
    pub(crate) fn ring(&self) {
        match &self.event {
            Rung::Once(event) => event::set(event),
            Rung::UntilHeard(signal) => signal.set(),
        }
    }

    /// Handles under way need nobody here.
    #[inline]
    pub(crate) fn carry(&self, _side: &Channel) {}

    /// A handle of its own to wait for, of a bell within this process: set until [`clear`](Self::clear).
    pub(crate) fn handle(&self) -> io::Result<Handle> {
        handle::duplicate(match &self.event {
            Rung::Once(event) => event.as_handle(),
            Rung::UntilHeard(signal) => signal.as_handle(),
        })
    }

    /// Takes what was rung since the last call, of a bell within this process.
    pub(crate) fn clear(&self) {
        if let Rung::UntilHeard(signal) = &self.event {
            signal.reset();
        }
    }
}

impl Bell {
    /// Takes a bell that came from another process, if it is an event that can be waited for.
    pub(crate) fn from_peer(event: Handle, _never_added: &Ringer) -> io::Result<Self> {
        if !handle::is_of_type(event.as_handle(), "Event")? {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not an event"));
        }
        // What may be rung by this is looked at in any case: the link is new.
        event::is_set(event.as_handle())?;
        Ok(Self {
            event: Arc::new(event),
        })
    }

    /// Gives the bell's handle up.
    pub(crate) fn into_handle(self) -> io::Result<Handle> {
        match Arc::try_unwrap(self.event) {
            Ok(event) => Ok(event),
            Err(shared) => handle::duplicate(shared.as_handle()),
        }
    }
}

impl AsHandle for Bell {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.event.as_handle()
    }
}

/// What a source in a [`WaitSet`](super::WaitSet) is watched for.
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

/// Something happened to the source that was added with `token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    pub hangup: bool,
}

/// Sleeps until the source is readable or hung up. Returns what happened; nothing after the timeout.
pub(crate) fn wait_for(
    source: impl AsSource,
    timeout: Option<Duration>,
) -> io::Result<(bool, bool)> {
    match source.source().0 {
        Source::Channel(core) => {
            let mut outlook = core.look();
            if !outlook.readable && !outlook.ended && timeout != Some(Duration::ZERO) {
                // What another thread reads ahead shows at the second event.
                let events = [core.arrived().raw(), core.ahead().raw()];
                event::wait_any(&events, timeout)?;
                outlook = core.look();
            }
            Ok((outlook.readable, outlook.ended))
        }
        Source::Seat(lobby) => {
            if !lobby.has_arrivals() && timeout != Some(Duration::ZERO) {
                event::wait_any(&[lobby.connected().raw()], timeout)?;
            }
            Ok((lobby.has_arrivals(), false))
        }
        Source::Bell(event) | Source::Process(event) => {
            let rung = event::wait_any(&[event.as_raw_handle()], timeout)?;
            Ok((rung.is_some(), false))
        }
        Source::Signal(signal) => {
            let rung = event::wait_any(&[signal.raw()], timeout)?;
            Ok((rung.is_some(), false))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windows_sys::Win32::System::Threading::{EVENT_MODIFY_STATE, ResetEvent, SetEvent};

    #[test]
    fn whoever_has_the_bell_can_ring_or_silence_it() {
        let (ringer, bell) = bell().unwrap();
        let theirs = handle::duplicate(bell.as_handle()).unwrap();
        // SAFETY: an open handle.
        unsafe {
            assert_eq!(SetEvent(theirs.as_raw_handle()), 0);
            assert_eq!(ResetEvent(theirs.as_raw_handle()), 0);
        }
        assert!(duplicate_for(theirs.as_handle(), EVENT_MODIFY_STATE).is_err());
        let theirs = Bell::from_peer(theirs, &ringer).unwrap();
        ringer.ring();
        let now = Some(Duration::ZERO);
        assert!(wait_for(&theirs, now).unwrap().0, "a ring is lost");
        assert!(!wait_for(&theirs, now).unwrap().0, "a ring is heard twice");
    }

    #[test]
    fn what_is_no_bell_is_taken_for_one() {
        let ringer = Ringer::local().unwrap();
        let section = super::super::memory::section(1).unwrap();
        assert!(Bell::from_peer(section, &ringer).is_err());
        let path = std::env::current_exe().unwrap();
        let file = std::fs::File::open(path).unwrap();
        assert!(Bell::from_peer(file.into(), &ringer).is_err());
    }
}
