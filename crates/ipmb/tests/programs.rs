//! Programs that were written for the older `ipmb` crate, as they stand: they compile, run, and print what they always did.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use common::{Peer, alone_under, may_unshare_net, role};

#[rustfmt::skip]
mod earth {
    #![allow(unused_variables)]
    use ipmb::label;
    pub fn main() {
        let options = ipmb::Options::new(
            "com.solar", label!("earth"), "");
        let (sender, receiver) =
            ipmb::join::<String, String>(
            options, None).expect("Join");
        while let Ok(message) = receiver.recv(None) {
            log::info!("received: {}", message.payload);
        }
    }
}

#[rustfmt::skip]
mod moon {
    #![allow(unused_variables, unused_mut)]
    use ipmb::label;
    use std::{thread, time::Duration};
    pub fn main() {
        let options = ipmb::Options::new(
            "com.solar", label!("moon"), "");
        let (sender, receiver) =
            ipmb::join::<String, String>(
            options, None).expect("Join");
        loop {
            let selector = ipmb::Selector::unicast("earth");
            let mut message =
                ipmb::Message::new(selector, "hello world".to_string());
            sender.send(message).expect("Send message failed");
            thread::sleep(Duration::from_secs(1));
        }
    }
}

#[rustfmt::skip]
mod several {
    use serde::{Deserialize, Serialize};
    use type_uuid::TypeUuid;
    #[derive(Debug, Serialize, Deserialize, TypeUuid)]
    #[uuid = "7b07473e-9659-4d47-a502-8245d71c0078"]
    pub struct MyMessage { pub foo: i32, pub bar: bool }

    use ipmb::MessageBox;
    #[derive(MessageBox)]
    pub enum MultipleMessage { String(String), I32(i32), MyMessage(MyMessage) }

    pub fn join(options: ipmb::Options) -> (ipmb::EndpointSender<MultipleMessage>, ipmb::EndpointReceiver<MultipleMessage>) {
        let (sender, receiver) = ipmb::join::<MultipleMessage, MultipleMessage>(options, None).unwrap();
        (sender, receiver)
    }

    pub fn attach(message: &mut ipmb::Message<MultipleMessage>, raw: super::common::Raw) {
        // SAFETY: the caller gives the descriptor away.
        let obj = unsafe { ipmb::Object::from_raw(raw) };
        message.objects.push(obj);
        let mut region = ipmb::MemoryRegion::new(16 << 10);
        let data = region.map(..).expect("Mapping failed");
        data[0] = 0x10;
        message.memory_regions.push(region);
        let mut registry = ipmb::MemoryRegistry::default();
        let mut region = registry.alloc(8 << 20, None);
        region.map(..).expect("Mapping failed")[1] = 0x20;
        message.memory_regions.push(region);
    }
}

/// Says what is logged.
struct Print;

impl log::Log for Print {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Info {
            common::say(&record.args().to_string());
        }
    }
    fn flush(&self) {}
}

/// What the other processes of these tests do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, _)) = role() else { return };
    log::set_logger(&Print).expect("the only logger");
    log::set_max_level(log::LevelFilter::Info);
    match role.as_str() {
        "earth" => earth::main(),
        "moon" => moon::main(),
        other => panic!("unknown role {other}"),
    }
}

#[test]
fn the_first_program_prints_something_else() {
    // Its bus has a fixed name: it gets a name space of its own where that is possible.
    let under: &[&str] = match may_unshare_net() {
        true => &["unshare", "--net"],
        false => &[],
    };
    if !alone_under(under, "the_first_program_prints_something_else") {
        return;
    }
    let mut earth = Peer::start("peer", "earth", "");
    let _moon = Peer::start("peer", "moon", "");
    for _ in 0..2 {
        earth.expect("received: hello world");
    }
}

#[test]
fn the_second_program_sends_something_else() {
    use ipmb::{Message, Selector, label};

    let options = ipmb::Options::new(common::name("programs"), label!("both"), "");
    let (sender, mut receiver) = several::join(options);
    let payloads = [
        several::MultipleMessage::String("text".to_string()),
        several::MultipleMessage::I32(-7),
        several::MultipleMessage::MyMessage(several::MyMessage { foo: 5, bar: true }),
    ];
    for payload in payloads {
        let mut message = Message::new(Selector::unicast("both"), payload);
        let file = std::fs::File::open(common::ANY_FILE).unwrap();
        several::attach(&mut message, ipmb::Object::from(file).into_raw());
        sender.send(message).unwrap();
    }
    let mut receive = || {
        let mut message = receive_mut(&mut receiver);
        assert_eq!(message.objects.len(), 1);
        assert_eq!(message.memory_regions[0].map(..).unwrap()[0], 0x10);
        assert_eq!(message.memory_regions[1].map(..).unwrap()[1], 0x20);
        message.payload
    };
    use several::MultipleMessage::{I32, MyMessage, String};
    assert!(matches!(receive(), String(text) if text == "text"));
    assert!(matches!(receive(), I32(-7)));
    assert!(matches!(receive(), MyMessage(m) if m.foo == 5 && m.bar));
}

/// Programs bind their receiver with `mut` or without.
fn receive_mut<R: ipmb::MessageBox>(receiver: &mut ipmb::EndpointReceiver<R>) -> Message<R> {
    receiver.recv(common::SOON).unwrap()
}

use ipmb::Message;
