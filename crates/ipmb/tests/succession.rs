//! What a new controller owes to those who were there before, and to those who come.

#![allow(clippy::expect_used)]

mod common;

use common::{Peer, join, listen, name, role, say};
use ipmb::{Message, Selector, label};
use std::time::{Duration, Instant};

/// What the other processes of these tests do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    let mut options = ipmb::Options::new(bus.as_str(), label!("idle"), "token");
    options.controller_affinity = match &*role {
        "idle" => true,
        "never hosts" => false,
        _ => panic!("no such role: {role}"),
    };
    let _endpoint = ipmb::join::<(), ()>(options, common::SOON).expect("join");
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

/// Who has not seen the directory of a controller brings that of the one before, in which it is a member.
#[test]
fn a_controller_that_leaves_at_once_stays_a_member() {
    for round in 0..20 {
        let bus = name(&format!("brief-{round}"));
        let mut controller = Peer::start("peer", "idle", &bus);
        controller.expect("joined");
        let (brief, _receiver) = join::<(), ()>(&bus, label!("brief"));
        let mut other = Peer::start("peer", "never hosts", &bus);
        other.expect("joined");
        controller.kill();
        brief.leave(common::SOON).expect("leave");
        let (sender, _receiver) = join::<(), ()>(&bus, label!("last"));
        let message = Message::new(Selector::unicast("brief"), ());
        let sent = sender.send_timeout(message, Some(Duration::from_secs(5)));
        sent.unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(sender.stats().dropped, 1, "round {round}");
    }
}
