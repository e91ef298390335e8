//! What travels, and to whom.

use super::{SOON, bytes, join, name, program::Program};
use ipmb::{
    BytesMessage, Encoder, Error, MemoryRegion, Message, MessageBox, Payload, Selector, TypeUuid,
    label,
};
use std::{
    fs::File,
    io::Write,
    os::fd::{FromRawFd, OwnedFd},
};

const BOTH: [&str; 2] = ["tests/peer_c", "tests/peer_cpp"];

/// Runs a role of the C peer and then of the C++ one.
fn with_both(role: &str, test: impl Fn(&str, Program)) {
    for program in BOTH {
        let bus = name(role);
        let Some(mut program) = Program::start(program, &[role, &bus]) else {
            return;
        };
        program.expect("ready");
        test(&bus, program);
    }
}

/// Both ends of a pipe; `std::io::pipe` is younger than the oldest compiler.
fn pipe() -> (File, OwnedFd) {
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors, which are owned from here on.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (File::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}

#[test]
fn payloads_objects_and_regions_do_not_come_back_as_they_went() {
    with_both("echo", |bus, mut program| {
        let (sender, receiver) = join(bus, label!("test"));
        let sizes = [0, 1, 253, 4096, 65_000, 200_000, 5 << 20];
        for (format, size) in sizes.into_iter().enumerate() {
            let data: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let payload = bytes(format as u16, &data);
            sender
                .send(Message::new(Selector::unicast("peer"), payload))
                .unwrap();
            let mut answer = receiver.recv(SOON).unwrap().payload;
            assert_eq!(answer.format, format as u16 + 1);
            answer.data.reverse();
            assert!(answer.data == data, "of {size} bytes");
        }
        let mut message = Message::new(Selector::unicast("peer"), bytes(7, b"abc"));
        let file = File::open("/dev/null").unwrap();
        message.objects.push(file.into());
        let (mut reader, writer) = pipe();
        message.objects.push(writer.into());
        for size in [1, 100_000] {
            let mut region = MemoryRegion::new(size);
            region.map(..).unwrap().fill(9);
            message.memory_regions.push(region);
        }
        sender.send(message).unwrap();
        let mut answer = receiver.recv(SOON).unwrap();
        assert_eq!(answer.payload, bytes(8, b"cba"));
        assert_eq!(answer.objects.len(), 2);
        // The order is kept: the pipe is the second.
        let mut writer = File::from(OwnedFd::from(answer.objects.remove(1)));
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut read = String::new();
        std::io::Read::read_to_string(&mut reader, &mut read).unwrap();
        assert_eq!(read, "through");
        let sizes: Vec<u64> = answer
            .memory_regions
            .iter()
            .map(MemoryRegion::buffer_size)
            .collect();
        assert_eq!(sizes, [1, 100_000]);
        for region in &mut answer.memory_regions {
            assert_eq!(region.map(..).unwrap()[0], 10);
        }
        sender
            .send(Message::new(Selector::unicast("peer"), bytes(0xffff, b"")))
            .unwrap();
        program.expect("bye");
        program.end();
    });
}

#[test]
fn a_full_receiver_does_not_give_the_message_back_to_try_send() {
    with_both("full", |bus, mut program| {
        let (_sender, receiver) = join(bus, label!("slow"));
        program.tell();
        let said = program.hear();
        let count: u32 = said.strip_prefix("full ").unwrap().parse().unwrap();
        assert!(count > 10);
        for i in 0..=count {
            let data = receiver.recv(SOON).unwrap().payload.data;
            assert_eq!((data.len(), &data[..4]), (1000, &i.to_ne_bytes()[..]));
        }
        program.expect("sent");
        program.tell();
        program.expect("bye");
        program.end();
    });
}

#[test]
fn a_multicast_that_was_handed_back_reaches_somebody_twice_or_not_at_all() {
    let bus = name("unreached");
    let Some(mut program) = Program::start("tests/peer_c", &["unreached", &bus]) else {
        return;
    };
    program.expect("ready");
    let (_sender, slow) = join(&bus, label!("many", "slow"));
    let (_other, free) = join(&bus, label!("many"));
    program.tell();
    let said = program.hear();
    let count: u32 = said.strip_prefix("full ").unwrap().parse().unwrap();
    for _ in 0..=count {
        slow.recv(SOON).unwrap();
    }
    program.expect("sent");
    free.recv(SOON).unwrap();
    assert!(slow.try_recv().is_err() && free.try_recv().is_err());
    program.tell();
    program.expect("bye");
    program.end();
}

/// Says of itself that it is a [`BytesMessage`], and is not.
struct Lie;

impl MessageBox for Lie {
    fn uuid(&self) -> [u8; 16] {
        BytesMessage::UUID
    }
    fn accepts(_: &[u8; 16]) -> bool {
        false
    }
    fn encode<'a>(&'a self, encoder: &mut Encoder<'a>) -> Result<(), Error> {
        encoder.put(&[1])
    }
    fn decode(_: &[u8; 16], _: &mut Payload<'_>) -> Result<Self, Error> {
        Err(Error::TypeUuidNotFound)
    }
}

/// What a Rust program sends to programs in several languages.
#[derive(ipmb::MessageBox)]
enum Several {
    Text(String),
    Bytes(BytesMessage),
}

#[test]
fn a_payload_that_does_not_decode_or_of_another_type_stops_the_receiver() {
    with_both("decode", |bus, mut program| {
        let options = || ipmb::Options::new(bus, label!("test"), "token");
        let (liar, _) = ipmb::join::<Lie, ()>(options(), SOON).unwrap();
        let to = || Selector::unicast("peer");
        liar.send(Message::new(to(), Lie)).unwrap();
        // One endpoint after the other, since there is no order across senders.
        liar.leave(SOON).unwrap();
        let (sender, _) = ipmb::join::<Several, ()>(options(), SOON).unwrap();
        for payload in [Several::Text("x".into()), Several::Bytes(bytes(5, b"x"))] {
            sender.send(Message::new(to(), payload)).unwrap();
        }
        program.expect("done");
        program.tell();
        program.expect("bye");
        program.end();
    });
}

#[test]
fn a_selector_of_another_language_chooses_others() {
    with_both("selectors", |bus, mut program| {
        let (_s, earth) = join(bus, label!("planet", "earth"));
        let (_t, jupiter) = join(bus, label!("planet", "gas"));
        program.tell();
        program.expect("sent");
        // First contacts are passed on by the controller, which may take a moment.
        let all = |receiver: &ipmb::EndpointReceiver<BytesMessage>| {
            let mut text = String::new();
            for _ in 0..3 {
                let message = receiver.recv(SOON).unwrap();
                text.push_str(std::str::from_utf8(&message.payload.data).unwrap());
            }
            assert!(receiver.try_recv().is_err(), "more than {text}");
            text
        };
        assert_eq!((all(&earth), all(&jupiter)), ("136".into(), "236".into()));
        let (_u, late) = join(bus, label!("late"));
        assert_eq!(late.recv(SOON).unwrap().payload.data, b"5");
        program.tell();
        program.expect("bye");
        program.end();
    });
}

#[test]
fn regions_lose_their_contents_or_their_freezing_or_are_freed_early() {
    with_both("regions", |bus, mut program| {
        let (_sender, receiver) = join(bus, label!("test"));
        let mut message = receiver.recv(SOON).unwrap();
        assert_eq!(message.payload.data, b"regions");
        let mut lent = message.memory_regions.pop().unwrap();
        let frozen = message.memory_regions.pop().unwrap();
        assert_eq!(frozen.as_frozen().unwrap(), [b'f'; 8192]);
        assert!(!lent.is_frozen());
        assert!(lent.map(..4096).unwrap().iter().all(|byte| *byte == b'l'));
        lent.map(..).unwrap()[0] = b'r';
        let object = message.objects.pop().unwrap();
        let mut pipe = File::from(OwnedFd::from(object));
        pipe.write_all(b"hey").unwrap();
        program.expect("seen");
        drop((lent, frozen));
        program.tell();
        program.expect("bye");
        program.end();
    });
}

#[test]
fn an_event_loop_misses_a_message() {
    with_both("events", |bus, mut program| {
        let (sender, _receiver) = join(bus, label!("test"));
        for burst in [1u16, 2, 50] {
            for format in 0..burst {
                sender
                    .send(Message::new(Selector::unicast("peer"), bytes(format, b"x")))
                    .unwrap();
            }
            for format in 0..burst {
                program.expect(&format!("got {format}"));
            }
        }
        sender
            .send(Message::new(Selector::unicast("peer"), bytes(0xffff, b"")))
            .unwrap();
        program.expect("bye");
        program.end();
    });
}

#[test]
fn bad_arguments_crash_instead_of_being_errors() {
    let bus = name("border");
    if let Some(mut program) = Program::start("tests/border", &[&bus]) {
        program.expect("fine");
        program.end();
    }
    let bus = name("empty");
    if let Some(mut program) = Program::start("tests/peer_cpp", &["empty", &bus]) {
        program.expect("ready");
        program.expect("bye");
        program.end();
    }
}

#[test]
#[ignore = "it needs 5 GiB of memory"]
fn a_size_of_more_than_4_gib_is_cut() {
    let Some(mut program) = Program::start("tests/large", &[]) else {
        return;
    };
    program.expect("fine");
    program.end();
}
