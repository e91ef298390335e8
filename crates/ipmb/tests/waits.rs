//! A `send` that waits: whatever it waits for, it sleeps. And a `recv` that waits beside others.

#![allow(clippy::expect_used)]

mod common;

use common::{SOON, cpu, name};
use ipmb::{
    BytesMessage, EndpointReceiver, EndpointSender, MemoryRegion, Message, Options, RecvError,
    Selector, SendError, label,
};
use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

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
    assert!(busy < Duration::from_millis(300), "busy for {busy:?}");
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

/// A sender with a message of a size that its receiver left behind, the heir whose link was filled with so many others, and somebody
/// else.
fn left_behind(
    test: &str,
    size: usize,
    fill: impl Fn(&Sender) -> usize,
) -> ([(Sender, Receiver); 3], usize) {
    let bus = name(test);
    let first = join(&bus, "heirs");
    let options = Options::new(bus.as_str(), label!("heirs", "far"), "token");
    let far = ipmb::join::<BytesMessage, BytesMessage>(options, SOON).expect("join");
    let (near, other) = (join(&bus, "near"), join(&bus, "other"));
    for (to, receiver) in [("heirs", &first.1), ("far", &far.1), ("other", &other.1)] {
        near.0.send(message(to, 1)).expect("first contact");
        receiver.recv(SOON).expect("first contact");
    }
    let count = fill(&near.0);
    near.0.send(message("heirs", size)).expect("to the first");
    ([near, far, other], count)
}

/// Of a large message that its receiver left behind, the block is there and the place in the ring is not.
#[test]
fn a_large_message_that_waits_for_a_full_ring_stops_its_endpoint() {
    let ([(sender, _r), (_s, far), (_t, other)], count) =
        left_behind("heir", LARGE, |s| fill(s, "far"));
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

/// What waited for a receiver was sent after what lies in its link.
#[test]
fn what_a_second_dead_receiver_leaves_comes_after_later_messages() {
    const COUNT: u16 = 40;
    let bus = name("second-heir");
    let first = join(&bus, "heirs");
    let options = |labels| Options::new(bus.as_str(), labels, "token").link_capacity(CAPACITY);
    let second = ipmb::join::<BytesMessage, BytesMessage>(options(label!("heirs", "far")), SOON);
    let second = second.expect("join");
    let (_s, third) = join(&bus, "heirs");
    let (sender, _r) = join(&bus, "near");
    for to in ["heirs", "far"] {
        sender.send(message(to, 1)).expect("first contact");
    }
    first.1.recv(SOON).expect("first contact");
    second.1.recv(SOON).expect("first contact");
    for format in 0..COUNT {
        let data = vec![7; SMALL];
        let message = Message::new(Selector::unicast("heirs"), BytesMessage { format, data });
        sender.send(message).expect("to the first");
    }
    fill(&sender, "far");
    for _ in 0..COUNT / 2 {
        second.1.recv(SOON).expect("room for some");
    }
    drop(first);
    let start = Instant::now();
    while sender.stats().rerouted < u64::from(COUNT / 2) - 2 {
        assert!(start.elapsed() < Duration::from_secs(30), "none goes on");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(
        sender.stats().rerouted < u64::from(COUNT),
        "some have to wait"
    );
    drop(second);
    for n in 0..COUNT {
        assert_eq!(third.recv(SOON).expect("recv").payload.format, n);
    }
}

#[test]
fn a_send_that_waits_is_not_told_that_its_endpoint_left() {
    let ((sender, _r), (_s, _far)) = met(&name("left"));
    fill(&sender, "far");
    std::thread::scope(|s| {
        let send = s.spawn(|| sender.send(message("far", SMALL)));
        std::thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        sender.leave(SOON).expect("leave");
        let error = send.join().expect("no panic").expect_err("no room");
        assert!(matches!(error, SendError::Left), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(3));
    });
}

/// Of a multicast, one has no space for long, and another for a moment.
#[test]
fn a_frozen_receiver_of_a_multicast_keeps_the_message_from_another() {
    let bus = name("others");
    let options = |labels| Options::new(bus.as_str(), labels, "token").link_capacity(CAPACITY);
    let join = |labels| ipmb::join::<BytesMessage, BytesMessage>(options(labels), SOON);
    let (_s, frozen) = join(label!("all", "frozen")).expect("join");
    let (_s, busy) = join(label!("all", "busy")).expect("join");
    let (sender, _r) = join(label!("near")).expect("join");
    for (to, receiver) in [("frozen", &frozen), ("busy", &busy)] {
        sender.send(message(to, 1)).expect("first contact");
        receiver.recv(SOON).expect("first contact");
        fill(&sender, to);
    }
    std::thread::scope(|s| {
        let data = vec![7; LARGE];
        let message = Message::new(Selector::multicast("all"), BytesMessage { format: 1, data });
        let send = s.spawn(|| sender.send_timeout(message, Some(Duration::from_secs(20))));
        // Until it sleeps.
        std::thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        while busy.recv(SOON).expect("recv").payload.format == 0 {}
        assert!(start.elapsed() < Duration::from_secs(3), "it waits");
        while frozen.recv(SOON).expect("recv").payload.format == 0 {}
        send.join().expect("no panic").expect("to all");
    });
}

/// A large message that waits is copied when there is a place for it, and not for every message that is sent meanwhile.
#[test]
fn a_large_message_that_waits_is_copied_again_and_again() {
    const HUGE: usize = 32 << 20;
    const COUNT: u32 = 100;
    let full_rings = left_behind("copied", HUGE, |s| fill(s, "far"));
    // There is a place in the ring, but the block's memory is one handle too many.
    let many_handles = left_behind("copied", HUGE, |s| fill_with(s, || with_region("far")));
    for ([(sender, _r), (_s, _far), (_t, other)], _) in [full_rings, many_handles] {
        // Until it waits.
        std::thread::sleep(Duration::from_millis(300));
        let before = cpu();
        for _ in 0..COUNT {
            sender.send(message("other", 1)).expect("it goes on");
            other.recv(SOON).expect("it goes on");
        }
        let each = (cpu() - before) / COUNT;
        assert!(each < Duration::from_millis(2), "{each:?} each");
    }
}

/// Whoever takes a message keeps its link awake, so that its sender rings for no other: not for the one that sleeps, either.
#[test]
fn a_thread_that_waits_sleeps_through_what_one_that_only_tries_has_left() {
    for polled in [false, true] {
        let bus = name("tries");
        let options = Options::new(bus.as_str(), label!("far"), "token").spin(Duration::ZERO);
        let (_s, far) = ipmb::join::<(), BytesMessage>(options, SOON).expect("join");
        let (sender, _r) = join(&bus, "near");
        if polled {
            assert!(common::is_ready(&far, Duration::from_secs(1)));
        }
        for round in 0..300 {
            std::thread::scope(|s| {
                let (said, heard) = mpsc::channel();
                let (stop, stopped) = mpsc::channel::<()>();
                let (far, also) = (&far, said.clone());
                let waits = s.spawn(move || {
                    let got = far.recv(Some(Duration::from_secs(10)));
                    let _ = also.send(());
                    got
                });
                s.spawn(move || {
                    let goes_on = || stopped.try_recv() == Err(mpsc::TryRecvError::Empty);
                    while far.try_recv().is_err() && goes_on() {}
                    let _ = said.send(());
                });
                // Until one sleeps and the other tries.
                std::thread::sleep(Duration::from_micros(300));
                sender.send(message("far", 1)).expect("the first");
                heard.recv().expect("no panic");
                sender.send(message("far", 2)).expect("the second");
                let start = Instant::now();
                waits.join().expect("no panic").expect("one of them");
                drop(stop);
                let late = start.elapsed() > Duration::from_secs(5);
                assert!(!late, "polled {polled}, round {round}");
            });
            while far.try_recv().is_ok() {}
        }
    }
}

/// The same of one that waits in an event loop, and of one that waits in `recv`.
#[test]
fn an_event_loop_sleeps_through_what_a_thread_that_waits_has_left() {
    let bus = name("loop");
    let (_s, far) = join(&bus, "far");
    let (sender, _r) = join(&bus, "near");
    let ready = |time| common::is_ready(&far, Duration::from_millis(time));
    while ready(0) {
        assert!(matches!(far.try_recv(), Err(RecvError::Empty)));
    }
    for size in 1..3 {
        sender.send(message("far", size)).expect("send");
        // It gets the first; the second comes when nobody waits there.
        if size == 1 {
            assert_eq!(far.recv(SOON).expect("recv").payload.data.len(), 1);
        }
    }
    assert!(ready(10_000));
    assert_eq!(far.try_recv().expect("recv").payload.data.len(), 2);
}
