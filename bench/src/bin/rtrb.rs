//! Compares the bare ring with `rtrb`, both over shared memory between two processes: prints how long so many messages
//! of 16 bytes took over each, in nanoseconds. They take turns of some ten milliseconds, since the speed of a machine's memory can change by half from
//! one second to the next. Who waits looks away: else the figure says which of the two sides of
//! a ring happens to be the faster one, and so how often each cache line travels, and not what the ring costs.
//!
//! `rtrb` takes its memory from the allocator. This program's allocator takes it from a shared mapping when it is told to, and
//! the second process is a fork, so both see the ring at the same place.

use ipmb_bench::{
    bare::{
        ring::{self, Consumer, Producer},
        spin::{Spin, look_away},
    },
    load::{Load, Pair},
    shared::{Memory, RINGS, Shared},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// Capacity of both rings in bytes; ours keeps its lengths in it, too.
const CAPACITY: usize = 1 << 20;
/// Messages of a turn: some thirty times around a ring.
const EACH: u64 = 2_000_000;

/// Where the next shared allocation goes, and where the shared memory ends; zero: not now.
static NEXT: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

struct Allocator;

// SAFETY: either the system's allocator, or pieces of a mapping that stays, each given out once and aligned.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let next = NEXT.load(Ordering::Relaxed);
        if next == 0 {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        let start = next.next_multiple_of(layout.align().max(128));
        assert!(start + layout.size() <= END.load(Ordering::Relaxed));
        NEXT.store(start + layout.size(), Ordering::Relaxed);
        start as *mut u8
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // What lies in the mapping is kept by its two users until the end.
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() {
    let count = std::env::args()
        .nth(1)
        .and_then(|count| count.parse::<u64>().ok());
    let Some(count) = count.filter(|count| *count > 0 && count.is_multiple_of(EACH)) else {
        eprintln!("usage: rtrb COUNT, a multiple of {EACH}");
        std::process::exit(2);
    };
    let end_of_ring = RINGS + ring::bytes(CAPACITY);
    let memory = Memory::new(end_of_ring + 4 * CAPACITY);
    let shared = Shared::map(memory.fd, memory.len);
    let mut to_ring = Producer::new(&shared, RINGS, CAPACITY);
    let mut from_ring = Consumer::new(&shared, RINGS, CAPACITY);
    let (mut to_rtrb, mut from_rtrb) = in_shared_memory(&shared, end_of_ring);
    let push_ring = |Pair { a, b }: Pair| {
        while !to_ring.try_push(&a.to_le_bytes(), &b.to_le_bytes()) {
            look_away();
        }
    };
    let pop_ring = || {
        while from_ring.is_empty() {
            look_away();
        }
        from_ring.pop(Pair::from_bytes)
    };
    let push_rtrb = |mut pair| {
        while let Err(rtrb::PushError::Full(back)) = to_rtrb.push(pair) {
            pair = back;
            look_away();
        }
    };
    let pop_rtrb = || loop {
        match from_rtrb.pop() {
            Ok(pair) => return pair,
            Err(_) => look_away(),
        }
    };
    let confirmed = &shared.control().confirmed;
    let turns = count / EACH;
    // SAFETY: this process has one thread.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        // SAFETY: a signal that ends this process when the other is gone.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        receive(turns, confirmed, pop_ring, pop_rtrb);
    } else {
        let [ring, rtrb] = send(turns, confirmed, push_ring, push_rtrb);
        println!("{} {}", ring.as_nanos(), rtrb.as_nanos());
    }
    // SAFETY: the rings belong to both processes, and the memory of one is not the system allocator's: nothing may be dropped.
    unsafe { libc::_exit(0) };
}

/// An `rtrb` all of whose memory is shared. It is never dropped.
fn in_shared_memory(shared: &Shared, at: usize) -> (rtrb::Producer<Pair>, rtrb::Consumer<Pair>) {
    let start = shared.start() as usize;
    END.store(start + shared.bytes(), Ordering::Relaxed);
    NEXT.store(start + at, Ordering::Relaxed);
    let halves = rtrb::RingBuffer::new(CAPACITY / size_of::<Pair>());
    NEXT.store(0, Ordering::Relaxed);
    halves
}

/// How long so many turns took, by ring; one more comes first, to warm up.
fn send(
    turns: u64,
    confirmed: &AtomicU64,
    mut ring: impl FnMut(Pair),
    mut rtrb: impl FnMut(Pair),
) -> [Duration; 2] {
    let mut took = [Duration::ZERO; 2];
    let mut next = 0;
    for turn in 0..=turns {
        let times = [
            send_some(&mut next, confirmed, &mut ring),
            send_some(&mut next, confirmed, &mut rtrb),
        ];
        if turn > 0 {
            took[0] += times[0];
            took[1] += times[1];
        }
    }
    took
}

fn send_some(next: &mut u64, confirmed: &AtomicU64, push: &mut impl FnMut(Pair)) -> Duration {
    let start = Instant::now();
    let end = *next + EACH;
    for number in *next..end {
        push(Pair::make(number, 16));
    }
    let mut spin = Spin(0);
    while confirmed.load(Ordering::Acquire) < end {
        spin.once();
    }
    *next = end;
    start.elapsed()
}

fn receive(
    turns: u64,
    confirmed: &AtomicU64,
    mut ring: impl FnMut() -> Pair,
    mut rtrb: impl FnMut() -> Pair,
) {
    let mut next = 0;
    for _ in 0..=turns {
        receive_some(&mut next, confirmed, &mut ring);
        receive_some(&mut next, confirmed, &mut rtrb);
    }
}

fn receive_some(next: &mut u64, confirmed: &AtomicU64, pop: &mut impl FnMut() -> Pair) {
    let end = *next + EACH;
    for number in *next..end {
        assert_eq!(pop().check(16), number);
    }
    *next = end;
    confirmed.store(end, Ordering::Release);
}
