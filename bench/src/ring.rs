//! The bare mechanism: a spinning single-producer, single-consumer ring of bytes with cached indices, in shared memory.

use crate::shared::Shared;
use std::{
    ptr, slice,
    sync::atomic::{AtomicU64, Ordering},
};

const DATA: usize = 4096;
/// In place of a length: go on at the start of the ring.
const PAD: u64 = u64::MAX;

/// Bytes of shared memory for a ring of `capacity`, a power of two.
pub const fn bytes(capacity: usize) -> usize {
    DATA + capacity
}

struct Half {
    memory: *mut u8,
    capacity: usize,
    /// This side's index.
    own: u64,
    /// The other side's, as last seen.
    other: u64,
}

impl Half {
    fn new(shared: &Shared, at: usize, capacity: usize) -> Self {
        assert!(capacity.is_power_of_two() && at + bytes(capacity) <= shared.len());
        // SAFETY: inside the mapping, which is never unmapped.
        let memory = unsafe { shared.start().add(at) };
        Self {
            memory,
            capacity,
            own: 0,
            other: 0,
        }
    }

    fn tail(&self) -> &AtomicU64 {
        // SAFETY: the first word of the ring, aligned, for ever.
        unsafe { &*self.memory.cast() }
    }

    fn head(&self) -> &AtomicU64 {
        // SAFETY: a word of the ring's first page, aligned, for ever.
        unsafe { &*self.memory.add(256).cast() }
    }

    #[inline]
    fn to_end(&self) -> usize {
        self.capacity - (self.own as usize & (self.capacity - 1))
    }

    #[inline]
    fn at(&self) -> *mut u8 {
        // SAFETY: the masked index lies in the ring.
        unsafe {
            self.memory
                .add(DATA + (self.own as usize & (self.capacity - 1)))
        }
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
        let ring = &mut self.0;
        let len = first.len() + second.len();
        let size = 8 + len.next_multiple_of(8);
        let to_end = ring.to_end();
        let pad = if size > to_end { to_end } else { 0 };
        let mut spin = Spin(0);
        while ring.capacity - ((ring.own - ring.other) as usize) < size + pad {
            ring.other = ring.head().load(Ordering::Acquire);
            spin.once();
        }
        // SAFETY: the space is free by the indices, and each piece lies in the ring.
        unsafe {
            if pad > 0 {
                ring.at().cast::<u64>().write(PAD);
                ring.own += pad as u64;
            }
            let to = ring.at();
            to.cast::<u64>().write(len as u64);
            ptr::copy_nonoverlapping(first.as_ptr(), to.add(8), first.len());
            ptr::copy_nonoverlapping(second.as_ptr(), to.add(8 + first.len()), second.len());
        }
        ring.own += size as u64;
        ring.tail().store(ring.own, Ordering::Release);
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
        let ring = &mut self.0;
        let mut spin = Spin(0);
        while ring.own == ring.other {
            ring.other = ring.tail().load(Ordering::Acquire);
            spin.once();
        }
        // SAFETY: the records are published by the indices; the producer does not touch them before they are given back.
        let bytes = unsafe {
            if ring.at().cast::<u64>().read() == PAD {
                ring.own += ring.to_end() as u64;
            }
            let len = ring.at().cast::<u64>().read() as usize;
            slice::from_raw_parts(ring.at().add(8), len)
        };
        let taken = take(bytes);
        ring.own += 8 + bytes.len().next_multiple_of(8) as u64;
        ring.head().store(ring.own, Ordering::Release);
        taken
    }
}

/// Spins; lets others run now and then, for a machine whose cores are all taken.
pub struct Spin(pub u32);

impl Spin {
    #[inline]
    pub fn once(&mut self) {
        self.0 += 1;
        if self.0 % 512 == 0 {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}
