//! The Rust side of the Node package's tests and benchmark: `js_peer BUS ROLE`, which is the endpoint's label.
//!
//! * `echo` answers each message to `node`: same data, format + 1, the objects, and the regions after it added 1 to their
//!   first byte, unless they are frozen.
//! * `sink` counts messages and reads their data, and answers the count to `node` at each message of format 1.
//!
//! Both end with the first message of format 9.
//!
//! * `liar` sends `node` what says of itself that it is bytes with a format, and is not, and then a message that is.
//!
//! On Windows, `js_peer PID in-use` tells of a process what it has in use.

#![allow(clippy::expect_used)]

use ipmb::{
    BytesMessage, Encoder, Error, Label, Message, MessageBox, Options, Payload, Selector, TypeUuid,
};
use std::time::Duration;

#[cfg(windows)]
mod in_use;

/// Bytes that are too few for a format, or a [`BytesMessage`].
enum Told {
    Lie,
    Truth(BytesMessage),
}

impl MessageBox for Told {
    fn uuid(&self) -> [u8; 16] {
        BytesMessage::UUID
    }
    fn accepts(_: &[u8; 16]) -> bool {
        false
    }
    fn encode<'a>(&'a self, encoder: &mut Encoder<'a>) -> Result<(), Error> {
        match self {
            Self::Lie => encoder.put(&[1]),
            Self::Truth(message) => message.encode(encoder),
        }
    }
    fn decode(_: &[u8; 16], _: &mut Payload<'_>) -> Result<Self, Error> {
        Err(Error::TypeUuidNotFound)
    }
}

/// Sends a lie and then the truth.
fn lie(options: Options) {
    let (sender, _) =
        ipmb::join::<Told, BytesMessage>(options, Some(Duration::from_secs(20))).expect("join");
    println!("joined");
    let truth = BytesMessage {
        format: 7,
        data: b"true".to_vec(),
    };
    for told in [Told::Lie, Told::Truth(truth)] {
        sender
            .send(Message::new(Selector::unicast("node"), told))
            .expect("send");
    }
}

fn main() {
    let mut words = std::env::args().skip(1);
    let (bus, role) = (words.next().expect("a bus"), words.next().expect("a role"));
    #[cfg(windows)]
    if role == "in-use" {
        return in_use::tell(bus.parse().expect("a process"));
    }
    let mut options = Options::new(bus, Label::from([&role]), "token");
    options.controller_affinity = false;
    if role == "liar" {
        return lie(options);
    }
    let (sender, receiver) =
        ipmb::join::<BytesMessage, BytesMessage>(options, Some(Duration::from_secs(20)))
            .expect("join");
    println!("joined");
    let answer =
        |format, data| Message::new(Selector::unicast("node"), BytesMessage { format, data });
    let (mut count, mut sum) = (0u64, 0u64);
    loop {
        let mut message = receiver.recv(None).expect("receive");
        let BytesMessage { format, data } = message.payload;
        if format == 9 {
            return;
        }
        if role == "echo" {
            let mut back = answer(format + 1, data);
            back.objects = message.objects;
            for region in &mut message.memory_regions {
                if region.is_frozen() {
                    continue;
                }
                if let Some(first) = region.map(..).expect("map").first_mut() {
                    *first += 1;
                }
                region.unmap();
            }
            back.memory_regions = message.memory_regions;
            sender.send(back).expect("answer");
            continue;
        }
        count += 1;
        sum += data.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        if format == 1 {
            let text = format!("{count} {sum}");
            sender.send(answer(1, text.into_bytes())).expect("answer");
            (count, sum) = (0, 0);
        }
    }
}
