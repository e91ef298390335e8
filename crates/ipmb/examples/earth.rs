//! Receives what `moon` sends, for ever. Start it in one terminal and `moon` in another:
//! `cargo run --example earth` and `cargo run --example moon`.
//!
//! The messages go to the crate `log`; install a logger of your choice to see them.

#![allow(clippy::expect_used, unused_variables)]

use ipmb::label;

fn main() {
    let options = ipmb::Options::new("com.solar", label!("earth"), "");
    let (sender, receiver) = ipmb::join::<String, String>(options, None).expect("Join");
    while let Ok(message) = receiver.recv(None) {
        log::info!("received: {}", message.payload);
    }
}
