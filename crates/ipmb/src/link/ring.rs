//! The ring's two indices: who may touch which bytes.
//!
//! Single producer, single consumer. Both indices count bytes since the link was made and wrap around at 2^64; their
//! place in the ring is the index modulo the capacity, a power of two. Each side keeps its own index private, publishes
//! it, and trusts nothing of what the other publishes but what lies within the bounds that its own books allow: *if
//! there was room, only we can make it full; if there was a record, only we can make it empty*.

use crate::{
    sync::{Ordering, SharedU64},
    weakness,
};

/// The other side published an index that it cannot have reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lie;

/// The producer's books.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriteIndex {
    tail: u64,
    /// What the consumer had given back when last looked at.
    head: u64,
    capacity: u64,
}

impl WriteIndex {
    /// `capacity` is a power of two.
    pub(crate) fn new(start: u64, capacity: u64) -> Self {
        debug_assert!(capacity.is_power_of_two());
        Self {
            tail: start,
            head: start,
            capacity,
        }
    }

    /// Index of the next byte to be written.
    #[inline]
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// Index of the first byte that was not given back, as last seen.
    #[inline]
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Offset of an index in the ring.
    #[inline]
    pub(crate) fn offset(&self, index: u64) -> usize {
        (index & (self.capacity - 1)) as usize
    }

    /// Bytes that are free, as last seen. There may be more, never fewer.
    #[inline]
    pub(crate) fn free(&self) -> u64 {
        self.capacity - self.tail.wrapping_sub(self.head)
    }

    /// Looks at what the consumer gave back since.
    #[inline]
    pub(crate) fn refresh(&mut self, shared_head: &SharedU64) -> Result<(), Lie> {
        // Acquire: the consumer's reads of the bytes given back come before our next writes to them.
        let head = shared_head.load(weakness::ordering(4, Ordering::Acquire));
        if self.tail.wrapping_sub(head) > self.tail.wrapping_sub(self.head) && !crate::fault::on(26)
        {
            return Err(Lie);
        }
        self.head = head;
        Ok(())
    }

    /// Publishes `len` bytes that were written from the tail on.
    #[inline]
    pub(crate) fn publish(&mut self, len: u64, shared_tail: &SharedU64) {
        debug_assert!(len <= self.free());
        self.tail = self.tail.wrapping_add(len);
        // Release: the bytes come before the index that makes them visible.
        shared_tail.store(self.tail, weakness::ordering(1, Ordering::Release));
    }
}

/// Where records begin: the first one that was published in each stretch of the ring. So whether an index is the border of a
/// record is told by the records of one stretch, and not by all that were published since.
#[derive(Debug)]
pub(crate) struct Boundaries {
    firsts: Box<[u64]>,
}

/// Bytes of a stretch, as a power of two.
const STRETCH: u32 = 12;

impl Boundaries {
    /// `capacity` is a power of two, and at least a stretch.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            firsts: vec![0; (capacity >> STRETCH).max(1)].into(),
        }
    }

    /// What lies from `before` on was published; the next record begins at `after`.
    #[inline]
    pub(crate) fn note(&mut self, before: u64, after: u64) {
        if (before ^ after) >> STRETCH != 0 {
            let place = (after >> STRETCH) as usize & (self.firsts.len() - 1);
            self.firsts[place] = after;
        }
    }

    /// The last border that is known between two indices; the first of them is one.
    pub(crate) fn last(&self, from: u64, to: u64) -> u64 {
        for back in 0..self.firsts.len() as u64 {
            let stretch = (to >> STRETCH).wrapping_sub(back);
            let first = self.firsts[stretch as usize & (self.firsts.len() - 1)];
            if first.wrapping_sub(from) <= to.wrapping_sub(from) {
                return first;
            }
            if stretch == from >> STRETCH {
                break;
            }
        }
        from
    }
}

/// The consumer's books.
#[derive(Debug)]
pub(crate) struct ReadIndex {
    head: u64,
    /// What the producer had published when last looked at.
    tail: u64,
    capacity: u64,
}

impl ReadIndex {
    /// `capacity` is a power of two.
    pub(crate) fn new(start: u64, capacity: u64) -> Self {
        debug_assert!(capacity.is_power_of_two());
        Self {
            head: start,
            tail: start,
            capacity,
        }
    }

    /// Index of the next byte to be read.
    #[inline]
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Offset of the head in the ring.
    #[inline]
    pub(crate) fn offset(&self) -> usize {
        (self.head & (self.capacity - 1)) as usize
    }

    /// Bytes from the head to the ring's end: no record goes across it.
    #[inline]
    pub(crate) fn contiguous(&self) -> u64 {
        self.capacity - (self.head & (self.capacity - 1))
    }

    /// Bytes that can be read, as last seen. There may be more, never fewer.
    #[inline]
    pub(crate) fn available(&self) -> u64 {
        self.tail.wrapping_sub(self.head)
    }

    /// Looks at what the producer published since.
    #[inline]
    pub(crate) fn refresh(&mut self, shared_tail: &SharedU64) -> Result<(), Lie> {
        // Acquire: the bytes that the index makes visible are read after it.
        let tail = shared_tail.load(weakness::ordering(2, Ordering::Acquire));
        let available = tail.wrapping_sub(self.head);
        if available > self.capacity || available < self.available() {
            return Err(Lie);
        }
        self.tail = tail;
        Ok(())
    }

    /// Takes `len` bytes off without giving them back yet.
    #[inline]
    pub(crate) fn advance(&mut self, len: u64) {
        debug_assert!(len <= self.available());
        self.head = self.head.wrapping_add(len);
    }

    /// Gives back all that was taken off.
    #[inline]
    pub(crate) fn give_back(&self, shared_head: &SharedU64) {
        // Release: our reads of the bytes come before the producer's next writes to them.
        shared_head.store(self.head, weakness::ordering(3, Ordering::Release));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn the_indices_lose_or_repeat_a_byte_at_wrap_around(
            start in prop_oneof![any::<u64>(), Just(u64::MAX - 3), Just(u64::MAX)],
            steps in prop::collection::vec((any::<bool>(), 1u64..40), 1..400),
        ) {
            let (head, tail) = (SharedU64::new(start), SharedU64::new(start));
            let mut w = WriteIndex::new(start, 64);
            let mut r = ReadIndex::new(start, 64);
            let (mut memory, mut model, mut next) = ([0u8; 64], VecDeque::new(), 0u8);
            for (write, len) in steps {
                if write {
                    w.refresh(&head).unwrap();
                    prop_assert_eq!(w.free(), 64 - model.len() as u64);
                    let len = len.min(w.free());
                    for i in 0..len {
                        next = next.wrapping_add(1);
                        memory[w.offset(w.tail().wrapping_add(i))] = next;
                        model.push_back(next);
                    }
                    w.publish(len, &tail);
                } else {
                    r.refresh(&tail).unwrap();
                    prop_assert_eq!(r.available(), model.len() as u64);
                    for _ in 0..len.min(r.available()) {
                        prop_assert_eq!(Some(memory[r.offset()]), model.pop_front());
                        r.advance(1);
                    }
                    r.give_back(&head);
                }
            }
        }

        #[test]
        fn a_border_is_found_that_is_none(
            start in prop_oneof![any::<u64>(), Just(u64::MAX - 8192)],
            sizes in prop::collection::vec(1u64..2048, 1..400),
        ) {
            let start = start & !7;
            let mut boundaries = Boundaries::new(64 << 10);
            let (mut at, mut borders) = (start, vec![start]);
            for size in sizes {
                let after = at.wrapping_add(size * 8);
                boundaries.note(at, after);
                at = after;
                borders.push(at);
            }
            // Of what is no further back than the ring is long.
            borders.retain(|b| at.wrapping_sub(*b) <= 64 << 10);
            for (i, from) in borders.iter().enumerate() {
                for to in &borders[i..] {
                    let found = boundaries.last(*from, *to);
                    prop_assert!(borders[i..].contains(&found));
                    prop_assert!(to.wrapping_sub(found) <= to.wrapping_sub(*from));
                }
            }
        }

        #[test]
        fn an_index_outside_the_books_is_believed(start: u64, used in 0u64..=64, claim: u64) {
            let shared = SharedU64::new(start);
            let mut w = WriteIndex::new(start, 64);
            w.publish(used, &shared);
            shared.store(claim, Ordering::Relaxed);
            let honest = claim.wrapping_sub(start) <= used;
            prop_assert_eq!(w.refresh(&shared).is_ok(), honest);
            prop_assert!(w.free() <= 64);
            let mut r = ReadIndex::new(start, 64);
            let honest = claim.wrapping_sub(start) <= 64;
            prop_assert_eq!(r.refresh(&shared).is_ok(), honest);
            prop_assert!(r.available() <= 64);
        }
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::{cell::UnsafeCell, sync::Arc, thread};

    /// Every interleaving of a producer and a consumer over a small ring, from a start that makes the indices wrap around or
    /// from any other: the cells catch any access that is not ordered by the indices. Records lie in one piece, so where one
    /// does not fit before the ring's end a pad is published with it, as `Outgoing` does.
    fn nothing_is_touched_by_both(name: &str, capacity: u64, start: u64, sizes: &'static [u64]) {
        let name = format!("ring of {capacity} from {start:#x}, {name}");
        weakness::check(&name, move || {
            let cells: Vec<_> = (0..capacity).map(|_| UnsafeCell::new(0u64)).collect();
            let shared = Arc::new((SharedU64::new(start), SharedU64::new(start), cells));
            let theirs = shared.clone();
            let producer = thread::spawn(move || {
                let (head, tail, cells) = &*theirs;
                let mut w = WriteIndex::new(start, capacity);
                for (value, size) in (1..).zip(sizes) {
                    let to_end = capacity - w.offset(w.tail()) as u64;
                    let pad = if *size > to_end { to_end } else { 0 };
                    while w.free() < size + pad {
                        w.refresh(head).unwrap();
                        thread::yield_now();
                    }
                    for at in pad..pad + size {
                        let cell = &cells[w.offset(w.tail().wrapping_add(at))];
                        // SAFETY: the slot is ours by the indices; that this is so is what the model checks.
                        cell.with_mut(|p| unsafe { *p = value });
                    }
                    w.publish(size + pad, tail);
                }
            });
            let (head, tail, cells) = &*shared;
            let mut r = ReadIndex::new(start, capacity);
            for (value, size) in (1..).zip(sizes) {
                while r.available() == 0 {
                    r.refresh(tail).unwrap();
                    thread::yield_now();
                }
                if *size > r.contiguous() {
                    r.advance(r.contiguous());
                }
                assert!(r.available() >= *size, "half a record was published");
                for _ in 0..*size {
                    // SAFETY: as above.
                    cells[r.offset()].with(|p| assert_eq!(unsafe { *p }, value));
                    r.advance(1);
                }
                r.give_back(head);
            }
            producer.join().unwrap();
        });
    }

    #[test]
    fn bytes_are_touched_by_both_sides_at_once() {
        for start in [u64::MAX - 2, u64::MAX - 1, u64::MAX, 0] {
            nothing_is_touched_by_both("three slots", 2, start, &[1, 1, 1]);
        }
    }

    #[test]
    fn a_pad_is_written_or_read_by_both_sides_at_once() {
        for start in [u64::MAX, u64::MAX - 4] {
            nothing_is_touched_by_both("pads", 4, start, &[2, 2, 1]);
        }
    }

    #[test]
    fn a_ring_that_starts_anywhere_is_touched_by_both_sides_at_once() {
        use std::hash::{BuildHasher, RandomState};
        let start = RandomState::new().hash_one(0);
        nothing_is_touched_by_both("records of one slot", 2, start, &[1, 1, 1]);
        nothing_is_touched_by_both("records of one to three slots", 4, start, &[1, 2, 1]);
    }
}
