//! What the dying process does: joins, prepares, arms itself, and then does what it is named for, saying what it knows.

use super::{
    common::{SOON, listen, say},
    wait_for_the_end,
};
use ipmb::{
    BytesMessage, EndpointReceiver, EndpointSender, MemoryRegistry, Message, Object, Options,
    Selector, crash, label,
};
use std::{
    io::Write,
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::Duration,
};

/// Kinds of messages, told by their format: the victim's first one, its others, and work for it.
pub const HELLO: u16 = 1;
pub const NOTE: u16 = 2;
pub const WORK: u16 = 3;

/// The n-th message of a kind: a number, and as many bytes as asked for that depend on it.
pub fn message(selector: Selector, kind: u16, n: u64, size: usize) -> Message<BytesMessage> {
    let mut data = n.to_le_bytes().to_vec();
    data.extend((data.len()..size).map(|at| (at as u64 * 7 + n) as u8));
    Message::new(selector, BytesMessage { format: kind, data })
}

/// The number of a message that is as it was made.
pub fn number(payload: &BytesMessage) -> Option<u64> {
    let n = u64::from_le_bytes(payload.data.get(..8)?.try_into().ok()?);
    let intact = payload.data.iter().enumerate().skip(8);
    let intact = intact
        .clone()
        .all(|(at, byte)| *byte == (at as u64 * 7 + n) as u8);
    intact.then_some(n)
}

pub fn for_a_minute(mut selector: Selector) -> Selector {
    selector.ttl = Duration::from_secs(60);
    selector
}

/// An end of a pipe with a number in it.
pub fn pipe_with(n: u64) -> Object {
    let (read, mut write) = UnixStream::pair().expect("pipe");
    write.write_all(&n.to_le_bytes()).expect("write");
    Object::from(OwnedFd::from(read))
}

type Sender = EndpointSender<BytesMessage>;
type Receiver = EndpointReceiver<BytesMessage>;

/// Plays a role: the operation, and at which point to die.
pub fn play(role: &str, bus: &str) {
    let (what, points) = role.rsplit_once(' ').expect("what and when");
    let points: u64 = points.parse().expect("a number");
    if what == "join" {
        crash::arm(points);
    }
    let options = Options::new(bus, label!("victim", "work", "all"), "token");
    let (sender, receiver): (Sender, Receiver) = ipmb::join(options, SOON).expect("join");
    if what != "join" {
        say("joined");
        listen().expect("the word to prepare");
        let meets = ["send", "large", "handles", "registry", "multicast"].contains(&what);
        if meets {
            let hello = message(Selector::unicast("keep"), HELLO, 1, 16);
            sender.send(hello).expect("hello");
        }
        if what == "multicast" {
            let hello = message(Selector::unicast("echo"), HELLO, 2, 16);
            sender.send(hello).expect("hello");
        }
        if what == "leave" {
            let parked = message(for_a_minute(Selector::unicast("late")), NOTE, 1, 16);
            sender.send(parked).expect("park");
        }
        say("ready");
        listen().expect("the word to begin");
        crash::arm(points);
        act(what, &sender, &receiver);
    }
    wait_for_the_end();
    say(&format!("left {}", crash::disarm()));
}

fn act(what: &str, sender: &Sender, receiver: &Receiver) {
    let send = |message: Message<BytesMessage>, n: u64| {
        sender.send_timeout(message, SOON).expect("send");
        say(&format!("sent {n}"));
    };
    let keep = || Selector::unicast("keep");
    match what {
        "send" => (1..=4).for_each(|n| send(message(keep(), NOTE, n, 8), n)),
        "large" => (1..=3).for_each(|n| send(message(keep(), NOTE, n, 300_000), n)),
        "first" => (1..=2).for_each(|n| send(message(keep(), NOTE, n, 16), n)),
        "handles" => {
            for n in 1..=2 {
                let mut message = message(keep(), NOTE, n, 16);
                let mut region = ipmb::MemoryRegion::new(10_000);
                region.map(..).expect("map").fill(n as u8);
                message.objects.push(pipe_with(n));
                message.memory_regions.push(region);
                send(message, n);
            }
        }
        "registry" => {
            let mut registry = MemoryRegistry::default();
            for n in 1..=3 {
                let mut region = registry.alloc(10_000, None);
                region.map(..).expect("map").fill(n as u8);
                let mut message = message(keep(), NOTE, n, 16);
                message.memory_regions.push(region.clone().expect("clone"));
                send(message, n);
                drop(region);
                registry.maintain();
                // One that nobody else gets, so that it is used again.
                registry.alloc(10_000, None).map(..).expect("map").fill(0);
            }
        }
        "multicast" => {
            let both = || Selector::multicast(ipmb::LabelOp::from("keep").or("echo"));
            (1..=3).for_each(|n| send(message(both(), NOTE, n, 16), n));
        }
        "parked" => send(
            message(for_a_minute(Selector::unicast("late")), NOTE, 1, 16),
            1,
        ),
        "leave" => {
            sender.leave(SOON).expect("leave");
            say("left");
        }
        "receive" | "receive large" | "receive handles" | "accept" => {
            say("armed");
            for n in 1..=6 {
                let work = receiver.recv(SOON).expect("receive");
                assert_eq!(number(&work.payload), Some(n));
                say(&format!("got {n}"));
            }
        }
        "admit" | "succeed" | "inherit" => say("armed"),
        other => panic!("unknown operation {other}"),
    }
}
