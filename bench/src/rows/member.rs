//! An endpoint that does nothing. The first on a bus is its controller.

use super::Role;
use crate::{
    peers::{SOON, TOKEN},
    process::{Actor, TIME_LIMIT, listen, say},
};
use std::time::Duration;

/// Starts one and waits until it has joined.
pub fn start(bus: &str, label: &str) -> Result<Actor, String> {
    start_for(bus, label, TIME_LIMIT)
}

/// The same, where it may be needed for longer than is usual.
pub fn start_for(bus: &str, label: &str, limit: Duration) -> Result<Actor, String> {
    let (bus, label) = (bus.to_owned(), label.to_owned());
    let mut member = Actor::start_under(&[], &Role::Member { bus, label }, limit)?;
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
