//! A `send` that waits: whatever it waits for, it sleeps.

#![allow(clippy::expect_used)]

mod common;

use common::{SOON, cpu, name};
use ipmb::{
    BytesMessage, EndpointReceiver, EndpointSender, MemoryRegion, Message, Options, Selector,
    SendError, label,
};
use std::time::Duration;

type Sender = EndpointSender<BytesMessage>;
type Receiver = EndpointReceiver<BytesMessage>;

/// The smallest ring, and payloads that go into it and into a block.
const CAPACITY: usize = 64 << 10;
const SMALL: usize = 1000;
const LARGE: usize = 20_000;

fn join(bus: &str, label: &str) -> (Sender, Receiver) {
    let options = Options::new(bus, label!(label), "token").link_capacity(CAPACITY);
    ipmb::join(options, SOON).expect("join")
}

fn message(to: &str, size: usize) -> Message<BytesMessage> {
    let data = vec![7; size];
    Message::new(Selector::unicast(to), BytesMessage { format: 0, data })
}

/// With a region: handles travel with it.
fn with_region(to: &str) -> Message<BytesMessage> {
    let mut message = message(to, 1);
    message.memory_regions.push(MemoryRegion::new(1));
    message
}

/// Sends until the link has no room for the smallest message, and says how many went into it.
fn fill(sender: &Sender, to: &str) -> usize {
    let count = fill_with(sender, || message(to, SMALL));
    count + fill_with(sender, || message(to, 1))
}

fn fill_with(sender: &Sender, message: impl Fn() -> Message<BytesMessage>) -> usize {
    for n in 0.. {
        if let Err(refused) = sender.try_send(message()) {
            assert!(matches!(refused.kind(), SendError::Full(_)), "{refused:?}");
            return n;
        }
    }
    unreachable!()
}

/// Sends what has to wait beyond its time, and sees that this takes no time of the processor.
fn sleeps(sender: &Sender, message: Message<BytesMessage>) {
    let before = cpu();
    let refused = sender
        .send_timeout(message, Some(Duration::from_millis(1500)))
        .expect_err("there is no room");
    assert!(matches!(refused.kind(), SendError::Timeout), "{refused:?}");
    let busy = cpu() - before;
    assert!(busy < Duration::from_millis(750), "busy for {busy:?}");
}

/// Two endpoints, of which the second has taken one message and takes no more.
fn met(bus: &str) -> ((Sender, Receiver), (Sender, Receiver)) {
    let (ours, far) = (join(bus, "near"), join(bus, "far"));
    ours.0.send(message("far", 1)).expect("first contact");
    far.1.recv(SOON).expect("first contact");
    (ours, far)
}

#[test]
fn who_waits_behind_handles_under_way_is_busy() {
    let ((sender, _r), (_s, far)) = met(&name("handles"));
    let count = fill_with(&sender, || with_region("far"));
    sleeps(&sender, with_region("far"));
    for _ in 0..count {
        far.recv(SOON).expect("what was sent before");
    }
    sender.send(with_region("far")).expect("room again");
    assert_eq!(far.recv(SOON).expect("it").memory_regions.len(), 1);
}

#[test]
fn who_needs_a_block_and_finds_the_ring_full_is_busy() {
    let ((sender, _r), (_s, far)) = met(&name("ring"));
    let count = fill(&sender, "far");
    sleeps(&sender, message("far", LARGE));
    std::thread::scope(|s| {
        let send = s.spawn(|| sender.send(message("far", LARGE)));
        for _ in 0..count {
            let small = far.recv(SOON).expect("what was sent before");
            assert!(small.payload.data.len() <= SMALL);
        }
        send.join().expect("no panic").expect("room again");
    });
    assert_eq!(far.recv(SOON).expect("it").payload.data.len(), LARGE);
}

#[test]
fn who_waits_behind_messages_that_wait_is_busy() {
    let bus = name("queue");
    let (sender, _r) = join(&bus, "near");
    let count = 2 * CAPACITY / SMALL;
    for _ in 0..count {
        let mut selector = Selector::unicast("far");
        selector.ttl = Duration::from_secs(600);
        let data = vec![7; SMALL];
        let parked = Message::new(selector, BytesMessage { format: 0, data });
        sender.send(parked).expect("parked");
    }
    let (_s, far) = join(&bus, "far");
    far.recv(SOON).expect("the first");
    sleeps(&sender, message("far", 1));
    for _ in 1..count {
        far.recv(SOON).expect("what was sent before");
    }
    sender.send(message("far", 1)).expect("room again");
    assert_eq!(far.recv(SOON).expect("it").payload.data.len(), 1);
}

/// Of a large message that its receiver left behind, the block is there and the place in the ring is not.
#[test]
fn a_large_message_that_waits_for_a_full_ring_stops_its_endpoint() {
    let bus = name("heir");
    let first = join(&bus, "heirs");
    let options = Options::new(bus.as_str(), label!("heirs", "far"), "token");
    let (_s, far) = ipmb::join::<BytesMessage, BytesMessage>(options, SOON).expect("join");
    let (sender, _r) = join(&bus, "near");
    let (_s, other) = join(&bus, "other");
    for to in ["heirs", "far", "other"] {
        sender.send(message(to, 1)).expect("first contact");
    }
    first.1.recv(SOON).expect("first contact");
    far.recv(SOON).expect("first contact");
    other.recv(SOON).expect("first contact");
    let count = fill(&sender, "far");
    sender.send(message("heirs", LARGE)).expect("to the first");
    drop(first);
    // To itself, to others, and statistics: all of it needs what the message would hold.
    for _ in 0..200 {
        sender.send(message("other", 1)).expect("it goes on");
        other.recv(SOON).expect("it goes on");
        std::thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..count {
        assert!(far.recv(SOON).expect("small").payload.data.len() <= SMALL);
    }
    assert_eq!(far.recv(SOON).expect("large").payload.data.len(), LARGE);
}
