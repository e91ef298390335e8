//! This crate, and ipmb 0.8.5: the same program on both.

use super::{Peer, SOON, TOKEN, names};
use crate::{rows::pair::Job, shared::Shared};
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
on_the_bus!(Old, ipmb_old, Duration::from_secs(2), "ipmb 0.8.5.");
