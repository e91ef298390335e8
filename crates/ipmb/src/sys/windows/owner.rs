//! A word in shared memory that says whether its owner is there. The system has no robust locks: the word of a process that
//! was killed stays as it was, and its death shows at the hang-up.

use super::memory::{Mapping, Memory, Protection};
use crate::sync::{Ordering, SharedU32};
use std::{io, ptr::NonNull};

/// Would be set in an owner word whose thread has died. Nobody sets it here.
pub(crate) const OWNER_DIED: u32 = 0x4000_0000;

/// A writable mapping whose word at [`OwnedMapping::WORD`] belongs to whoever made it.
#[derive(Debug)]
pub(crate) struct OwnedMapping {
    mapping: Mapping,
}

impl OwnedMapping {
    /// Where the owner word lies in the mapping.
    pub(crate) const WORD: usize = 128;

    /// Maps `memory` writably and takes its word.
    pub(crate) fn new(memory: &Memory) -> io::Result<Self> {
        let mapping = memory.map_all(Protection::ReadWrite)?;
        let mapping = Self { mapping };
        mapping.word().store(1, Ordering::SeqCst);
        Ok(mapping)
    }

    /// First byte of the shared memory.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.mapping.start()
    }

    pub(crate) fn len(&self) -> usize {
        self.mapping.len()
    }

    fn word(&self) -> &SharedU32 {
        // SAFETY: inside the mapping (every section is at least a page), aligned, and only accessed atomically.
        unsafe { self.start().add(Self::WORD).cast().as_ref() }
    }

    /// Gives the word up: it becomes 0.
    pub(crate) fn disown(&mut self) {
        self.word().store(0, Ordering::SeqCst);
    }
}

impl Drop for OwnedMapping {
    fn drop(&mut self) {
        self.disown();
    }
}
