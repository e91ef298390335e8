//! A 32-bit and a 64-bit process on one bus. `IPMB_TEST_OTHER_WIDTH` names this test program, built for the other width.

mod common;

use common::{Peer, SOON, join, name, role, say};
use ipmb::{BytesMessage, MemoryRegion, Message, MessageBox, Object, Selector, label};
use std::io::{Read, Seek};

#[derive(Debug, MessageBox)]
enum Any {
    Number(u64),
    Bytes(BytesMessage),
}

/// Sends back what it gets, and says how wide its addresses are.
#[test]
fn peer() {
    let Some((_, bus)) = role() else { return };
    let (sender, receiver) = join::<Any, Any>(&bus, label!("echo"));
    say(&usize::BITS.to_string());
    loop {
        let message = receiver.recv(SOON).expect("recv");
        let last = matches!(message.payload, Any::Number(u64::MAX));
        let mut back = Message::new(Selector::unicast("test"), message.payload);
        back.objects = message.objects;
        back.memory_regions = message.memory_regions;
        for region in &mut back.memory_regions {
            let data = region.map(..).expect("map");
            data.iter_mut()
                .for_each(|byte| *byte = byte.wrapping_add(1));
        }
        sender.send(back).expect("send");
        if last {
            return;
        }
    }
}

#[test]
fn processes_of_two_widths_do_not_understand_each_other() {
    let Some(other) = std::env::var_os("IPMB_TEST_OTHER_WIDTH") else {
        println!(
            "SKIPPED processes_of_two_widths_do_not_understand_each_other: IPMB_TEST_OTHER_WIDTH names no program"
        );
        return;
    };
    // Who comes first hosts the controller: both orders.
    for first in [true, false] {
        let bus = name("widths");
        let mut early = first.then(|| join::<Any, Any>(&bus, label!("test")));
        let mut peer = Peer::start_program(&other, "peer", "echo", &bus);
        let width: u32 = peer.hear().parse().expect("a number");
        assert_ne!(width, usize::BITS, "the other program has the same width");
        let (sender, receiver) = early.take().unwrap_or_else(|| join(&bus, label!("test")));
        let send = |message: Message<Any>| {
            sender.send(message).expect("send");
            receiver.recv(SOON).expect("recv")
        };
        let to = || Selector::unicast("echo");

        for size in [0, 5_000, 200_000, 5 << 20] {
            let data: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
            let bytes = BytesMessage { format: 3, data };
            let back = send(Message::new(to(), Any::Bytes(bytes.clone())));
            match back.payload {
                Any::Bytes(back) => assert!(back.data == bytes.data && back.format == 3, "{size}"),
                Any::Number(n) => panic!("{n}"),
            }
        }

        let mut message = Message::new(to(), Any::Number(1 << 40));
        let mut region = MemoryRegion::new(100_000);
        region.map(..).expect("map").fill(7);
        let kept = region.clone().expect("clone");
        message.memory_regions.push(region);
        let program = std::fs::File::open(std::env::current_exe().expect("path")).expect("open");
        message.objects.push(Object::from(program));
        let mut back = send(message);
        assert!(matches!(back.payload, Any::Number(n) if n == 1 << 40));
        let mut region = back.memory_regions.pop().expect("a region");
        assert!(region.map(..).expect("map").iter().all(|byte| *byte == 8));
        drop(region);
        let start = std::time::Instant::now();
        while kept.ref_count() != 1 {
            assert!(start.elapsed().as_secs() < 60, "{}", kept.ref_count());
            std::thread::yield_now();
        }
        let object = back.objects.pop().expect("an object");
        let mut file = std::fs::File::from(common::owned(object));
        file.rewind().expect("rewind");
        let mut magic = [0; 4];
        file.read_exact(&mut magic).expect("read");
        assert_eq!(&magic, b"\x7fELF");

        send(Message::new(to(), Any::Number(u64::MAX)));
        peer.wait();
    }
}
