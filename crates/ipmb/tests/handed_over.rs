//! Regions between processes, as every system has them: by messages of the bus, and with holders that are really killed.

#![allow(clippy::expect_used)]

mod common;

use common::{Peer, SOON, join, listen, name, role, say};
use ipmb::{
    EndpointReceiver, EndpointSender, Error, MemoryRegion, MemoryRegistry, Message, Selector, label,
};
use std::time::{Duration, Instant};

/// What the other process of these tests does; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    #[cfg(unix)]
    match role.as_str() {
        "giver" => return sockets::give(&bus),
        "late" => return sockets::take(&bus),
        _ => {}
    }
    assert_eq!(role, "keeper");
    let (_sender, receiver) = join::<(), u64>(&bus, label!("keeper"));
    say("joined");
    let mut kept: Vec<MemoryRegion> = Vec::new();
    while let Some(line) = listen() {
        match line.as_str() {
            "take" => {
                let mut message = receiver.recv(SOON).expect("recv");
                kept.append(&mut message.memory_regions);
                say("taken");
            }
            "read" => {
                let last = kept.last_mut().expect("a region");
                let sum = match last.is_frozen() {
                    true => last
                        .as_frozen()
                        .expect("frozen")
                        .iter()
                        .map(|b| u64::from(*b))
                        .sum(),
                    false => last
                        .map(..)
                        .expect("map")
                        .iter()
                        .map(|b| u64::from(*b))
                        .sum::<u64>(),
                };
                let frozen = last.is_frozen() && last.map(..).is_err();
                say(&format!("{sum} {frozen} {}", last.buffer_size()));
            }
            "write" => {
                let last = kept.last_mut().expect("a region");
                last.map(..).expect("map").fill(3);
                say("written");
            }
            "drop" => {
                kept.clear();
                say("dropped");
            }
            other => panic!("unknown command {other}"),
        }
    }
}

struct Keeper {
    sender: EndpointSender<u64>,
    _receiver: EndpointReceiver<()>,
    peer: Peer,
}

impl Keeper {
    fn new(test: &str) -> Self {
        let bus = name(test);
        let (sender, _receiver) = join::<u64, ()>(&bus, label!("test"));
        let mut peer = Peer::start("peer", "keeper", &bus);
        peer.expect("joined");
        Self {
            sender,
            _receiver,
            peer,
        }
    }

    fn give(&mut self, region: MemoryRegion) {
        let mut message = Message::new(Selector::unicast("keeper"), 1);
        message.memory_regions.push(region);
        self.sender.send(message).expect("send");
        self.ask("take", "taken");
    }

    fn ask(&mut self, what: &str, answer: &str) {
        self.peer.tell(what);
        self.peer.expect(answer);
    }
}

#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_killed_holder_still_counts() {
    let mut keeper = Keeper::new("killed");
    let mut region = MemoryRegion::new(10_001);
    region.map(..).expect("map").fill(1);
    for _ in 0..3 {
        keeper.give(region.clone().expect("clone"));
    }
    until("three in the other process", || region.ref_count() == 4);
    keeper.ask("read", "10001 false 10001");
    keeper.ask("write", "written");
    assert_eq!(region.map(10_000..).expect("map"), [3]);
    keeper.peer.kill();
    until("its holders are gone", || region.ref_count() == 1);
}

#[test]
fn a_message_under_way_does_not_hold_its_regions() {
    let bus = name("under.way");
    let (sender, _r) = join::<u64, ()>(&bus, label!("from"));
    let (_s, receiver) = join::<(), u64>(&bus, label!("to"));
    let region = MemoryRegion::new(1);
    let mut message = Message::new(Selector::unicast("to"), 1);
    message.memory_regions.push(region.clone().expect("clone"));
    sender.send(message).expect("send");
    assert_eq!(region.ref_count(), 2);
    let message = receiver.recv(SOON).expect("recv");
    assert_eq!(region.ref_count(), 2);
    drop(message);
    assert_eq!(region.ref_count(), 1);
}

#[test]
fn a_frozen_region_can_be_written_to_or_is_another() {
    let mut keeper = Keeper::new("frozen");
    let mut region = MemoryRegion::new(5_000);
    region.map(..).expect("map").fill(2);
    region.freeze().expect("freeze");
    assert!(matches!(region.map(..), Err(Error::Frozen)));
    keeper.give(region.clone().expect("clone"));
    keeper.ask("read", "10000 true 5000");
    assert!(region.as_frozen().expect("frozen").iter().all(|b| *b == 2));
}

#[test]
fn a_region_that_somebody_maps_can_be_frozen() {
    let mut keeper = Keeper::new("busy");
    let mut region = MemoryRegion::new(5_000);
    region.map(..).expect("map").fill(1);
    keeper.give(region.clone().expect("clone"));
    keeper.ask("write", "written");
    assert!(matches!(region.freeze(), Err(Error::Busy)));
    region.map(..).expect("still writable")[0] = 9;
    keeper.ask("drop", "dropped");
    until("nobody maps it", || region.freeze().is_ok());
    let bytes = region.as_frozen().expect("frozen");
    assert!(bytes[0] == 9 && bytes[1..].iter().all(|b| *b == 3));
}

#[test]
fn the_registry_gives_out_what_a_process_holds_or_keeps_what_a_killed_one_held() {
    let mut keeper = Keeper::new("registry");
    let mut registry = MemoryRegistry::default();
    let mut region = registry.alloc(8_192, Some("tag"));
    region.map(..).expect("map")[0] = 77;
    keeper.give(region);
    for _ in 0..10 {
        let mut other = registry.alloc(8_192, Some("tag"));
        assert_ne!(other.map(..).expect("map")[0], 77);
    }
    keeper.peer.kill();
    let mut held = Vec::new();
    until("it is used again", || {
        let mut region = registry.alloc(8_192, Some("tag"));
        let again = region.map(..).expect("map")[0] == 77;
        held.push(region);
        if held.len() > 2 {
            held.clear();
        }
        again
    });
}

/// With sockets among what is handed over.
#[cfg(unix)]
mod sockets {
    use super::*;
    use common::{keeps_orphans, lacks, owned};
    use ipmb::{BytesMessage, Object};
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    fn message(len: usize) -> Message<BytesMessage> {
        let data = vec![7; len];
        Message::new(Selector::unicast("late"), BytesMessage { format: 0, data })
    }

    /// Sends a region, both ends of a socket, and a large payload. Nobody else has these.
    pub fn give(bus: &str) {
        let (sender, receiver) = join::<BytesMessage, BytesMessage>(bus, label!("giver"));
        say("joined");
        listen();
        let (left, right) = UnixStream::pair().expect("pair");
        let mut first = message(1);
        first.memory_regions.push(MemoryRegion::new(5_000));
        first.memory_regions[0].map(..).expect("map").fill(3);
        first.objects.push(Object::from(left));
        let mut second = message(2);
        second.objects.push(Object::from(right));
        for message in [first, second, message(1 << 20)] {
            sender.try_send(message).expect("room in a new link");
        }
        say("given");
        listen();
        drop((sender, receiver));
        say("left");
        listen();
    }

    pub fn take(bus: &str) {
        let (_sender, receiver) = join::<BytesMessage, BytesMessage>(bus, label!("late"));
        say("joined");
        listen();
        let next = || receiver.recv(SOON).expect("recv");
        let (mut first, mut second, third) = (next(), next(), next());
        assert_eq!(first.memory_regions[0].map(..).expect("map"), [3; 5_000]);
        let mut ends = [&mut first, &mut second].map(|message| {
            let object = message.objects.remove(0);
            UnixStream::from(owned(object))
        });
        let [left, right] = &mut ends;
        left.write_all(b"here").expect("write");
        let mut heard = [0; 4];
        right.read_exact(&mut heard).expect("read");
        assert_eq!(heard, *b"here");
        assert_eq!(third.payload.data, [7; 1 << 20]);
        say("all of it");
    }

    #[test]
    fn a_link_whose_sender_goes_before_it_is_accepted_loses_what_lies_in_it() {
        let test = "a_link_whose_sender_goes_before_it_is_accepted_loses_what_lies_in_it";
        if lacks(keeps_orphans(), test, "this system does not keep it") {
            return;
        }
        for leaves in [false, true] {
            let bus = name("orphan");
            let _host = join::<(), ()>(&bus, label!("host"));
            let start = |role| {
                let mut peer = Peer::start("peer", role, &bus);
                peer.expect("joined");
                peer
            };
            let (mut late, mut giver) = (start("late"), start("giver"));
            late.stop();
            giver.tell("give");
            giver.expect("given");
            if leaves {
                giver.tell("leave");
                giver.expect("left");
            }
            giver.kill();
            late.go_on();
            late.tell("take");
            late.expect("all of it");
        }
    }
}
