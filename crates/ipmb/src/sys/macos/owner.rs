//! A word in shared memory that says whether the controller lives. The system marks no word when a thread dies: a controller's
//! death shows at the hang-up, which comes before its seat is free (see `rendezvous.rs`).

use super::memory::{Mapping, Memory, Protection};
use crate::sync::{Ordering, SharedU32};
use std::{io, ptr::NonNull};

/// Never set here.
pub(crate) const OWNER_DIED: u32 = 0x4000_0000;

/// A writable mapping with a word, at [`OwnedMapping::WORD`], that is not 0 until it is given up.
#[derive(Debug)]
pub(crate) struct OwnedMapping {
    mapping: Mapping,
}

impl OwnedMapping {
    /// Where the word lies in the mapping.
    pub(crate) const WORD: usize = 128;

    /// Maps `memory` writably and sets its word.
    pub(crate) fn new(memory: &Memory) -> io::Result<Self> {
        let owned = Self {
            mapping: memory.map_all(Protection::ReadWrite)?,
        };
        // SeqCst, as where the kernel marks it: it comes before all that the controller writes.
        owned.word().store(1, Ordering::SeqCst);
        Ok(owned)
    }

    /// First byte of the shared memory.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.mapping.start()
    }

    pub(crate) fn len(&self) -> usize {
        self.mapping.len()
    }

    fn word(&self) -> &SharedU32 {
        // SAFETY: inside the mapping (every memory is at least a page), aligned, and only accessed atomically.
        unsafe { self.start().add(Self::WORD).cast().as_ref() }
    }

    /// Gives the word up: it becomes 0.
    pub(crate) fn disown(&mut self) {
        self.word().store(0, Ordering::SeqCst);
    }
}

impl Drop for OwnedMapping {
    fn drop(&mut self) {
        // A forked child has no mapping.
        if !self.mapping.forked() {
            self.disown();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_was_given_up_is_still_set() {
        let memory = Memory::new(c"owner", 4096).unwrap();
        let view = memory.map_all(Protection::Read).unwrap();
        // SAFETY: inside the mapping, aligned.
        let word: &SharedU32 = unsafe { view.start().add(OwnedMapping::WORD).cast().as_ref() };
        let owned = OwnedMapping::new(&memory).unwrap();
        assert_eq!(word.load(Ordering::SeqCst), 1);
        drop(owned);
        assert_eq!(word.load(Ordering::SeqCst), 0);
    }
}
