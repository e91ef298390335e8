//! Limits, shortages, ends of processes: the cases that nobody wants to meet first in production.

#![allow(clippy::expect_used)]

mod common;

use common::{Peer, SOON, alone, descriptors, join, lacks, listen, name, role, say};
use ipmb::{
    BytesMessage, JoinError, MemoryRegion, Message, MessageBox, Object, Options, RecvError,
    Selector, SendError, label,
};
use std::time::{Duration, Instant};

#[derive(Debug, PartialEq, MessageBox)]
enum Any {
    Number(u64),
    Bytes(BytesMessage),
}

fn number(label: &str, n: u64) -> Message<Any> {
    Message::new(Selector::unicast(label), Any::Number(n))
}

fn object() -> Object {
    let file = std::fs::File::open(common::ANY_FILE).expect("open");
    Object::from(file)
}

/// What the other processes of these tests do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    match role.as_str() {
        "idle" => {
            let _endpoint = join::<Any, Any>(&bus, label!("idle"));
            say("joined");
            while listen().is_some() {}
        }
        // Sends a hundred messages of every kind to "test" and is gone without good-bye.
        "last words" => {
            let (sender, receiver) = join::<Any, Any>(&bus, label!("words"));
            for n in 0..100 {
                sender.send(mixed("test", n)).expect("send");
            }
            say("sent");
            if listen().as_deref() == Some("exit") {
                std::process::exit(0);
            }
            drop((sender, receiver));
        }
        other => panic!("unknown role {other}"),
    }
}

/// The `n`-th of a series of messages of every size, some with attachments.
fn mixed(label: &str, n: u64) -> Message<Any> {
    let size = [0, 10, 3_000, 40_000, 100_000, 700_000][n as usize % 6];
    let data = vec![n as u8; size];
    let payload = match n % 6 {
        0 => Any::Number(n),
        _ => Any::Bytes(BytesMessage {
            format: n as u16,
            data,
        }),
    };
    let mut message = Message::new(Selector::unicast(label), payload);
    if n % 4 == 0 {
        message.objects.push(object());
    }
    if n % 5 == 0 {
        message.memory_regions.push(MemoryRegion::new(4096));
    }
    message
}

fn assert_mixed(message: &Message<Any>, n: u64) {
    assert_eq!(message.payload, mixed("", n).payload);
    assert_eq!(message.objects.len(), usize::from(n % 4 == 0));
    assert_eq!(message.memory_regions.len(), usize::from(n % 5 == 0));
}

#[test]
fn messages_of_different_kinds_overtake_each_other() {
    let bus = name("mixed");
    let (sender, _r) = join::<Any, Any>(&bus, label!("from"));
    let (_s, receiver) = join::<Any, Any>(&bus, label!("to"));
    std::thread::scope(|s| {
        s.spawn(|| (0..2_000).for_each(|n| sender.send(mixed("to", n)).expect("send")));
        for n in 0..2_000 {
            assert_mixed(&receiver.recv(SOON).expect("recv"), n);
        }
    });
}

#[test]
fn the_last_words_of_a_sender_are_lost() {
    for end in ["kill", "exit", "drop"] {
        let bus = name("words");
        let (_s, receiver) = join::<Any, Any>(&bus, label!("test"));
        let mut peer = Peer::start("peer", "last words", &bus);
        // The receiver takes nothing before the sender is gone, but what does not fit into the link.
        for n in 0..30 {
            assert_mixed(&receiver.recv(SOON).expect("recv"), n);
        }
        let mut taken = 30;
        let mut said = false;
        while !said {
            // Room for the rest.
            if taken < 76 {
                assert_mixed(&receiver.recv(SOON).expect("recv"), taken);
                taken += 1;
            } else {
                peer.expect("sent");
                said = true;
            }
        }
        match end {
            "kill" => peer.kill(),
            other => {
                peer.tell(other);
                peer.wait();
            }
        }
        for n in taken..100 {
            assert_mixed(&receiver.recv(SOON).expect(end), n);
        }
    }
}

#[test]
fn a_type_that_is_not_taken_blocks_those_that_are() {
    let bus = name("skip");
    let (sender, _r) = join::<Any, ()>(&bus, label!("from"));
    let (_s, receiver) = join::<(), u64>(&bus, label!("to"));
    let bytes = Any::Bytes(BytesMessage {
        format: 0,
        data: vec![1; 10],
    });
    sender
        .send(Message::new(Selector::unicast("to"), bytes))
        .unwrap();
    sender.send(number("to", 7)).unwrap();
    assert_eq!(receiver.recv(SOON).unwrap().payload, 7);
    assert_eq!(receiver.stats().skipped, 1);
}

#[test]
fn a_parked_message_outlives_its_time() {
    let bus = name("expiry");
    let (sender, _r) = join::<Any, Any>(&bus, label!("from"));
    let mut message = number("late", 1);
    let mut selector = message.selector().clone();
    selector.ttl = Duration::from_millis(50);
    message = Message::new(selector, message.payload);
    sender.send(message).unwrap();
    // Nothing else happens on the bus: its time alone ends it.
    let start = Instant::now();
    while sender.stats().expired == 0 {
        assert!(start.elapsed() < Duration::from_secs(5), "kept for ever");
        std::thread::yield_now();
    }
    assert!(start.elapsed() < Duration::from_secs(1));
    let (_s, late) = join::<Any, Any>(&bus, label!("late"));
    let nothing = late.recv(Some(Duration::from_millis(100)));
    assert!(matches!(nothing, Err(RecvError::Timeout)));
    assert_eq!(sender.stats().expired, 1);
}

#[test]
fn a_message_over_a_limit_is_sent() {
    if !alone("a_message_over_a_limit_is_sent") {
        return;
    }
    let bus = name("limits");
    let options = Options::new(bus.as_str(), label!("x"), "").max_payload(1000);
    let (sender, receiver) = ipmb::join::<Any, Any>(options, SOON).unwrap();
    let bytes = |size| {
        let data = vec![0; size];
        Message::new(
            Selector::unicast("x"),
            Any::Bytes(BytesMessage { format: 0, data }),
        )
    };
    let refused = sender.try_send(bytes(1001)).unwrap_err();
    assert!(matches!(
        refused.kind(),
        SendError::TooLarge { limit: 1000, .. }
    ));
    assert_eq!(refused.into_message().payload, bytes(1001).payload);
    let mut many = number("x", 1);
    many.objects = (0..254).map(|_| object()).collect();
    let refused = sender.try_send(many).unwrap_err();
    assert!(matches!(
        refused.kind(),
        SendError::TooManyAttachments { count: 254 }
    ));
    let mut most = refused.into_message();
    most.objects.pop();
    // Twice all of them must fit into 1,024 descriptors.
    most.memory_regions = (0..200).map(|_| MemoryRegion::new(1)).collect();
    sender.send(most).unwrap();
    let arrived = receiver.recv(SOON).unwrap();
    assert_eq!(
        (arrived.objects.len(), arrived.memory_regions.len()),
        (253, 200)
    );
    sender.send(bytes(900)).unwrap();
    receiver.recv(SOON).unwrap();
}

#[test]
fn the_most_attachments_do_not_reach_another_endpoint() {
    if !alone("the_most_attachments_do_not_reach_another_endpoint") {
        return;
    }
    // Twice all of them must fit into the table.
    let most = common::allow_handles();
    let regions = if most >= 2048 { 253 } else { 100 };
    let bus = name("most");
    let (sender, _r) = join::<Any, Any>(&bus, label!("from"));
    let (_s, receiver) = join::<Any, Any>(&bus, label!("to"));
    for n in 0..3 {
        let mut message = number("to", n);
        message.objects = (0..253).map(|_| object()).collect();
        message.memory_regions = (0..regions).map(|_| MemoryRegion::new(1)).collect();
        std::thread::scope(|s| {
            s.spawn(|| sender.send(message).expect("send"));
            let arrived = receiver.recv(SOON).expect("recv");
            assert_eq!(arrived.payload, Any::Number(n));
            assert_eq!(
                (arrived.objects.len(), arrived.memory_regions.len()),
                (253, regions)
            );
        });
    }
}

#[test]
fn the_queue_to_itself_grows_without_limit() {
    let options = Options::new(name("self"), label!("x"), "").self_queue(100_000);
    let (sender, receiver) = ipmb::join::<Any, Any>(options, SOON).unwrap();
    let mut sent = 0u64;
    let error = loop {
        match sender.send(number("x", sent)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 100_000);
    };
    assert!(matches!(error, SendError::SelfQueueFull { limit: 100_000 }));
    for n in 0..sent {
        assert_eq!(receiver.recv(SOON).unwrap().payload, Any::Number(n));
    }
    sender.send(number("x", 1)).unwrap();
}

#[test]
fn the_queue_to_itself_grows_without_limit_once_somebody_receives() {
    let options = Options::new(name("self"), label!("x"), "").self_queue(100_000);
    let (sender, receiver) = ipmb::join::<Any, Any>(options, SOON).unwrap();
    let (mut sent, mut received) = (0u64, 0u64);
    let mut fill = || {
        while sender.send(number("x", sent)).is_ok() {
            sent += 1;
            assert!(sent < 100_000);
        }
        sent
    };
    let first = fill();
    for _ in 0..10 {
        let next = receiver.recv(SOON).unwrap().payload;
        assert_eq!(next, Any::Number(received));
        received += 1;
        // The first ones are the smallest.
        assert!(fill() - received <= first);
    }
    // One that is skipped makes room, too.
    let options = Options::new(name("skips"), label!("x"), "").self_queue(100);
    let (sender, receiver) = ipmb::join::<Any, u8>(options, SOON).unwrap();
    for n in 0..3 {
        sender.send(number("x", n)).unwrap();
        assert!(receiver.try_recv().is_err());
    }
}

#[test]
fn a_payload_over_its_receivers_limit_ends_the_link() {
    for limit in [1_000, 300_000] {
        let bus = name("lower");
        let (sender, _r) = join::<Any, Any>(&bus, label!("from"));
        let options = Options::new(bus.as_str(), label!("to"), "token").max_payload(limit);
        let (_s, receiver) = ipmb::join::<(), Any>(options, SOON).unwrap();
        let send = |size: usize| {
            let data = vec![size as u8; size];
            let payload = Any::Bytes(BytesMessage { format: 1, data });
            let mut message = Message::new(Selector::unicast("to"), payload);
            message.objects.push(object());
            message.memory_regions.push(MemoryRegion::new(4096));
            sender.send_timeout(message, SOON).unwrap();
        };
        for size in [limit - 1, limit + 1, 4 << 20, 70 << 20, 1] {
            send(size);
            // The second goes into the block of a larger one, if into a block.
            send(limit - 2);
            if size > 1 {
                let refused = receiver.recv(SOON).map(|_| ());
                let Err(RecvError::Decode(why)) = &refused else {
                    panic!("{size}: {refused:?}");
                };
                let (why, all) = (why.to_string(), (size + 2).to_string());
                assert!(
                    why.contains(&all) && why.contains(&limit.to_string()),
                    "{why}"
                );
            } else {
                receiver.recv(SOON).unwrap();
            }
            let message = receiver.recv(SOON).unwrap();
            let data = vec![(limit - 2) as u8; limit - 2];
            assert_eq!(
                message.payload,
                Any::Bytes(BytesMessage { format: 1, data })
            );
            assert_eq!(
                (message.objects.len(), message.memory_regions.len()),
                (1, 1)
            );
        }
        assert_eq!(receiver.stats().links_in, 1);
    }
}

#[test]
fn an_endpoint_without_affinity_hosts_or_does_not_wait() {
    let bus = name("affinity");
    let shy = || {
        let mut options = Options::new(bus.as_str(), label!("shy"), "token");
        options.controller_affinity = false;
        options
    };
    let start = Instant::now();
    let alone = ipmb::join::<(), ()>(shy(), Some(Duration::from_millis(200)));
    assert!(matches!(alone, Err(JoinError::Timeout)));
    assert!(start.elapsed() >= Duration::from_millis(200));
    std::thread::scope(|s| {
        let waits = s.spawn(|| ipmb::join::<(), ()>(shy(), SOON).map(|_| ()));
        std::thread::sleep(Duration::from_millis(50));
        let _host = join::<(), ()>(&bus, label!("host"));
        assert!(waits.join().expect("thread").is_ok());
    });
}

#[test]
fn two_buses_of_one_process_mix() {
    let (one, two) = (name("one"), name("two"));
    let (a, a_recv) = join::<u64, u64>(&one, label!("x"));
    let (b, b_recv) = join::<u64, u64>(&two, label!("x"));
    a.send(Message::new(Selector::multicast("x"), 1)).unwrap();
    b.send(Message::new(Selector::multicast("x"), 2)).unwrap();
    assert_eq!(a_recv.recv(SOON).unwrap().payload, 1);
    assert_eq!(b_recv.recv(SOON).unwrap().payload, 2);
    assert!(matches!(a_recv.try_recv(), Err(RecvError::Empty)));
}

#[test]
fn joins_and_messages_leak_descriptors() {
    if !alone("joins_and_messages_leak_descriptors") {
        return;
    }
    let round = || {
        let bus = name("leak");
        let (a, a_recv) = join::<Any, Any>(&bus, label!("a"));
        let (_b, b_recv) = join::<Any, Any>(&bus, label!("b"));
        for n in 0..20 {
            a.send(mixed("b", n)).unwrap();
            assert_mixed(&b_recv.recv(SOON).unwrap(), n);
        }
        // Never received.
        for n in 0..5 {
            a.send(mixed("b", n)).unwrap();
            a.send(mixed("a", n)).unwrap();
        }
        drop(a_recv);
    };
    round();
    let before = descriptors();
    for _ in 0..50 {
        round();
    }
    assert_eq!(descriptors(), before);
}

#[test]
fn senders_that_left_keep_handles_until_their_messages_are_received() {
    if !alone("senders_that_left_keep_handles_until_their_messages_are_received") {
        return;
    }
    let bus = name("unread");
    let (_s, _host) = join::<Any, Any>(&bus, label!("host"));
    // Elsewhere, since it keeps what was sent to it, and receives nothing.
    let mut deaf = Peer::start("peer", "idle", &bus);
    deaf.expect("joined");
    let round = || {
        let (sender, _own) = join::<Any, Any>(&bus, label!("leaver"));
        sender.send(mixed("idle", 0)).expect("send");
        let sent = (1..).take_while(|n| sender.try_send(mixed("idle", *n)).is_ok());
        assert!(sent.count() > 5);
        assert_eq!(sender.stats().links_out, 1);
    };
    round();
    // The controller learns of an end a little later, here and below.
    let (mut before, mut since) = (descriptors(), Instant::now());
    while since.elapsed() < Duration::from_millis(50) {
        let now = descriptors();
        if now != before {
            (before, since) = (now, Instant::now());
        }
        std::thread::yield_now();
    }
    (0..10).for_each(|_| round());
    let start = Instant::now();
    while descriptors() > before {
        let now = descriptors();
        assert!(start.elapsed().as_secs() < 10, "{now}, {before} before");
        std::thread::yield_now();
    }
}

/// Handles of messages in line come in together: as many as there is room for.
#[test]
fn a_shortage_among_messages_in_line_loses_some_or_swaps_what_comes_with_them() {
    let test = "a_shortage_among_messages_in_line_loses_some_or_swaps_what_comes_with_them";
    if lacks(common::FILLS_TABLES, test, common::TABLES) || !alone(test) {
        return;
    }
    let bus = name("line");
    let (sender, _r) = join::<Any, Any>(&bus, label!("from"));
    let (_s, receiver) = join::<Any, Any>(&bus, label!("to"));
    for room in 0..12 {
        for n in 0..20 {
            let mut message = number("to", n);
            let mut region = MemoryRegion::new(4096);
            region.map(..).unwrap()[0] = n as u8;
            message.memory_regions.push(region);
            sender.send(message).unwrap();
        }
        let mut hoard = Vec::new();
        while let Ok(file) = std::fs::File::open(common::ANY_FILE) {
            hoard.push(file);
        }
        hoard.truncate(hoard.len() - room);
        let mut messages = Vec::new();
        let shortage = loop {
            match receiver.recv(SOON) {
                Ok(message) => messages.push(message),
                Err(e) => break e,
            }
        };
        assert!(matches!(
            shortage,
            RecvError::Exhausted(ipmb::Resource::Handles, _)
        ));
        assert!(messages.len() <= room, "{} of {room}", messages.len());
        drop(hoard);
        messages.extend((messages.len()..20).map(|_| receiver.recv(SOON).unwrap()));
        for (n, mut message) in messages.into_iter().enumerate() {
            assert_eq!(message.payload, Any::Number(n as u64));
            let [region] = &mut *message.memory_regions else {
                panic!("{n} has another number of regions");
            };
            assert_eq!(region.map(..).unwrap()[0], n as u8);
        }
    }
}

#[test]
fn a_shortage_of_descriptors_loses_a_message() {
    if lacks(
        common::FILLS_TABLES,
        "a_shortage_of_descriptors_loses_a_message",
        common::TABLES,
    ) {
        return;
    }
    if !alone("a_shortage_of_descriptors_loses_a_message") {
        return;
    }
    let bus = name("shortage");
    let (sender, _r) = join::<Any, Any>(&bus, label!("from"));
    let (_s, receiver) = join::<Any, Any>(&bus, label!("to"));
    let mut peer = Peer::start("peer", "idle", &bus);
    peer.expect("joined");
    sender.send(number("to", 0)).unwrap();
    assert_eq!(receiver.recv(SOON).unwrap().payload, Any::Number(0));
    let mut message = number("to", 1);
    message.objects = vec![object(), object()];
    sender.send(message).unwrap();
    sender.send(number("to", 2)).unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open(common::ANY_FILE) {
        hoard.push(file);
    }
    assert!(matches!(
        receiver.recv(SOON),
        Err(RecvError::Exhausted(ipmb::Resource::Handles, _))
    ));
    // A first contact needs descriptors; the message comes back.
    let refused = sender.try_send(number("idle", 3)).unwrap_err();
    assert!(matches!(
        refused.kind(),
        SendError::Exhausted(ipmb::Resource::Handles, _)
    ));
    assert!(matches!(
        ipmb::join::<(), ()>(Options::new(bus.as_str(), label!("x"), "token"), SOON),
        Err(JoinError::Exhausted(ipmb::Resource::Handles, _))
    ));
    drop(hoard);
    let first = receiver.recv(SOON).unwrap();
    assert_eq!((first.payload, first.objects.len()), (Any::Number(1), 2));
    assert_eq!(receiver.recv(SOON).unwrap().payload, Any::Number(2));
    sender.send(refused.into_message()).unwrap();
}
