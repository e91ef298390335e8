//! Payloads that are written and read in place.

#![allow(clippy::expect_used)]

mod common;

use common::{Peer, SOON, cpu, join, listen, name, role, say};
use ipmb::{
    BytesMessage, BytesView, EndpointSender, Loan, Message, Options, Selector, SendError, label,
};
use std::time::Duration;

const SIZES: [usize; 7] = [0, 1, 254, 4096, 65_536, 1 << 20, 70 << 20];

fn byte(number: usize, at: usize) -> u8 {
    (number.wrapping_mul(31) ^ at ^ at >> 8 ^ at >> 16) as u8
}

fn fill(loan: &mut Loan, number: usize) {
    for (at, place) in loan.iter_mut().enumerate() {
        *place = byte(number, at);
    }
}

fn check(view: &BytesView, number: usize) {
    let mut at = 0;
    view.for_each_chunk(|bytes| {
        for found in bytes {
            assert_eq!(*found, byte(number, at), "byte {at} of message {number}");
            at += 1;
        }
    })
    .expect("not forked");
    assert_eq!(at, view.len());
}

fn lend<T>(sender: &EndpointSender<T>, to: &str, size: usize) -> Loan {
    sender
        .loan(&Selector::unicast(to), size, SOON)
        .expect("a loan")
}

/// A link: the first message makes it.
fn meet(sender: &EndpointSender<BytesMessage>, to: &str) {
    let message = BytesMessage::default();
    sender
        .send(Message::new(Selector::unicast(to), message))
        .expect("first contact");
}

/// Starts its test again as the other process: it receives views and says what it found.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    let (_sender, receiver) = join::<(), BytesView>(&bus, label!("peer"));
    say("joined");
    loop {
        if role == "held" && listen().is_none() {
            return;
        }
        let Ok(message) = receiver.recv(SOON) else {
            return;
        };
        let view = message.payload;
        if view.format == u16::MAX {
            return;
        }
        check(&view, view.format.into());
        say(&format!("{} {}", view.len(), view.is_in_place()));
    }
}

#[test]
fn a_loan_is_changed_or_copied_on_its_way() {
    let bus = name("loan");
    let mut peer = Peer::start("peer", "takes", &bus);
    peer.expect("joined");
    let (sender, _receiver) = join::<BytesMessage, ()>(&bus, label!("lender"));
    meet(&sender, "peer");
    peer.expect("0 false");
    for round in 0..3 {
        for (number, size) in SIZES.into_iter().enumerate() {
            let mut loan = lend(&sender, "peer", size);
            assert_eq!(loan.len(), size);
            assert_eq!(loan.as_ptr() as usize % 64, 0, "round {round}");
            fill(&mut loan, number);
            loan.send(number as u16).expect("send");
            // The smallest are not worth it.
            peer.expect(&format!("{size} {}", size > 254));
        }
    }
    // What is not lent is seen in place, too, if it does not go into the ring.
    let data = (0..1 << 20).map(|at| byte(7, at)).collect();
    let message = BytesMessage { format: 7, data };
    sender
        .send(Message::new(Selector::unicast("peer"), message))
        .expect("send");
    peer.expect("1048576 true");
    lend(&sender, "peer", 0).send(u16::MAX).expect("the end");
    peer.wait();
}

#[test]
fn a_block_is_overwritten_while_its_receiver_looks_at_it() {
    let bus = name("look");
    let (_s, receiver) = join::<(), BytesView>(&bus, label!("here"));
    let (sender, _r) = join::<BytesMessage, ()>(&bus, label!("lender"));
    meet(&sender, "here");
    receiver.recv(SOON).expect("first contact");
    let mut views: Vec<(usize, BytesView)> = Vec::new();
    for number in 0..300 {
        let mut loan = lend(&sender, "here", 5000);
        fill(&mut loan, number);
        loan.send(number as u16).expect("send");
        let view = receiver.recv(SOON).expect("recv").payload;
        assert!(view.is_in_place());
        views.push((number, view));
        // Let go of in no order.
        if views.len() > 20 {
            drop(views.swap_remove(number * 7 % 20));
        }
        views.iter().for_each(|(number, view)| check(view, *number));
    }
    // They outlive sender, receiver and link.
    drop((sender, receiver));
    views.iter().for_each(|(number, view)| check(view, *number));
}

#[test]
fn who_waits_for_a_block_is_not_woken_when_one_is_let_go_of() {
    let bus = name("wait");
    let (_s, receiver) = join::<(), BytesView>(&bus, label!("here"));
    let (sender, _r) = join::<BytesMessage, ()>(&bus, label!("lender"));
    meet(&sender, "here");
    receiver.recv(SOON).expect("first contact");
    let mut views = Vec::new();
    let refused = loop {
        match sender.loan(&Selector::unicast("here"), 5000, Some(Duration::ZERO)) {
            Ok(loan) => loan.send(1).expect("send"),
            Err(refused) => break refused,
        }
        views.push(receiver.recv(SOON).expect("recv"));
    };
    assert!(matches!(refused, SendError::Timeout), "{refused:?}");
    assert_eq!(views.len(), 32);
    for _ in 0..20 {
        std::thread::scope(|s| {
            let waiting = s.spawn(|| lend(&sender, "here", 5000).send(2));
            // Long enough that it sleeps, as a rule.
            std::thread::sleep(Duration::from_millis(5));
            assert!(!waiting.is_finished());
            views.pop();
            waiting.join().expect("no panic").expect("sent");
        });
        views.push(receiver.recv(SOON).expect("recv"));
    }
}

#[test]
fn who_waits_for_a_block_is_not_woken_when_a_loan_is_dropped() {
    let bus = name("dropped");
    let (_s, receiver) = join::<(), BytesView>(&bus, label!("here"));
    let (sender, _r) = join::<BytesMessage, ()>(&bus, label!("lender"));
    meet(&sender, "here");
    receiver.recv(SOON).expect("first contact");
    let mut loans: Vec<_> = (0..32).map(|_| lend(&sender, "here", 5000)).collect();
    for _ in 0..20 {
        std::thread::scope(|s| {
            let waiting = s.spawn(|| lend(&sender, "here", 5000));
            // Long enough that it sleeps, as a rule.
            std::thread::sleep(Duration::from_millis(5));
            assert!(!waiting.is_finished());
            loans.pop();
            loans.push(waiting.join().expect("no panic"));
        });
    }
}

/// What waits is to stay in the caches; what the receiver came to and keeps makes room for more.
#[test]
fn large_payloads_wait_without_limit_or_for_views_that_are_kept() {
    let bus = name("large");
    let (_s, receiver) = join::<(), BytesView>(&bus, label!("here"));
    let (sender, _r) = join::<BytesMessage, ()>(&bus, label!("sender"));
    meet(&sender, "here");
    receiver.recv(SOON).expect("first contact");
    let mut message = Message::new(Selector::unicast("here"), BytesMessage::default());
    message.payload.data = vec![1; (1 << 20) - 2];
    let again = |message: &Message<BytesMessage>| {
        Message::new(message.selector().clone(), message.payload.clone())
    };
    for _ in 0..4 {
        sender.try_send(again(&message)).expect("room");
    }
    let refused = sender.try_send(again(&message)).expect_err("four wait");
    assert!(matches!(refused.kind(), SendError::Full(_)), "{refused:?}");
    let mut views = Vec::new();
    for _ in 4..32 {
        std::thread::scope(|s| {
            let waiting = s.spawn(|| sender.send(again(&message)));
            std::thread::sleep(Duration::from_millis(2));
            assert!(!waiting.is_finished());
            views.push(receiver.recv(SOON).expect("recv"));
            waiting.join().expect("no panic").expect("sent");
        });
    }
    // Now there are as many as may be, in all.
    views.push(receiver.recv(SOON).expect("recv"));
    let refused = sender.try_send(message).expect_err("all in use");
    assert!(matches!(refused.kind(), SendError::Full(_)), "{refused:?}");
    views.pop();
    sender.try_send(refused.into_message()).expect("room");
}

#[test]
fn a_loan_whose_receiver_is_gone_is_lost() {
    let bus = name("gone");
    let mut first = Peer::start("peer", "held", &bus);
    first.expect("joined");
    let (sender, _receiver) = join::<BytesMessage, ()>(&bus, label!("lender"));
    meet(&sender, "peer");
    first.tell("go on");
    first.expect("0 false");
    let (mut unsent, mut sent) = (lend(&sender, "peer", 5000), lend(&sender, "peer", 6000));
    fill(&mut unsent, 5);
    fill(&mut sent, 6);
    // One has been sent when its receiver dies, the other has not.
    sent.send(6).expect("send");
    let mut second = Peer::start("peer", "takes", &bus);
    second.expect("joined");
    first.kill();
    // Both are copied: they go into the ring.
    second.expect("6000 false");
    unsent.send(5).expect("send");
    second.expect("5000 false");
    // Without anybody, it is gone or parked.
    second.kill();
    let mut selector = Selector::unicast("late");
    selector.ttl = Duration::from_secs(60);
    let mut loan = sender.loan(&selector, 300, SOON).expect("a loan");
    fill(&mut loan, 3);
    loan.send(3).expect("send");
    let (_s, late) = join::<(), BytesView>(&bus, label!("late"));
    check(&late.recv(SOON).expect("recv").payload, 3);
}

#[test]
fn a_loan_that_is_not_sent_costs_a_block() {
    let bus = name("unsent");
    let (_s, receiver) = join::<(), BytesView>(&bus, label!("here"));
    let (sender, _r) = join::<BytesMessage, ()>(&bus, label!("lender"));
    meet(&sender, "here");
    receiver.recv(SOON).expect("first contact");
    for _ in 0..100 {
        drop(lend(&sender, "here", 5000));
    }
    let all: Vec<Loan> = (0..32).map(|_| lend(&sender, "here", 5000)).collect();
    let soon = Some(Duration::from_millis(1));
    let refused = sender.loan(&Selector::unicast("here"), 5000, soon);
    assert!(matches!(refused, Err(SendError::Timeout)), "{refused:?}");
    drop(all);
    let size = 2 << 30;
    let refused = sender.loan(&Selector::unicast("here"), size, soon);
    assert!(
        matches!(refused, Err(SendError::TooLarge { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_loan_larger_than_any_memory_overflows() {
    let selector = Selector::unicast("here");
    for limit in [1 << 20, usize::MAX] {
        let options = Options::new(name("huge"), label!("here"), "").max_payload(limit);
        let (sender, _receiver) = ipmb::join::<(), BytesMessage>(options, SOON).expect("join");
        for less in 0..100 {
            let size = usize::MAX - less;
            let refused = sender.loan(&selector, size, SOON);
            assert!(
                matches!(refused, Err(SendError::TooLarge { size: s, limit: l }) if s >= size && l < size),
                "{refused:?}"
            );
        }
    }
}

/// A block that was let go of makes room for blocks, not in the ring: who waits for that must sleep.
#[test]
fn a_block_let_go_of_long_ago_keeps_a_sender_awake() {
    let bus = name("awake");
    let (_s, receiver) = join::<(), BytesView>(&bus, label!("here"));
    let (sender, _r) = join::<BytesMessage, ()>(&bus, label!("lender"));
    meet(&sender, "here");
    receiver.recv(SOON).expect("first contact");
    lend(&sender, "here", 5000).send(1).expect("send");
    drop(receiver.recv(SOON).expect("recv"));
    let soon = Some(Duration::from_millis(1500));
    let before = cpu();
    loop {
        let data = vec![0; 50_000];
        let message = BytesMessage { format: 0, data };
        let message = Message::new(Selector::unicast("here"), message);
        if sender.send_timeout(message, soon).is_err() {
            break;
        }
    }
    assert!(cpu() - before < Duration::from_millis(750), "it was busy");
}
