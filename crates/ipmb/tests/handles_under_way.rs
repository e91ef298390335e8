//! The limit on the handles that a user has under way (`RLIMIT_NOFILE`, see unix(7)). It counts those of all processes of
//! the user, so each of these tests has a user of its own, and a program: another's handles, taken while it runs, would make room.

#![cfg(any(target_os = "linux", target_os = "android"))]
#![allow(clippy::expect_used)]

mod common;

use common::{Peer, SOON, join, listen, name, role, say};
use ipmb::{
    BytesMessage, EndpointSender, Message, Object, Options, Resource, Selector, SendError, label,
};
use rustix::process::{Resource as Limited, getrlimit, setrlimit};
use std::{
    fs::File,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

const SHORT: Option<Duration> = Some(Duration::from_millis(500));

#[test]
fn too_many_handles_under_way_cost_a_message_or_are_not_named() {
    let mut peer = Peer::start("peer", "crowded", &name("alone"));
    peer.expect("done");
    peer.wait();
}

/// What the tests do, as users for whom the limit holds; for root it does not. Nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    match role.as_str() {
        "crowded" => crowded(&bus),
        "host" | "next" => hosts(&bus),
        "members" => members(&bus),
        other => panic!("unknown role {other}"),
    }
}

fn crowded(bus: &str) {
    become_user(61_237);
    set_limit(FEW);
    let (sender, receiver) = join::<BytesMessage, BytesMessage>(bus, label!("test"));
    let (_s, far) = join::<BytesMessage, BytesMessage>(bus, label!("far"));
    let arrives = |n: usize, objects: usize| {
        let message = far.recv(SOON).expect("recv");
        assert_eq!(
            (message.payload.data.len(), message.objects.len()),
            (n, objects)
        );
    };
    sender.send(with_object("far", 1)).expect("send");
    arrives(1, 1);
    let before = common::descriptors();
    let crowd = Crowd::new();
    let refused = sender
        .try_send(with_object("far", 2))
        .expect_err("there is no room");
    let kind = refused.kind();
    let expected = matches!(kind, SendError::Exhausted(Resource::HandlesInFlight, _));
    assert!(expected, "{kind}");
    assert!(kind.to_string().contains("under way"), "{kind}");
    let message = refused.into_message();
    assert_eq!((message.payload.data.len(), message.objects.len()), (2, 1));
    let refused = sender.send_timeout(message, SHORT).expect_err("nor later");
    let message = refused.into_message();
    assert_eq!(message.objects.len(), 1);
    // What has no handles goes on, and so does what needs none.
    sender.send(bytes("far", 3)).expect("send");
    arrives(3, 0);
    sender.send(bytes("test", 3)).expect("send");
    assert_eq!(receiver.recv(SOON).expect("recv").payload.data.len(), 3);
    // A newcomer cannot be welcomed, and is in time when there is room again.
    let late = Options::new(bus, label!("late"), "token");
    let early = ipmb::join::<BytesMessage, BytesMessage>(late.clone(), SHORT);
    assert!(early.is_err(), "a welcome has handles");
    std::thread::scope(|s| {
        let sends = s.spawn(|| sender.send(message));
        let joins = s.spawn(|| ipmb::join::<BytesMessage, BytesMessage>(late, SOON));
        std::thread::sleep(Duration::from_millis(100));
        assert!(
            !sends.is_finished() && !joins.is_finished(),
            "there was room"
        );
        drop(crowd);
        sends.join().expect("no panic").expect("send");
        arrives(2, 1);
        let (_late, receiver) = joins.join().expect("no panic").expect("join");
        sender
            .send(with_object("late", 4))
            .expect("a first contact");
        assert_eq!(receiver.recv(SOON).expect("recv").objects.len(), 1);
    });
    let start = Instant::now();
    // The link to the one that has gone goes with it.
    while common::descriptors() > before {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "descriptors are left"
        );
        let _ = sender.try_send(bytes("nobody", 0));
        let _ = receiver.try_recv();
        std::thread::sleep(Duration::from_millis(1));
    }
    say("done");
}

/// Two members come back to a controller that has no handles to welcome them with.
#[test]
fn who_comes_back_during_a_shortage_of_handles_loses_its_id() {
    let bus = name("back");
    let start = |role| {
        let mut peer = Peer::start("peer", role, &bus);
        peer.expect("joined");
        peer
    };
    let (mut host, mut next, mut members) = (start("host"), start("next"), start("members"));
    members.tell("id");
    let before = members.hear();
    next.tell("crowd");
    next.expect("crowd");
    host.kill();
    next.expect("a welcome could not be sent");
    // All of them meet the shortage.
    std::thread::sleep(Duration::from_millis(500));
    next.tell("free");
    next.expect("free");
    members.tell("id");
    assert_eq!(members.hear(), before);
    drop((next, members));
}

const BACK: u32 = 61_238;

/// Says when a controller of this process could not welcome somebody for the first time.
struct Says;

impl log::Log for Says {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        static ONCE: std::sync::Once = std::sync::Once::new();
        let line = record.args().to_string();
        if let Some((what, _)) = line
            .split_once(':')
            .filter(|(what, _)| what.contains("welcome"))
        {
            ONCE.call_once(|| say(what));
        }
    }
    fn flush(&self) {}
}

fn hosts(bus: &str) {
    become_user(BACK);
    set_limit(FEW);
    log::set_logger(&Says).expect("the only one");
    log::set_max_level(log::LevelFilter::Warn);
    let _ends = join::<(), ()>(bus, label!("host"));
    say("joined");
    let mut crowd = None;
    while let Some(line) = listen() {
        crowd = (line == "crowd").then(Crowd::new);
        say(&line);
    }
    drop(crowd);
}

/// Says the id of the second of two members when it is asked.
fn members(bus: &str) {
    become_user(BACK);
    let joined = |label| {
        let mut options = Options::new(bus, label!(label), "token");
        options.controller_affinity = false;
        ipmb::join::<BytesMessage, BytesMessage>(options, SOON).expect("join")
    };
    let ((near, _r), (_s, far)) = (joined("near"), joined("far"));
    say("joined");
    while listen().is_some() {
        near.send(bytes("far", 1)).expect("send");
        let (id, count) = fill(&near);
        (0..=count).for_each(|_| drop(far.recv(SOON).expect("recv")));
        say(&id.to_string());
    }
}

/// Fills the link, and says whose it is and how many went into it.
fn fill(sender: &EndpointSender<BytesMessage>) -> (u64, usize) {
    for count in 0.. {
        if let Err(refused) = sender.try_send_if(bytes("far", 1000), |_| true) {
            let SendError::Full(id) = *refused.kind() else {
                panic!("{refused:?}");
            };
            return (id, count);
        }
    }
    unreachable!()
}

fn bytes(label: &str, size: usize) -> Message<BytesMessage> {
    let data = vec![7; size];
    Message::new(Selector::unicast(label), BytesMessage { format: 0, data })
}

fn with_object(label: &str, size: usize) -> Message<BytesMessage> {
    let mut message = bytes(label, size);
    let file = File::open("/dev/null").expect("open");
    message.objects.push(Object::from(OwnedFd::from(file)));
    message
}

/// Descriptors of a process, and so handles under way of its user, when there are few.
const FEW: u64 = 120;

/// Handles that the crowd sends beyond the limit: the number is the user's, whose other processes may take some of theirs
/// while the test runs.
const BEYOND: u64 = 64;

fn set_limit(descriptors: u64) {
    let mut limit = getrlimit(Limited::Nofile);
    limit.current = Some(descriptors);
    setrlimit(Limited::Nofile, limit).expect("set a limit");
}

/// Becomes a user without privileges, if this is root.
fn become_user(id: u32) {
    // SAFETY: no pointers but an empty list; the C library changes all threads.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
            assert_eq!(libc::setresgid(id, id, id), 0);
            assert_eq!(libc::setresuid(id, id, id), 0);
        }
    }
}

/// Handles under way that nobody takes, more than [`FEW`].
struct Crowd {
    _pairs: Vec<(OwnedFd, OwnedFd)>,
}

impl Crowd {
    fn new() -> Self {
        set_limit(FEW + BEYOND);
        let crowd = Self::fill();
        set_limit(FEW);
        crowd
    }

    fn fill() -> Self {
        use rustix::net::{
            AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
            SocketType, sendmsg, socketpair,
        };
        let file = File::open("/dev/null").expect("open");
        let mut pairs = Vec::new();
        loop {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
            pairs.push(pair.expect("a pair"));
            loop {
                let mut space =
                    [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut handles = SendAncillaryBuffer::new(&mut space);
                let borrowed = [std::os::fd::AsFd::as_fd(&file)];
                assert!(handles.push(SendAncillaryMessage::ScmRights(&borrowed)));
                let bytes = [std::io::IoSlice::new(b"x")];
                let end = &pairs.last().expect("one").0;
                match sendmsg(end, &bytes, &mut handles, SendFlags::DONTWAIT) {
                    Ok(_) => {}
                    Err(rustix::io::Errno::TOOMANYREFS) => return Self { _pairs: pairs },
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(other) => panic!("{other}"),
                }
            }
            assert!(pairs.len() < 20, "the limit does not hold for this user");
        }
    }
}
