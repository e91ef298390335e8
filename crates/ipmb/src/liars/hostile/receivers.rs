//! The receiver of a link lies to its sender.

use super::{
    SOON, Victim,
    link::{AT_ACCEPTED, AT_INDEX, AT_RELEASED, half, word},
    logged,
    member::Liar,
};
use crate::{
    BytesMessage, Message, Selector,
    control::membership::Events,
    crash::meanwhile,
    label,
    sync::process::{AtomicBool, Ordering},
    sys::{Channel, Handle, Mapping, Memory, Protection},
};
use std::{
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

/// The receiver's end of a link, by hand.
pub(super) struct HandReceiver {
    records: Mapping,
    returns: Mapping,
    side: Channel,
    bell: Handle,
}

impl HandReceiver {
    pub(super) fn accept(handles: Vec<Handle>) -> Self {
        let [records, returns, bell, side] = <[Handle; 4]>::try_from(handles).unwrap();
        let map = |handle, protection| {
            let memory = Memory::from_peer(handle, 1, 1 << 30).unwrap();
            memory.map_all(protection).unwrap()
        };
        let link = Self {
            records: map(records, Protection::Read),
            returns: map(returns, Protection::ReadWrite),
            side: Channel::from_peer(side).unwrap(),
            bell,
        };
        half(&link.returns, AT_ACCEPTED).store(1, Ordering::Release);
        let _ = link.side.send(&[1], &[]);
        link
    }

    pub(super) fn start(&self) -> u64 {
        word(&self.records, super::link::AT_START).load(Ordering::Relaxed)
    }

    pub(super) fn tail(&self) -> u64 {
        word(&self.records, AT_INDEX).load(Ordering::Acquire)
    }

    fn give_back(&self, index: u64) {
        word(&self.returns, AT_INDEX).store(index, Ordering::Release);
    }
}

fn message(label: &str, data: Vec<u8>) -> Message<BytesMessage> {
    Message::new(Selector::unicast(label), BytesMessage { format: 9, data })
}

/// A liar that the victim has sent this to.
fn liar(victim: &Victim, data: Vec<u8>) -> (Liar, HandReceiver) {
    let liar = Liar::join(&victim.options, &label!("liar"));
    victim.sender.send(message("liar", data)).unwrap();
    let link = HandReceiver::accept(liar.introduced());
    (liar, link)
}

/// It says nothing, so that the controller may still put off its introduction: here, while a large message is copied to it.
#[test]
fn a_link_that_is_put_off_in_the_middle_of_a_message_ends() {
    let victim = Victim::new("put off");
    let liar = Liar::join(&victim.options, &label!("liar"));
    let large = || message("liar", vec![2; 100_000]);
    victim.sender.send(message("liar", vec![1])).unwrap();
    // With the block, so that the first point is in the middle of the copy.
    let loan = victim
        .sender
        .loan(&Selector::unicast("liar"), 100_000, None);
    drop(loan.unwrap());
    let core = victim.sender.core().clone();
    let number = core.outbox().link(liar.id).unwrap().number;
    let put_off = move || core.put_off(number);
    let (sent, happened) = meanwhile(1, put_off, || victim.sender.send_timeout(large(), SOON));
    assert!(happened);
    sent.unwrap();
    let core = victim.sender.core();
    assert!(core.outbox().link_of(liar.id, number).is_some(), "it ended");
    assert_eq!(victim.sender.stats().sent, 2);
}

/// The receiver maps the ring it is given for reading only, and nothing else: it cannot change what others receive.
#[test]
fn a_receiver_writes_to_the_ring_that_it_reads() {
    let victim = Victim::new("forge");
    let liar = Liar::join(&victim.options, &label!("liar"));
    victim.sender.send(message("liar", vec![1])).unwrap();
    let records = liar.introduced().remove(0);
    let again = records.try_clone().unwrap();
    let memory = Memory::from_peer(records, 1, 1 << 30).unwrap();
    assert!(memory.map_all(Protection::ReadWrite).is_err());
    assert!(rustix::io::pwrite(&again, b"forged", 4096).is_err());
    assert!(rustix::fs::ftruncate(&again, 0).is_err());
    let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    assert!(rustix::fs::fallocate(&again, hole, 0, 8192).is_err());
}

/// Whatever index it gives back: the sender drops the link and says why, or goes on.
#[test]
fn a_receiver_gives_back_what_it_never_had() {
    let mut victim = Victim::new("give-back");
    for lie in [
        |link: &HandReceiver| link.tail() + 8,
        |link: &HandReceiver| link.start().wrapping_sub(8),
        |link: &HandReceiver| link.tail() ^ 1 << 63,
        // Within what was sent, but no border of a record: neither aligned, nor in the middle of a payload.
        |link: &HandReceiver| link.start() + 4,
        |link: &HandReceiver| link.start() + 40,
        |link: &HandReceiver| link.tail() - 8,
    ] {
        let (liar, link) = liar(&victim, vec![0; 1000]);
        link.give_back(lie(&link));
        // A sender looks when it needs room: after a ring's worth at the latest, however long that takes.
        let line = format!(
            "the link to endpoint {} ends: the receiver gave back",
            liar.id
        );
        let mut sent = 0;
        while logged(&["WARN", &line]) == 0 {
            assert!(sent < 2 << 20, "it is believed");
            let payload = vec![0; 10_000];
            sent += payload.len();
            let result = victim
                .sender
                .send_timeout(message("liar", payload), Some(Duration::from_millis(50)));
            assert!(result.is_ok(), "{result:?}");
        }
        victim.hears_its_friend();
    }
}

/// A block that is let go of too early, never, or more often than it was used: the sender's memory is its own, and others are not
/// held up.
#[test]
fn a_receiver_lies_about_the_blocks_it_lets_go_of() {
    let mut victim = Victim::new("let-go");
    let selector = Selector::unicast("liar");
    for lie in [0, 1, 7, u32::MAX] {
        let (_liar, link) = liar(&victim, vec![0; 100]);
        link.give_back(link.tail());
        for round in 0..100u32 {
            for block in 0..32 {
                let released = u32::wrapping_mul(lie, round).wrapping_add(block);
                half(&link.returns, AT_RELEASED + 4 * block as usize)
                    .store(released, Ordering::Release);
            }
            let soon = Some(Duration::from_millis(1));
            if let Ok(mut loan) = victim.sender.loan(&selector, 5000, soon) {
                loan.fill(1);
                loan.send(1).unwrap();
                link.give_back(link.tail());
            }
        }
        drop(link);
        victim.hears_its_friend();
    }
}

/// The sender also looks without a message to send, and the end of the link that it makes then looks like a hang-up.
#[test]
fn a_lie_that_is_found_by_the_way_is_not_named() {
    let options = super::options("by-the-way").idle_link(Duration::from_millis(10));
    let victim = Victim::with(options);
    let (liar, link) = liar(&victim, vec![0; 1000]);
    link.give_back(link.tail() + 8);
    let line = format!(
        "the link to endpoint {} ends: the receiver gave back",
        liar.id
    );
    super::until(&line, || logged(&["WARN", &line]) > 0);
}

/// A receiver that dies with its index in the middle of a payload would have that payload's bytes sent on as messages.
#[test]
fn a_receiver_forges_a_message_out_of_a_payload() {
    let victim = Victim::new("fragment");
    let (liar, link) = {
        // Within the payload lies what looks like a record, as often as it fits in.
        let forged = (1u64 << 32 | 8).to_le_bytes();
        let data: Vec<u8> = forged.iter().copied().cycle().take(4000).collect();
        let liar = Liar::join(&victim.options, &label!("target"));
        victim.sender.send(message("target", data)).unwrap();
        let link = HandReceiver::accept(liar.introduced());
        (liar, link)
    };
    let mut options = victim.options.clone();
    options.label = label!("target");
    let (_s, heir) = crate::join::<(), BytesMessage>(options, super::SOON).unwrap();
    // The type and the number of the record lie before its payload.
    for at in [32, 40, 48, 36] {
        link.give_back(link.start() + at);
    }
    drop(link);
    drop(liar);
    // All of it comes, as it was sent, to the next that matches, or nothing.
    let message = heir.recv(super::SOON).unwrap();
    assert_eq!(message.payload.data.len(), 4000);
    let next = heir.recv(Some(Duration::from_millis(50)));
    assert!(matches!(next, Err(crate::RecvError::Timeout)), "{next:?}");
}

/// News without end must not keep the sender reading them, with its lock held.
#[test]
fn news_without_end_hang_the_sender() {
    let mut victim = Victim::new("news");
    let (_liar, link) = liar(&victim, vec![1]);
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        let _stop = super::Stop(&done);
        for _ in 0..2 {
            s.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if link.side.send(&[1], &[]).is_err() {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let start = Instant::now();
        // Until the ring is full, and beyond.
        for _ in 0..200 {
            let data = vec![0; 60_000];
            let timeout = Some(Duration::from_millis(5));
            let _ = victim.sender.send_timeout(message("liar", data), timeout);
        }
        assert!(start.elapsed() < Duration::from_secs(20), "it hangs");
        victim.hears_its_friend();
    });
}

/// Who has an eventfd can empty it, fill it up so that a ring waits, or make its writers wait. A receiver has none.
#[test]
fn a_receiver_silences_or_stops_the_bell() {
    let mut victim = Victim::new("bell");
    let (_liar, link) = liar(&victim, vec![1]);
    let bell = link.bell.as_raw_fd();
    let (mut space, one) = ([0u8; 8], 1u64.to_ne_bytes());
    let mut event: libc::epoll_event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: reads and writes of eight bytes, and calls on open descriptors with an event that lives.
    unsafe {
        assert!(
            libc::read(bell, space.as_mut_ptr().cast(), 8) < 0,
            "it is emptied"
        );
        assert!(
            libc::write(bell, one.as_ptr().cast(), 8) < 0,
            "it is filled"
        );
        let flags = libc::fcntl(bell, libc::F_GETFL);
        libc::fcntl(bell, libc::F_SETFL, flags & !libc::O_NONBLOCK);
        // What it can: watch more, of what it has; take all rings. What is watched is forgotten by its own descriptor only.
        let side = link.side.as_fd().as_raw_fd();
        let forgotten = libc::epoll_ctl(bell, libc::EPOLL_CTL_DEL, side, &raw mut event);
        assert!(forgotten < 0, "it is forgotten");
        libc::epoll_ctl(bell, libc::EPOLL_CTL_ADD, side, &raw mut event);
        while libc::epoll_wait(bell, &raw mut event, 1, 0) > 0 {}
    }
    // It says that it sleeps, each time: the victim rings with each message, and never waits.
    let start = Instant::now();
    for round in 0..200u32 {
        half(&link.returns, super::link::AT_SLEEP).store(round % 4, Ordering::SeqCst);
        let _ = victim.sender.try_send(message("liar", vec![2]));
    }
    assert!(start.elapsed() < Duration::from_secs(10), "a ring waits");
    // Its own bell still rings, and so does everybody else's.
    half(&link.returns, super::link::AT_SLEEP).store(1, Ordering::SeqCst);
    victim.hears_its_friend();
}
