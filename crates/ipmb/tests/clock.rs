//! The wall clock jumps, and nobody notices.
//!
//! This program has its own `clock_gettime`, which stands in for the C library's: the time of day that it tells jumps by
//! years, back and forth, each time that somebody asks. All other clocks are the system's.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used)]
#![allow(clippy::disallowed_types)] // Atomics between its own threads.

mod common;

use common::{Peer, SOON, join, listen, name, role, say};
use ipmb::{Message, RecvError, Selector, SendError, label};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

/// How often the time of day was asked for.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// # Safety
///
/// As the C library's: `time` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    if matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE) {
        let asked = ASKED.fetch_add(1, Ordering::Relaxed);
        let years = [55, 3, 60, 0][asked as usize % 4];
        // SAFETY: the caller's promise.
        unsafe { (*time).tv_sec = years * 31_556_952 };
        // SAFETY: as above.
        unsafe { (*time).tv_nsec = 0 };
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int }
}

/// Where `clock_gettime` tells seconds in 32 bits, the standard library asks in this way for 64.
///
/// # Safety
///
/// As the C library's: `time` is writable.
#[cfg(all(target_env = "gnu", target_pointer_width = "32"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __clock_gettime64(
    clock: libc::clockid_t,
    time: *mut [i64; 2],
) -> libc::c_int {
    let mut told = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time lives.
    let result = unsafe { clock_gettime(clock, &raw mut told) };
    // SAFETY: the caller's promise; seconds and nanoseconds, in this order, on a machine of the little end first.
    unsafe { *time = [told.tv_sec.into(), told.tv_nsec.into()] };
    result
}

/// # Safety
///
/// As the C library's: `time` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(
    time: *mut libc::timeval,
    _zone: *mut libc::c_void,
) -> libc::c_int {
    ASKED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller's promise.
    unsafe { *time = std::mem::zeroed() };
    0
}

/// What the other process of the test does; nothing when run as a test.
#[test]
fn peer() {
    let Some((_, bus)) = role() else { return };
    let (sender, receiver) = join::<u64, u64>(&bus, label!("echo"));
    std::thread::spawn(move || {
        while let Ok(message) = receiver.recv(None) {
            let back = Message::new(Selector::unicast("test"), message.payload);
            sender.send(back).expect("send");
        }
    });
    say("joined");
    while listen().is_some() {
        say(&ASKED.load(Ordering::Relaxed).to_string());
    }
}

fn took(range: std::ops::Range<u64>, done: impl FnOnce()) {
    let start = Instant::now();
    done();
    let millis = start.elapsed().as_millis() as u64;
    assert!(range.contains(&millis), "{millis} ms");
}

#[test]
fn a_jump_of_the_wall_clock_changes_how_long_something_takes() {
    // The clock is ours, and it jumps.
    let (first, second) = (SystemTime::now(), SystemTime::now());
    assert!(second < first - Duration::from_secs(1 << 30));
    let bus = name("clock");
    let mut host = Peer::start("peer", "host", &bus);
    host.expect("joined");
    let mut next = Peer::start("peer", "next", &bus);
    next.expect("joined");
    let before = ASKED.load(Ordering::Relaxed);
    let (sender, receiver) = join::<u64, u64>(&bus, label!("test"));
    let number = |label: &str, n| Message::new(Selector::unicast(label), n);
    for n in 0..1_000 {
        sender.send(number("echo", n)).expect("send");
        assert_eq!(receiver.recv(SOON).expect("echo").payload, n);
    }
    took(200..20_000, || {
        let nothing = receiver.recv(Some(Duration::from_millis(200)));
        assert!(matches!(nothing, Err(RecvError::Timeout)));
    });
    // Parked for as long as it was asked for, and no longer.
    let parked = |ttl, n| {
        let mut message = Selector::unicast("later");
        message.ttl = Duration::from_millis(ttl);
        sender.send(Message::new(message, n)).expect("park");
    };
    parked(100, 1);
    parked(30_000, 2);
    took(50..20_000, || {
        while sender.stats().expired == 0 {
            std::thread::yield_now();
        }
    });
    let (_s, later) = join::<u64, u64>(&bus, label!("later"));
    assert_eq!(later.recv(SOON).expect("parked").payload, 2);
    // A full link; a controller that dies.
    next.stop();
    host.kill();
    took(200..20_000, || {
        let full = loop {
            let timeout = Some(Duration::from_millis(200));
            if let Err(full) = sender.send_timeout(number("echo", 0), timeout) {
                break full;
            }
        };
        assert!(matches!(full.kind(), SendError::Timeout), "{full}");
    });
    next.signal(libc::SIGCONT);
    next.tell("asked?");
    assert_eq!(
        next.hear(),
        "0",
        "the other process asked for the time of day"
    );
    assert_eq!(
        ASKED.load(Ordering::Relaxed),
        before,
        "somebody asked for the time of day"
    );
}
