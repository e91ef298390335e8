//! What a new controller owes to those who were there before, and to those who come.

#![allow(clippy::expect_used)]

mod common;

use common::{Peer, join, listen, name, role, say};
use ipmb::label;
use std::time::{Duration, Instant};

/// What the other processes of these tests do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    assert_eq!(role, "idle");
    let _endpoint = join::<(), ()>(&bus, label!("idle"));
    say("joined");
    while listen().is_some() {}
}

/// A stopped member does not come back in time, so the new controller lets newcomers wait for the 100 ms that it has.
/// One that was told of the end of that wait before its welcome took it for nonsense and came again 50 ms later.
#[test]
fn who_waits_for_a_new_controller_to_settle_has_to_come_again() {
    let bus = name("settling");
    let mut spare = Peer::start("peer", "idle", &bus);
    spare.expect("joined");
    let mut options = ipmb::Options::new(bus.as_str(), label!("new"), "token");
    options.controller_affinity = false;
    let timed = || {
        let start = Instant::now();
        let newcomer = ipmb::join::<(), ()>(options.clone(), common::SOON).expect("join");
        let took = start.elapsed();
        drop(newcomer);
        took
    };
    // What a join takes here with nothing to wait for: an emulator is slow.
    let plain = (0..5).map(|_| timed()).min().unwrap_or_default();
    let mut shortest = Duration::MAX;
    // Other load makes a join slower, but never faster: one that is quick enough proves it.
    for _ in 0..10 {
        let mut controller = std::mem::replace(&mut spare, Peer::start("peer", "idle", &bus));
        spare.expect("joined");
        let mut stopped = Peer::start("peer", "idle", &bus);
        stopped.expect("joined");
        stopped.stop();
        controller.kill();
        shortest = shortest.min(timed());
        stopped.kill();
        if shortest < plain + Duration::from_millis(140) {
            return;
        }
    }
    panic!("no join took less than {shortest:?}, and {plain:?} with nothing to wait for");
}
