//! The bare mechanism: a spinning single-producer, single-consumer ring of bytes with cached indices, in shared memory.

use super::spin::Spin;
use crate::shared::Shared;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{ptr, slice};

const TAIL: usize = 0;
const HEAD: usize = 256;
const DATA: usize = 4096;
/// In front of each record, the bytes of its payload. Records begin at multiples of it.
const LENGTH: usize = size_of::<u32>();
/// As length: go on at the start of the ring.
const PAD: u32 = u32::MAX;

/// Bytes of shared memory for a ring of `capacity`, a power of two.
pub const fn bytes(capacity: usize) -> usize {
    DATA + capacity
}

struct Half {
    memory: *mut u8,
    capacity: usize,
    mask: usize,
    /// This side's index.
    own: u64,
    /// The other side's, as last seen.
    other: u64,
}

impl Half {
    fn new(shared: &Shared, at: usize, capacity: usize) -> Self {
        assert!(capacity.is_power_of_two() && at + bytes(capacity) <= shared.bytes());
        // SAFETY: inside the mapping, which is never unmapped.
        let memory = unsafe { shared.start().add(at) };
        Self {
            memory,
            capacity,
            mask: capacity - 1,
            own: 0,
            other: 0,
        }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        // SAFETY: a word of the ring's first page, aligned, for ever.
        unsafe { &*self.memory.add(at).cast() }
    }

    fn to_end(&self) -> usize {
        self.capacity - (self.own as usize & self.mask)
    }

    fn at(&self) -> *mut u8 {
        // SAFETY: the masked index lies in the ring.
        unsafe { self.memory.add(DATA + (self.own as usize & self.mask)) }
    }
}

pub struct Producer(Half);

impl Producer {
    pub fn new(shared: &Shared, at: usize, capacity: usize) -> Self {
        Self(Half::new(shared, at, capacity))
    }

    /// Writes a record of two parts; spins while the ring is full.
    #[inline]
    pub fn push(&mut self, first: &[u8], second: &[u8]) {
        let mut spin = Spin(0);
        while !self.try_push(first, second) {
            spin.once();
        }
    }

    /// Writes a record of two parts; false if there is no room.
    #[inline]
    pub fn try_push(&mut self, first: &[u8], second: &[u8]) -> bool {
        let ring = &mut self.0;
        let len = first.len() + second.len();
        let size = LENGTH + len.next_multiple_of(LENGTH);
        let to_end = ring.to_end();
        let pad = if size > to_end { to_end } else { 0 };
        if ring.capacity - ((ring.own - ring.other) as usize) < size + pad {
            ring.other = ring.word(HEAD).load(Ordering::Acquire);
            if ring.capacity - ((ring.own - ring.other) as usize) < size + pad {
                return false;
            }
        }
        // SAFETY: the space is free by the indices, and each piece lies in the ring.
        unsafe {
            if pad > 0 {
                ring.at().cast::<u32>().write(PAD);
                ring.own += pad as u64;
            }
            ring.at().cast::<u32>().write(len as u32);
            let to = ring.at().add(LENGTH);
            ptr::copy_nonoverlapping(first.as_ptr(), to, first.len());
            ptr::copy_nonoverlapping(second.as_ptr(), to.add(first.len()), second.len());
        }
        ring.own += size as u64;
        ring.word(TAIL).store(ring.own, Ordering::Release);
        true
    }

    /// Whether the consumer has taken anything that this side does not know of.
    pub fn has_moved(&self) -> bool {
        self.0.word(HEAD).load(Ordering::Acquire) != self.0.other
    }
}

pub struct Consumer(Half);

impl Consumer {
    pub fn new(shared: &Shared, at: usize, capacity: usize) -> Self {
        Self(Half::new(shared, at, capacity))
    }

    /// Takes a record; spins while there is none.
    #[inline]
    pub fn pop<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> T {
        let mut spin = Spin(0);
        while self.is_empty() {
            spin.once();
        }
        let ring = &mut self.0;
        // SAFETY: the records are published by the indices; the producer does not touch them before they are given back.
        let bytes = unsafe {
            if ring.at().cast::<u32>().read() == PAD {
                ring.own += ring.to_end() as u64;
            }
            let len = ring.at().cast::<u32>().read() as usize;
            slice::from_raw_parts(ring.at().add(LENGTH), len)
        };
        let taken = take(bytes);
        ring.own += (LENGTH + bytes.len().next_multiple_of(LENGTH)) as u64;
        ring.word(HEAD).store(ring.own, Ordering::Release);
        taken
    }

    /// Whether there is no record.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        let ring = &mut self.0;
        if ring.own == ring.other {
            ring.other = ring.word(TAIL).load(Ordering::Acquire);
        }
        ring.own == ring.other
    }
}
