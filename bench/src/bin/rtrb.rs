//! Compares the bare ring with `rtrb`, both over shared memory between two processes: prints how long so many messages
//! of 16 bytes took, in nanoseconds. `rtrb | ring COUNT`.
//!
//! `rtrb` takes its memory from the allocator. This program's allocator takes it from a shared mapping when it is told to, and
//! the second process is a fork, so both see the ring at the same place.

use ipmb_bench::{
    bare::{
        ring::{self, Consumer, Producer},
        spin::Spin,
    },
    load::{Load, Pair},
    shared::{Memory, RINGS, Shared},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

/// Capacity of both rings in bytes of payload.
const CAPACITY: usize = 1 << 20;

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
    let mut arguments = std::env::args().skip(1);
    let (Some(which), Some(Ok(count))) = (arguments.next(), arguments.next().map(|c| c.parse()))
    else {
        eprintln!("usage: rtrb rtrb|ring COUNT");
        std::process::exit(2);
    };
    let memory = Memory::new(RINGS + 4 * CAPACITY);
    let shared = Shared::map(memory.fd, memory.len);
    match &*which {
        "rtrb" => {
            let (mut producer, mut consumer) = in_shared_memory(&shared);
            let push = |pair| {
                let mut pair = pair;
                while let Err(rtrb::PushError::Full(back)) = producer.push(pair) {
                    pair = back;
                    look_away();
                }
            };
            let pop = || loop {
                match consumer.pop() {
                    Ok(pair) => return pair,
                    Err(_) => look_away(),
                }
            };
            play(&shared, count, push, pop);
        }
        "ring" => {
            assert!(RINGS + ring::bytes(CAPACITY) <= shared.bytes());
            let mut producer = Producer::new(&shared, RINGS, CAPACITY);
            let mut consumer = Consumer::new(&shared, RINGS, CAPACITY);
            let push = |Pair { a, b }: Pair| {
                while !producer.try_push(&a.to_le_bytes(), &b.to_le_bytes()) {
                    look_away();
                }
            };
            let pop = || {
                while consumer.is_empty() {
                    look_away();
                }
                consumer.pop(Pair::from_bytes)
            };
            play(&shared, count, push, pop);
        }
        other => panic!("unknown ring {other}"),
    }
}

/// Waits for the other side. Long enough that it does several messages meanwhile: else the figure says which of the two sides of
/// a ring happens to be the faster one, and so how often each cache line travels, and not what the ring costs.
fn look_away() {
    for _ in 0..128 {
        std::hint::spin_loop();
    }
}

/// An `rtrb` all of whose memory is shared. It is never dropped.
fn in_shared_memory(shared: &Shared) -> (rtrb::Producer<Pair>, rtrb::Consumer<Pair>) {
    let start = shared.start() as usize;
    END.store(start + shared.bytes(), Ordering::Relaxed);
    NEXT.store(start + RINGS, Ordering::Relaxed);
    let halves = rtrb::RingBuffer::new(CAPACITY / size_of::<Pair>());
    NEXT.store(0, Ordering::Relaxed);
    halves
}

/// Sends in this process, receives in a fork.
fn play(shared: &Shared, count: u64, mut push: impl FnMut(Pair), mut pop: impl FnMut() -> Pair) {
    let confirmed = &shared.control().confirmed;
    let warm_up = count / 10;
    // SAFETY: this process has one thread.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        // SAFETY: a signal that ends this process when the other is gone.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        for number in 0..warm_up + count {
            assert_eq!(pop().check(16), number);
            if number + 1 == warm_up || number + 1 == warm_up + count {
                confirmed.store(number + 1, Ordering::Release);
            }
        }
        // SAFETY: nothing is to be cleaned up; the ring belongs to the parent as well.
        unsafe { libc::_exit(0) };
    }
    let confirm = |count| {
        let mut spin = Spin(0);
        while confirmed.load(Ordering::Acquire) < count {
            spin.once();
        }
    };
    for number in 0..warm_up {
        push(Pair::make(number, 16));
    }
    confirm(warm_up);
    let start = Instant::now();
    for number in warm_up..warm_up + count {
        push(Pair::make(number, 16));
    }
    confirm(warm_up + count);
    println!("{}", start.elapsed().as_nanos());
    // SAFETY: as above; the ring's memory is not the system allocator's, so nothing may be dropped.
    unsafe { libc::_exit(0) };
}
