//! Sends a message to an earth in any language every second, for ever: `cargo run -p ipmb-ffi --example bytes_moon [BUS]`.

#![allow(clippy::expect_used)]

use ipmb::{BytesMessage, Message, Options, Selector, label};
use std::{thread, time::Duration};

fn main() {
    let bus = std::env::args().nth(1).unwrap_or("com.solar".into());
    let options = Options::new(bus, label!("moon"), "");
    let (sender, _receiver) =
        ipmb::join::<BytesMessage, BytesMessage>(options, None).expect("Join");
    loop {
        let payload = BytesMessage {
            format: 0,
            data: b"hello world".to_vec(),
        };
        sender
            .send(Message::new(Selector::unicast("earth"), payload))
            .expect("Send message failed");
        thread::sleep(Duration::from_secs(1));
    }
}
