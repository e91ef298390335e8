//! Bare wake-ups: a number is passed and the other side woken.

use super::Peer;
use crate::{
    load::{Load, Pair},
    rows::pair::Job,
    shared::Shared,
};

/// The bare futex: the number is the payload.
pub struct Futex {
    ask: *const u32,
    wait: *const u32,
    seen: u32,
}

/// The bare eventfd: the number is the payload.
pub struct EventFd {
    to: i32,
    from: i32,
}

impl Peer<Pair> for Futex {
    fn join(_: &Job, shared: &Shared, sends_first: bool) -> Self {
        let control = shared.control();
        let (ask, wait) = (control.ask.as_ptr(), control.answer.as_ptr());
        let (ask, wait) = if sends_first {
            (ask, wait)
        } else {
            (wait, ask)
        };
        let seen = 0;
        Self { ask, wait, seen }
    }

    fn send(&mut self, payload: Pair) {
        // SAFETY: the word lies in the mapping, which stays.
        unsafe {
            let word = std::sync::atomic::AtomicU32::from_ptr(self.ask.cast_mut());
            word.store(payload.a as u32 + 1, std::sync::atomic::Ordering::Release);
            libc::syscall(libc::SYS_futex, self.ask, libc::FUTEX_WAKE, 1);
        }
    }

    fn recv(&mut self) -> Pair {
        loop {
            // SAFETY: the word lies in the mapping, which stays.
            let now = unsafe {
                let word = std::sync::atomic::AtomicU32::from_ptr(self.wait.cast_mut());
                word.load(std::sync::atomic::Ordering::Acquire)
            };
            if now != self.seen {
                self.seen = now;
                return Pair::make(u64::from(now - 1), 16);
            }
            let none = std::ptr::null::<libc::timespec>();
            // SAFETY: as above; no timeout.
            unsafe { libc::syscall(libc::SYS_futex, self.wait, libc::FUTEX_WAIT, now, none) };
        }
    }
}

impl Peer<Pair> for EventFd {
    fn join(job: &Job, _: &Shared, sends_first: bool) -> Self {
        let [first, second] = job.events;
        let (to, from) = if sends_first {
            (first, second)
        } else {
            (second, first)
        };
        Self { to, from }
    }

    fn send(&mut self, payload: Pair) {
        let value = payload.a + 1;
        // SAFETY: eight bytes to an eventfd.
        let n = unsafe { libc::write(self.to, (&raw const value).cast(), 8) };
        assert_eq!(n, 8);
    }

    fn recv(&mut self) -> Pair {
        let mut value = 0u64;
        // SAFETY: eight bytes from an eventfd.
        let n = unsafe { libc::read(self.from, (&raw mut value).cast(), 8) };
        assert_eq!(n, 8);
        Pair::make(value - 1, 16)
    }
}
