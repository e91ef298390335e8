//! What others do in the middle of a send, at each of its points (see `crash`).

#![allow(clippy::unwrap_used)]

use crate::{
    BytesMessage, EndpointReceiver, EndpointSender, Label, Message, Options, Selector, SendError,
    crash::meanwhile,
    label,
    link::{
        incoming::Incoming,
        outgoing::{Outgoing, Parcel, Refusal, Sleep},
    },
    sync::process::{AtomicU32, Ordering},
    sys::{self, Ringer},
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

type Endpoint = (EndpointSender<BytesMessage>, EndpointReceiver<BytesMessage>);

const SOON: Option<Duration> = Some(Duration::from_secs(20));
/// The smallest ring; a payload that goes into it many times, one that needs more room than there is beside those, and one
/// that goes into a block.
const CAPACITY: usize = 64 << 10;
const SMALL: usize = 1000;
const MEDIUM: usize = 3000;
const LARGE: usize = 20_000;

fn name(test: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("test.meanwhile.{test}.{}.{number}", std::process::id())
}

fn join(bus: &str, label: Label) -> Endpoint {
    let options = Options::new(bus, label, "token").link_capacity(CAPACITY);
    crate::join(options, SOON).unwrap()
}

fn message(to: &str, size: usize) -> Message<BytesMessage> {
    let data = vec![7; size];
    Message::new(Selector::unicast(to), BytesMessage { format: 0, data })
}

/// A sender; the first of two heirs, to whom it has sent a message of medium size; and the second, whose ring has no room for
/// that, but for the record of a block; and how many small ones lie there.
fn left_behind(test: &str) -> ([Endpoint; 3], usize) {
    let bus = name(test);
    let near = join(&bus, label!("near"));
    let (first, second) = (
        join(&bus, label!("heirs")),
        join(&bus, label!("heirs", "far")),
    );
    // With the block that a large message goes into.
    for (to, receiver) in [("heirs", &first.1), ("far", &second.1)] {
        near.0.send(message(to, 1)).unwrap();
        receiver.recv(SOON).unwrap();
        near.0.send(message(to, LARGE)).unwrap();
        receiver.recv(SOON).unwrap();
    }
    let mut count = 0;
    while near.0.try_send(message("far", SMALL)).is_ok() {
        count += 1;
    }
    assert_eq!(next_size(&second.1), SMALL);
    count -= 1;
    near.0.send(message("heirs", MEDIUM)).unwrap();
    ([near, first, second], count)
}

/// The receiver goes, and what it leaves behind begins to wait for the next.
fn goes(first: Endpoint, sender: &EndpointSender<BytesMessage>) {
    drop(first);
    let start = Instant::now();
    while sender.core().outbox().held == 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing waits");
        std::thread::yield_now();
    }
}

fn next_size(receiver: &EndpointReceiver<BytesMessage>) -> usize {
    receiver.recv(SOON).unwrap().payload.data.len()
}

#[test]
fn a_large_message_passes_one_that_began_to_wait_while_it_was_copied() {
    let ([near, first, (_s, far)], count) = left_behind("copy");
    let sender = near.0.clone();
    // The first point is in the middle of the copy.
    let (sent, happened) = meanwhile(
        1,
        move || goes(first, &sender),
        || near.0.try_send(message("far", LARGE)),
    );
    assert!(happened);
    let refused = sent.unwrap_err();
    assert!(matches!(refused.kind(), SendError::Full(_)), "{refused:?}");
    std::thread::scope(|s| {
        s.spawn(|| near.0.send(refused.into_message()).unwrap());
        (0..count).for_each(|_| assert_eq!(next_size(&far), SMALL));
        assert_eq!(next_size(&far), MEDIUM);
        assert_eq!(next_size(&far), LARGE);
    });
    assert_eq!(near.0.stats().lost, 0);
}

/// Who looks for it later would take the announcement of the sleep back.
#[test]
fn the_news_that_a_link_is_accepted_is_lost_to_who_is_about_to_sleep() {
    for at in 1.. {
        let mut out = Outgoing::new(sys::pid(), CAPACITY, 0).unwrap();
        let offer = out.offer().unwrap().handles();
        let handles = offer.map(|h| sys::duplicate(h).unwrap());
        let parcel = Parcel {
            uuid: &[7; 16],
            head: &[7; SMALL],
            tail: &[],
            objects: 0,
            regions: 0,
            handles: &[],
        };
        let lack = loop {
            match out.write(&parcel, None, None) {
                Ok(()) => {}
                Err(Refusal::Full(lack)) => break lack,
                Err(other) => panic!("{other:?}"),
            }
        };
        let incoming = Rc::new(RefCell::new(None));
        let accepted = incoming.clone();
        let accepts = move || {
            let own = Ringer::local().unwrap();
            let handles = Vec::from(handles).into();
            *accepted.borrow_mut() = Incoming::accept(1, handles, 1 << 20, &own).ok();
        };
        let (sleep, happened) = meanwhile(at, accepts, || out.sleep_for_space(&lack));
        if !happened {
            assert!(at > 1, "there was no point");
            return;
        }
        assert!(
            matches!(sleep, Ok(Sleep::Sound | Sleep::Short)),
            "{sleep:?}"
        );
        // As another thread does.
        assert!(out.offer().is_none());
        let mut incoming = incoming.take().unwrap();
        let record = incoming.next().unwrap().unwrap();
        incoming.taken(&record);
        let (told, _) = sys::wait_for(&**out.side(), Some(Duration::ZERO)).unwrap();
        assert!(told, "at point {at}");
    }
}

/// The receiver makes room in the middle, and does nothing after that.
#[test]
fn who_waits_behind_others_sleeps_though_there_is_room() {
    const LATE: Duration = Duration::from_millis(900);
    for at in 1.. {
        let ([near, first, (_s, far)], count) = left_behind("behind");
        goes(first, &near.0);
        let far = Rc::new(far);
        let receiver = far.clone();
        let since = Rc::new(Cell::new(None));
        let taken = since.clone();
        let takes = move || {
            (0..count).for_each(|_| assert_eq!(next_size(&receiver), SMALL));
            taken.set(Some(Instant::now()));
        };
        let send = || near.0.send_timeout(message("far", 1), Some(LATE));
        let start = Instant::now();
        let (sent, _) = meanwhile(at, takes, send);
        // After that its time is over.
        let in_time = |since: &Instant| *since - start < LATE;
        let Some(since) = since.get().filter(in_time) else {
            assert!(at > 1, "there was no point");
            return;
        };
        sent.unwrap_or_else(|e| panic!("at point {at}: {e}"));
        let took = since.elapsed();
        assert!(took < LATE * 2 / 3, "{took:?} at point {at}");
        assert_eq!(next_size(&far), MEDIUM, "at point {at}");
        assert_eq!(next_size(&far), 1, "at point {at}");
    }
}
