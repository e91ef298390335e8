//! Whoever can write to something writes anything to it, while traffic runs.

use super::{
    Stop, Victim,
    link::{AT_ACCEPTED, CAPACITY, HAS_HANDLES, HAS_UUID, HandLink, half, head, word},
    member::Liar,
    until,
};
use crate::{
    BytesMessage, RecvError, TypeUuid, label,
    sync::process::{AtomicBool, Ordering},
};
use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// A generator of numbers that are random enough, and the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A word: of no meaning, or near one.
    fn word(&mut self) -> u64 {
        match self.below(6) {
            0 => self.next(),
            1 => 1 << self.below(64),
            2 => u64::MAX - self.below(64),
            3 => self.below(CAPACITY * 2),
            _ => {
                let (kind, len) = (self.below(4), self.below(300));
                let flags = self.below(4) & (HAS_UUID | HAS_HANDLES);
                let (objects, regions) = (self.below(2), self.below(2));
                head(kind, len, flags, objects, regions)
            }
        }
    }
}

/// One liar's life: it corrupts its link in every way that the seed says, until it is dropped.
fn corrupt(link: &HandLink, random: &mut Random, done: &AtomicBool) -> u64 {
    let uuid = BytesMessage::UUID;
    let part = |at: usize| u64::from_ne_bytes(uuid[at..at + 8].try_into().unwrap());
    let file = std::fs::File::open("/dev/null").unwrap();
    let (mut index, mut lies, mut number) = (0u64, 0, 0);
    while !link.is_dropped() && !done.load(Ordering::Relaxed) {
        lies += 1;
        match random.below(12) {
            // Honest messages, so that there is traffic to corrupt.
            0..=5 => {
                let at = index % CAPACITY;
                let free = CAPACITY.wrapping_sub(index.wrapping_sub(link.read()));
                if at + 40 <= CAPACITY && (40..=CAPACITY).contains(&free) {
                    let len = random.below(8) + 2;
                    link.put(
                        index,
                        &[head(1, len, HAS_UUID, 0, 0), part(0), part(8), 7, 7],
                    );
                    index += if len > 8 { 40 } else { 32 };
                    link.publish(index);
                }
            }
            6 => link.put(random.below(CAPACITY / 8) * 8, &[random.word()]),
            7 => {
                let near = index.wrapping_sub(64).wrapping_add(random.below(128));
                let at = near % CAPACITY / 8 * 8;
                link.put(at, &[random.word()]);
            }
            8 => {
                // Any word of the heads, the sender's and the receiver's own.
                let (mapping, at) = match random.below(2) {
                    0 => (&link.records, random.below(64) * 8),
                    _ => (&link.returns, random.below(64) * 8),
                };
                if random.below(4) == 0 || at as usize != super::link::AT_INDEX {
                    word(mapping, at as usize).store(random.word(), Ordering::Relaxed);
                }
            }
            9 => {
                number += random.below(3);
                let count = random.below(3) as usize;
                link.attach(number, &vec![file.as_fd(); count]);
            }
            10 => {
                let bytes: Vec<u8> = (0..random.below(20)).map(|_| random.next() as u8).collect();
                if !bytes.is_empty() && random.below(8) == 0 {
                    let _ = link.side.send(&bytes, &[]);
                }
            }
            _ => link.ringer.ring(),
        }
    }
    lies
}

/// Every word of a link and every packet of its side channel, by four liars at a time, for some seconds. Set
/// `IPMB_LIES_SECONDS` for more, and `IPMB_LIES_SEED` for the lies of another run.
#[test]
fn corruption_of_any_word_crashes_or_hangs_a_receiver() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse().ok());
    let seconds = number("IPMB_LIES_SECONDS").unwrap_or(2);
    let seed = number("IPMB_LIES_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 8 | 1);
    println!("the seed is {seed}");
    let mut victim = Victim::new("corruption");
    let done = AtomicBool::new(false);
    let (done, options) = (&done, victim.options.clone());
    let (mut lives, mut lies, mut heard) = (0, 0, 0u64);
    std::thread::scope(|s| {
        let _stop = Stop(done);
        let mut liars = Vec::new();
        for liar in 1..=4u64 {
            let options = &options;
            liars.push(s.spawn(move || {
                let mut random = Random(seed.wrapping_mul(liar) | 1);
                let (mut lives, mut lies) = (0u64, 0);
                while !done.load(Ordering::Relaxed) {
                    let liar = Liar::join(options, &label!("liar"));
                    let mut link = HandLink::new();
                    liar.introduce(liar.find("victim"), 1, &link.offer());
                    until("the link is accepted", || {
                        half(&link.returns, AT_ACCEPTED).load(Ordering::Acquire) != 0
                            || link.is_dropped()
                    });
                    lies += corrupt(&link, &mut random, done);
                    lives += 1;
                }
                (lives, lies)
            }));
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            victim.tell();
            let told = Instant::now();
            loop {
                assert!(
                    told.elapsed() < Duration::from_secs(20),
                    "the friend is not heard"
                );
                match victim.receiver.recv(Some(Duration::from_secs(10))) {
                    // What a liar said is not to be told from what a friend said, but for its content.
                    Ok(message) if message.payload.format == victim.sent => break,
                    Ok(_) | Err(RecvError::Decode(_)) => heard += 1,
                    Err(RecvError::Timeout) => panic!("the friend is not heard"),
                    Err(_) => heard += 1,
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        for liar in liars {
            let (a, b) = liar.join().unwrap();
            (lives, lies) = (lives + a, lies + b);
        }
    });
    println!("{lies} lies of {lives} liars; {heard} of their messages were heard");
    assert!(lives > 4 && lies > 100);
}
