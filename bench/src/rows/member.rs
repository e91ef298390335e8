//! An endpoint that does nothing. The first on a bus is its controller.

use super::Role;
use crate::{
    peers::{SOON, TOKEN},
    process::{Actor, listen, say},
};

/// Starts one and waits until it has joined.
pub fn start(bus: &str, label: &str) -> Result<Actor, String> {
    let (bus, label) = (bus.to_owned(), label.to_owned());
    let mut member = Actor::start(&Role::Member { bus, label })?;
    member.ready()?;
    Ok(member)
}

/// In a child: joins, and leaves when the input ends.
pub fn play(bus: &str, label: &str) {
    let options = ipmb::Options::new(bus, ipmb::label!(label), TOKEN);
    let _joined = ipmb::join::<(), ()>(options, SOON).expect("join");
    say(&());
    while listen().is_some() {}
}
