//! Receives what a moon in any language sends, for ever: `cargo run -p ipmb-ffi --example bytes_earth [BUS]`.

#![allow(clippy::expect_used)]

use ipmb::{BytesMessage, Options, label};

fn main() {
    let bus = std::env::args().nth(1).unwrap_or("com.solar".into());
    let options = Options::new(bus, label!("earth"), "");
    let (_sender, receiver) =
        ipmb::join::<BytesMessage, BytesMessage>(options, None).expect("Join");
    while let Ok(message) = receiver.recv(None) {
        println!(
            "received: {}",
            String::from_utf8_lossy(&message.payload.data)
        );
    }
}
