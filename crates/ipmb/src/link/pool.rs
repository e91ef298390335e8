//! Blocks of shared memory for payloads that are too large for the ring. A link's sender owns them; a block is used again
//! when the receiver has given back the record that refers to it.

use super::layout::BlockRef;
use crate::sys::{Mapping, Memory, Protection, Seal};
use std::{io, sync::Arc};

/// Most blocks of one link.
pub(crate) const BLOCKS: usize = 32;
/// Payloads over this get a memory of their own that is given back to the system at once.
pub(crate) const REUSED_MAX: usize = 64 << 20;
/// Smallest block.
const BLOCK_MIN: usize = 128 << 10;
/// Bytes under way in blocks on one link; two payloads may be under way in any case, so that copying in and out overlap.
const UNDER_WAY_MAX: usize = 64 << 20;

/// Largest block of a sender whose payloads have at most `payload_max` bytes.
pub(crate) fn size_max(payload_max: usize) -> usize {
    let reused = payload_max.clamp(BLOCK_MIN, REUSED_MAX).next_power_of_two();
    reused.max(payload_max)
}

/// Most bytes of blocks that such a sender has at a time: two under way of any size, and blocks of all sizes that it
/// keeps, each size as often as it may be under way.
pub(crate) fn mapped_max(payload_max: usize) -> usize {
    let twice = size_max(payload_max).saturating_mul(2);
    twice.saturating_add(UNDER_WAY_MAX * 16)
}

#[derive(Debug)]
struct Block {
    memory: Memory,
    mapping: Arc<Mapping>,
    /// The receiver has its memory.
    known: bool,
    once: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// Being filled with so many bytes.
    Leased(usize),
    /// Under way with so many bytes; free when the ring's head has reached the index.
    UnderWay(usize, u64),
}

/// The blocks of one link.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    blocks: Vec<Option<Block>>,
}

/// A block to be filled by one sender thread.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) number: usize,
    pub(crate) len: usize,
    mapping: Arc<Mapping>,
}

impl Lease {
    /// Copies the payload, given in two parts, into the block.
    pub(crate) fn fill(&self, head: &[u8], tail: &[u8]) {
        assert!(head.len() + tail.len() == self.len && self.len <= self.mapping.len());
        // SAFETY: both parts fit, and the lease makes this thread the only writer of the block.
        unsafe {
            crate::sync::copy_to_shared(head, self.mapping.start());
            crate::sync::copy_to_shared(tail, self.mapping.start().add(head.len()));
        }
    }
}

impl Pool {
    /// A block for `len` bytes, or `None` while too much is under way. `head`: the ring's head index.
    pub(crate) fn lease(&mut self, len: usize, head: u64) -> io::Result<Option<Lease>> {
        let (mut used, mut bytes) = (0, 0);
        for block in &mut self.blocks {
            let Some(b) = block else { continue };
            if let State::UnderWay(_, end) = b.state
                && head.wrapping_sub(end) as i64 >= 0
            {
                b.state = State::Free;
                if b.once {
                    *block = None;
                    continue;
                }
            }
            if let State::Leased(n) | State::UnderWay(n, _) = b.state {
                used += 1;
                bytes += n;
            }
        }
        if used >= BLOCKS || (used >= 2 && bytes.saturating_add(len) > UNDER_WAY_MAX) {
            return Ok(None);
        }
        let number = match self.fitting(len) {
            Some(number) => number,
            None => self.make(len)?,
        };
        let Some(Some(block)) = self.blocks.get_mut(number) else {
            return Ok(None);
        };
        block.state = State::Leased(len);
        Ok(Some(Lease {
            number,
            len,
            mapping: block.mapping.clone(),
        }))
    }

    /// Whether a thread fills a block.
    pub(crate) fn is_leased(&self) -> bool {
        let leased = |b: &Block| matches!(b.state, State::Leased(_));
        self.blocks.iter().flatten().any(leased)
    }

    /// The smallest free block that `len` bytes fit into.
    fn fitting(&self, len: usize) -> Option<usize> {
        if len > REUSED_MAX {
            return None;
        }
        let free = self.blocks.iter().enumerate().filter_map(|(i, b)| {
            let b = b.as_ref()?;
            (b.state == State::Free && b.memory.size() >= len).then_some((b.memory.size(), i))
        });
        free.min().map(|(_, i)| i)
    }

    fn make(&mut self, len: usize) -> io::Result<usize> {
        let once = len > REUSED_MAX;
        let size = if once {
            len
        } else {
            len.max(BLOCK_MIN).next_power_of_two()
        };
        let memory = Memory::new(c"ipmb-block", size)?;
        let mapping = Arc::new(memory.map_all(Protection::ReadWrite)?);
        memory.seal(Seal::FutureWrite)?;
        let block = Block {
            memory,
            mapping,
            known: false,
            once,
            state: State::Free,
        };
        // An empty place, or a new one, or that of a free block, which was too small.
        let place = self.blocks.iter().position(Option::is_none);
        let place = place.or_else(|| {
            let free = |b: &Option<Block>| b.as_ref().is_some_and(|b| b.state == State::Free);
            (self.blocks.len() >= BLOCKS)
                .then(|| self.blocks.iter().position(free))
                .flatten()
        });
        match place {
            Some(place) => {
                self.blocks[place] = Some(block);
                Ok(place)
            }
            None => {
                self.blocks.push(Some(block));
                Ok(self.blocks.len() - 1)
            }
        }
    }

    /// The reference to put into a record, and the memory to send along if the receiver does not have it.
    pub(crate) fn reference(&self, lease: &Lease) -> Option<(BlockRef, Option<&Memory>)> {
        let block = self.blocks.get(lease.number)?.as_ref()?;
        Some((
            BlockRef {
                block: lease.number as u32,
                len: lease.len as u64,
                fresh: !block.known,
                once: block.once,
            },
            (!block.known).then_some(&block.memory),
        ))
    }

    /// The record that refers to the block was published; it ends at `end`.
    pub(crate) fn published(&mut self, lease: &Lease, end: u64) {
        if let Some(Some(block)) = self.blocks.get_mut(lease.number) {
            block.known = true;
            block.state = State::UnderWay(lease.len, end);
        }
    }

    /// The lease is given up unused.
    pub(crate) fn abandon(&mut self, lease: &Lease) {
        if let Some(place) = self.blocks.get_mut(lease.number)
            && let Some(block) = place
        {
            if block.once {
                *place = None;
            } else {
                block.state = State::Free;
            }
        }
    }

    /// The bytes that a published record refers to.
    pub(crate) fn payload(&self, reference: BlockRef) -> Option<&[u8]> {
        let block = self.blocks.get(reference.block as usize)?.as_ref()?;
        let len = usize::try_from(reference.len).ok()?;
        if len > block.mapping.len() {
            return None;
        }
        // SAFETY: inside the mapping, and nobody writes to it: the block is under way, so it is leased to no thread, and
        // no other process can map it writably.
        Some(unsafe { std::slice::from_raw_parts(block.mapping.start().as_ptr(), len) })
    }
}
