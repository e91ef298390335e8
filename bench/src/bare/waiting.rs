//! How the bare rings wait where more processes take part than there are cores: for as long as the product does. The waiting side
//! spins for a time that adapts, up to 150 µs and longer beside large messages, then says that it sleeps, fences all cores, looks once more and sleeps; the
//! other side wakes it once. It neither gives way nor naps, which the product's senders do where others want their core: here that gains nothing (see P8
//! in NOTES.md).

use super::ring::{Consumer, Producer};
use std::{
    sync::atomic::{AtomicU32, Ordering, compiler_fence},
    time::{Duration, Instant},
};

const LONGEST: Duration = Duration::from_micros(150);
/// How much longer beside a large message, at most; a nanosecond per byte.
const LONGER: Duration = Duration::from_micros(850);
/// How many times as much longer a producer waits beside a large one.
const FOR_SPACE: u32 = 4;
const SHORTEST: Duration = Duration::from_micros(2);

fn membarrier(command: i32) {
    // SAFETY: takes no memory.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    assert_eq!(done, 0, "membarrier");
}

/// Lets other processes' fences reach this one. To be called before the first ring.
pub fn register() {
    membarrier(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED);
}

/// The side that waits.
pub struct Sleeper {
    word: &'static AtomicU32,
    budget: Duration,
    longest: Duration,
}

impl Sleeper {
    pub fn new(word: &'static AtomicU32) -> Self {
        Self {
            word,
            budget: LONGEST,
            longest: LONGEST,
        }
    }

    /// Beside messages of so many bytes.
    pub fn beside(self, bytes: usize) -> Self {
        self.longer(bytes, 1)
    }

    /// For space for messages of so many bytes.
    pub fn for_space(self, bytes: usize) -> Self {
        self.longer(bytes, FOR_SPACE)
    }

    fn longer(mut self, bytes: usize, times: u32) -> Self {
        let longer = Duration::from_nanos(bytes as u64).min(LONGER);
        self.longest = LONGEST + longer * if longer > LONGEST { times } else { 1 };
        self.budget = self.longest;
        self
    }

    /// Waits until `ready`.
    #[cold]
    pub fn wait(&mut self, mut ready: impl FnMut() -> bool) {
        let start = Instant::now();
        loop {
            for _ in 0..32 {
                if ready() {
                    self.budget = (self.budget * 2).min(self.longest);
                    return;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= self.budget {
                break;
            }
        }
        self.budget = (self.budget / 2).max(SHORTEST);
        loop {
            self.word.store(1, Ordering::Relaxed);
            membarrier(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED);
            if ready() {
                self.word.store(0, Ordering::Relaxed);
                return;
            }
            let none = std::ptr::null::<libc::timespec>();
            let word = self.word.as_ptr();
            // SAFETY: a word of a mapping that stays; no timeout.
            unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, 1, none) };
        }
    }
}

/// Wakes the side that waits, if it sleeps. To be called after something was published.
#[inline]
pub fn ring(word: &AtomicU32) {
    // The sleeper fences this core before it looks for the last time.
    compiler_fence(Ordering::SeqCst);
    if word.load(Ordering::Relaxed) == 1 && word.swap(0, Ordering::Relaxed) == 1 {
        // SAFETY: a word of a mapping that stays.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
    }
}

/// A ring's producer that sleeps while it is full.
pub struct Sending {
    pub ring: Producer,
    /// The consumer sleeps on this one.
    pub bell: &'static AtomicU32,
    pub space: Sleeper,
}

impl Sending {
    /// False if there is no room.
    #[inline]
    pub fn try_push(&mut self, first: &[u8], second: &[u8]) -> bool {
        let done = self.ring.try_push(first, second);
        if done {
            ring(self.bell);
        }
        done
    }

    #[cold]
    pub fn wait(&mut self) {
        let ring = &self.ring;
        self.space.wait(|| ring.has_moved());
    }
}

/// A ring's consumer; its producer sleeps on `space` while it is full.
pub struct Receiving {
    pub ring: Consumer,
    pub space: &'static AtomicU32,
}

impl Receiving {
    #[inline]
    pub fn try_pop<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
        if self.ring.is_empty() {
            return None;
        }
        let taken = self.ring.pop(take);
        ring(self.space);
        Some(taken)
    }
}
