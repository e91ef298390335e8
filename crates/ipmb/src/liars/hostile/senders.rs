//! The sender of a link lies.

use super::{
    Stop, Victim,
    link::{
        AT_SLEEP, BLOCK, CAPACITY, HAS_HANDLES, HAS_UUID, HandLink, INLINE, PAD, half, head, memory,
    },
    logged,
    member::Liar,
    until,
};
use crate::{
    BytesMessage, RecvError, TypeUuid, label,
    sync::process::{AtomicBool, Ordering},
    sys::Channel,
};
use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

const SEALED: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;

/// A liar with a link to the victim, which the victim has accepted.
fn liar(victim: &Victim) -> (Liar, HandLink) {
    let liar = Liar::join(&victim.options, &label!("liar"));
    let mut link = HandLink::new();
    liar.introduce(liar.find("victim"), 1, &link.offer());
    until("the link is accepted", || {
        half(&link.returns, super::link::AT_ACCEPTED).load(Ordering::Acquire) != 0
    });
    (liar, link)
}

/// Tells a lie and asserts that the victim drops the link for this reason, and lives on.
#[track_caller]
fn is_found_out(victim: &mut Victim, reason: &str, lie: impl FnOnce(&HandLink)) {
    let (liar, link) = liar(victim);
    let line = format!("the link from endpoint {} is dropped: {reason}", liar.id);
    let before = logged(&[&line]);
    lie(&link);
    victim.lives_until(reason, || link.is_dropped());
    assert_eq!(logged(&["WARN", &line]), before + 1, "{reason} is not said");
    // It gets no other link.
    let mut again = HandLink::new();
    liar.introduce(liar.find("victim"), 2, &again.offer());
    until("another link is refused", || again.is_dropped());
}

/// The words of an empty message that the victim takes.
fn message() -> [u64; 4] {
    let uuid = BytesMessage::UUID;
    let half = |at: usize| u64::from_ne_bytes(uuid[at..at + 8].try_into().unwrap());
    [head(INLINE, 2, HAS_UUID, 0, 0), half(0), half(8), 0]
}

/// A record that refers to a block, and the number of its handles if it has some.
fn block(number: u32, len: u64, fresh: bool, handles: Option<u64>) -> Vec<u64> {
    let [_, high, low, _] = message();
    let flags = HAS_UUID | if handles.is_some() { HAS_HANDLES } else { 0 };
    let mut words = vec![head(BLOCK, 16, flags, 0, 0), high, low];
    words.extend(handles);
    words.extend([u64::from(number) | u64::from(fresh) << 32, len]);
    words
}

fn publish(link: &HandLink, words: &[u64]) {
    link.put(0, words);
    link.publish(words.len() as u64 * 8);
}

#[test]
fn a_sender_lies_about_an_index() {
    let mut victim = Victim::new("index");
    let outside = "an index outside the ring";
    for index in [CAPACITY + 8, 1 << 63, u64::MAX, u64::MAX - 7] {
        is_found_out(&mut victim, outside, |link| link.publish(index));
    }
    is_found_out(&mut victim, "a record that is cut", |link| link.publish(4));
    is_found_out(&mut victim, outside, |link| {
        // Back again, after a message that was taken.
        publish(link, &message());
        link.put(32, &message());
        link.publish(64);
        link.publish(8);
        link.publish(u64::MAX);
    });
}

#[test]
fn a_sender_lies_about_a_record() {
    let mut victim = Victim::new("record");
    let longer = "a record that is longer than what was published";
    let cases: &[(&str, &[u64])] = &[
        ("an unknown record", &[0]),
        ("an unknown record", &[u64::MAX]),
        ("an unknown record", &[head(9, 0, 0, 0, 0)]),
        ("an unknown record", &[head(INLINE, 0, 4, 0, 0)]),
        (longer, &[head(INLINE, u64::from(u32::MAX), 0, 0, 0)]),
        (longer, &[head(INLINE, 1, 0, 0, 0)]),
        ("a record without a type", &[head(INLINE, 0, 0, 0, 0)]),
        (
            "a record without its handles",
            &[head(INLINE, 0, HAS_UUID, 1, 0), 1, 2],
        ),
        (
            "a record without its handles",
            &[head(INLINE, 0, HAS_UUID, 0, 255), 1, 2],
        ),
        (
            "a block reference of a wrong length",
            &[head(BLOCK, 8, HAS_UUID, 0, 0), 1, 2, 3],
        ),
    ];
    for (reason, words) in cases {
        is_found_out(&mut victim, reason, |link| publish(link, words));
    }
}

#[test]
fn a_sender_lies_about_a_block() {
    let mut victim = Victim::new("block");
    let impossible = "a block that is no sealed memory of a possible size";
    let longer = "a payload that is longer than its block";
    let over = "a block number over the limit";
    let never = "a block that never came";
    for number in [32, u32::MAX] {
        is_found_out(&mut victim, over, |l| {
            publish(l, &block(number, 1, false, None))
        });
    }
    is_found_out(&mut victim, never, |l| {
        publish(l, &block(31, 1, false, None))
    });
    is_found_out(&mut victim, "a record without its handles", |l| {
        publish(l, &block(0, 1, true, None));
    });
    let huge = libc::MFD_HUGETLB | libc::MFD_HUGE_2MB;
    for (size, flags, seals) in [
        (1 << 20, 0, 0),
        (1 << 20, 0, libc::F_SEAL_GROW),
        (0, 0, SEALED),
        // It could not be mapped, which looks like a shortage.
        (1 << 62, 0, SEALED),
        (2 << 30, 0, SEALED),
        (1 << 21, huge, SEALED),
    ] {
        let Ok(memory) = memory(size, flags, seals) else {
            assert!(flags != 0, "no memory");
            continue;
        };
        is_found_out(&mut victim, impossible, |link| {
            link.attach(1, &[memory.as_fd()]);
            publish(link, &block(0, 1, true, Some(1)));
        });
    }
    for len in [4097, 1 << 63, u64::MAX] {
        is_found_out(&mut victim, longer, |link| {
            link.attach(1, &[memory(4096, 0, SEALED).unwrap().as_fd()]);
            publish(link, &block(0, len, true, Some(1)));
        });
    }
}

/// Blocks of a gigabyte each, of which not a page exists: more of them than any sender could need are refused.
#[test]
fn a_sender_gives_blocks_without_end() {
    let mut victim = Victim::new("blocks");
    let reason = "more memory in blocks than a sender needs";
    is_found_out(&mut victim, reason, |link| {
        let mut at = 0;
        for number in 0..32 {
            let memory = memory(1 << 30, 0, SEALED).unwrap();
            // Handles that are under way count for the whole user: one block at a time.
            link.attach(u64::from(number) + 1, &[memory.as_fd()]);
            let mut words = block(number, 2, true, Some(u64::from(number) + 1));
            // Of no type that is taken.
            words[1] = 1;
            link.put(at, &words);
            at += words.len() as u64 * 8;
        }
        link.publish(at);
    });
}

#[test]
fn a_sender_lies_about_handles() {
    let mut victim = Victim::new("handles");
    let file = std::fs::File::open("/dev/null").unwrap();
    let [_, high, low, body] = message();
    let with = |objects| {
        let head = head(INLINE, 2, HAS_UUID | HAS_HANDLES, objects, 0);
        [head, high, low, 1, body]
    };
    is_found_out(&mut victim, "a record came before its handles", |link| {
        publish(link, &with(1));
    });
    is_found_out(&mut victim, "a record came before its handles", |link| {
        link.attach(1, &[file.as_fd()]);
        publish(link, &with(2));
    });
    for count in [0, 2, 253] {
        is_found_out(&mut victim, "a wrong number of handles", |link| {
            link.attach(1, &vec![file.as_fd(); count]);
            publish(link, &with(1));
        });
    }
    for number in [2, u64::MAX] {
        is_found_out(&mut victim, "handles of a later record", |link| {
            link.attach(number, &[file.as_fd()]);
            publish(link, &with(1));
        });
    }
    for junk in [&[2; 15][..], &[2; 17], &[1; 16], &[2], &[0; 60_000]] {
        is_found_out(
            &mut victim,
            "an unknown packet in the side channel",
            |link| {
                link.side.send(junk, &[]).unwrap();
                publish(link, &with(1));
            },
        );
    }
}

/// Pads only: each look finds one more, and none of them is ever given back.
#[test]
fn a_receive_skips_pads_for_ever() {
    let mut victim = Victim::new("pads");
    let reason = "a pad out of place";
    is_found_out(&mut victim, reason, |link| {
        publish(link, &[head(PAD, 0, 0, 0, 0)])
    });
    // To the end of the ring, and nothing behind it.
    is_found_out(&mut victim, reason, |link| {
        link.put(0, &[head(PAD, CAPACITY - 8, 0, 0, 0)]);
        link.publish(CAPACITY);
    });
    // For as long as the victim looks.
    let (_liar, link) = liar(&victim);
    for at in (0..CAPACITY).step_by(8) {
        link.put(at, &[head(PAD, 0, 0, 0, 0)]);
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        let _stop = Stop(&done);
        s.spawn(|| {
            let mut index = 0;
            while !done.load(Ordering::Relaxed) {
                index += CAPACITY / 2;
                link.publish(index);
            }
        });
        victim.lives_until(reason, || link.is_dropped());
    });
}

/// Packets of handles that belong to no record, for as long as the victim throws them away.
#[test]
fn a_receive_throws_away_handles_for_ever() {
    let mut victim = Victim::new("stale");
    let (_liar, link) = liar(&victim);
    let [_, high, low, body] = message();
    let flags = HAS_UUID | HAS_HANDLES;
    let words = [head(INLINE, 2, flags, 1, 0), high, low, u64::MAX, body];
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        let _stop = Stop(&done);
        for _ in 0..2 {
            s.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    link.attach(1, &[]);
                }
            });
        }
        link.attach(1, &[]);
        publish(&link, &words);
        // Either it sees the flood, or it is faster than the flood and sees that the handles are missing.
        victim.lives_until("the flood ends", || link.is_dropped());
    });
}

/// A bell that rings all the time must not keep its hearer awake.
#[test]
fn a_bell_without_a_message_burns_the_processor() {
    let mut victim = Victim::new("bell");
    let reason = "it rings and has no message";
    for polled in [false, true] {
        if polled {
            let _ = victim.receiver.as_fd();
        }
        let (liar, link) = liar(&victim);
        let done = AtomicBool::new(false);
        std::thread::scope(|s| {
            let _stop = Stop(&done);
            s.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    link.ringer.ring();
                }
            });
            let start = Instant::now();
            while !link.is_dropped() {
                assert!(
                    start.elapsed() < Duration::from_secs(20),
                    "it goes on ringing"
                );
                match polled {
                    true => assert!(matches!(victim.receiver.try_recv(), Err(RecvError::Empty))),
                    false => {
                        let heard = victim.receiver.recv(Some(Duration::from_millis(5)));
                        assert!(matches!(heard, Err(RecvError::Timeout)));
                    }
                }
            }
        });
        victim.hears_its_friend();
        let line = format!("the link from endpoint {} is dropped: {reason}", liar.id);
        assert!(logged(&["WARN", &line]) >= 1);
    }
}

/// Messages of a type that is not taken, as fast as they are skipped.
#[test]
fn a_flood_of_unwanted_messages_outlasts_the_timeout() {
    let mut victim = Victim::new("unwanted");
    let (_liar, link) = liar(&victim);
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        let _stop = Stop(&done);
        s.spawn(|| {
            link.put(0, &[head(INLINE, 0, HAS_UUID, 0, 0), 1, 2]);
            let mut index = 24;
            link.publish(index);
            // The ring is full of them by now, and stays as it is: only the index moves on.
            for at in (24..CAPACITY).step_by(8) {
                link.put(at, &[head(INLINE, 0, 0, 0, 0)]);
            }
            until("the first is skipped", || link.read() == 24);
            link.put(0, &[head(INLINE, 0, 0, 0, 0); 3]);
            while !done.load(Ordering::Relaxed) {
                index = link.read() + CAPACITY;
                link.publish(index);
            }
        });
        let start = Instant::now();
        for _ in 0..20 {
            let heard = victim.receiver.recv(Some(Duration::from_millis(10)));
            assert!(matches!(heard, Err(RecvError::Timeout)), "{heard:?}");
            let heard = victim.receiver.try_recv();
            assert!(matches!(heard, Err(RecvError::Empty)), "{heard:?}");
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it waits longer than asked"
        );
        victim.hears_its_friend();
    });
}

/// The word that says that the sender sleeps, changed all the time, and news that nobody reads.
#[test]
fn a_sender_that_reads_nothing_blocks_its_receiver() {
    let mut victim = Victim::new("deaf");
    let (_liar, link) = liar(&victim);
    let mut index = 0;
    for round in 0..10_000u32 {
        half(&link.records, AT_SLEEP).store(round * 4 + 2, Ordering::Relaxed);
        let words = [head(INLINE, 0, HAS_UUID, 0, 0), 1, 2];
        if index % CAPACITY > CAPACITY - 24 {
            break;
        }
        link.put(index, &words);
        index += 24;
        link.publish(index);
        if round % 64 == 0 {
            victim.hears_its_friend();
        }
    }
    let index = index;
    victim.lives_until("all is skipped", || link.read() == index);
}

/// The maker of a socket can have the kernel add credentials and a process handle to each packet: they must neither count
/// as a shortage nor stay open.
#[test]
fn additions_to_a_packet_stay_open_or_look_like_a_shortage() {
    use std::os::fd::AsRawFd;
    let (ours, theirs) = Channel::pair(0).unwrap();
    for option in [
        libc::SO_PASSCRED,
        libc::SO_PASSSEC,
        76, /* SO_PASSPIDFD, from Linux 6.5 on */
    ] {
        let on: libc::c_int = 1;
        // SAFETY: the option's value is one integer.
        unsafe {
            libc::setsockopt(
                theirs.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
    }
    let pidfds = || {
        let names = std::fs::read_dir("/proc/self/fd").unwrap();
        let links = names.filter_map(|name| std::fs::read_link(name.unwrap().path()).ok());
        links
            .filter(|link| link.to_string_lossy().contains("pidfd"))
            .count()
    };
    let before = pidfds();
    let file = std::fs::File::open("/dev/null").unwrap();
    for count in [0, 1, 253] {
        for _ in 0..30 {
            ours.send(&[1], &vec![file.as_fd(); count]).unwrap();
            let mut handles = Vec::new();
            let packet = theirs.recv_with(&mut [0; 8], &mut handles, count).unwrap();
            assert!(!packet.surplus && handles.len() == count);
        }
    }
    // Other tests have handles of processes, too, but not as many.
    assert!(pidfds() < before + 45, "process handles stay open");
}
