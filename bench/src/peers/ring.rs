//! The bare ring. It allocates what ours does: a selector and a message on each side.

use super::{Peer, names};
use crate::{
    bare::{
        ring::{self, Consumer, Producer},
        spin::look_away,
    },
    load::Pair,
    rows::pair::Job,
    shared::{RINGS, Shared},
};

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
pub fn received<T>(payload: T) -> T {
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
        received(self.from.pop(Pair::from_bytes))
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

/// The same ring, whose sides look away while they wait, and so do several messages at a time.
pub struct Batches(Ring);

impl Peer<Pair> for Batches {
    fn join(job: &Job, shared: &Shared, sends_first: bool) -> Self {
        Self(Ring::join(job, shared, sends_first))
    }

    #[inline]
    fn send(&mut self, payload: Pair) {
        let Pair { a, b } = std::hint::black_box(self.0.message(payload)).payload;
        while !self.0.to.try_push(&a.to_le_bytes(), &b.to_le_bytes()) {
            look_away();
        }
    }

    #[inline]
    fn recv(&mut self) -> Pair {
        while self.0.from.is_empty() {
            look_away();
        }
        received(self.0.from.pop(Pair::from_bytes))
    }
}
