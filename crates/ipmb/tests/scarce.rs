//! A receiver that has no memory for a message: it stays first in line, with all that came with it, until there is some.

#![allow(clippy::expect_used)]

mod common;

use common::{SOON, join, name};
use ipmb::{
    BytesMessage, BytesView, Encoder, EndpointReceiver, EndpointSender, Error, MemoryRegion,
    Message, MessageBox, Object, Options, Payload, RecvError, Resource, Selector, TypeUuid, label,
};
use std::{cell::Cell, io, sync::Arc, time::Duration};

thread_local! {
    /// So many of this thread's next messages find no memory.
    static SHORT: Cell<u32> = const { Cell::new(0) };
    /// There is none for messages of the format [`STUCK`].
    static IS_STUCK: Cell<bool> = const { Cell::new(false) };
}

const STUCK: u16 = 999;

fn shortage() -> Error {
    Error::Exhausted(
        Resource::Memory,
        Arc::new(io::ErrorKind::OutOfMemory.into()),
    )
}

/// Bytes, for which memory is short at times. It copies what it looks at before it finds out.
#[derive(Debug, PartialEq)]
struct Scarce(BytesMessage);

impl MessageBox for Scarce {
    fn uuid(&self) -> [u8; 16] {
        self.0.uuid()
    }

    fn accepts(uuid: &[u8; 16]) -> bool {
        BytesMessage::accepts(uuid)
    }

    fn encode<'a>(&'a self, encoder: &mut Encoder<'a>) -> Result<(), Error> {
        self.0.encode(encoder)
    }

    fn decode(uuid: &[u8; 16], payload: &mut Payload<'_>) -> Result<Self, Error> {
        payload.bytes()?;
        if let Some(left) = SHORT.get().checked_sub(1) {
            SHORT.set(left);
            return Err(shortage());
        }
        let bytes = BytesMessage::decode(uuid, payload)?;
        if bytes.format == STUCK && IS_STUCK.get() {
            return Err(shortage());
        }
        Ok(Self(bytes))
    }
}

fn bytes(format: u16, size: usize) -> Message<Scarce> {
    let data = vec![format as u8; size];
    let message = Scarce(BytesMessage { format, data });
    Message::new(Selector::unicast("here"), message)
}

/// Every size, every second with an object and a region.
fn nth(n: u16) -> Message<Scarce> {
    let size = [0, 1, 20, 300, 5_000, 200_000, 2 << 20][usize::from(n) % 7];
    let mut message = bytes(n, size);
    if n % 2 == 0 {
        let file = std::fs::File::open(common::ANY_FILE).expect("open");
        message.objects.push(Object::from(file));
        let mut region = MemoryRegion::new(100);
        region.map(..).expect("map").fill(n as u8);
        message.memory_regions.push(region);
    }
    message
}

/// Receives `nth` messages, for each of which memory is short some times.
fn receive(receiver: &EndpointReceiver<Scarce>, numbers: std::ops::Range<u16>) {
    for n in numbers {
        let times = u32::from(n % 4);
        let before = receiver.stats();
        SHORT.set(times);
        for _ in 0..times {
            let refused = receiver.recv(SOON).map(|m| m.payload.0.format);
            let kept = matches!(refused, Err(RecvError::Exhausted(Resource::Memory, _)));
            assert!(kept, "message {n}: {refused:?}");
        }
        assert_eq!(receiver.stats(), before);
        let mut message = receiver.recv(SOON).expect("there is memory");
        let mut sent = nth(n);
        assert!(message.payload == sent.payload, "message {n}");
        assert_eq!(message.objects.len(), sent.objects.len());
        assert_eq!(message.memory_regions.len(), sent.memory_regions.len());
        for (came, sent) in message
            .memory_regions
            .iter_mut()
            .zip(&mut sent.memory_regions)
        {
            assert_eq!(came.map(..).expect("map"), sent.map(..).expect("map"));
        }
        assert_eq!(receiver.stats().received, before.received + 1);
    }
}

fn send(sender: &EndpointSender<Scarce>, numbers: std::ops::Range<u16>) {
    for n in numbers {
        if sender
            .send_timeout(nth(n), Some(Duration::from_secs(5)))
            .is_err()
        {
            return;
        }
    }
}

#[test]
fn a_message_is_lost_for_which_there_is_no_memory() {
    let bus = name("scarce");
    let (_s, receiver) = join::<(), Scarce>(&bus, label!("here"));
    let (sender, _r) = join::<Scarce, ()>(&bus, label!("there"));
    std::thread::scope(|s| {
        s.spawn(|| send(&sender, 0..200));
        receive(&receiver, 0..200);
    });
    // Nothing of it is left behind.
    assert!(receiver.try_recv().is_err());
}

#[test]
fn a_message_to_oneself_is_lost_for_which_there_is_no_memory() {
    let limit = 4 << 20;
    let options = Options::new(name("own"), label!("here"), "").self_queue(limit);
    let (sender, receiver) = ipmb::join::<Scarce, Scarce>(options, SOON).expect("join");
    for n in (0..100).step_by(4) {
        send(&sender, n..n + 4);
        receive(&receiver, n..n + 4);
    }
    // All that waited is out of the count.
    sender.send(bytes(0, limit - 100)).expect("room");
}

#[test]
fn a_message_without_memory_holds_up_other_senders() {
    for is_own in [false, true] {
        let bus = name("others");
        let (own, receiver) = join::<Scarce, Scarce>(&bus, label!("here"));
        let (first, _r) = join::<Scarce, ()>(&bus, label!("there"));
        let (second, _r) = join::<Scarce, ()>(&bus, label!("elsewhere"));
        // Both links are there, and neither is looked at for a while.
        for sender in [&first, &second] {
            sender.send(bytes(0, 1)).expect("send");
            receiver.recv(SOON).expect("recv");
        }
        let stuck = if is_own { &own } else { &first };
        for size in [1, 5_000, 500_000] {
            receiver
                .recv(Some(Duration::from_millis(1)))
                .expect_err("nothing is there");
            stuck.send(bytes(STUCK, size)).expect("send");
            IS_STUCK.set(true);
            receiver.recv(SOON).expect_err("no memory");
            for n in 0..3 {
                second.send(bytes(n, 1)).expect("send");
            }
            let next = (0..20).filter_map(|_| receiver.recv(SOON).ok());
            let came: Vec<_> = next.map(|m| m.payload.0.format).collect();
            assert_eq!(came, [0, 1, 2], "stuck {size}, own {is_own}");
            IS_STUCK.set(false);
            assert_eq!(receiver.recv(SOON).expect("recv").payload.0.format, STUCK);
        }
    }
}

/// A view, beside which there is no memory for the rest.
struct ViewAndMore;

impl MessageBox for ViewAndMore {
    fn uuid(&self) -> [u8; 16] {
        BytesMessage::UUID
    }

    fn accepts(uuid: &[u8; 16]) -> bool {
        BytesMessage::accepts(uuid)
    }

    fn encode<'a>(&'a self, _: &mut Encoder<'a>) -> Result<(), Error> {
        Ok(())
    }

    fn decode(uuid: &[u8; 16], payload: &mut Payload<'_>) -> Result<Self, Error> {
        let view = BytesView::decode(uuid, payload)?;
        assert!(view.is_in_place());
        Err(shortage())
    }
}

#[test]
fn a_block_is_let_go_of_twice() {
    let bus = name("twice");
    let (_s, receiver) = join::<(), ViewAndMore>(&bus, label!("here"));
    let (sender, _r) = join::<Scarce, ()>(&bus, label!("there"));
    for n in 0..100 {
        sender.send(bytes(n, 200_000)).expect("send");
        let lost = receiver.recv(SOON).map(|_| ());
        assert!(matches!(lost, Err(RecvError::Decode(_))), "{lost:?}");
    }
}
