//! No shared memory.

use super::{Never, unsupported};
use crate::{
    error::Error,
    sys::{AsHandle, BorrowedHandle, Handle},
};
use std::{ffi::CStr, io, ptr::NonNull};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seal {
    SizeForGood,
    FutureWrite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    Read,
    ReadWrite,
    Frozen,
}

#[derive(Debug)]
pub(crate) struct Memory(Never);

impl Memory {
    pub(crate) fn new(_name: &CStr, _size: usize) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn from_peer(_handle: Handle, _min: usize, _max: usize) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn seal(&mut self, _seal: Seal) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn size(&self) -> usize {
        match self.0 {}
    }

    pub(crate) fn map_all(&self, _protection: Protection) -> io::Result<Mapping> {
        match self.0 {}
    }

    pub(crate) fn into_handle(self) -> io::Result<Handle> {
        match self.0 {}
    }
}

impl AsHandle for Memory {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        match self.0 {}
    }
}

#[derive(Debug)]
pub(crate) struct Mapping(Never);

impl Mapping {
    pub(crate) fn start(&self) -> NonNull<u8> {
        match self.0 {}
    }

    pub(crate) fn len(&self) -> usize {
        match self.0 {}
    }

    pub(crate) fn forked(&self) -> bool {
        match self.0 {}
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        match self.0 {}
    }
}

pub(crate) const OWNER_DIED: u32 = 0x4000_0000;

#[derive(Debug)]
pub(crate) struct OwnedMapping(Never);

impl OwnedMapping {
    pub(crate) const WORD: usize = 128;

    pub(crate) fn new(_memory: &Memory) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        match self.0 {}
    }

    pub(crate) fn len(&self) -> usize {
        match self.0 {}
    }

    pub(crate) fn disown(&mut self) {
        match self.0 {}
    }
}

#[derive(Debug)]
pub(crate) struct Held(Never);

impl Held {
    pub(crate) fn new(_size: usize) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn from_handle(_handle: Handle, _limit: u64) -> Result<Self, Error> {
        unsupported().map_err(|error: io::Error| Error::io("taking a shared memory", error))
    }

    pub(crate) fn open(_handle: BorrowedHandle<'_>) -> Result<Self, Error> {
        unsupported().map_err(|error: io::Error| Error::io("opening a shared memory", error))
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self.0 {}
    }

    pub(crate) fn try_clone_handle(&self) -> io::Result<Handle> {
        match self.0 {}
    }

    pub(crate) fn lend(&self) -> Option<BorrowedHandle<'_>> {
        match self.0 {}
    }

    pub(crate) fn given(&self) {
        match self.0 {}
    }

    pub(crate) fn into_handle(self) -> io::Result<Handle> {
        match self.0 {}
    }

    pub(crate) fn expose(&self) -> &Handle {
        match self.0 {}
    }

    pub(crate) fn forked(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn size(&self) -> usize {
        match self.0 {}
    }

    pub(crate) fn map(&self, _protection: Protection) -> io::Result<Mapping> {
        match self.0 {}
    }

    pub(crate) fn has_others(&self) -> io::Result<bool> {
        match self.0 {}
    }

    pub(crate) fn count_others(&self) -> io::Result<u32> {
        match self.0 {}
    }

    pub(crate) fn freeze(&mut self) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn is_frozen(&self) -> io::Result<bool> {
        match self.0 {}
    }

    pub(crate) fn mark_foreign(&self) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn is_foreign(&self) -> io::Result<bool> {
        match self.0 {}
    }
}
