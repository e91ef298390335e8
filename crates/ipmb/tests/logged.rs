//! What is logged: whom a `send` waits for that waits for long, and a shortage once.

#![cfg(unix)]
#![allow(clippy::expect_used)]

mod common;

use common::{Peer, join, listen, name, role, say};
use ipmb::{Message, Options, Selector, label};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::{
    os::fd::AsRawFd,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Longer than it takes until a blocked send says something, and shorter than it may take to say it twice.
const LONG: Option<Duration> = Some(Duration::from_secs(7));

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Keep;

impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        let mut logged = LOGGED.lock().expect("lock");
        logged.push(record.args().to_string());
    }
    fn flush(&self) {}
}

/// The one line that says that a send waits, if it has all of `parts`.
fn complaints(parts: &[&str]) -> usize {
    let logged = LOGGED.lock().expect("lock");
    let about = |line: &&String| line.contains("send has waited");
    let has_all = |line: &&String| parts.iter().all(|part| line.contains(part));
    logged.iter().filter(about).filter(has_all).count()
}

/// What the other processes of this test do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    if role == "short" {
        return short(&bus);
    }
    let mut options = Options::new(bus, label!(&role), "token");
    options.controller_affinity = role == "host";
    let _ends = ipmb::join::<u64, u64>(options, common::SOON).expect("join");
    say("joined");
    while listen().is_some() {}
}

/// Joins with every number of descriptors, from none to enough, and says the most lines that it logged in one of them.
fn short(bus: &str) {
    keep_log();
    let before = getrlimit(Resource::Nofile);
    let mut most = 0;
    for more in 0.. {
        let lowest = std::fs::File::open("/dev/null").expect("open");
        let free = lowest.as_raw_fd() as u64;
        drop(lowest);
        let mut limit = before;
        limit.current = Some(free + more);
        setrlimit(Resource::Nofile, limit).expect("a lower limit");
        let already = LOGGED.lock().expect("lock").len();
        let options = Options::new(bus, label!("short"), "token");
        let joined = ipmb::join::<u64, u64>(options, Some(Duration::from_millis(300)));
        setrlimit(Resource::Nofile, before).expect("the old limit");
        if joined.is_ok() {
            break;
        }
        most = most.max(LOGGED.lock().expect("lock").len() - already);
    }
    say(&most.to_string());
}

fn keep_log() {
    log::set_logger(&Keep).expect("the only logger");
    log::set_max_level(log::LevelFilter::Warn);
}

fn started(role: &str, bus: &str) -> Peer {
    let mut peer = Peer::start("peer", role, bus);
    peer.expect("joined");
    peer
}

/// Sends to `label` until it takes longer than it may.
fn send_until_blocked(bus: &str, label: &str) {
    let mut options = Options::new(bus, label!("from"), "token");
    options.controller_affinity = false;
    let (sender, _r) = ipmb::join::<u64, u64>(options, common::SOON).expect("join");
    fill(&sender, label);
}

fn fill(sender: &ipmb::EndpointSender<u64>, label: &str) {
    loop {
        let start = Instant::now();
        let message = Message::new(Selector::unicast(label), 1);
        if sender.send_timeout(message, LONG).is_err() {
            assert!(start.elapsed() >= LONG.expect("some"));
            return;
        }
    }
}

#[test]
fn a_send_that_is_blocked_for_long_does_not_say_whom_it_waits_for() {
    keep_log();
    std::thread::scope(|s| {
        // A receiver that takes nothing.
        s.spawn(|| {
            let bus = name("full");
            let _host = join::<(), ()>(&bus, label!("here"));
            let lazy = started("lazy", &bus);
            send_until_blocked(&bus, "lazy");
            let process = format!("process {},", lazy.child.id());
            assert_eq!(complaints(&["for space", &process, "\"lazy\""]), 1);
        });
        // A first contact that a stopped controller does not pass on.
        s.spawn(|| {
            let bus = name("contact");
            let host = started("host", &bus);
            let other = started("other", &bus);
            let mut options = Options::new(bus.as_str(), label!("from"), "token");
            options.controller_affinity = false;
            let (sender, _r) = ipmb::join::<u64, u64>(options, common::SOON).expect("join");
            host.stop();
            fill(&sender, "other");
            let process = format!("process {},", other.child.id());
            let stopped = format!("process {}, is stopped", host.child.id());
            assert_eq!(complaints(&["first contact", &process, &stopped]), 1);
            host.signal(libc::SIGCONT);
        });
        // A bus that nobody may host any more.
        s.spawn(|| {
            let bus = name("nobody");
            let mut host = started("host", &bus);
            let mut options = Options::new(bus.as_str(), label!("from"), "token");
            options.controller_affinity = false;
            let (sender, _r) = ipmb::join::<u64, u64>(options, common::SOON).expect("join");
            host.kill();
            fill(&sender, "lazy");
            assert_eq!(complaints(&["settled", "no controller"]), 1);
        });
    });
    assert_eq!(complaints(&[]), 3);
}

/// It is tried again every few milliseconds until a shortage is over; to say so each time would fill a disk.
#[test]
fn a_shortage_fills_the_log() {
    let bus = name("short");
    let mut peer = Peer::start("peer", "short", &bus);
    let most: usize = peer.hear().parse().expect("a number");
    assert!(most <= 4, "{most} lines in 300 ms");
    peer.wait();
}
