//! News of room in links that were full, for programs that queue per receiver.

mod common;

use common::{SOON, is_ready, join, name};
use ipmb::{BytesMessage, EndpointSender, Message, Selector, SendError, label};
use std::time::Duration;

fn fill(sender: &EndpointSender<u64>, to: &str) -> (u64, u64) {
    for n in 0.. {
        let message = Message::new(Selector::unicast(to), n);
        if let Err(refused) = sender.try_send_if(message, |_| true) {
            let SendError::Full(id) = refused.kind() else {
                panic!("{refused:?}");
            };
            return (*id, refused.into_message().payload);
        }
    }
    unreachable!()
}

/// Whether the handle becomes ready within the time.
fn readable(object: &common::Owned, seconds: u64) -> bool {
    is_ready(object, Duration::from_secs(seconds))
}

#[test]
fn room_in_a_full_link_is_told_once_and_for_that_link_only() {
    let bus = name("room");
    let (_a, a) = join::<(), u64>(&bus, label!("a"));
    let (_b, _frozen) = join::<(), u64>(&bus, label!("b"));
    let (sender, _receiver) = join::<u64, ()>(&bus, label!());
    for to in ["a", "b"] {
        sender
            .send(Message::new(Selector::unicast(to), 7))
            .expect("first contact");
    }
    let object = common::owned(sender.room_object().expect("a descriptor"));
    let (to_a, next) = fill(&sender, "a");
    let (to_b, _) = fill(&sender, "b");
    assert!(to_a != to_b);
    assert!(sender.watch_room(to_a) && sender.watch_room(to_b));
    assert!(!readable(&object, 0) && sender.rooms().is_empty());
    assert_eq!(a.recv(SOON).expect("first").payload, 7);
    for n in 0..next {
        assert_eq!(a.recv(SOON).expect("in order").payload, n);
    }
    assert!(readable(&object, 10));
    assert_eq!(sender.rooms(), [to_a]);
    assert!(!readable(&object, 0) && sender.rooms().is_empty());
    sender
        .try_send_if(Message::new(Selector::unicast("a"), next), |id| id == to_a)
        .expect("room");
}

#[test]
fn the_end_of_a_full_receiver_is_told_as_room() {
    let bus = name("room-end");
    let (sender, _receiver) = join::<u64, ()>(&bus, label!());
    let (other, receiver) = join::<(), u64>(&bus, label!("a"));
    sender
        .send(Message::new(Selector::unicast("a"), 7))
        .expect("first contact");
    let object = common::owned(sender.room_object().expect("a descriptor"));
    let (id, _) = fill(&sender, "a");
    assert!(sender.watch_room(id));
    drop((other, receiver));
    assert!(readable(&object, 10));
    assert_eq!(sender.rooms(), [id]);
}

/// The block of a message that finds no place in the ring is given up again, and that is no news.
#[test]
fn who_has_a_large_message_is_told_of_room_without_end() {
    let bus = name("room-large");
    let (_a, a) = join::<(), BytesMessage>(&bus, label!("a"));
    let (sender, _receiver) = join::<BytesMessage, ()>(&bus, label!());
    let message = |size| {
        let data = vec![0; size];
        Message::new(Selector::unicast("a"), BytesMessage { format: 0, data })
    };
    sender.send(message(1)).expect("first contact");
    a.recv(SOON).expect("first contact");
    let object = common::owned(sender.room_object().expect("a descriptor"));
    let mut count = 0;
    while sender.try_send_if(message(1), |_| true).is_ok() {
        count += 1;
    }
    let refused = sender.try_send_if(message(100_000), |_| true);
    let refused = refused.expect_err("the ring is full");
    let SendError::Full(id) = *refused.kind() else {
        panic!("{refused:?}");
    };
    // The first time may be by what was known before.
    for first in [true, false] {
        assert!(sender.watch_room(id));
        if !is_ready(&object, Duration::from_millis(200)) {
            break;
        }
        assert!(first, "told of room that is not there");
        assert_eq!(sender.rooms(), [id]);
        assert!(sender.try_send_if(message(100_000), |_| true).is_err());
    }
    for _ in 0..count {
        a.recv(SOON).expect("what was sent before");
    }
    assert!(readable(&object, 10));
    sender
        .try_send_if(message(100_000), |_| true)
        .expect("room");
}

#[test]
fn who_is_held_back_gets_nothing_and_the_others_do() {
    let bus = name("held-back");
    let (_a, a) = join::<(), u64>(&bus, label!("all", "a"));
    let (_b, b) = join::<(), u64>(&bus, label!("all", "b"));
    let (sender, _receiver) = join::<u64, ()>(&bus, label!());
    for to in ["a", "b"] {
        sender
            .send(Message::new(Selector::unicast(to), 1))
            .expect("first contact");
    }
    let asked = std::cell::RefCell::new(Vec::new());
    let refused = sender
        .try_send_if(Message::new(Selector::multicast("all"), 2), |id| {
            asked.borrow_mut().push(id);
            asked.borrow().len() > 1
        })
        .expect_err("one of them is held back");
    let held = refused.into_message();
    assert_eq!(held.unreached(), [asked.borrow()[0]]);
    assert_eq!(asked.borrow().len(), 2);
    assert_eq!(b.recv(SOON).expect("first").payload, 1);
    assert_eq!(b.recv(SOON).expect("not held back").payload, 2);
    assert_eq!(a.recv(SOON).expect("first").payload, 1);
    assert!(a.try_recv().is_err());
    sender.try_send_if(held, |_| true).expect("now it may");
    assert_eq!(a.recv(SOON).expect("after all").payload, 2);
    assert!(b.try_recv().is_err());
}
