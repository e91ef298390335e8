//! Endpoints of one process, each on threads of its own: messages of every kind to and fro, while others join and leave.
//! ThreadSanitizer sees both sides here (`.ci/targets run tsan`).

#![allow(clippy::expect_used)]

mod common;

use common::{SOON, name};
use ipmb::{
    BytesMessage, EndpointReceiver, EndpointSender, LabelOp, MemoryRegion, Message, Options,
    Selector, label,
};
use std::{collections::HashMap, thread};

type Sender = EndpointSender<BytesMessage>;
type Receiver = EndpointReceiver<BytesMessage>;

/// Each sender's messages to each receiver.
const EACH: u32 = 600;

fn join(bus: &str, label: ipmb::Label) -> (Sender, Receiver) {
    // The smallest links, so that senders wait for space.
    let options = Options::new(bus, label, "token").link_capacity(64 << 10);
    ipmb::join(options, SOON).expect("join")
}

fn bytes(from: u16, n: u32, size: usize) -> BytesMessage {
    let mut data = n.to_le_bytes().to_vec();
    data.resize(size, n as u8);
    BytesMessage { format: from, data }
}

/// Small ones, some that go into blocks, some with a region.
fn send(sender: &Sender, from: u16, selector: Selector, n: u32) {
    let size = if n % 16 == 0 { 20_000 } else { 40 };
    let mut message = Message::new(selector, bytes(from, n, size));
    if n % 50 == 0 {
        let mut region = MemoryRegion::new(100);
        region.map(..).expect("map").fill(n as u8);
        message.memory_regions.push(region);
    }
    sender.send(message).expect("send");
}

/// Receives what `senders` send, and checks that each one's is in order and as it was sent.
fn receive(receiver: &Receiver, senders: usize) {
    let mut next: HashMap<u16, u32> = HashMap::new();
    for _ in 0..senders as u32 * EACH {
        let message = receiver.recv(SOON).expect("receive");
        let data = &message.payload.data;
        let n = next.entry(message.payload.format).or_default();
        assert_eq!(data[..4], n.to_le_bytes());
        assert!(data[4..].iter().all(|byte| *byte == *n as u8));
        for mut region in message.memory_regions {
            assert!(region.map(..).expect("map").iter().all(|b| *b == *n as u8));
        }
        *n += 1;
    }
}

#[test]
fn endpoints_of_one_process_race_with_each_other() {
    let bus = name("threads");
    let receivers = ["a", "b"].map(|part| join(&bus, label!("all", part)));
    thread::scope(|s| {
        for from in 0..3u16 {
            let bus = &bus;
            s.spawn(move || {
                let (sender, receiver) = join(bus, label!("sender"));
                for n in 0..EACH {
                    let both = Selector::multicast(LabelOp::from("a").or("b"));
                    let one = |part: &str| Selector::unicast(part);
                    if n % 3 == 0 {
                        send(&sender, from, both, n);
                    } else {
                        send(&sender, from, one("a"), n);
                        send(&sender, from, one("b"), n);
                    }
                }
                drop((sender, receiver));
            });
        }
        for (_, receiver) in &receivers {
            s.spawn(|| receive(receiver, 3));
        }
        s.spawn(|| {
            for _ in 0..20 {
                drop(join(&bus, label!("restless")));
            }
        });
    });
}
