//! Blocks of shared memory for payloads that are too large for the ring, or that are written in place. A link's sender owns
//! them; a block is used again when the receiver has given back the record that refers to it and has let go of the block.

use super::layout::{BLOCKS, BlockRef, Head};
use crate::{
    sync::Ordering,
    sys::{Mapping, Memory, Protection, Seal},
};
use std::{io, ptr::NonNull, sync::Arc};

/// Payloads over this get a memory of their own that is given back to the system at once.
pub(crate) const REUSED_MAX: usize = 64 << 20;
/// Smallest block.
const BLOCK_MIN: usize = 128 << 10;
/// What a user writes in place, and the bulk of what is copied, begins at such a multiple of bytes: on a cache line, whatever
/// stands before it.
pub(crate) const ALIGNMENT: usize = 64;
/// Bytes in blocks of one link that the receiver has not come to yet. Few, so that the blocks that go round stay in the
/// caches: a block that was in use lately is written and read several times as fast as one that comes from memory.
const WAITING_MAX: usize = 4 << 20;
/// Bytes in use in blocks of one link, with those of loans and those that the receiver keeps. In any case two payloads may be
/// under way, so that copying in and out overlap.
const UNDER_WAY_MAX: usize = 64 << 20;

/// Largest block that a receiver of payloads of at most `payload_max` bytes maps. Its sender may have a higher limit, and
/// use a block that was made for a larger payload.
pub(crate) fn size_max(payload_max: usize) -> usize {
    let reused = (REUSED_MAX + ALIGNMENT).next_power_of_two();
    reused.max(payload_max.saturating_add(ALIGNMENT))
}

/// Most bytes of blocks of one sender that such a receiver maps: two under way of any size, and blocks of all sizes that it
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
    /// How often the block of a number was sent, whatever memory had the number.
    uses: [u32; BLOCKS],
}

/// A block to be filled by one sender thread.
#[derive(Debug)]
pub(crate) struct Lease {
    number: usize,
    /// Where the payload begins in the block.
    at: usize,
    len: usize,
    mapping: Arc<Mapping>,
}

impl Lease {
    /// Copies the payload, given in two parts, into the block.
    pub(crate) fn fill(&self, head: &[u8], tail: &[u8]) {
        assert!(head.len() + tail.len() == self.len);
        self.put(0, head);
        self.put(head.len(), tail);
    }

    /// Bytes of the payload.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies a part of the payload into the block.
    pub(crate) fn put(&self, from: usize, part: &[u8]) {
        assert!(from <= self.len && part.len() <= self.len - from);
        // SAFETY: inside the block by the assertion, and the lease makes this thread its only writer.
        unsafe { crate::sync::copy_to_shared(part, self.mapping.start().add(self.at + from)) };
    }

    /// The payload from an offset on, to be read and written in place.
    pub(crate) fn bytes(&self, from: usize) -> NonNull<[u8]> {
        let from = from.min(self.len);
        // SAFETY: the payload lies inside the mapping.
        let start = unsafe { self.mapping.start().add(self.at + from) };
        NonNull::slice_from_raw_parts(start, self.len - from)
    }
}

impl Pool {
    /// A block for `len` bytes, of which the first `front` come before the bulk. `None` while too much is under way. `returns`
    /// has how often each block was let go of; `head` is the ring's head index.
    pub(crate) fn lease(
        &mut self,
        len: usize,
        front: usize,
        head: u64,
        returns: &Head,
    ) -> io::Result<Option<Lease>> {
        // Acquire: the receiver's last look at a block comes before what is written to it next.
        let released = |number: usize| returns.released(number).load(Ordering::Acquire);
        let (mut used, mut bytes, mut waiting) = (0, len, len);
        for (number, block) in self.blocks.iter_mut().enumerate() {
            let Some(b) = block else { continue };
            match b.state {
                State::Free => continue,
                State::Leased(n) => bytes = bytes.saturating_add(n),
                State::UnderWay(n, end) => {
                    if (head.wrapping_sub(end) as i64) < 0 {
                        waiting = waiting.saturating_add(n);
                    } else if released(number) == self.uses[number % BLOCKS] {
                        b.state = State::Free;
                        if b.once {
                            *block = None;
                        }
                        continue;
                    }
                    bytes = bytes.saturating_add(n);
                }
            }
            used += 1;
        }
        if used >= BLOCKS || (used >= 2 && (bytes > UNDER_WAY_MAX || waiting > WAITING_MAX)) {
            return Ok(None);
        }
        let at = ALIGNMENT - front.min(ALIGNMENT);
        let number = match self.fitting(at + len) {
            Some(number) => number,
            None => self.make(at + len)?,
        };
        let Some(Some(block)) = self.blocks.get_mut(number) else {
            return Ok(None);
        };
        block.state = State::Leased(len);
        Ok(Some(Lease {
            number,
            at,
            len,
            mapping: block.mapping.clone(),
        }))
    }

    /// Whether a thread fills a block, which it may give up.
    pub(crate) fn lends(&self) -> bool {
        let mut blocks = self.blocks.iter().flatten();
        blocks.any(|block| matches!(block.state, State::Leased(_)))
    }

    /// Whether a thread fills a block, or the receiver still looks at one.
    pub(crate) fn is_in_use(&self, returns: &Head) -> bool {
        let mut blocks = self.blocks.iter().enumerate();
        blocks.any(|(number, block)| match block.as_ref().map(|b| b.state) {
            Some(State::Leased(_)) => true,
            Some(State::UnderWay(..)) => {
                let released = returns.released(number).load(Ordering::Relaxed);
                released != self.uses[number % BLOCKS]
            }
            _ => false,
        })
    }

    /// How many blocks the receiver has let go of so far.
    pub(crate) fn released(&self, returns: &Head) -> u32 {
        (0..self.blocks.len()).fold(0, |all, number| {
            all.wrapping_add(returns.released(number).load(Ordering::Relaxed))
        })
    }

    /// The smallest free block that `len` bytes fit into.
    fn fitting(&self, len: usize) -> Option<usize> {
        if len > REUSED_MAX + ALIGNMENT {
            return None;
        }
        let free = self.blocks.iter().enumerate().filter_map(|(i, b)| {
            let b = b.as_ref()?;
            (b.state == State::Free && b.memory.size() >= len).then_some((b.memory.size(), i))
        });
        free.min().map(|(_, i)| i)
    }

    fn make(&mut self, len: usize) -> io::Result<usize> {
        let once = len > REUSED_MAX + ALIGNMENT;
        let size = if once {
            len
        } else {
            len.max(BLOCK_MIN).next_power_of_two()
        };
        let mut memory = Memory::new(c"ipmb-block", size)?;
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

    /// Whether the receiver does not have the block's memory yet.
    pub(crate) fn is_fresh(&self, lease: &Lease) -> bool {
        let block = self.blocks.get(lease.number).and_then(Option::as_ref);
        block.is_some_and(|block| !block.known)
    }

    /// The reference to put into a record, and the memory to send along if the receiver does not have it.
    pub(crate) fn reference(&self, lease: &Lease) -> Option<(BlockRef, Option<&Memory>)> {
        let block = self.blocks.get(lease.number)?.as_ref()?;
        Some((
            BlockRef {
                block: lease.number as u32,
                at: lease.at as u8,
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
            let uses = &mut self.uses[lease.number % BLOCKS];
            *uses = uses.wrapping_add(1);
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
        let (at, len) = (
            usize::from(reference.at),
            usize::try_from(reference.len).ok()?,
        );
        if block.mapping.len().checked_sub(at)? < len {
            return None;
        }
        // SAFETY: inside the mapping, and nobody writes to it: the block is under way, so it is leased to no thread, and
        // no other process can map it writably.
        Some(unsafe { std::slice::from_raw_parts(block.mapping.start().as_ptr().add(at), len) })
    }
}
