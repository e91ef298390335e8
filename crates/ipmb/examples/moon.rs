//! Sends a message to `earth` every second, for ever. Start `earth` in another terminal:
//! `cargo run --example earth` and `cargo run --example moon`.

#![allow(clippy::expect_used, unused_variables, unused_mut)]

use ipmb::label;
use std::{thread, time::Duration};

fn main() {
    let options = ipmb::Options::new("com.solar", label!("moon"), "");
    let (sender, receiver) = ipmb::join::<String, String>(options, None).expect("Join");
    loop {
        let selector = ipmb::Selector::unicast("earth");
        let mut message = ipmb::Message::new(selector, "hello world".to_string());
        sender.send(message).expect("Send message failed");
        thread::sleep(Duration::from_secs(1));
    }
}
