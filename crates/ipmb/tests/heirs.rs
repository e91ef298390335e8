//! What leavers leave behind when the controller is stopped, or leaves with them.

#![allow(clippy::expect_used)]

mod common;

use common::{NAMES_STOPPED, Peer, SOON, join, listen, name, role, say};
use ipmb::{
    EndpointReceiver, EndpointSender, Message, Options, RecvError, Selector, SendError, label,
};
use std::time::Duration;

/// What the other process of these tests does; nothing when run as a test.
#[test]
fn peer() {
    let Some((_, bus)) = role() else { return };
    let _endpoint = join::<(), ()>(&bus, label!("host"));
    say("joined");
    while listen().is_some() {}
}

fn parked(n: u64) -> Message<u64> {
    let mut selector = Selector::unicast("late");
    selector.ttl = Duration::from_secs(60);
    Message::new(selector, n)
}

const MANY: u64 = 2_000;

/// A leaver with more parked messages than the channel to its controller takes at once, which is stopped.
fn stuck(test: &str) -> (String, Peer, EndpointSender<u64>, EndpointReceiver<()>) {
    let bus = name(test);
    let mut host = Peer::start("peer", "host", &bus);
    host.expect("joined");
    let mut options = Options::new(bus.as_str(), label!("leaver"), "token");
    options.controller_affinity = false;
    let (sender, receiver) = ipmb::join(options, SOON).expect("join");
    for n in 0..MANY {
        sender.send(parked(n)).expect("parked");
    }
    host.stop();
    (bus, host, sender, receiver)
}

fn assert_all_handed_over(bus: &str, sender: &EndpointSender<u64>) {
    assert_eq!(sender.stats().lost, 0);
    let (_s, late) = join::<(), u64>(bus, label!("late"));
    for n in 0..MANY {
        assert_eq!(late.recv(SOON).expect("handed over").payload, n);
    }
    assert!(matches!(late.try_recv(), Err(RecvError::Empty)));
}

fn leave_in_vain(sender: &EndpointSender<u64>) {
    let late = sender.leave(Some(Duration::from_millis(200)));
    let expected = match late {
        Err(SendError::ControllerStopped { .. }) => NAMES_STOPPED,
        Err(SendError::Timeout) => !NAMES_STOPPED,
        _ => false,
    };
    assert!(expected, "{late:?}");
}

#[test]
fn a_second_leave_loses_what_the_first_had_not_handed_over() {
    let (bus, host, sender, _receiver) = stuck("again");
    leave_in_vain(&sender);
    host.go_on();
    sender.leave(SOON).expect("leave");
    assert_all_handed_over(&bus, &sender);
}

/// The controller confirms first that the endpoint receives no more.
#[test]
fn another_answer_is_taken_for_that_to_a_leave() {
    let (bus, host, sender, receiver) = stuck("answer");
    drop(receiver);
    leave_in_vain(&sender);
    host.go_on();
    sender.leave(SOON).expect("leave");
    assert_all_handed_over(&bus, &sender);
}

#[test]
fn what_is_handed_to_a_controller_that_is_killed_is_lost() {
    let (bus, mut host, sender, _receiver) = stuck("killed");
    host.go_on();
    let mut next = Peer::start("peer", "host", &bus);
    next.expect("joined");
    host.stop();
    leave_in_vain(&sender);
    host.kill();
    sender.leave(SOON).expect("leave");
    assert_all_handed_over(&bus, &sender);
}

/// Whoever goes first, somebody stays.
#[test]
fn what_is_handed_to_a_controller_that_leaves_too_is_lost() {
    for round in 0..100 {
        let bus = name("together");
        let host = join::<u64, ()>(&bus, label!("host"));
        let leaver = join::<u64, ()>(&bus, label!("leaver"));
        let _stays = join::<(), ()>(&bus, label!("stays"));
        host.0.send(parked(0)).expect("parked");
        leaver.0.send(parked(1)).expect("parked");
        std::thread::scope(|s| {
            let (first, second) = if round % 2 == 0 {
                (&host, &leaver)
            } else {
                (&leaver, &host)
            };
            s.spawn(|| first.0.leave(SOON).expect("leave"));
            s.spawn(|| second.0.leave(SOON).expect("leave"));
        });
        assert_eq!((host.0.stats().lost, leaver.0.stats().lost), (0, 0));
        let (_s, late) = join::<(), u64>(&bus, label!("late"));
        let mut got: Vec<u64> = (0..2)
            .map(|_| late.recv(SOON).expect("handed on").payload)
            .collect();
        got.sort_unstable();
        assert_eq!(got, [0, 1], "in round {round}");
        assert!(matches!(late.try_recv(), Err(RecvError::Empty)));
    }
}
