//! Nothing to sleep on.

use super::{Channel, Never, OwnHandle, Seat, unsupported};
use crate::sys::{AsHandle, BorrowedHandle, Handle};
use std::{io, marker::PhantomData, time::Duration};

/// What a wait set can watch: nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceRef<'a>(Never, PhantomData<&'a ()>);

/// Has something to watch.
pub(crate) trait AsSource {
    fn source(&self) -> SourceRef<'_>;
}

macro_rules! no_source {
    ($($type:ty),*) => {
        $(impl AsSource for $type {
            fn source(&self) -> SourceRef<'_> {
                match self.0 {}
            }
        })*
    };
}
no_source!(Bell, Channel, OwnHandle, Ringer, Seat, SourceRef<'_>);

impl<T: AsSource> AsSource for &T {
    fn source(&self) -> SourceRef<'_> {
        (**self).source()
    }
}

#[derive(Debug)]
pub(crate) struct Ringer(Never);

#[derive(Debug)]
pub(crate) struct Bell(Never);

pub(crate) fn bell() -> io::Result<(Ringer, Bell)> {
    unsupported()
}

impl Ringer {
    pub(crate) fn local() -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn ring(&self) {
        match self.0 {}
    }

    pub(crate) fn carry(&self, _side: &Channel) {
        match self.0 {}
    }

    pub(crate) fn handle(&self) -> io::Result<Handle> {
        match self.0 {}
    }

    pub(crate) fn clear(&self) {
        match self.0 {}
    }
}

impl Bell {
    pub(crate) fn from_peer(_handle: Handle, _never_added: &Ringer) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn into_handle(self) -> io::Result<Handle> {
        match self.0 {}
    }
}

impl AsHandle for Bell {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        match self.0 {}
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Arrivals,
    Readable,
    ReadableOrWritable,
    Hangup,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    pub hangup: bool,
}

#[derive(Debug)]
pub(crate) struct WaitSet(Never);

impl WaitSet {
    pub(crate) fn new() -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn add(
        &self,
        _source: impl AsSource,
        _token: u64,
        _interest: Interest,
    ) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn change(
        &self,
        _source: impl AsSource,
        _token: u64,
        _interest: Interest,
    ) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn remove(&self, _source: impl AsSource) {
        match self.0 {}
    }

    pub(crate) fn wait(
        &self,
        _events: &mut Vec<Event>,
        _timeout: Option<Duration>,
    ) -> io::Result<()> {
        match self.0 {}
    }
}

impl AsHandle for WaitSet {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        match self.0 {}
    }
}

pub(crate) fn wait_for(
    _source: impl AsSource,
    _timeout: Option<Duration>,
) -> io::Result<(bool, bool)> {
    unsupported()
}
