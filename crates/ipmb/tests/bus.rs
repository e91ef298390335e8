//! Two and more processes on one bus.

#![allow(clippy::expect_used)]

mod common;

use common::{
    Peer, SOON, is_ready, join, lacks, listen, may_unshare_net, name, needs_linux, owned, role,
    say, scratch_file, skip,
};
use ipmb::{
    BytesMessage, Label, MemoryRegion, Message, MessageBox, Object, RecvError, Selector, SendError,
    label,
};
use std::{
    io::{Read, Seek, Write},
    time::Duration,
};

#[derive(Debug, MessageBox)]
enum Any {
    Text(String),
    Number(u64),
    Bytes(BytesMessage),
}

fn text(selector: Selector, text: &str) -> Message<Any> {
    Message::new(selector, Any::Text(text.to_owned()))
}

/// What the other processes of these tests do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    match role.as_str() {
        // Says what it receives, and sends text back to whoever is called "test".
        "echo" => {
            let (sender, receiver) = join::<Any, Any>(&bus, label!("echo"));
            say("joined");
            loop {
                let message = receiver.recv(SOON).expect("recv");
                match message.payload {
                    Any::Text(t) if t == "stop" => break,
                    payload => {
                        let mut back = Message::new(Selector::unicast("test"), payload);
                        back.objects = message.objects;
                        back.memory_regions = message.memory_regions;
                        sender.send(back).expect("send");
                    }
                }
            }
        }
        // Joins and waits for the end of its input.
        "idle" => {
            let _endpoint = join::<Any, Any>(&bus, label!("idle"));
            say("joined");
            while listen().is_some() {}
        }
        // Receives numbers when told how many, and says their sum and whether they came in order.
        "count" => {
            let (_sender, receiver) = join::<(), u64>(&bus, label!("count"));
            say("joined");
            while let Some(line) = listen() {
                let count: u64 = line.parse().expect("number");
                let (mut sum, mut last, mut ordered) = (0u64, None, true);
                for _ in 0..count {
                    let n = receiver.recv(SOON).expect("recv").payload;
                    ordered &= last.is_none_or(|l| n == l + 1);
                    last = Some(n);
                    sum += n;
                }
                say(&format!("{sum} {ordered}"));
            }
        }
        // Sends numbers to "test" for ever.
        "flood" => {
            let (sender, _receiver) = join::<u64, ()>(&bus, label!("flood"));
            say("joined");
            for n in 0.. {
                sender
                    .send(Message::new(Selector::unicast("test"), n))
                    .expect("send");
            }
        }
        // Echoes numbers on the bus at a path.
        "path" => {
            let options = ipmb::Options::new("by.path", label!("echo"), "token").path(bus);
            let (sender, receiver) = ipmb::join::<u64, u64>(options, SOON).expect("join");
            say("joined");
            while let Ok(message) = receiver.recv(SOON) {
                sender
                    .send(Message::new(Selector::unicast("test"), message.payload))
                    .expect("send");
            }
        }
        other => panic!("unknown role {other}"),
    }
}

#[test]
fn a_message_between_two_processes_is_lost_or_changed() {
    let bus = name("echo");
    let (sender, receiver) = join::<Any, Any>(&bus, label!("test"));
    let mut peer = Peer::start("peer", "echo", &bus);
    peer.expect("joined");
    for size in [0, 1, 100, 5_000, 70_000, 1 << 20, 20 << 20, 70 << 20] {
        let data: Vec<u8> = (0..size).map(|i| (i * 7 + size) as u8).collect();
        let sent = BytesMessage {
            format: 3,
            data: data.clone(),
        };
        sender
            .send(Message::new(Selector::unicast("echo"), Any::Bytes(sent)))
            .unwrap();
        match receiver.recv(SOON).unwrap().payload {
            Any::Bytes(back) => assert!(back.format == 3 && back.data == data, "{size}"),
            other => panic!("{other:?}"),
        }
    }
    sender
        .send(text(Selector::unicast("echo"), "stop"))
        .unwrap();
    peer.wait();
}

#[test]
fn objects_and_regions_do_not_arrive() {
    let bus = name("attachments");
    let (sender, receiver) = join::<Any, Any>(&bus, label!("test"));
    let mut peer = Peer::start("peer", "echo", &bus);
    peer.expect("joined");
    for round in 0..200u8 {
        let mut file = scratch_file();
        file.write_all(&[round; 10]).unwrap();
        let mut region = MemoryRegion::new(10_000);
        region.map(..).unwrap()[9_999] = round;
        let mut message = text(Selector::unicast("echo"), "look");
        message.objects.push(Object::from(file));
        message.memory_regions.push(region);
        sender.send(message).unwrap();
        let mut back = receiver.recv(SOON).unwrap();
        assert_eq!((back.objects.len(), back.memory_regions.len()), (1, 1));
        let mut file = std::fs::File::from(owned(back.objects.remove(0)));
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [round; 10]);
        let region = &mut back.memory_regions[0];
        assert_eq!(region.map(9_999..).unwrap(), [round]);
        // The echo lets go of its own handle when its send has returned.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while region.ref_count() != 1 {
            assert!(std::time::Instant::now() < deadline, "a handle was leaked");
            std::thread::yield_now();
        }
    }
    sender
        .send(text(Selector::unicast("echo"), "stop"))
        .unwrap();
    peer.wait();
}

#[test]
fn order_is_lost_in_a_flood() {
    let bus = name("order");
    let (sender, _receiver) = join::<u64, ()>(&bus, label!("test"));
    let mut peer = Peer::start("peer", "count", &bus);
    peer.expect("joined");
    peer.tell("300000");
    for n in 0..300_000u64 {
        sender
            .send(Message::new(Selector::unicast("count"), n))
            .unwrap();
    }
    peer.expect(&format!("{} true", 300_000u64 * 299_999 / 2));
}

#[test]
fn selectors_reach_the_wrong_endpoints() {
    let bus = name("selectors");
    let ends: Vec<_> = [label!("a", "x"), label!("b", "x"), label!("c")]
        .into_iter()
        .map(|label: Label| join::<u32, u32>(&bus, label))
        .collect();
    let got = |end: usize| ends[end].1.try_recv().map(|m| m.payload).ok();
    let send = |selector, n| ends[0].0.send(Message::new(selector, n)).unwrap();
    send(Selector::unicast("x"), 1);
    assert_eq!((got(0), got(1), got(2)), (Some(1), None, None));
    send(Selector::multicast("x"), 2);
    let arrived = |end: usize| ends[end].1.recv(SOON).unwrap().payload;
    assert_eq!((arrived(0), arrived(1)), (2, 2));
    send(Selector::multicast(!ipmb::LabelOp::from("a")), 3);
    assert_eq!((arrived(1), arrived(2)), (3, 3));
    send(Selector::unicast("nobody"), 4);
    assert_eq!((got(0), got(1), got(2)), (None, None, None));
    assert_eq!(ends[0].0.stats().dropped, 1);
}

#[test]
fn a_parked_message_does_not_wait_for_its_receiver() {
    let bus = name("parked");
    let (sender, _receiver) = join::<Any, Any>(&bus, label!("test"));
    let mut selector = Selector::unicast("late");
    selector.ttl = Duration::from_secs(10);
    for n in 0..3 {
        sender.send(text(selector.clone(), &n.to_string())).unwrap();
    }
    let (_late, receiver) = join::<Any, Any>(&bus, label!("late"));
    for n in 0..3 {
        match receiver.recv(SOON).unwrap().payload {
            Any::Text(t) => assert_eq!(t, n.to_string()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_parked_message_is_lost_when_its_sender_leaves() {
    let bus = name("handover");
    let first = join::<Any, Any>(&bus, label!("first"));
    let (sender, receiver) = join::<Any, Any>(&bus, label!("second"));
    let mut selector = Selector::unicast("late");
    selector.ttl = Duration::from_secs(10);
    sender.send(text(selector, "hello")).unwrap();
    drop((sender, receiver));
    // The controller leaves, too, and hands on what it was left.
    let third = join::<Any, Any>(&bus, label!("third"));
    drop(first);
    let (_late, receiver) = join::<Any, Any>(&bus, label!("late"));
    assert!(matches!(receiver.recv(SOON).unwrap().payload, Any::Text(t) if t == "hello"));
    drop(third);
}

#[test]
fn links_stop_when_the_controller_is_killed() {
    let bus = name("failover");
    let mut controller = Peer::start("peer", "idle", &bus);
    controller.expect("joined");
    let (_sender, receiver) = join::<(), u64>(&bus, label!("test"));
    let mut flood = Peer::start("peer", "flood", &bus);
    flood.expect("joined");
    for n in 0..100_000 {
        assert_eq!(receiver.recv(SOON).unwrap().payload, n);
    }
    controller.kill();
    for n in 100_000..300_000 {
        assert_eq!(receiver.recv(SOON).unwrap().payload, n);
    }
    // The bus takes new members.
    let mut late = Peer::start("peer", "echo", &bus);
    late.expect("joined");
}

#[test]
fn a_frozen_controller_stops_links_in_use() {
    if lacks(
        common::NAMES_STOPPED,
        "a_frozen_controller_stops_links_in_use",
        common::STOPPED,
    ) {
        return;
    }
    let bus = name("frozen");
    let mut controller = Peer::start("peer", "idle", &bus);
    controller.expect("joined");
    let (_sender, receiver) = join::<(), u64>(&bus, label!("test"));
    let mut flood = Peer::start("peer", "flood", &bus);
    flood.expect("joined");
    assert_eq!(receiver.recv(SOON).unwrap().payload, 0);
    controller.stop();
    for n in 1..100_000 {
        assert_eq!(receiver.recv(SOON).unwrap().payload, n);
    }
    let late = ipmb::join::<(), ()>(
        ipmb::Options::new(bus.as_str(), label!("late"), "token"),
        Some(Duration::from_millis(300)),
    );
    assert!(
        matches!(late, Err(ipmb::JoinError::ControllerStopped { pid }) if pid == controller.child.id())
    );
    controller.go_on();
    join::<(), ()>(&bus, label!("late"));
}

#[test]
fn what_a_killed_receiver_had_not_taken_is_lost() {
    let bus = name("reroute");
    let (sender, _receiver) = join::<u64, ()>(&bus, label!("test"));
    let mut first = Peer::start("peer", "count", &bus);
    first.expect("joined");
    let mut second = Peer::start("peer", "count", &bus);
    second.expect("joined");
    for n in 0..1000 {
        sender
            .send(Message::new(Selector::unicast("count"), n))
            .unwrap();
    }
    first.kill();
    second.tell("1000");
    second.expect(&format!("{} true", 1000 * 999 / 2));
    assert_eq!(sender.stats().rerouted, 1000);
}

#[test]
fn a_frozen_receiver_blocks_try_send() {
    let bus = name("full");
    let (sender, _receiver) = join::<String, ()>(&bus, label!("test"));
    let mut peer = Peer::start("peer", "idle", &bus);
    peer.expect("joined");
    let message = || Message::new(Selector::unicast("idle"), "7".repeat(10_000));
    let mut sent = 0;
    let refused = loop {
        match sender.try_send(message()) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(sent > 50, "{sent}");
    assert!(matches!(refused.kind(), SendError::Full(_)));
    assert_eq!(refused.into_message().payload, "7".repeat(10_000));
    let timed = sender.send_timeout(message(), Some(Duration::from_millis(50)));
    assert!(matches!(timed.unwrap_err().kind(), SendError::Timeout));
}

#[test]
fn a_wrong_token_gets_in() {
    let bus = name("token");
    let _first = join::<(), ()>(&bus, label!("first"));
    let wrong = ipmb::join::<(), ()>(ipmb::Options::new(bus, label!("x"), "other"), SOON);
    assert!(matches!(wrong, Err(ipmb::JoinError::TokenMismatch)));
}

#[test]
fn a_payload_that_does_not_decode_blocks_the_next() {
    let bus = name("decode");
    let (sender, receiver) = join::<Any, u64>(&bus, label!("test"));
    let (raw, _r) = join::<Twin, ()>(&bus, label!("raw"));
    raw.send(Message::new(Selector::unicast("test"), Twin(vec![1; 40])))
        .unwrap();
    raw.send(Message::new(Selector::unicast("test"), Twin(vec![])))
        .unwrap();
    assert!(matches!(receiver.recv(SOON), Err(RecvError::Decode(_))));
    let _ = receiver.recv(SOON);
    sender
        .send(Message::new(Selector::unicast("test"), Any::Number(5)))
        .unwrap();
    assert_eq!(receiver.recv(SOON).unwrap().payload, 5);
    assert_eq!(
        receiver.recv(Some(Duration::ZERO)).map(|m| m.payload).ok(),
        None
    );
}

/// Says that it is a `u64`, and is not.
struct Twin(Vec<u8>);

impl MessageBox for Twin {
    fn uuid(&self) -> [u8; 16] {
        <u64 as ipmb::TypeUuid>::UUID
    }
    fn accepts(_: &[u8; 16]) -> bool {
        false
    }
    fn encode<'a>(&'a self, encoder: &mut ipmb::Encoder<'a>) -> Result<(), ipmb::Error> {
        encoder.put(&self.0)
    }
    fn decode(_: &[u8; 16], _: &mut ipmb::Payload<'_>) -> Result<Self, ipmb::Error> {
        Err(ipmb::Error::TypeUuidNotFound)
    }
}

/// Every kind of thread at once on one endpoint: several senders, several receivers.
#[test]
fn threads_on_one_endpoint_lose_or_repeat_messages() {
    let bus = name("threads");
    let (sender, _r) = join::<u64, ()>(&bus, label!("from"));
    let (_s, receiver) = join::<(), u64>(&bus, label!("to"));
    let total = 4 * 20_000u64;
    let seen = std::sync::Mutex::new(vec![0u8; total as usize]);
    std::thread::scope(|s| {
        for thread in 0..4 {
            let sender = sender.clone();
            s.spawn(move || {
                for n in 0..20_000 {
                    let n = thread * 20_000 + n;
                    sender
                        .send(Message::new(Selector::unicast("to"), n))
                        .expect("send");
                }
            });
        }
        for _ in 0..3 {
            s.spawn(|| {
                while let Ok(message) = receiver.recv(Some(Duration::from_millis(500))) {
                    seen.lock().expect("lock")[message.payload as usize] += 1;
                }
            });
        }
    });
    assert!(seen.lock().expect("lock").iter().all(|n| *n == 1));
}

#[test]
fn a_poll_for_messages_sleeps_through_one() {
    let bus = name("poll");
    let (_sender, receiver) = join::<u64, u64>(&bus, label!("test"));
    let mut flood = Peer::start("peer", "flood", &bus);
    flood.expect("joined");
    for n in 0..200_000 {
        loop {
            match receiver.try_recv() {
                Ok(message) => {
                    assert_eq!(message.payload, n);
                    break;
                }
                Err(RecvError::Empty) => {
                    assert!(is_ready(&receiver, Duration::from_secs(10)), "at {n}");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_dropped_receiver_is_still_sent_to() {
    let bus = name("sendonly");
    let (sender, _r) = join::<u64, ()>(&bus, label!("from"));
    let (first_sender, first) = join::<u64, u64>(&bus, label!("to"));
    let (_s, second) = join::<(), u64>(&bus, label!("to"));
    let send = |n| {
        sender
            .send(Message::new(Selector::unicast("to"), n))
            .unwrap();
    };
    send(1);
    assert_eq!(first.recv(SOON).unwrap().payload, 1);
    drop(first);
    send(2);
    assert_eq!(second.recv(SOON).unwrap().payload, 2);
    first_sender
        .send(Message::new(Selector::unicast("to"), 3))
        .unwrap();
    assert_eq!(second.recv(SOON).unwrap().payload, 3);
}

#[test]
fn bad_identifiers_get_in() {
    for bad in [String::new(), "a\0b".into(), "x".repeat(5000)] {
        let joined = ipmb::join::<(), ()>(ipmb::Options::new(bad, label!("x"), ""), SOON);
        assert!(matches!(
            joined,
            Err(ipmb::JoinError::InvalidIdentifier { .. })
        ));
    }
    // Two long names with the same beginning are two buses.
    let long = name("long").repeat(20);
    let (sender, _r) = join::<u64, u64>(&long, label!("x"));
    let _other = join::<u64, u64>(&(long + "y"), label!("y"));
    sender
        .send(Message::new(Selector::unicast("y"), 1))
        .unwrap();
    assert_eq!(sender.stats().dropped, 1);
}

#[test]
fn a_bus_at_a_path_does_not_survive_its_members() {
    if lacks(
        common::HAS_PATHS,
        "a_bus_at_a_path_does_not_survive_its_members",
        common::PATHS,
    ) {
        return;
    }
    let dir = std::env::temp_dir().join(name("path"));
    std::fs::create_dir(&dir).unwrap();
    let options =
        |label: &str| ipmb::Options::new("by.path", label!(label), "token").path(dir.join("bus"));
    for round in 0..3 {
        let (sender, first) = ipmb::join::<u64, u64>(options("a"), SOON).unwrap();
        let (_s, second) = ipmb::join::<u64, u64>(options("b"), SOON).unwrap();
        sender
            .send(Message::new(Selector::unicast("b"), round))
            .unwrap();
        assert_eq!(second.recv(SOON).unwrap().payload, round);
        if round == 1 {
            // The other one takes over.
            drop((sender, first));
            let (_t, third) = ipmb::join::<u64, u64>(options("c"), SOON).unwrap();
            _s.send(Message::new(Selector::unicast("c"), 9)).unwrap();
            assert_eq!(third.recv(SOON).unwrap().payload, 9);
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Two survivors that never host anything exchange messages while one controller after the other is killed.
#[test]
fn a_chain_of_killed_controllers_costs_a_message() {
    let bus = name("chain");
    let mut spare = Peer::start("peer", "idle", &bus);
    spare.expect("joined");
    let survivor = |label: &str| {
        let mut options = ipmb::Options::new(bus.as_str(), label!(label), "token");
        options.controller_affinity = false;
        ipmb::join::<u64, u64>(options, SOON).expect("join")
    };
    let (left, right) = (survivor("left"), survivor("right"));
    let mut next = 0;
    for _ in 0..12 {
        let mut controller = std::mem::replace(&mut spare, Peer::start("peer", "idle", &bus));
        spare.expect("joined");
        let exchange = |n: u64| {
            for (from, to, label) in [(&left, &right, "right"), (&right, &left, "left")] {
                from.0
                    .send(Message::new(Selector::unicast(label), n))
                    .expect("send");
                assert_eq!(to.1.recv(SOON).expect("recv").payload, n);
            }
        };
        for _ in 0..50 {
            exchange(next);
            next += 1;
        }
        controller.kill();
        for _ in 0..50 {
            exchange(next);
            next += 1;
        }
        // A newcomer is reached at once by both, over first contacts.
        let (_new, newcomer) = survivor("new");
        for (end, _) in [&left, &right] {
            end.send(Message::new(Selector::unicast("new"), next))
                .expect("send");
            assert_eq!(newcomer.recv(SOON).expect("recv").payload, next);
        }
        // A multicast reaches both survivors and the newcomer.
        let all = Selector::multicast(ipmb::LabelOp::from("left").or("right").or("new"));
        left.0.send(Message::new(all, next)).expect("send");
        for end in [&left.1, &right.1, &newcomer] {
            assert_eq!(end.recv(SOON).expect("recv").payload, next);
        }
    }
}

#[test]
fn a_multicast_that_was_handed_back_goes_to_somebody_twice() {
    let bus = name("bound");
    let (sender, _r) = join::<String, ()>(&bus, label!("from"));
    let (_a, quick) = join::<(), String>(&bus, label!("to", "quick"));
    let mut frozen = Peer::start("peer", "idle", &bus);
    frozen.expect("joined");
    frozen.stop();
    let to = || ipmb::LabelOp::from("quick").or("idle");
    let mut sent = 0;
    let error = loop {
        let message = Message::new(Selector::multicast(to()), "m".repeat(20_000));
        match sender.try_send(message) {
            Ok(()) => {
                sent += 1;
                quick.recv(SOON).unwrap();
            }
            Err(error) => break error,
        }
    };
    assert!(sent > 10);
    let back = error.into_message();
    assert_eq!(back.unreached().len(), 1);
    quick.recv(SOON).unwrap();
    assert!(sender.try_send(back).is_err());
    assert!(matches!(quick.try_recv(), Err(RecvError::Empty)));
}

#[test]
fn a_receive_goes_on_after_its_endpoint_has_left() {
    let (sender, receiver) = join::<u64, u64>(&name("leave"), label!("x"));
    std::thread::scope(|s| {
        let waiting = s.spawn(|| receiver.recv(None).map(|m| m.payload));
        sender.leave(SOON).unwrap();
        assert!(matches!(waiting.join().unwrap(), Err(RecvError::Left)));
    });
    let at_once = receiver.recv(Some(Duration::ZERO));
    assert!(matches!(at_once, Err(RecvError::Left)), "{at_once:?}");
    let message = || Message::new(Selector::unicast("x"), 1);
    assert!(matches!(sender.send(message()), Err(SendError::Left)));
    assert!(matches!(receiver.try_recv(), Err(RecvError::Left)));
}

/// One thread sleeps for all that receive; whoever is woken and has no use for it lets the next one look.
#[test]
fn a_thread_that_receives_beside_others_sleeps_for_ever() {
    let (sender, receiver) = join::<u64, u64>(&name("threads"), label!("x"));
    let short = Some(Duration::from_millis(200));
    std::thread::scope(|s| {
        let vain = [(); 2].map(|()| s.spawn(|| receiver.recv(short)));
        std::thread::sleep(Duration::from_millis(100));
        let last = s.spawn(|| receiver.recv(SOON).map(|m| m.payload));
        for vain in vain {
            assert!(matches!(vain.join().unwrap(), Err(RecvError::Timeout)));
        }
        sender
            .send(Message::new(Selector::unicast("x"), 1))
            .unwrap();
        assert!(matches!(last.join().unwrap(), Ok(1)));
        let all = [(); 4].map(|()| s.spawn(|| receiver.recv(SOON)));
        std::thread::sleep(Duration::from_millis(100));
        sender.leave(SOON).unwrap();
        for one in all {
            assert!(matches!(one.join().unwrap(), Err(RecvError::Left)));
        }
    });
}

#[test]
fn endpoints_that_leave_at_once_wait_for_each_other() {
    for affinity in [true, false] {
        let bus = name("all");
        let ends: Vec<_> = (0..5)
            .map(|n| {
                let mut options = ipmb::Options::new(bus.as_str(), label!("x"), "token");
                options.controller_affinity = affinity || n == 0;
                ipmb::join::<(), ()>(options, SOON).unwrap()
            })
            .collect();
        std::thread::scope(|s| {
            for (sender, _) in &ends {
                s.spawn(|| {
                    let start = std::time::Instant::now();
                    sender.leave(Some(Duration::from_secs(5))).unwrap();
                    assert!(start.elapsed() < Duration::from_secs(1));
                });
            }
        });
    }
}

/// Two network namespaces share no abstract names, but they may share a directory.
#[test]
fn a_path_does_not_join_two_network_namespaces() {
    if needs_linux(
        "a_path_does_not_join_two_network_namespaces",
        "there are no network namespaces",
    ) {
        return;
    }
    if !may_unshare_net() {
        skip(
            "a_path_does_not_join_two_network_namespaces",
            "this user may not make a network namespace",
        );
        return;
    }
    let dir = std::env::temp_dir().join(name("namespaces"));
    std::fs::create_dir(&dir).unwrap();
    let path = dir.join("bus");
    let options = ipmb::Options::new("by.path", label!("test"), "token").path(&path);
    let (sender, receiver) = ipmb::join::<u64, u64>(options, SOON).unwrap();
    let mut other = Peer::start_under(
        &["unshare", "--net"],
        "peer",
        "path",
        path.to_str().unwrap(),
    );
    other.expect("joined");
    for n in 0..100 {
        sender
            .send(Message::new(Selector::unicast("echo"), n))
            .unwrap();
        assert_eq!(receiver.recv(SOON).unwrap().payload, n);
    }
    // The host of the controller goes; the other takes over, beyond the border.
    drop((sender, receiver));
    let options = ipmb::Options::new("by.path", label!("test"), "token").path(&path);
    let (sender, receiver) = ipmb::join::<u64, u64>(options, SOON).unwrap();
    sender
        .send(Message::new(Selector::unicast("echo"), 7))
        .unwrap();
    assert_eq!(receiver.recv(SOON).unwrap().payload, 7);
    drop(other);
    // This endpoint takes over from the other one, and makes files; when it has left there are none.
    drop((sender, receiver));
    std::fs::remove_dir_all(&dir).unwrap();
}
