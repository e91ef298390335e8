//! What a message costs on this system beside the means that it has itself: run with `--ignored --nocapture`.

#![cfg(windows)]
#![allow(clippy::expect_used)]

mod common;

use common::{Peer, SOON, join, name, role, say};
use ipmb::{EndpointReceiver, EndpointSender, Label, Message, Options, Selector, label};
use std::{
    fs::File,
    io::{Read, Write},
    os::windows::io::{AsRawHandle, FromRawHandle},
    time::{Duration, Instant},
};
use windows_sys::Win32::{
    Foundation::{ERROR_PIPE_CONNECTED, HANDLE, INVALID_HANDLE_VALUE},
    Storage::FileSystem::PIPE_ACCESS_DUPLEX,
    System::{
        Pipes::{
            ConnectNamedPipe, CreateNamedPipeW, PIPE_READMODE_MESSAGE, PIPE_TYPE_MESSAGE, PIPE_WAIT,
        },
        Threading::{CreateEventW, INFINITE, SetEvent, WaitForSingleObject},
    },
};

const ROUNDS: usize = 2_000;
const MESSAGES: u64 = 200_000;
/// Through a bare pipe each is a call of the system on both sides.
const PIPED: u64 = 20_000;
const SIZE: usize = 16;

fn wide(name: &str) -> Vec<u16> {
    name.encode_utf16().chain([0]).collect()
}

fn pipe_of(bus: &str) -> String {
    format!(r"\\.\pipe\{bus}")
}

/// An end of a named pipe in message mode that one can connect to.
fn listen(bus: &str) -> File {
    let (name, kind) = (
        wide(&pipe_of(bus)),
        PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE | PIPE_WAIT,
    );
    let space = 64 << 10;
    // SAFETY: the name ends with a zero; nothing else is passed by a pointer.
    let end = unsafe {
        CreateNamedPipeW(
            name.as_ptr(),
            PIPE_ACCESS_DUPLEX,
            kind,
            1,
            space,
            space,
            0,
            std::ptr::null(),
        )
    };
    assert_ne!(end, INVALID_HANDLE_VALUE);
    // SAFETY: opened just now, and nobody else has it.
    unsafe { File::from_raw_handle(end) }
}

/// Waits until somebody has connected.
fn connected(end: &File) {
    // SAFETY: an open end of a pipe that waits.
    let done = unsafe { ConnectNamedPipe(end.as_raw_handle(), std::ptr::null_mut()) };
    let error = std::io::Error::last_os_error().raw_os_error();
    assert!(done != 0 || error == Some(ERROR_PIPE_CONNECTED as i32));
}

/// A named event that one wait takes; found or made.
fn named(name: &str) -> HANDLE {
    let name = wide(name);
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

/// Joins with a receiver that does not watch its links before it sleeps.
fn sleepy(bus: &str, label: Label) -> (EndpointSender<u128>, EndpointReceiver<u128>) {
    let options = Options::new(bus, label, "token").spin(Duration::ZERO);
    ipmb::join(options, SOON).expect("join")
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
        // Sleeps at once when there is nothing.
        "sleepy" => {
            let (sender, receiver) = sleepy(&bus, label!("sleepy"));
            say("ready");
            for _ in 0..ROUNDS {
                let n = receiver.recv(SOON).expect("recv").payload;
                let back = Message::new(Selector::unicast("test"), n);
                sender.send(back).expect("send");
            }
        }
        "events" => {
            let (there, back) = (named(&format!("{bus}.a")), named(&format!("{bus}.b")));
            say("ready");
            for _ in 0..ROUNDS {
                sleep(there);
                ring(back);
            }
        }
        "pipe" => {
            let mut end = File::options();
            let mut end = end.read(true).write(true).open(pipe_of(&bus));
            let end = end.as_mut().expect("open");
            let mut bytes = [0; SIZE];
            for _ in 0..ROUNDS {
                end.read_exact(&mut bytes).expect("read");
                end.write_all(&bytes).expect("write");
            }
            for _ in 0..PIPED {
                end.read_exact(&mut bytes).expect("read");
            }
            end.write_all(&bytes).expect("write");
            say("done");
            // Until the answer was read.
            while common::listen().is_some() {}
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

    drop((sender, receiver));
    let (sender, receiver) = sleepy(&bus, label!("test"));
    let mut sleeper = Peer::start("peer", "sleepy", &bus);
    sleeper.expect("ready");
    let asleep = measure(|| {
        let message = Message::new(Selector::unicast("sleepy"), 1);
        sender.send(message).expect("send");
        receiver.recv(SOON).expect("recv");
    });

    let mut events = Peer::start("peer", "events", &bus);
    let (there, back) = (named(&format!("{bus}.a")), named(&format!("{bus}.b")));
    events.expect("ready");
    let of_events = measure(|| {
        ring(there);
        sleep(back);
    });

    let mut pipe = listen(&bus);
    let mut reader = Peer::start("peer", "pipe", &bus);
    connected(&pipe);
    let of_pipes = measure(|| {
        pipe.write_all(&[7; SIZE]).expect("write");
        pipe.read_exact(&mut [0; SIZE]).expect("read");
    });
    let start = Instant::now();
    for _ in 0..PIPED {
        pipe.write_all(&[7; SIZE]).expect("write");
    }
    pipe.read_exact(&mut [0; SIZE]).expect("read");
    let pipe_rate = PIPED as f64 / start.elapsed().as_secs_f64();
    reader.expect("done");
    reader.wait();

    let times = |bus: Duration, of: Duration| bus.as_secs_f64() / of.as_secs_f64();
    println!(
        "FIGURES round trip, median of {ROUNDS}: two events {of_events:?}, named pipe {of_pipes:?}"
    );
    for (how, bus) in [("watches first", of_the_bus), ("sleeps at once", asleep)] {
        println!(
            "FIGURES round trip of the bus, whose receiver {how}: {bus:?}, {:.2} of events, {:.2} of the pipe",
            times(bus, of_events),
            times(bus, of_pipes)
        );
    }
    println!(
        "FIGURES 16 B messages per second: bus {rate:.0}, named pipe {pipe_rate:.0}; {:.1} times as many",
        rate / pipe_rate
    );
}
