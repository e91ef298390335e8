//! What is measured: each way to get a message from one process to another, behind one trait.

use crate::{
    Job,
    ring::{self, Consumer, Producer},
    shared::{RINGS, Shared},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use type_uuid::TypeUuid;

const SOON: Option<Duration> = Some(Duration::from_secs(20));

/// The 16 bytes: a derived struct.
#[derive(Serialize, Deserialize, TypeUuid)]
#[uuid = "5c5cf1c1-7d41-4a1c-8a8f-2d9c7d0b7c11"]
pub struct Pair {
    a: u64,
    b: u64,
}

/// A payload that is written in full when made and read in full when checked.
pub trait Load: Sized {
    fn make(number: u64, size: usize) -> Self;
    /// The number it was made with; panics if anything else is wrong.
    fn check(&self, size: usize) -> u64;
}

/// Numbers below the highest that are varints of nine bytes: neither encoding is flattered by short ones.
const HIGH: u64 = 1 << 62;

impl Load for Pair {
    #[inline]
    fn make(number: u64, _: usize) -> Self {
        Self {
            a: number,
            b: !number & (HIGH - 1) | HIGH,
        }
    }

    #[inline]
    fn check(&self, _: usize) -> u64 {
        assert_eq!(self.b, !self.a & (HIGH - 1) | HIGH);
        self.a
    }
}

#[inline]
fn data(number: u64, size: usize) -> Vec<u8> {
    let mut data = vec![number as u8; size];
    data[..8].copy_from_slice(&number.to_le_bytes());
    data
}

/// Reads every byte.
#[inline]
fn number_of(data: &[u8], size: usize) -> u64 {
    assert_eq!(data.len(), size);
    let (head, rest) = data.split_at(8);
    let number = u64::from_le_bytes(head.try_into().expect("eight bytes"));
    let wrong = rest.iter().fold(0, |all, b| all | (b ^ number as u8));
    assert_eq!(wrong, 0);
    number
}

macro_rules! bytes_load {
    ($($bytes:path),*) => {$(
        impl Load for $bytes {
            #[inline]
            fn make(number: u64, size: usize) -> Self {
                Self { format: 1, data: data(number, size) }
            }

            #[inline]
            fn check(&self, size: usize) -> u64 {
                number_of(&self.data, size)
            }
        }
    )*};
}
bytes_load!(ipmb::BytesMessage, ipmb_old::BytesMessage);

/// One end of a two-way connection.
pub trait Peer<T> {
    /// `here` and `there` are the names of the two ends.
    fn join(job: &Job, shared: &Shared, sends_first: bool) -> Self;
    fn send(&mut self, payload: T);
    fn recv(&mut self) -> T;
}

fn names(sends_first: bool) -> (&'static str, &'static str) {
    if sends_first { ("a", "b") } else { ("b", "a") }
}

/// This crate.
pub struct Ours<T> {
    sender: ipmb::EndpointSender<T>,
    receiver: ipmb::EndpointReceiver<T>,
    there: &'static str,
}

impl<T: ipmb::MessageBox> Peer<T> for Ours<T> {
    fn join(job: &Job, _: &Shared, sends_first: bool) -> Self {
        let (here, there) = names(sends_first);
        let options = ipmb::Options::new(&*job.bus, ipmb::label!(here), "bench");
        let (sender, receiver) = ipmb::join(options, SOON).expect("join");
        Self {
            sender,
            receiver,
            there,
        }
    }

    #[inline]
    fn send(&mut self, payload: T) {
        let selector = ipmb::Selector::unicast(self.there);
        let message = ipmb::Message::new(selector, payload);
        self.sender.send(message).expect("send");
    }

    #[inline]
    fn recv(&mut self) -> T {
        self.receiver.recv(None).expect("recv").payload
    }
}

/// ipmb 0.8.5.
pub struct Old<T> {
    sender: ipmb_old::EndpointSender<T>,
    receiver: ipmb_old::EndpointReceiver<T>,
    there: &'static str,
}

impl<T: ipmb_old::MessageBox> Peer<T> for Old<T> {
    fn join(job: &Job, _: &Shared, sends_first: bool) -> Self {
        let (here, there) = names(sends_first);
        let options = ipmb_old::Options::new(&*job.bus, ipmb_old::label!(here), "bench");
        let (sender, receiver) = ipmb_old::join(options, SOON).expect("join");
        Self {
            sender,
            receiver,
            there,
        }
    }

    #[inline]
    fn send(&mut self, payload: T) {
        let mut selector = ipmb_old::Selector::unicast(self.there);
        // It may not have noticed yet that the other side joined.
        selector.ttl = Duration::from_secs(2);
        let message = ipmb_old::Message::new(selector, payload);
        self.sender.send(message).expect("send");
    }

    #[inline]
    fn recv(&mut self) -> T {
        self.receiver.recv(None).expect("recv").payload
    }
}

/// The bare ring. It allocates what ours does: a selector and a message on each side.
pub struct Ring {
    there: &'static str,
    to: Producer,
    from: Consumer,
}

impl Ring {
    fn join(job: &Job, shared: &Shared, sends_first: bool) -> Self {
        let (first, second) = (RINGS, RINGS + ring::bytes(job.ring));
        let (to, from) = if sends_first {
            (first, second)
        } else {
            (second, first)
        };
        Self {
            there: names(sends_first).1,
            to: Producer::new(shared, to, job.ring),
            from: Consumer::new(shared, from, job.ring),
        }
    }

    #[inline]
    fn message<T>(&self, payload: T) -> ipmb::Message<T> {
        ipmb::Message::new(ipmb::Selector::unicast(self.there), payload)
    }
}

/// The message as a user gets it; the compiler must not see that only the payload is used.
#[inline]
fn received<T>(payload: T) -> T {
    let selector = ipmb::Selector::unicast(ipmb::LabelOp::True);
    std::hint::black_box(ipmb::Message::new(selector, payload)).payload
}

impl Peer<Pair> for Ring {
    fn join(job: &Job, shared: &Shared, sends_first: bool) -> Self {
        Self::join(job, shared, sends_first)
    }

    #[inline]
    fn send(&mut self, payload: Pair) {
        let message = std::hint::black_box(self.message(payload));
        let Pair { a, b } = message.payload;
        self.to.push(&a.to_le_bytes(), &b.to_le_bytes());
    }

    #[inline]
    fn recv(&mut self) -> Pair {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("a word"));
        let pair = self.from.pop(|bytes| Pair {
            a: word(&bytes[..8]),
            b: word(&bytes[8..]),
        });
        received(pair)
    }
}

impl Peer<ipmb::BytesMessage> for Ring {
    fn join(job: &Job, shared: &Shared, sends_first: bool) -> Self {
        Self::join(job, shared, sends_first)
    }

    #[inline]
    fn send(&mut self, payload: ipmb::BytesMessage) {
        let message = std::hint::black_box(self.message(payload));
        let format = message.payload.format.to_le_bytes();
        self.to.push(&format, &message.payload.data);
    }

    #[inline]
    fn recv(&mut self) -> ipmb::BytesMessage {
        received(self.from.pop(|bytes| ipmb::BytesMessage {
            format: u16::from_le_bytes([bytes[0], bytes[1]]),
            data: bytes[2..].to_vec(),
        }))
    }
}

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
