//! No rendezvous, so no channels.

use super::{Never, unsupported};
use crate::sys::{AsHandle, BorrowedHandle, Handle};
use std::{io, path::Path};

pub(crate) const MAX_HANDLES: usize = 253;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug)]
pub(crate) struct Packet {
    pub len: usize,
    pub truncated: bool,
    pub surplus: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Ahead(());

#[derive(Debug)]
pub(crate) struct Channel(pub(super) Never);

impl Channel {
    pub(crate) fn pair(_reader: u32) -> io::Result<(Self, Self)> {
        unsupported()
    }

    pub(crate) fn from_peer(_handle: Handle) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn peer(&self) -> io::Result<Peer> {
        match self.0 {}
    }

    pub(crate) fn peer_groups(&self) -> io::Result<Vec<u32>> {
        match self.0 {}
    }

    pub(crate) fn send(&self, _bytes: &[u8], _handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
        match self.0 {}
    }

    #[cfg(test)]
    pub(crate) fn recv(
        &self,
        _buffer: &mut [u8],
        _handles: &mut Vec<Handle>,
    ) -> io::Result<Packet> {
        match self.0 {}
    }

    pub(crate) fn recv_with(
        &self,
        _buffer: &mut [u8],
        _handles: &mut Vec<Handle>,
        _most: usize,
    ) -> io::Result<Packet> {
        match self.0 {}
    }

    #[cfg(test)]
    pub(crate) fn skip(&self) -> io::Result<usize> {
        match self.0 {}
    }

    pub(crate) fn recv_next(
        &self,
        _ahead: &mut Ahead,
        _behind: usize,
        _buffer: &mut [u8],
        _handles: &mut Vec<Handle>,
    ) -> io::Result<Packet> {
        match self.0 {}
    }

    pub(crate) fn skip_plain(&self) -> io::Result<Option<usize>> {
        match self.0 {}
    }

    pub(crate) fn into_handle(self) -> io::Result<Handle> {
        match self.0 {}
    }

    pub(crate) fn close(&self) {
        match self.0 {}
    }
}

impl AsHandle for Channel {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        match self.0 {}
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Rendezvous(Never);

impl Rendezvous {
    pub(crate) fn named(_identifier: &str, _owner: u32, _shared: bool) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn at(_path: &Path, _owner: u32, _shared: bool) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn win(&self) -> io::Result<Option<Seat>> {
        match self.0 {}
    }

    pub(crate) fn connect(&self) -> io::Result<Option<Channel>> {
        match self.0 {}
    }

    pub(crate) fn mark(&self) -> io::Result<Option<MembersMark>> {
        match self.0 {}
    }
}

#[derive(Debug)]
pub(crate) struct Seat(pub(super) Never);

impl Seat {
    pub(crate) fn goes_with(&self, _mark: &MembersMark) -> bool {
        match self.0 {}
    }

    pub(crate) fn clean_up(&self) {
        match self.0 {}
    }

    pub(crate) fn accept(&self) -> io::Result<(Channel, Peer)> {
        match self.0 {}
    }
}

#[derive(Debug)]
pub(crate) struct MembersMark(Never);

impl MembersMark {
    pub(crate) fn from_peer(_handle: Handle) -> io::Result<Self> {
        unsupported()
    }
}

impl AsHandle for MembersMark {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        match self.0 {}
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Users;

impl Users {
    pub(crate) fn here() -> Self {
        Self
    }

    pub(crate) fn user(&self, _uid: u32) -> Option<u32> {
        None
    }

    pub(crate) fn group(&self, _gid: u32) -> Option<u32> {
        None
    }

    pub(crate) fn is_owner_or_root(&self, _uid: u32, _owner: u32) -> bool {
        false
    }
}
