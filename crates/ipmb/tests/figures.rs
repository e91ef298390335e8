//! What a message costs on this system beside the means that it has itself: run with `--ignored --nocapture`.

#![cfg(windows)]
#![allow(clippy::expect_used)]

mod common;

use common::{Peer, SOON, join, name, role, say};
use ipmb::{Message, Selector, label};
use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use windows_sys::Win32::{
    Foundation::HANDLE,
    System::Threading::{CreateEventW, INFINITE, SetEvent, WaitForSingleObject},
};

const ROUNDS: usize = 2_000;
const MESSAGES: u64 = 200_000;
const SIZE: usize = 16;

/// A named event that one wait takes; found or made.
fn named(name: &str) -> HANDLE {
    let name: Vec<u16> = name.encode_utf16().chain([0]).collect();
    // SAFETY: the name ends with a zero.
    let event = unsafe { CreateEventW(std::ptr::null(), 0, 0, name.as_ptr()) };
    assert!(!event.is_null());
    event
}

fn ring(event: HANDLE) {
    // SAFETY: the event is never closed.
    assert_ne!(unsafe { SetEvent(event) }, 0);
}

fn sleep(event: HANDLE) {
    // SAFETY: as above.
    assert_eq!(unsafe { WaitForSingleObject(event, INFINITE) }, 0);
}

/// What the other processes of these tests do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    match role.as_str() {
        "echo" => {
            let (sender, receiver) = join::<u128, u128>(&bus, label!("echo"));
            say("ready");
            for _ in 0..ROUNDS {
                let n = receiver.recv(SOON).expect("recv").payload;
                let back = Message::new(Selector::unicast("test"), n);
                sender.send(back).expect("send");
            }
            for n in 0..u128::from(MESSAGES) {
                assert_eq!(receiver.recv(SOON).expect("recv").payload, n);
            }
            let done = Message::new(Selector::unicast("test"), u128::MAX);
            sender.send(done).expect("send");
        }
        "events" => {
            let (there, back) = (named(&format!("{bus}.a")), named(&format!("{bus}.b")));
            say("ready");
            for _ in 0..ROUNDS {
                sleep(there);
                ring(back);
            }
        }
        // Copies bytes, as many as come at a time.
        "pipe" => {
            let mut bytes = [0; SIZE];
            while std::io::stdin().read_exact(&mut bytes).is_ok() {
                let mut out = std::io::stdout();
                out.write_all(&bytes).expect("write");
                out.flush().expect("flush");
            }
            std::process::exit(0);
        }
        other => panic!("unknown role {other}"),
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn measure(mut round: impl FnMut()) -> Duration {
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        round();
        start.elapsed()
    });
    median(times.collect())
}

#[test]
#[ignore = "a measurement"]
fn round_trips_and_rates() {
    let bus = name("figures");
    let (sender, receiver) = join::<u128, u128>(&bus, label!("test"));
    let mut echo = Peer::start("peer", "echo", &bus);
    echo.expect("ready");
    let send = |n| {
        let message = Message::new(Selector::unicast("echo"), n);
        sender.send(message).expect("send");
    };
    let of_the_bus = measure(|| {
        send(1);
        receiver.recv(SOON).expect("recv");
    });
    let start = Instant::now();
    (0..u128::from(MESSAGES)).for_each(send);
    receiver.recv(SOON).expect("recv");
    let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();

    let mut events = Peer::start("peer", "events", &bus);
    let (there, back) = (named(&format!("{bus}.a")), named(&format!("{bus}.b")));
    events.expect("ready");
    let of_events = measure(|| {
        ring(there);
        sleep(back);
    });

    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["peer", "--exact", "--nocapture", "--quiet"])
        .env("IPMB_TEST_ROLE", "pipe")
        .env("IPMB_TEST_BUS", "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start");
    let (mut there, mut back) = (
        child.stdin.take().expect("piped"),
        child.stdout.take().expect("piped"),
    );
    // What the test program itself says comes first.
    let mut bytes = [0; 1];
    there.write_all(&[0xff; SIZE]).expect("write");
    while bytes[0] != 0xff {
        back.read_exact(&mut bytes).expect("read");
    }
    back.read_exact(&mut [0; SIZE - 1]).expect("read");
    let of_pipes = measure(|| {
        there.write_all(&[7; SIZE]).expect("write");
        back.read_exact(&mut [0; SIZE]).expect("read");
    });
    let start = Instant::now();
    let writer = std::thread::spawn(move || {
        for _ in 0..MESSAGES / 20 {
            there.write_all(&[7; SIZE]).expect("write");
        }
        there
    });
    for _ in 0..MESSAGES / 20 {
        back.read_exact(&mut [0; SIZE]).expect("read");
    }
    let pipe_rate = (MESSAGES / 20) as f64 / start.elapsed().as_secs_f64();
    drop(writer.join());
    let _ = child.kill();
    let _ = child.wait();

    println!(
        "round trip, median of {ROUNDS}: bus {of_the_bus:?}, events {of_events:?}, pipes {of_pipes:?}"
    );
    println!("16 B messages per second: bus {rate:.0}, through two pipes {pipe_rate:.0}");
}
