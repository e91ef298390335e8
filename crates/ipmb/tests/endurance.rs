//! Long runs: what is used comes back, and standing still for a while changes nothing. The longest are run with `--ignored`.

#![cfg(unix)]
#![allow(clippy::expect_used)]

mod common;

use common::{Peer, SOON, alone, descriptors, join, listen, name, needs_linux, role, say};
use ipmb::{
    BytesMessage, MemoryRegion, MemoryRegistry, Message, Object, Options, RecvError, Selector,
    label,
};
use std::time::{Duration, Instant};

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
        // Sends numbers to "to", as many as it is told.
        "from" => {
            let (sender, _receiver) = join::<u64, ()>(&bus, label!("from"));
            say("joined");
            let mut next = 0;
            while let Some(line) = listen() {
                for _ in 0..line.parse::<u64>().expect("number") {
                    let message = Message::new(Selector::unicast("to"), next);
                    sender.send(message).expect("send");
                    next += 1;
                }
            }
        }
        // Receives numbers and says when it has seen as many as it was told, in order.
        "to" => {
            let (_sender, receiver) = join::<(), u64>(&bus, label!("to"));
            say("joined");
            let mut next = 0;
            while let Some(line) = listen() {
                for _ in 0..line.parse::<u64>().expect("number") {
                    assert_eq!(receiver.recv(SOON).expect("recv").payload, next);
                    next += 1;
                }
                say("seen");
            }
        }
        other => panic!("unknown role {other}"),
    }
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find(|l| l.starts_with("VmRSS:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
        .expect("VmRSS")
}

fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("proc");
    maps.lines().filter(|l| l.contains("memfd:ipmb")).count()
}

/// Runs `round` often, and checks that it leaves no descriptor, no mapping, and next to no memory behind.
fn repeat(rounds: u64, mut round: impl FnMut()) {
    (0..rounds / 10).for_each(|_| round());
    let handles = || (descriptors(), mappings());
    // The controller learns of an end a little later.
    std::thread::sleep(Duration::from_millis(300));
    let (before, memory) = (handles(), resident());
    (0..rounds).for_each(|_| round());
    let start = Instant::now();
    while handles() != before && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (after, memory_after) = (handles(), resident());
    eprintln!(
        "{rounds} rounds: descriptors and mappings {before:?} then {after:?}, resident {memory} KiB then {memory_after}"
    );
    assert_eq!(before, after);
    // The allocator's own fluctuation; a leak of 32 bytes per round shows in the longest runs.
    assert!(memory_after < memory + 4_096 + rounds / 32);
}

fn joins(rounds: u64) {
    let bus = name("joins");
    let _host = join::<(), ()>(&bus, label!("host"));
    repeat(rounds, || {
        let (sender, receiver) = join::<u64, u64>(&bus, label!("guest"));
        sender
            .send(Message::new(Selector::unicast("guest"), 1))
            .expect("send");
        receiver.recv(SOON).expect("recv");
    });
}

fn attachments(rounds: u64) {
    let bus = name("attachments");
    let (sender, _r) = join::<u64, ()>(&bus, label!("from"));
    let (_s, receiver) = join::<(), u64>(&bus, label!("to"));
    let (end, _other) = std::os::unix::net::UnixStream::pair().expect("pair");
    let object = Object::from(end);
    let mut registry = MemoryRegistry::default();
    let mut next = 0;
    repeat(rounds, || {
        let mut message = Message::new(Selector::unicast("to"), next);
        message.objects.push(object.clone().expect("clone"));
        message.memory_regions.push(match next % 100 {
            0 => MemoryRegion::new(4096),
            _ => registry.alloc(4096, None),
        });
        sender.send(message).expect("send");
        let arrived = receiver.recv(SOON).expect("recv");
        assert_eq!(arrived.payload, next);
        assert_eq!(
            (arrived.objects.len(), arrived.memory_regions.len()),
            (1, 1)
        );
        next += 1;
    });
}

#[test]
fn joins_leak() {
    if needs_linux("joins_leak", "it reads mappings and memory from /proc") {
        return;
    }
    if alone("joins_leak") {
        joins(300);
    }
}

#[test]
fn attachments_leak() {
    if needs_linux(
        "attachments_leak",
        "it reads mappings and memory from /proc",
    ) {
        return;
    }
    if alone("attachments_leak") {
        attachments(5_000);
    }
}

#[test]
#[ignore = "takes a minute"]
fn ten_thousand_joins_leak() {
    if needs_linux(
        "ten_thousand_joins_leak",
        "it reads mappings and memory from /proc",
    ) {
        return;
    }
    if alone("ten_thousand_joins_leak") {
        joins(10_000);
    }
}

#[test]
#[ignore = "takes a minute"]
fn a_million_attachments_leak() {
    if needs_linux(
        "a_million_attachments_leak",
        "it reads mappings and memory from /proc",
    ) {
        return;
    }
    if alone("a_million_attachments_leak") {
        attachments(1_000_000);
    }
}

#[test]
fn an_idle_link_keeps_its_memory() {
    if needs_linux(
        "an_idle_link_keeps_its_memory",
        "it reads mappings and memory from /proc",
    ) {
        return;
    }
    if !alone("an_idle_link_keeps_its_memory") {
        return;
    }
    let bus = name("idle");
    let options = |label: &str| {
        Options::new(bus.as_str(), label!(label), "").idle_link(Duration::from_millis(100))
    };
    let (sender, own) = ipmb::join::<BytesMessage, ()>(options("from"), SOON).expect("join");
    let (_s, receiver) = ipmb::join::<(), BytesMessage>(options("to"), SOON).expect("join");
    let exchange = |format| {
        let data = vec![1; 1 << 20];
        let message = Message::new(Selector::unicast("to"), BytesMessage { format, data });
        sender.send(message).expect("send");
        assert_eq!(receiver.recv(SOON).expect("recv").payload.format, format);
    };
    let before = (descriptors(), mappings());
    for format in 0..3 {
        exchange(format);
        assert_eq!(sender.stats().links_out, 1);
        assert!(descriptors() > before.0 && mappings() > before.1);
        let start = Instant::now();
        while (descriptors(), mappings()) != before {
            assert!(start.elapsed() < Duration::from_secs(10), "kept");
            // The receiver looks at its links when it receives.
            let nothing = receiver.recv(Some(Duration::from_millis(1)));
            assert!(matches!(nothing, Err(RecvError::Timeout)));
        }
        assert_eq!(sender.stats().links_out, 0);
    }
    drop(own);
}

/// A program that asks once per frame, and one that is never idle, do not sleep on their links.
#[test]
fn links_of_dead_senders_pile_up_at_who_never_waits() {
    let bus = name("frames");
    let (_s, receiver) = join::<(), u64>(&bus, label!("to"));
    for n in 0..5 {
        let (sender, _r) = join::<u64, ()>(&bus, label!("from"));
        let message = Message::new(Selector::unicast("to"), n);
        sender.send(message).expect("send");
    }
    let start = Instant::now();
    let mut seen = 0;
    while seen < 5 || receiver.stats().links_in > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "links are kept");
        seen += u64::from(receiver.try_recv().is_ok());
    }
    let (sender, _r) = join::<u64, ()>(&bus, label!("busy"));
    {
        let (brief, _r) = join::<u64, ()>(&bus, label!("brief"));
        let message = Message::new(Selector::unicast("to"), 0);
        brief.send(message).expect("send");
    }
    let start = Instant::now();
    let mut links = 2;
    while links > 1 {
        assert!(start.elapsed() < Duration::from_secs(10), "a link is kept");
        for _ in 0..100 {
            let message = Message::new(Selector::unicast("to"), 1);
            sender.send(message).expect("send");
            receiver.recv(SOON).expect("recv");
        }
        links = receiver.stats().links_in;
    }
}

/// Pauses of about the time after which a link is ended, so that many sends meet its end.
#[test]
fn a_message_is_lost_or_reordered_when_a_link_is_ended_as_idle() {
    let bus = name("ending");
    let idle = Duration::from_millis(10);
    let options = Options::new(bus.as_str(), label!("from"), "token").idle_link(idle);
    let (sender, _r) = ipmb::join::<u64, ()>(options, SOON).expect("join");
    let (_s, receiver) = join::<(), u64>(&bus, label!("to"));
    let sends = std::thread::spawn(move || {
        for n in 0..400u64 {
            let message = Message::new(Selector::unicast("to"), n);
            sender.send(message).expect("send");
            std::thread::sleep(Duration::from_micros(n * 7919 % 25_000));
        }
        sender.stats()
    });
    for n in 0..400 {
        assert_eq!(receiver.recv(SOON).expect("recv").payload, n);
    }
    let stats = sends.join().expect("thread");
    assert_eq!((stats.lost, stats.rerouted, stats.dropped), (0, 0, 0));
}

/// As when the machine sleeps: everybody stands still, and goes on.
#[test]
fn a_pause_of_everybody_costs_a_message_or_a_membership() {
    let bus = name("pause");
    let mut host = Peer::start("peer", "host", &bus);
    host.expect("joined");
    let mut to = Peer::start("peer", "to", &bus);
    to.expect("joined");
    let mut from = Peer::start("peer", "from", &bus);
    from.expect("joined");
    let orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]];
    let total = 200_000 * orders.len();
    to.tell(&total.to_string());
    from.tell(&total.to_string());
    for order in orders {
        for peer in [&host, &to, &from] {
            peer.stop();
        }
        std::thread::sleep(Duration::from_millis(150));
        for peer in order {
            [&host, &to, &from][peer].go_on();
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    to.expect("seen");
    // The bus is as it was: a newcomer is let in by the same controller.
    let (sender, _r) = join::<(), ()>(&bus, label!("late"));
    assert_eq!(sender.stats().lost, 0);
}

/// Processes that use the processors up, ten for each: everything takes as many times as long. Ended with this.
struct Crowd(Vec<std::process::Child>);

impl Crowd {
    fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let spin = || {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", "while :; do :; done"]);
            command.spawn().expect("a shell")
        };
        Self((0..10 * processors).map(|_| spin()).collect())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Nothing is decided by how long somebody takes to answer: not who is a member, not who is dead, not what is lost.
#[test]
#[ignore = "takes up the machine for a while"]
fn a_starved_machine_costs_a_message_or_a_membership() {
    let _crowd = Crowd::new();
    let bus = name("starved");
    for round in 0..5 {
        let bus = format!("{bus}.{round}");
        let mut host = Peer::start("peer", "host", &bus);
        host.expect("joined");
        let mut to = Peer::start("peer", "to", &bus);
        to.expect("joined");
        let mut from = Peer::start("peer", "from", &bus);
        from.expect("joined");
        let total = 20_000;
        to.tell(&total.to_string());
        from.tell(&(total / 2).to_string());
        // The controller dies in the middle; the rest is sent while another takes over, and somebody joins.
        host.kill();
        from.tell(&(total / 2).to_string());
        let (sender, receiver) = join::<u64, u64>(&bus, label!("late"));
        to.expect("seen");
        let start = Instant::now();
        sender
            .send(Message::new(Selector::unicast("late"), 1))
            .expect("send");
        assert_eq!(receiver.recv(SOON).expect("recv").payload, 1);
        assert_eq!(sender.stats().dropped, 0);
        let waited = receiver.recv(Some(Duration::from_millis(50)));
        assert!(
            matches!(waited, Err(RecvError::Timeout))
                && start.elapsed() >= Duration::from_millis(50)
        );
        from.wait();
        to.wait();
    }
}
