//! What becomes of messages that their receiver did not take: handed on, handed over, counted lost; and how much one link carries.

#![allow(clippy::expect_used)]

mod common;

use common::{Peer, SOON, alone, descriptors, join, listen, name, role, say, stream};
use ipmb::{
    BytesMessage, LabelOp, MemoryRegion, Message, Object, RecvError, Selector, SendError, label,
};
use std::{
    io::Read,
    time::{Duration, Instant},
};

/// What the other processes of these tests do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    match role.as_str() {
        "host" => {
            let _endpoint = join::<(), ()>(&bus, label!("host"));
            say("joined");
            while listen().is_some() {}
        }
        // Receives nothing, ever.
        "lazy" => {
            let _endpoint = join::<(), u64>(&bus, label!("to"));
            say("joined");
            while listen().is_some() {}
        }
        // Says the length and the sum of each payload.
        "sums" => {
            let (_sender, receiver) = join::<(), BytesMessage>(&bus, label!("to"));
            say("joined");
            while let Ok(message) = receiver.recv(Some(Duration::from_secs(60))) {
                let data = message.payload.data;
                say(&format!("{} {}", data.len(), sum(&data)));
            }
        }
        // Receives when told to, and says what.
        "told" => {
            let (bus, part) = bus.split_once(' ').expect("bus and part of the label");
            let (_sender, receiver) = join::<(), BytesMessage>(bus, label!("to", part));
            say("joined");
            while listen().is_some() {
                let message = receiver.recv(SOON).expect("recv");
                say(&message.payload.format.to_string());
            }
        }
        // Parks many messages and leaves in good order.
        "parks" => {
            let (sender, receiver) = join::<u64, ()>(&bus, label!("leaver"));
            for n in 0..2_000 {
                sender
                    .send(Message::new(parked("late"), n))
                    .expect("parked");
            }
            // A drop would wait for a second at most.
            sender.leave(None).expect("leave");
            drop(receiver);
            say("left");
        }
        other => panic!("unknown role {other}"),
    }
}

/// A sum over bytes of every page and both ends: the largest payload has a gigabyte.
fn sum(data: &[u8]) -> u64 {
    let ends = data.iter().take(64).chain(data.iter().rev().take(64));
    let pages = data.iter().step_by(509);
    ends.chain(pages).map(|b| u64::from(*b)).sum()
}

fn parked(label: &str) -> Selector {
    let mut selector = Selector::unicast(label);
    selector.ttl = Duration::from_secs(60);
    selector
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn parked_messages_are_lost_when_many_are_handed_over() {
    let bus = name("many");
    let _controller = join::<(), ()>(&bus, label!("controller"));
    let mut leaver = Peer::start("peer", "parks", &bus);
    leaver.expect("left");
    leaver.wait();
    let (_s, late) = join::<(), u64>(&bus, label!("late"));
    for n in 0..2_000 {
        assert_eq!(late.recv(SOON).expect("handed over").payload, n);
    }
}

#[test]
fn a_leaver_leaves_more_behind_than_its_share() {
    let bus = name("share");
    let _controller = join::<(), ()>(&bus, label!("controller"));
    let (sender, receiver) = join::<BytesMessage, ()>(&bus, label!("leaver"));
    for format in 0..70 {
        let data = vec![format as u8; 1 << 20];
        let message = Message::new(parked("late"), BytesMessage { format, data });
        sender.send(message).expect("parked");
    }
    sender.leave(SOON).expect("leave");
    drop(receiver);
    // The payload's own header takes the place of the last of 64.
    let (_s, late) = join::<(), BytesMessage>(&bus, label!("late"));
    for format in 0..63 {
        let arrived = late.recv(SOON).map(|m| m.payload.format);
        assert_eq!(arrived.ok(), Some(format));
    }
    let more = late.recv(Some(Duration::from_millis(200)));
    assert!(matches!(more, Err(RecvError::Timeout)), "{more:?}");
    assert_eq!(sender.stats().lost, 7);
}

/// Of what a leaver may leave behind, each message takes its part or none.
#[test]
fn a_parked_message_that_is_too_much_takes_others_with_it() {
    let bus = name("much");
    let _controller = join::<(), ()>(&bus, label!("controller"));
    let (sender, receiver) = join::<BytesMessage, ()>(&bus, label!("leaver"));
    let park = |format, size, objects| {
        let data = vec![0; size];
        let mut message = Message::new(parked("late"), BytesMessage { format, data });
        message.objects = (0..objects).map(|_| object()).collect();
        sender.send(message).expect("parked");
    };
    park(0, 65 << 20, 0);
    park(1, 0, 65);
    for format in 2..10 {
        park(format, 0, 10);
    }
    park(10, 10, 4);
    park(11, 10, 1);
    park(12, 10, 0);
    sender.leave(SOON).expect("leave");
    drop(receiver);
    // Six times ten handles, then four, are all that it may leave behind.
    let (_s, late) = join::<(), BytesMessage>(&bus, label!("late"));
    for (format, objects) in (2..8).map(|f| (f, 10)).chain([(10, 4), (12, 0)]) {
        let arrived = late.recv(SOON).expect("handed over");
        assert_eq!(
            (arrived.payload.format, arrived.objects.len()),
            (format, objects)
        );
    }
    assert!(matches!(late.try_recv(), Err(RecvError::Empty)));
    assert_eq!(sender.stats().lost, 5);
}

#[test]
fn a_parked_message_with_a_long_selector_is_lost_on_the_way() {
    let bus = name("long");
    let _controller = join::<(), ()>(&bus, label!("controller"));
    let (sender, receiver) = join::<u64, ()>(&bus, label!("leaver"));
    // As long as its limits let it be.
    let leaf = |n: u32| LabelOp::from(format!("{n:0>256}"));
    let mut leaves: Vec<LabelOp> = (0..511).map(leaf).chain([LabelOp::from("late")]).collect();
    while leaves.len() > 1 {
        let pairs = leaves
            .chunks(2)
            .map(|pair| pair[0].clone().or(pair[1].clone()));
        leaves = pairs.collect();
    }
    let mut selector = Selector::unicast(leaves.remove(0));
    selector.ttl = Duration::from_secs(60);
    sender.send(Message::new(selector, 7)).expect("parked");
    sender.leave(SOON).expect("leave");
    drop(receiver);
    let (_s, late) = join::<(), u64>(&bus, label!("late"));
    assert_eq!(late.recv(SOON).expect("handed over").payload, 7);
    assert_eq!(sender.stats().lost, 0);
}

#[test]
fn a_parked_object_or_region_is_lost_on_the_way() {
    let bus = name("attached");
    let (keeper, _k) = join::<(), ()>(&bus, label!("controller"));
    let (sender, receiver) = join::<u64, ()>(&bus, label!("leaver"));
    let (mut ours, theirs) = stream();
    let mut region = MemoryRegion::new(10);
    region.map(..).expect("map")[3] = 42;
    let mut message = Message::new(parked("late"), 5u64);
    message.objects.push(theirs);
    message.memory_regions.push(region);
    sender.send(message).expect("parked");
    drop((sender, receiver));
    let (_s, late) = join::<(), u64>(&bus, label!("late"));
    let mut message = late.recv(SOON).expect("handed over");
    assert_eq!(message.payload, 5);
    assert_eq!(message.memory_regions[0].map(3..4).expect("map"), [42]);
    // Nobody on the way has kept a handle.
    drop(message);
    let mut end = Vec::new();
    assert_eq!(ours.read_to_end(&mut end).expect("hang-up"), 0);
    assert_eq!(keeper.stats().lost, 0);
}

/// Unicast messages with handles do not go to another receiver: nobody can tell whether the dead one has used them.
#[test]
fn handles_of_a_dead_receiver_are_kept_or_go_to_another() {
    let bus = name("handles");
    let (sender, _r) = join::<u64, ()>(&bus, label!("from"));
    let mut first = Peer::start("peer", "lazy", &bus);
    first.expect("joined");
    let (_s, second) = join::<(), u64>(&bus, label!("to"));
    let mut ends = Vec::new();
    for n in 0..30 {
        let mut message = Message::new(Selector::unicast("to"), n);
        if n % 3 == 0 {
            let (ours, theirs) = stream();
            message.objects.push(theirs);
            ends.push(ours);
        }
        sender.send(message).expect("send");
    }
    first.kill();
    for n in (0..30).filter(|n| n % 3 != 0) {
        let message = second.recv(SOON).expect("handed on");
        assert_eq!(message.payload, n);
        assert!(message.objects.is_empty());
    }
    let stats = sender.stats();
    assert_eq!((stats.rerouted, stats.lost), (20, 10));
    for mut end in ends {
        assert_eq!(end.read(&mut [0]).expect("a handle was kept"), 0);
    }
}

/// What goes from a dead receiver to the next one and finds no space there waits; later messages wait behind it.
#[test]
fn a_small_message_passes_a_large_one_that_waits() {
    let bus = name("behind");
    let (sender, _r) = join::<BytesMessage, ()>(&bus, label!("from"));
    let message = |format, size| {
        let data = vec![0; size];
        Message::new(Selector::unicast("to"), BytesMessage { format, data })
    };
    let mut first = Peer::start("peer", "told", &format!("{bus} first"));
    first.expect("joined");
    let mut second = Peer::start("peer", "told", &format!("{bus} second"));
    second.expect("joined");
    // The link to the second is half full, that to the first completely: not all of it fits there.
    for format in 0..10 {
        let mut message = message(format, 10_000);
        message = Message::new(Selector::unicast("second"), message.payload);
        sender.try_send(message).expect("room");
    }
    let mut count = 10;
    while sender.try_send(message(count, 10_000)).is_ok() {
        count += 1;
    }
    first.kill();
    eventually("the link is lost", || {
        sender.stats().links_out < 2 && sender.stats().rerouted > 0
    });
    // A small one would fit between the end of what is there and the next large one.
    if sender.try_send(message(count, 0)).is_ok() {
        count += 1;
    }
    for n in 0..count {
        second.tell("");
        second.expect(&n.to_string());
    }
}

#[test]
fn a_parked_multicast_is_lost_when_its_receiver_is_slow() {
    let bus = name("slow");
    let (sender, _r) = join::<BytesMessage, ()>(&bus, label!("from"));
    let mut selector = Selector::multicast("to");
    selector.ttl = Duration::from_secs(60);
    for format in 0..200 {
        let data = vec![0; 10_000];
        let message = Message::new(selector.clone(), BytesMessage { format, data });
        sender.send(message).expect("parked");
    }
    let (_s, late) = join::<(), BytesMessage>(&bus, label!("to"));
    for format in 0..200 {
        assert_eq!(late.recv(SOON).expect("recv").payload.format, format);
    }
}

#[test]
fn a_parked_message_expires_though_its_receiver_came_in_time() {
    let bus = name("came");
    let (sender, _r) = join::<BytesMessage, ()>(&bus, label!("from"));
    let mut selector = Selector::unicast("to");
    selector.ttl = Duration::from_millis(1_500);
    for format in 0..200 {
        let data = vec![0; 10_000];
        let message = Message::new(selector.clone(), BytesMessage { format, data });
        sender.send(message).expect("parked");
    }
    let (_s, late) = join::<(), BytesMessage>(&bus, label!("to"));
    assert_eq!(late.recv(SOON).expect("recv").payload.format, 0);
    // Longer than they may wait for somebody to come.
    std::thread::sleep(Duration::from_millis(1_600));
    for format in 1..200 {
        assert_eq!(late.recv(SOON).expect("recv").payload.format, format);
    }
    assert_eq!(sender.stats().expired, 0);
}

#[test]
fn a_region_that_has_just_arrived_cannot_be_frozen() {
    let bus = name("freeze");
    let (sender, _r) = join::<u64, ()>(&bus, label!("from"));
    let (_s, receiver) = join::<(), u64>(&bus, label!("to"));
    std::thread::scope(|s| {
        s.spawn(|| {
            for n in 0..500 {
                let mut message = Message::new(Selector::unicast("to"), n);
                let mut region = MemoryRegion::new(1 << 20);
                region.map(..).expect("map").fill(n as u8);
                message.memory_regions.push(region);
                sender.send(message).expect("send");
            }
        });
        for n in 0..500 {
            let mut message = receiver.recv(SOON).expect("recv");
            let region = &mut message.memory_regions[0];
            assert_eq!(region.ref_count(), 1);
            region.freeze().expect("freeze");
            assert!(
                region
                    .as_frozen()
                    .expect("frozen")
                    .iter()
                    .all(|b| *b == n as u8)
            );
        }
    });
}

#[test]
fn what_a_dead_receiver_had_is_not_parked_for_the_rest_of_its_time() {
    let bus = name("repark");
    let (sender, _r) = join::<u64, ()>(&bus, label!("from"));
    let mut first = Peer::start("peer", "lazy", &bus);
    first.expect("joined");
    for n in 0..10 {
        let selector = match n % 2 {
            0 => parked("to"),
            _ => Selector::unicast("to"),
        };
        sender.send(Message::new(selector, n)).expect("send");
    }
    first.kill();
    eventually("the loss is counted", || sender.stats().lost == 5);
    let (_s, second) = join::<(), u64>(&bus, label!("to"));
    for n in (0..10).step_by(2) {
        assert_eq!(second.recv(SOON).expect("parked").payload, n);
    }
    assert!(matches!(second.try_recv(), Err(RecvError::Empty)));
}

#[test]
fn one_link_carries_more_handles_than_the_users_budget_allows() {
    if !alone("one_link_carries_more_handles_than_the_users_budget_allows") {
        return;
    }
    let bus = name("budget");
    let (sender, _r) = join::<u64, ()>(&bus, label!("from"));
    let (_s, receiver) = join::<(), u64>(&bus, label!("to"));
    let message = |n, count| {
        let mut message = Message::new(Selector::unicast("to"), n);
        message.objects = (0..count).map(|_| object()).collect();
        message
    };
    let before = descriptors();
    for n in 0..16 {
        sender.try_send(message(n, 4)).expect("64 in all");
    }
    let refused = sender.try_send(message(16, 1)).expect_err("one too many");
    assert!(matches!(refused.kind(), SendError::Full(_)), "{refused}");
    // What carries no handle still goes.
    sender.try_send(message(16, 0)).expect("without handles");
    for n in 0..17 {
        let arrived = receiver.recv(SOON).expect("recv");
        assert_eq!(
            (arrived.payload, arrived.objects.len()),
            (n, if n < 16 { 4 } else { 0 })
        );
    }
    sender.try_send(refused.into_message()).expect("room again");
    assert_eq!(receiver.recv(SOON).expect("recv").objects.len(), 1);
    // A single message may have more than the budget.
    sender.try_send(message(1, 200)).expect("alone");
    assert_eq!(receiver.recv(SOON).expect("recv").objects.len(), 200);
    // The link and its introduction keep some; the objects none.
    assert!(descriptors() < before + 20);
}

fn object() -> Object {
    let file = std::fs::File::open(common::ANY_FILE).expect("open");
    Object::from(file)
}

#[test]
fn a_payload_of_a_gigabyte_is_cut_or_refused() {
    let bus = name("gigabyte");
    let (sender, _r) = join::<BytesMessage, ()>(&bus, label!("from"));
    let mut peer = Peer::start("peer", "sums", &bus);
    peer.expect("joined");
    // The encoded payload may have 1 GiB; format and length take some of it.
    let mut data = vec![1u8; (1 << 30) - 16];
    data[509 * 12_345] = 99;
    data[(1 << 30) - 17] = 7;
    let said = format!("{} {}", data.len(), sum(&data));
    let message = Message::new(Selector::unicast("to"), BytesMessage { format: 1, data });
    sender.send(message).expect("send");
    assert_eq!(peer.hear(), said);
    // The default limit is exact, and the link goes on.
    let data = vec![0u8; 1 << 30];
    let message = Message::new(Selector::unicast("to"), BytesMessage { format: 1, data });
    let refused = sender.try_send(message).expect_err("over the limit");
    assert!(
        matches!(refused.kind(), SendError::TooLarge { .. }),
        "{refused}"
    );
    let data = vec![3u8; 3];
    sender
        .send(Message::new(
            Selector::unicast("to"),
            BytesMessage { format: 1, data },
        ))
        .expect("send");
    let small = sum(&[3; 3]);
    peer.expect(&format!("3 {small}"));
}

#[test]
fn a_statistic_is_not_counted() {
    let bus = name("stats");
    let (sender, _r) = join::<u64, ()>(&bus, label!("from"));
    let (_s, receiver) = join::<(), u64>(&bus, label!("to"));
    for n in 0..10 {
        sender
            .send(Message::new(Selector::unicast("to"), n))
            .expect("send");
        receiver.recv(SOON).expect("recv");
    }
    sender
        .send(Message::new(Selector::unicast("nobody"), 0))
        .expect("dropped");
    let mut brief = Selector::unicast("nobody");
    brief.ttl = Duration::from_millis(1);
    sender.send(Message::new(brief, 0)).expect("parked");
    eventually("the expiry is counted", || sender.stats().expired == 1);
    while sender
        .try_send(Message::new(Selector::unicast("to"), 1))
        .is_ok()
    {}
    let wait = Some(Duration::from_millis(20));
    sender
        .send_timeout(Message::new(Selector::unicast("to"), 1), wait)
        .expect_err("full");
    let sent = sender.stats();
    assert_eq!((sent.dropped, sent.parked, sent.expired), (1, 1, 1));
    assert_eq!((sent.rerouted, sent.lost), (0, 0));
    assert_eq!((sent.blocked, sent.links_out), (1, 1));
    assert!(sent.blocked_ns >= 20_000_000, "{}", sent.blocked_ns);
    let arrived = receiver.stats();
    assert_eq!((arrived.received, arrived.links_in), (10, 1));
    assert!(arrived.received_bytes >= 10 && sent.sent_bytes > arrived.received_bytes);
    assert!(sent.sent > 10);
}

#[test]
fn a_multicast_serialises_or_arrives_more_than_once() {
    let bus = name("multicast");
    let (sender, own) = join::<u64, u64>(&bus, label!("all"));
    let ends: Vec<_> = (0..5)
        .map(|_| join::<(), u64>(&bus, label!("all")))
        .collect();
    for n in 0..1_000 {
        let all = Selector::multicast(LabelOp::from("all"));
        sender.send(Message::new(all, n)).expect("send");
        assert_eq!(own.recv(SOON).expect("own").payload, n);
        for (_, end) in &ends {
            assert_eq!(end.recv(SOON).expect("recv").payload, n);
        }
    }
    for (_, end) in &ends {
        assert!(matches!(end.try_recv(), Err(RecvError::Empty)));
    }
    assert_eq!(sender.stats().sent, 6_000);
}

/// The directory tells of a death at once, a link only when the kernel has closed the dead process's end of it. What is sent
/// in between must not pass what the dead receiver had not taken.
#[test]
fn what_a_killed_receiver_had_not_taken_comes_after_later_messages() {
    let bus = name("passing");
    let mut host = Peer::start("peer", "host", &bus);
    host.expect("joined");
    let (sender, _r) = join::<u64, ()>(&bus, label!("from"));
    for round in 0..20 {
        let mut first = Peer::start("peer", "lazy", &bus);
        first.expect("joined");
        let (_s, second) = join::<(), u64>(&bus, label!("to"));
        let send = |n: u64| {
            sender
                .send(Message::new(Selector::unicast("to"), n))
                .expect("send");
        };
        (0..200).for_each(send);
        first.child.kill().expect("kill");
        (200..4_000).for_each(send);
        // The first ones after the kill may still have gone to the first, and are not lost either.
        for expected in 0..4_000 {
            let n = second.recv(SOON).expect("recv").payload;
            assert_eq!(n, expected, "in round {round}");
        }
    }
}
