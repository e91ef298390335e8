//! iceoryx2: publish and subscribe, nothing dropped, the subscriber polls without a pause.

use super::Peer;
use crate::{
    load::{Load, Pair},
    rows::pair::Job,
    shared::Shared,
};
use iceoryx2::{
    node::Node,
    port::{publisher::Publisher, subscriber::Subscriber},
    prelude::*,
};

/// Typed samples.
pub struct Samples {
    publisher: Publisher<ipc::Service, Pair, ()>,
    subscriber: Subscriber<ipc::Service, Pair, ()>,
    _node: Node<ipc::Service>,
}

/// Slices of bytes: written in place, and read in place.
pub struct Slices {
    publisher: Publisher<ipc::Service, [u8], ()>,
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    size: usize,
    _node: Node<ipc::Service>,
}

/// A payload that lies in the publisher's memory until it is checked.
pub struct InPlace {
    number: u64,
    sample: Option<iceoryx2::sample::Sample<ipc::Service, [u8], ()>>,
}

impl Load for InPlace {
    fn make(number: u64, _: usize) -> Self {
        Self {
            number,
            sample: None,
        }
    }

    fn check(&self, size: usize) -> u64 {
        let sample = self.sample.as_ref().expect("received");
        crate::load::number_of(sample.payload(), size)
    }
}

/// Samples that may lie unread: as many bytes as the bare ring holds, within reason.
fn depth(job: &Job) -> usize {
    (job.ring / job.size).clamp(4, 4096)
}

/// Both sides make both services; each is there once its peer is.
macro_rules! ports {
    ($job:expr, $sends_first:expr, $payload:ty $(, $setting:ident($value:expr))?) => {{
        set_log_level(LogLevel::Error);
        let node = NodeBuilder::new()
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<ipc::Service>()
            .expect("node");
        let service = |direction: &str| {
            let name = format!("{}/{direction}", $job.bus);
            node.service_builder(&name.as_str().try_into().expect("name"))
                .publish_subscribe::<$payload>()
                .enable_safe_overflow(false)
                .subscriber_max_buffer_size(depth($job))
                .max_publishers(1)
                .max_subscribers(1)
                .open_or_create()
                .expect("service")
        };
        let (there, back) = (service("there"), service("back"));
        let (to, from) = if $sends_first {
            (&there, &back)
        } else {
            (&back, &there)
        };
        let publisher = to
            .publisher_builder()
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered);
        $(let publisher = publisher.$setting($value);)?
        let publisher = publisher.create().expect("publisher");
        let subscriber = from.subscriber_builder().create().expect("subscriber");
        (node, publisher, subscriber)
    }};
}

impl Peer<Pair> for Samples {
    fn join(job: &Job, _: &Shared, sends_first: bool) -> Self {
        let (node, publisher, subscriber) = ports!(job, sends_first, Pair);
        Self {
            publisher,
            subscriber,
            _node: node,
        }
    }

    #[inline]
    fn send(&mut self, payload: Pair) {
        let sample = self.publisher.loan_uninit().expect("loan");
        sample.write_payload(payload).send().expect("send");
    }

    #[inline]
    fn recv(&mut self) -> Pair {
        loop {
            if let Some(sample) = self.subscriber.receive().expect("receive") {
                return *sample;
            }
            std::hint::spin_loop();
        }
    }
}

impl Peer<InPlace> for Slices {
    fn join(job: &Job, _: &Shared, sends_first: bool) -> Self {
        let (node, publisher, subscriber) =
            ports!(job, sends_first, [u8], initial_max_slice_len(job.size));
        Self {
            publisher,
            subscriber,
            size: job.size,
            _node: node,
        }
    }

    #[inline]
    fn send(&mut self, payload: InPlace) {
        let mut sample = self.publisher.loan_slice_uninit(self.size).expect("loan");
        let bytes = sample.payload_mut();
        bytes.fill(std::mem::MaybeUninit::new(payload.number as u8));
        for (to, from) in bytes.iter_mut().zip(payload.number.to_le_bytes()) {
            to.write(from);
        }
        // SAFETY: all bytes were written.
        let sample = unsafe { sample.assume_init() };
        sample.send().expect("send");
    }

    #[inline]
    fn recv(&mut self) -> InPlace {
        loop {
            if let Some(sample) = self.subscriber.receive().expect("receive") {
                return InPlace {
                    number: 0,
                    sample: Some(sample),
                };
            }
            std::hint::spin_loop();
        }
    }
}
