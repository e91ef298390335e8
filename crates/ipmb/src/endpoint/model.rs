//! The other direction of a link, for the model checker: senders sleep for space. `link/doorbell.rs` has that of messages.
//!
//! Each thread does what `patience::wait_for_space` and `Outgoing::sleep_for_space` do, step by step and by the same gate,
//! books, words and fences. Modelled are what is the system's: the side channel, which holds a number of packets, throws
//! away what does not fit, and is readable while something lies in it; and the fence on everybody, by what it does on the
//! receiver's core. Left out are the spinning and the timeouts, which only end a sleep earlier, the hang-up, and blocks: that a
//! receiver lets go of one is announced as the ring's head is.

use super::gate::Gate;
use crate::{
    link::{
        doorbell::{Mode, Sleeper, Watcher, fence_before_look},
        ring::{ReadIndex, WriteIndex},
    },
    sync::{Condvar, Mutex, Ordering, SharedU32, SharedU64},
    weakness,
};
use loom::{sync::Arc, thread};

/// Packets that fit into the side channel.
const PACKETS: u32 = 1;

#[derive(Default)]
struct Side {
    packets: Mutex<u32>,
    readable: Condvar,
}

impl Side {
    fn tell(&self) {
        let mut packets = self.packets.lock().unwrap();
        *packets = (*packets + 1).min(PACKETS);
        self.readable.notify_all();
    }

    fn drain(&self) {
        *self.packets.lock().unwrap() = 0;
    }

    fn wait(&self) {
        let mut packets = self.packets.lock().unwrap();
        while *packets == 0 {
            packets = self.readable.wait(packets).unwrap();
        }
    }
}

/// The sender's end, under the outbox's lock.
struct Out {
    write: WriteIndex,
    space: Sleeper,
}

struct Link {
    tail: SharedU64,
    head: SharedU64,
    /// Whether the sender sleeps for space.
    word: SharedU32,
    side: Side,
    gate: Gate,
    outbox: Mutex<Out>,
}

impl Link {
    /// A link whose ring of so many records is full.
    fn full(start: u64, records: u64, fast: bool) -> Self {
        let tail = start.wrapping_add(records);
        let (word, shared_tail) = (SharedU32::new(0), SharedU64::new(start));
        let mut write = WriteIndex::new(start, records);
        write.publish(records, &shared_tail);
        let mut space = Sleeper::new();
        space.wake(&word, fast);
        debug_assert_eq!(shared_tail.load(Ordering::Relaxed), tail);
        Self {
            tail: shared_tail,
            head: SharedU64::new(start),
            word,
            side: Side::default(),
            gate: Gate::default(),
            outbox: Mutex::new(Out { write, space }),
        }
    }

    /// Sends a record of a length, and waits for space as long as there is too little.
    fn send(&self, len: u64, fast: bool) {
        loop {
            let known = {
                let mut out = self.outbox.lock().unwrap();
                if out.write.free() < len {
                    out.write.refresh(&self.head).unwrap();
                }
                if out.write.free() >= len {
                    out.write.publish(len, &self.tail);
                    return;
                }
                out.write.head()
            };
            let leader = match self.gate.lead() {
                Ok(leader) => leader,
                Err(follower) => {
                    if !self.has_moved(known) || weakness::on(15) {
                        follower.wait(None);
                    }
                    continue;
                }
            };
            if !self.falls_asleep(known, fast) {
                continue;
            }
            self.side.wait();
            self.outbox.lock().unwrap().space.wake(&self.word, fast);
            drop(leader);
        }
    }

    /// As `Outgoing::has_moved`.
    fn has_moved(&self, known: u64) -> bool {
        let out = self.outbox.lock().unwrap();
        let head = out.write.head();
        head != known || self.head.load(Ordering::Relaxed) != head
    }

    /// As `Outgoing::sleep_for_space`: false if there is more room than was `known`.
    fn falls_asleep(&self, known: u64, fast: bool) -> bool {
        let mut out = self.outbox.lock().unwrap();
        let Out { write, space } = &mut *out;
        if !weakness::on(11) {
            self.side.drain();
        }
        let known = if weakness::on(14) {
            write.head()
        } else {
            known
        };
        let everybody = space.mode() == Mode::Fast;
        space.announce(&self.word);
        fence_before_look(everybody);
        if weakness::on(11) {
            self.side.drain();
        }
        if !weakness::on(10) {
            write.refresh(&self.head).unwrap();
        }
        if write.head() != known {
            space.wake(&self.word, fast);
            return false;
        }
        true
    }

    /// Looks at what was given back, and sends nothing: another thread that finds its message too large, or the serving thread.
    fn look(&self) {
        let mut out = self.outbox.lock().unwrap();
        out.write.refresh(&self.head).unwrap();
    }
}

/// The receiver.
struct Receiver {
    read: ReadIndex,
    watcher: Watcher,
}

impl Receiver {
    fn new(start: u64, records: u64, fast: bool) -> Self {
        let mut watcher = Watcher::new();
        watcher.fenced_by_sleeper = fast;
        let read = ReadIndex::new(start, records);
        Self { read, watcher }
    }

    /// Takes so many records, as `Incoming::taken` does.
    fn take(&mut self, link: &Link, records: u64) {
        for _ in 0..records {
            while self.read.available() == 0 {
                self.read.refresh(&link.tail).unwrap();
                if self.read.available() == 0 {
                    thread::yield_now();
                }
            }
            self.read.advance(1);
            self.read.give_back(&link.head);
            if self.watcher.must_ring(&link.word) {
                link.side.tell();
            }
        }
    }
}

/// So many senders, each with so many records, a receiver, and a thread that only looks if `looked`: a lost wake-up is a
/// deadlock, which the checker reports.
fn nobody_waits_for_space_that_is_there(senders: u32, each: u32, looked: bool, fast: bool) {
    let name = if fast { "fast" } else { "fenced" };
    let looker = if looked { ", one who looks" } else { "" };
    let name = format!("sleep for space, {senders} senders of {each}{looker}, {name}");
    weakness::check(&name, move || {
        let start = u64::MAX - 1;
        let link = Arc::new(Link::full(start, 1, fast));
        let mut threads: Vec<_> = (0..senders)
            .map(|_| {
                let link = link.clone();
                thread::spawn(move || (0..each).for_each(|_| link.send(1, fast)))
            })
            .collect();
        if looked {
            let link = link.clone();
            threads.push(thread::spawn(move || link.look()));
        }
        let taken = u64::from(1 + senders * each);
        Receiver::new(start, 1, fast).take(&link, taken);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_fenced_sender_sleeps_though_there_is_space() {
    nobody_waits_for_space_that_is_there(1, 2, false, false);
}

#[test]
fn a_fast_sender_sleeps_though_there_is_space() {
    nobody_waits_for_space_that_is_there(1, 2, false, true);
}

#[test]
fn one_of_two_senders_sleeps_though_there_is_space() {
    nobody_waits_for_space_that_is_there(2, 1, false, false);
}

#[test]
fn one_of_two_fast_senders_sleeps_though_there_is_space() {
    nobody_waits_for_space_that_is_there(2, 1, false, true);
}

#[test]
fn a_sender_sleeps_though_another_thread_saw_space() {
    nobody_waits_for_space_that_is_there(1, 1, true, false);
}

#[test]
fn a_fast_sender_sleeps_though_another_thread_saw_space() {
    nobody_waits_for_space_that_is_there(1, 1, true, true);
}

/// Of two senders one needs more room than there is soon: the other must not wait for it.
fn who_needs_little_waits_for_who_needs_much(fast: bool) {
    let name = if fast { "fast" } else { "fenced" };
    weakness::check(&format!("little and much space, {name}"), move || {
        let start = u64::MAX - 1;
        let link = Arc::new(Link::full(start, 2, fast));
        let [little, much] = [1, 2].map(|len| {
            let link = link.clone();
            thread::spawn(move || link.send(len, fast))
        });
        let mut receiver = Receiver::new(start, 2, fast);
        receiver.take(&link, 1);
        // It takes no more until that one has sent.
        little.join().unwrap();
        receiver.take(&link, 4);
        much.join().unwrap();
    });
}

#[test]
fn a_sender_waits_for_one_that_needs_more_space() {
    who_needs_little_waits_for_who_needs_much(false);
}

#[test]
fn a_fast_sender_waits_for_one_that_needs_more_space() {
    who_needs_little_waits_for_who_needs_much(true);
}
