//! The controller lies to its members, and in its directory.

use super::{TOKEN, logged, member::receive, options, until};
use crate::{
    BytesMessage, EndpointReceiver, EndpointSender, Message, Options, Selector,
    control::{
        bus::Bus,
        directory::{Directory, Listed, Reader, Writer},
        proof::{Role, prove},
        protocol::{self, Hello, Refused, ToController, ToMember},
    },
    sys::{self, Channel, Handle, Memory, Protection, Seat},
};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

fn host(options: &Options) -> Seat {
    let bus = Bus::new(options.clone()).unwrap();
    let start = Instant::now();
    loop {
        if let Ok(Some(seat)) = bus.rendezvous.win() {
            return seat;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the name is taken"
        );
    }
}

fn accept(seat: &Seat) -> Channel {
    let start = Instant::now();
    loop {
        if let Ok((channel, _)) = seat.accept() {
            return channel;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "nobody comes");
        let _ = sys::wait_for(seat, Some(Duration::from_millis(100)));
    }
}

fn say(channel: &Channel, message: &ToMember, handles: &[Handle]) {
    let handles: Vec<_> = handles.iter().map(AsFd::as_fd).collect();
    let _ = channel.send(&protocol::encode(message), &handles);
}

/// Admits who comes, as an honest controller would.
fn admit(channel: &Channel, id: u64, directory: &Writer) -> Option<()> {
    let ours = Hello::new([9; 32]);
    channel.send(&protocol::encode(&ours), &[]).ok()?;
    let theirs: Hello = protocol::decode(&receive(channel)?.0)?;
    let (register, _) = receive(channel)?;
    let Some(ToController::Register { .. }) = protocol::decode(&register) else {
        return None;
    };
    let proof = prove(TOKEN, Role::Controller, &theirs.nonce, &ours.nonce);
    let directory = directory.memory().as_fd().try_clone_to_owned().unwrap();
    say(channel, &ToMember::Welcome { proof, id }, &[directory]);
    Some(())
}

fn listed(id: u64, name: &str) -> Listed {
    let mut label = Vec::new();
    let parts: crate::Label = [name].into_iter().collect();
    parts.encode(&mut label);
    Listed {
        id,
        pid: std::process::id(),
        uid: sys::uid(),
        start_time: 0,
        secret_hash: [0; 32],
        receives: true,
        label,
    }
}

type Endpoint = (EndpointSender<BytesMessage>, EndpointReceiver<BytesMessage>);

/// Two endpoints with a link, whose controller is killed (it ends in another way here) and followed by a liar.
struct Orphaned {
    a: Endpoint,
    b: Endpoint,
    seat: Seat,
    channels: Vec<Channel>,
    _directory: Writer,
}

fn message(number: u16) -> Message<BytesMessage> {
    let payload = BytesMessage {
        format: number,
        data: Vec::new(),
    };
    Message::new(Selector::unicast("b"), payload)
}

impl Orphaned {
    /// The liar is the first controller already: what differs is when it begins to lie.
    fn new(name: &str) -> Self {
        let mut options = options(name);
        options.controller_affinity = false;
        let seat = host(&options);
        let mut directory = Writer::new(1, 1, 0).unwrap();
        let mut channels = Vec::new();
        let mut join = |name: &str, id: u64, directory: &mut Writer| {
            let mut options = options.clone();
            options.label = [name].into_iter().collect();
            let joiner = std::thread::spawn(move || crate::join(options, super::SOON).unwrap());
            let channel = accept(&seat);
            directory.joined(&listed(id, name)).unwrap();
            admit(&channel, id, directory).unwrap();
            channels.push(channel);
            joiner.join().unwrap()
        };
        let a: Endpoint = join("a", 1, &mut directory);
        let b: Endpoint = join("b", 2, &mut directory);
        directory.settled().unwrap();
        let bus = Self {
            a,
            b,
            seat,
            channels,
            _directory: directory,
        };
        // First contact: the liar passes the link on.
        let sending = std::thread::scope(|s| {
            let sent = s.spawn(|| bus.a.0.send(message(0)));
            loop {
                let (packet, handles) = receive(&bus.channels[0]).unwrap();
                if let Some(ToController::Introduce { link, .. }) = protocol::decode(&packet) {
                    say(
                        &bus.channels[1],
                        &ToMember::Introduced { from: 1, link },
                        &handles,
                    );
                    break;
                }
            }
            sent.join().unwrap()
        });
        sending.unwrap();
        assert_eq!(bus.b.1.recv(super::SOON).unwrap().payload.format, 0);
        bus
    }

    /// The link in use carries on.
    #[track_caller]
    fn talks(&self, number: u16) {
        self.a
            .0
            .send_timeout(message(number), Some(Duration::from_secs(10)))
            .unwrap();
        assert_eq!(self.b.1.recv(super::SOON).unwrap().payload.format, number);
    }
}

#[test]
fn a_lying_controller_stops_links_in_use() {
    let bus = Orphaned::new("links");
    // There is no such link, or none that it has a say about any more.
    for link in [0, 1, 2, u64::MAX] {
        say(&bus.channels[0], &ToMember::NoSuchMember { link }, &[]);
    }
    // Links that are none.
    for from in 0..100 {
        say(
            &bus.channels[1],
            &ToMember::Introduced { from, link: 1 },
            &[],
        );
    }
    bus.talks(1);
    let distrusts = || logged(&["WARN", "the controller is not to be trusted"]);
    let before = distrusts();
    bus.channels[0].send(&[99; 50], &[]).unwrap();
    // An honest one has no room for so much.
    let room = 256 << 10;
    rustix::net::sockopt::set_socket_send_buffer_size(&bus.channels[1], room).unwrap();
    bus.channels[1].send(&[1; 40 << 10], &[]).unwrap();
    until("both break with it", || distrusts() >= before + 2);
    for number in 2..50 {
        bus.talks(number);
    }
}

/// Members that come back to somebody who has the name and neither the token nor the protocol keep their links.
#[test]
fn who_takes_the_name_ends_a_membership() {
    let mut bus = Orphaned::new("name");
    bus.channels.clear();
    let start = Instant::now();
    let mut number = 1;
    let mut lies = 0;
    while start.elapsed() < Duration::from_millis(500) || lies < 4 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "nobody comes back"
        );
        if let Ok((channel, _)) = bus.seat.accept() {
            lies += 1;
            let mut hello = Hello::new([3; 32]);
            match lies % 4 {
                0 => hello.major = 200,
                1 => {
                    let _ = channel.send(b"something else", &[]);
                }
                _ => {}
            }
            let _ = channel.send(&protocol::encode(&hello), &[]);
            let refused = match lies % 2 {
                0 => Refused::Token,
                _ => Refused::Permission,
            };
            say(&channel, &ToMember::Refused(refused), &[]);
        }
        bus.talks(number);
        number = number.wrapping_add(1);
    }
}

/// A directory in which nothing is as it should be: it is read to where that shows, and then no further.
#[test]
fn a_directory_without_sense_stalls_its_readers() {
    let fresh = || Writer::new(1, 1, 0).unwrap();
    // Writes words at the start of the log and publishes a length.
    let lie = |words: &[u64], length: u64| {
        let memory = Memory::new(c"lies", 64 << 10).unwrap();
        let mapping = memory.map_all(Protection::ReadWrite).unwrap();
        let honest = fresh();
        let copy = Memory::from_peer(
            honest.memory().as_fd().try_clone_to_owned().unwrap(),
            1,
            1 << 30,
        );
        let copy = copy.unwrap().map_all(Protection::Read).unwrap();
        for at in (0..256).step_by(8) {
            let value = super::link::word(&copy, at).load(crate::sync::process::Ordering::Relaxed);
            super::link::word(&mapping, at).store(value, crate::sync::process::Ordering::Relaxed);
        }
        for (i, value) in words.iter().enumerate() {
            let word = super::link::word(&mapping, 256 + i * 8);
            word.store(*value, crate::sync::process::Ordering::Relaxed);
        }
        let word = super::link::word(&mapping, 136);
        word.store(length, crate::sync::process::Ordering::Relaxed);
        let mut reader = Reader::new(Directory::open(memory).unwrap());
        let result = reader.catch_up();
        assert_eq!(reader.catch_up().is_ok(), result.is_ok());
        (result, reader.members.len())
    };
    assert!(lie(&[], 0).0.is_ok());
    for length in [1, 7, 8, 9, 64 << 10, 1 << 63, u64::MAX] {
        assert!(lie(&[], length).0.is_err(), "{length}");
    }
    for size in [0, 9, 1 << 20, 1 << 63, u64::MAX, u64::MAX - 7] {
        assert!(lie(&[size, 3], 16).0.is_err(), "{size}");
    }
    // A label that claims to be endless, and one of an endless number of parts.
    let mut entry = vec![0u8];
    entry.extend([1, 1, 1, 1]);
    entry.extend([0; 32]);
    entry.push(1);
    entry.extend([255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    let mut words = vec![entry.len() as u64];
    entry.resize(entry.len().next_multiple_of(8), 0);
    words.extend(
        entry
            .chunks(8)
            .map(|c| u64::from_le_bytes(c.try_into().unwrap())),
    );
    assert!(lie(&words, words.len() as u64 * 8).0.is_err());
    // Ids that those after them overflow with.
    for id in [0, 1 << 62, u64::MAX] {
        let mut writer = fresh();
        if id < u64::MAX {
            writer.joined(&listed(id, "x")).unwrap();
            let memory = writer.memory().as_fd().try_clone_to_owned().unwrap();
            let memory = Directory::memory_from_peer(memory).unwrap();
            let mut reader = Reader::new(Directory::open(memory).unwrap());
            assert!(reader.catch_up().is_err(), "{id}");
        }
    }
}

/// More members than any bus has.
#[test]
fn members_without_end_pile_up_at_a_reader() {
    let mut writer = Writer::new(1, 1, 32 << 20).unwrap();
    let memory = writer.memory().as_fd().try_clone_to_owned().unwrap();
    let memory = Directory::memory_from_peer(memory).unwrap();
    let mut reader = Reader::new(Directory::open(memory).unwrap());
    let mut id = 0;
    while id < 70_000 {
        id += 1;
        writer.joined(&listed(id, "x")).unwrap();
    }
    assert!(reader.catch_up().is_err());
    assert!(reader.members.len() <= 1 << 16);
}

/// As if there were no memory for it. One that broke off would hand over once more what was passed on by then.
#[test]
fn a_leaver_that_cannot_take_a_directory_breaks_off() {
    let bus = Orphaned::new("leaver");
    let channel = &bus.channels[0];
    std::thread::scope(|s| {
        let leave = s.spawn(|| bus.a.0.leave(super::SOON));
        loop {
            let (packet, _) = receive(channel).unwrap();
            if let Some(ToController::Leave) = protocol::decode(&packet) {
                break;
            }
        }
        let none = std::fs::File::open("/dev/null").unwrap();
        say(channel, &ToMember::Directory, &[none.into()]);
        say(channel, &ToMember::Done, &[]);
        leave.join().unwrap().unwrap();
    });
}

/// A directory that turns bad while it is in use: links in use go on, and the members look for another controller.
#[test]
fn a_directory_that_turns_bad_stops_links_in_use() {
    let mut bus = Orphaned::new("turns");
    bus.talks(1);
    let before = logged(&["WARN", "directory makes no sense"]);
    // An entry that is none.
    bus._directory
        .joined(&Listed {
            label: vec![255; 9],
            ..listed(3, "c")
        })
        .unwrap();
    bus.talks(2);
    until("it is noticed", || {
        logged(&["WARN", "directory makes no sense"]) > before
    });
    for number in 3..20 {
        bus.talks(number);
    }
}
