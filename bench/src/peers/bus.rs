//! This crate, and ipmb 0.8.5: the same program on both.

use super::{Peer, SOON, TOKEN, names};
use crate::{
    load::{self, Load},
    rows::pair::Job,
    shared::Shared,
};
use std::time::Duration;

macro_rules! on_the_bus {
    ($name:ident, $ipmb:ident, $ttl:expr, $doc:literal) => {
        #[doc = $doc]
        pub struct $name<T> {
            sender: $ipmb::EndpointSender<T>,
            receiver: $ipmb::EndpointReceiver<T>,
            there: &'static str,
        }

        impl<T: $ipmb::MessageBox> Peer<T> for $name<T> {
            fn join(job: &Job, _: &Shared, sends_first: bool) -> Self {
                let (here, there) = names(sends_first);
                let options = $ipmb::Options::new(&*job.bus, $ipmb::label!(here), TOKEN);
                let (sender, receiver) = $ipmb::join(options, SOON).expect("join");
                Self {
                    sender,
                    receiver,
                    there,
                }
            }

            #[inline]
            fn send(&mut self, payload: T) {
                let mut selector = $ipmb::Selector::unicast(self.there);
                selector.ttl = $ttl;
                let message = $ipmb::Message::new(selector, payload);
                self.sender.send(message).expect("send");
            }

            #[inline]
            fn recv(&mut self) -> T {
                self.receiver.recv(None).expect("recv").payload
            }
        }
    };
}

on_the_bus!(Ours, ipmb, Duration::ZERO, "This crate.");
// Its sender may not have noticed yet that the other side joined.
#[cfg(feature = "ipmb-old")]
on_the_bus!(Old, ipmb_old, Duration::from_secs(2), "ipmb 0.8.5.");

/// This crate, with payloads that are written and read in place.
pub struct Loans {
    sender: ipmb::EndpointSender<ipmb::BytesView>,
    receiver: ipmb::EndpointReceiver<ipmb::BytesView>,
    there: &'static str,
    size: usize,
}

/// A payload that lies in its sender's memory until it is checked.
pub struct Lent {
    number: u64,
    view: Option<ipmb::BytesView>,
}

impl Load for Lent {
    fn make(number: u64, _: usize) -> Self {
        Self { number, view: None }
    }

    fn check(&self, size: usize) -> u64 {
        let view = self.view.as_ref().expect("received");
        assert_eq!(view.len(), size);
        let mut number = None;
        let each = |bytes: &[u8]| match number {
            None => number = Some(load::number_of(bytes, bytes.len())),
            Some(number) => load::check_rest(bytes, number),
        };
        view.for_each_chunk(each).expect("no fork");
        number.expect("some bytes")
    }
}

impl Peer<Lent> for Loans {
    fn join(job: &Job, _: &Shared, sends_first: bool) -> Self {
        let (here, there) = names(sends_first);
        let options = ipmb::Options::new(&*job.bus, ipmb::label!(here), TOKEN);
        let (sender, receiver) = ipmb::join(options, SOON).expect("join");
        Self {
            sender,
            receiver,
            there,
            size: job.size,
        }
    }

    #[inline]
    fn send(&mut self, payload: Lent) {
        let selector = ipmb::Selector::unicast(self.there);
        let mut loan = self
            .sender
            .loan(&selector, self.size, None)
            .expect("a loan");
        loan.fill(payload.number as u8);
        loan[..8].copy_from_slice(&payload.number.to_le_bytes());
        loan.send(1).expect("send");
    }

    #[inline]
    fn recv(&mut self) -> Lent {
        Lent {
            number: 0,
            view: Some(self.receiver.recv(None).expect("recv").payload),
        }
    }
}
