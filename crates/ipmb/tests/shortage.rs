//! Shortages in the control plane: descriptors, address space and room in channels, in the process that joins, in the
//! controller's, and in a member's while the controller changes.

#![cfg(unix)]
#![allow(clippy::expect_used)]

mod common;

use common::{Peer, SOON, join, listen, name, needs_linux, role, say, skip};
use ipmb::{BytesMessage, JoinError, Message, Object, Options, Resource, Selector, label};
use rustix::process::{Resource as Limited, getrlimit, setrlimit};
use std::{
    fs::File,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

const SHORT: Option<Duration> = Some(Duration::from_millis(500));

fn number(label: &str, n: u64) -> Message<u64> {
    Message::new(Selector::unicast(label), n)
}

/// The limit that holds now. Unlimited is the highest number.
fn limit(resource: Limited) -> u64 {
    getrlimit(resource).current.unwrap_or(u64::MAX)
}

fn set_limit(resource: Limited, now: u64) {
    let mut limit = getrlimit(resource);
    let most = limit.maximum.unwrap_or(u64::MAX);
    limit.current = Some(now.min(most)).filter(|now| *now < u64::MAX);
    setrlimit(resource, limit).expect("set a limit");
}

/// What this process has used of its processors, in milliseconds.
fn cpu() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as i64 * 1000 + time.tv_nsec as i64 / 1_000_000
}

/// Opens files until there is no descriptor left.
fn fill() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read");
    let line = status.lines().find_map(|l| l.strip_prefix("VmSize:"));
    let kib: u64 = line
        .and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .expect("a number");
    kib << 10
}

/// What the other processes of these tests do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    match role.as_str() {
        // Echoes; fills and frees its table of descriptors as it is told, or its address space.
        "host" | "guest" => {
            set_limit(Limited::Nofile, 200);
            let mut options = Options::new(bus, label!("echo"), "token");
            options.controller_affinity = role == "host";
            let (sender, receiver) = ipmb::join::<u64, u64>(options, SOON).expect("join");
            std::thread::spawn(move || {
                while let Ok(message) = receiver.recv(None) {
                    let mut back = number("test", message.payload);
                    back.objects = message.objects;
                    sender.send(back).expect("send");
                }
            });
            say("joined");
            let mut files = Vec::new();
            while let Some(line) = listen() {
                match line.as_str() {
                    "fill" => files = fill(),
                    "free" => files.clear(),
                    "narrow" => {
                        set_limit(Limited::As, address_space() + (256 << 10));
                        // An emulator may leave its own address space alone.
                        if Vec::<u8>::new().try_reserve_exact(64 << 20).is_ok() {
                            say("as wide as before");
                            continue;
                        }
                    }
                    "widen" => set_limit(Limited::As, u64::MAX),
                    "cpu" => {
                        say(&cpu().to_string());
                        continue;
                    }
                    other => panic!("{other}"),
                }
                say(&line);
            }
        }
        // Makes a link when it is told.
        "brief" => {
            let (sender, _receiver) =
                ipmb::join::<u64, u64>(guest(&bus, "brief"), SOON).expect("join");
            say("joined");
            while let Some(line) = listen() {
                sender.try_send(number("echo", 1)).expect("into the link");
                say(&line);
            }
        }
        // Joins with every number of descriptors, from none to enough.
        "few" => {
            let before = limit(Limited::Nofile);
            let mut refused = 0;
            for more in 0.. {
                let lowest = File::open("/dev/null").expect("open");
                use std::os::fd::AsRawFd;
                let free = lowest.as_raw_fd() as u64;
                drop(lowest);
                set_limit(Limited::Nofile, free + more);
                let joined = ipmb::join::<u64, u64>(
                    Options::new(bus.as_str(), label!("few"), "token"),
                    Some(Duration::from_secs(1)),
                );
                set_limit(Limited::Nofile, before);
                match joined {
                    Ok(_) => break,
                    Err(JoinError::Exhausted(Resource::Handles, _)) => refused += 1,
                    // As the controller it had no descriptor left to let itself in.
                    Err(JoinError::BusFull { pid }) if pid == std::process::id() => refused += 1,
                    Err(other) => panic!("{more}: {other:?}"),
                }
            }
            drop(join::<u64, u64>(&bus, label!("few")));
            say(&format!("{}", refused > 3));
        }
        // Makes shared memory under a limit on the size of files, with the signal that ends who goes beyond it.
        "files" => {
            // SAFETY: the default; a parent may have it ignored.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
            set_limit(Limited::Fsize, 100_000);
            let small = ipmb::MemoryRegion::try_new(100_000).map(|r| r.buffer_size());
            assert_eq!(small.ok(), Some(100_000));
            let refused = ipmb::MemoryRegion::try_new(100_001).expect_err("over the limit");
            assert!(matches!(
                refused,
                ipmb::Error::Exhausted(Resource::Memory, _)
            ));
            say(&cause(&refused));
            let (sender, receiver) = join::<u64, u64>(&bus, label!("files"));
            sender.send(number("files", 1)).expect("to itself");
            assert_eq!(receiver.recv(SOON).expect("recv").payload, 1);
            // A link takes more.
            let refused = sender.try_send(number("test", 2)).expect_err("no link");
            say(&cause(&refused));
            set_limit(Limited::Fsize, u64::MAX);
            sender.send(refused.into_message()).expect("a link");
            ipmb::MemoryRegion::try_new(100_001).expect("the limit is gone");
        }
        "no proc" => {
            let region = ipmb::MemoryRegion::new(1);
            say(&region.clone().expect_err("no further handle").to_string());
            let (sender, receiver) = join::<u64, u64>(&bus, label!("no proc"));
            sender.send(number("test", 3)).expect("send");
            assert_eq!(receiver.recv(SOON).expect("recv").payload, 3);
        }
        // Its side channels take a few packets only.
        "narrow" => {
            let (sender, _r) = join::<BytesMessage, BytesMessage>(&bus, label!("test"));
            let (_s, far) = join::<BytesMessage, BytesMessage>(&bus, label!("far"));
            sender.send(with_object("far", 0)).expect("send");
            assert_eq!(far.recv(SOON).expect("recv").objects.len(), 1);
            narrow_all_sockets();
            let mut sent = 1;
            let refused = loop {
                match sender.try_send(with_object("far", sent)) {
                    Ok(()) => sent += 1,
                    Err(refused) => break refused,
                }
                assert!(sent < 64, "it was not narrow");
            };
            let message = refused.into_message();
            assert_eq!(
                (message.payload.data.len(), message.objects.len()),
                (sent, 1)
            );
            let refused = sender.send_timeout(message, SHORT).expect_err("full");
            let message = refused.into_message();
            std::thread::scope(|s| {
                let sends = s.spawn(|| sender.send(message));
                for n in 1..=sent {
                    let message = far.recv(SOON).expect("recv");
                    assert_eq!((message.payload.data.len(), message.objects.len()), (n, 1));
                }
                sends.join().expect("no panic").expect("send");
            });
            say("done");
        }
        other => panic!("unknown role {other}"),
    }
}

/// What the system said, as an error tells it.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().expect("a cause").to_string()
}

#[test]
fn a_limit_on_the_size_of_files_ends_the_process() {
    let bus = name("files");
    let (_sender, receiver) = join::<u64, u64>(&bus, label!("test"));
    let mut peer = Peer::start("peer", "files", &bus);
    for _ in 0..2 {
        let said = peer.hear();
        assert!(said.contains("ulimit -f"), "{said}");
    }
    assert_eq!(receiver.recv(SOON).expect("recv").payload, 2);
    peer.wait();
}

#[test]
fn a_missing_proc_is_not_named() {
    // The program is started by a path that still leads to it.
    let hide = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
    let under = ["unshare", "--mount", "sh", "-c", hide];
    let allowed = std::process::Command::new(under[0])
        .args(&under[1..])
        .arg("true")
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        skip("a_missing_proc_is_not_named", "this user may not mount");
        return;
    }
    let bus = name("proc");
    let (sender, receiver) = join::<u64, u64>(&bus, label!("test"));
    let mut peer = Peer::start_under(&under, "peer", "no proc", &bus);
    let said = peer.hear();
    assert!(
        said.contains("/proc/self/fd") && said.contains("mount"),
        "{said}"
    );
    assert_eq!(receiver.recv(SOON).expect("recv").payload, 3);
    sender.send(number("no proc", 3)).expect("send");
    peer.wait();
}

/// Gives every socket of this process the smallest buffer that the system has.
fn narrow_all_sockets() {
    let size: libc::c_int = 1;
    for fd in 3..limit(Limited::Nofile).min(1024) {
        // SAFETY: the option is an integer that lives during the call; what is no open socket is refused.
        unsafe {
            libc::setsockopt(
                fd as libc::c_int,
                libc::SOL_SOCKET,
                libc::SO_SNDBUF,
                (&raw const size).cast(),
                size_of_val(&size) as libc::socklen_t,
            );
        }
    }
}

#[test]
fn a_full_side_channel_costs_a_message_or_its_order() {
    let mut peer = Peer::start("peer", "narrow", &name("narrow"));
    peer.expect("done");
    peer.wait();
}

fn with_object(label: &str, size: usize) -> Message<BytesMessage> {
    let data = vec![7; size];
    let mut message = Message::new(Selector::unicast(label), BytesMessage { format: 0, data });
    let file = File::open("/dev/null").expect("open");
    message.objects.push(Object::from(OwnedFd::from(file)));
    message
}

fn guest(bus: &str, label: &str) -> Options {
    let mut options = Options::new(bus, label!(label), "token");
    options.controller_affinity = false;
    options
}

type Ends = (ipmb::EndpointSender<u64>, ipmb::EndpointReceiver<u64>);

fn assert_echoes((sender, receiver): &Ends, range: std::ops::Range<u64>) {
    for n in range {
        sender.send(number("echo", n)).expect("send");
        assert_eq!(receiver.recv(SOON).expect("echo").payload, n);
    }
}

fn told(peer: &mut Peer, line: &str) {
    peer.tell(line);
    peer.expect(line);
}

#[test]
fn a_join_without_descriptors_fails_in_another_way_or_leaks() {
    // On a bus of its own, where it also has to host, and on another's.
    for hosted in [false, true] {
        let bus = name("few");
        let _host = hosted.then(|| join::<u64, u64>(&bus, label!("host")));
        let mut few = Peer::start("peer", "few", &bus);
        few.expect("true");
        few.wait();
    }
}

#[test]
fn a_full_table_of_the_controllers_process_is_not_named_or_stays_full() {
    let bus = name("full");
    let mut host = Peer::start("peer", "host", &bus);
    host.expect("joined");
    let ends: Ends = ipmb::join(guest(&bus, "test"), SOON).expect("join");
    assert_echoes(&ends, 0..10);
    told(&mut host, "fill");
    match ipmb::join::<u64, u64>(guest(&bus, "late"), SHORT) {
        Err(error @ JoinError::BusFull { pid }) => {
            assert_eq!(pid, host.child.id());
            assert!(error.to_string().contains("ulimit -n"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_echoes(&ends, 10..1_000);
    std::thread::scope(|s| {
        let late = s.spawn(|| ipmb::join::<u64, u64>(guest(&bus, "late"), SOON));
        std::thread::sleep(Duration::from_millis(100));
        told(&mut host, "free");
        late.join().expect("no panic").expect("join");
    });
    let other: Ends = ipmb::join(guest(&bus, "other"), SOON).expect("join");
    other.0.send(number("echo", 7)).expect("a first contact");
    assert_eq!(ends.1.recv(SOON).expect("echo").payload, 7);
}

/// What the dead one sent has handles, so that the hang-up behind it cannot be read.
#[test]
fn a_member_that_dies_while_the_controllers_table_is_full_keeps_its_thread_busy() {
    let bus = name("brief");
    let mut host = Peer::start("peer", "host", &bus);
    host.expect("joined");
    let mut brief = Peer::start("peer", "brief", &bus);
    brief.expect("joined");
    told(&mut host, "fill");
    told(&mut brief, "send");
    brief.kill();
    let mut cpu = || {
        host.tell("cpu");
        host.hear().parse::<i64>().expect("milliseconds")
    };
    let before = cpu();
    std::thread::sleep(Duration::from_secs(1));
    let burnt = cpu() - before;
    assert!(burnt < 200, "{burnt} ms of a second");
    told(&mut host, "free");
    // It has read the rest, and with it the end.
    let ends: Ends = ipmb::join(guest(&bus, "test"), SOON).expect("join");
    let mut echoes = 0;
    while echoes < 10 {
        ends.0.send(number("echo", 7)).expect("send");
        echoes += u64::from(ends.1.recv(SOON).expect("echo").payload == 7);
    }
}

#[test]
fn a_link_is_lost_when_its_receiver_has_no_descriptor_for_it() {
    let bus = name("link");
    let _host = join::<u64, u64>(&bus, label!("host"));
    let mut peer = Peer::start("peer", "guest", &bus);
    peer.expect("joined");
    told(&mut peer, "fill");
    let ends: Ends = ipmb::join(guest(&bus, "test"), SOON).expect("join");
    for n in 0..100 {
        let mut message = number("echo", n);
        if n % 10 == 0 {
            let file = File::open("/dev/null").expect("open");
            message.objects.push(Object::from(OwnedFd::from(file)));
        }
        ends.0.send(message).expect("send");
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(ends.1.try_recv().is_err(), "it had descriptors after all");
    told(&mut peer, "free");
    for n in 0..100 {
        assert_eq!(ends.1.recv(SOON).expect("echo").payload, n);
    }
    assert_echoes(&ends, 100..200);
}

#[test]
fn a_link_is_lost_when_its_receiver_has_no_address_space_for_it() {
    if needs_linux(
        "a_link_is_lost_when_its_receiver_has_no_address_space_for_it",
        "there is no limit of address space",
    ) {
        return;
    }
    let bus = name("space");
    let _host = join::<u64, u64>(&bus, label!("host"));
    let mut peer = Peer::start("peer", "guest", &bus);
    peer.expect("joined");
    // The link to itself stays small: it is the other's that does not fit.
    let first: Ends = ipmb::join(guest(&bus, "test"), SOON).expect("join");
    assert_echoes(&first, 0..10);
    peer.tell("narrow");
    if peer.hear() != "narrow" {
        let test = "a_link_is_lost_when_its_receiver_has_no_address_space_for_it";
        return skip(test, "the address space cannot be limited here");
    }
    let second: Ends = ipmb::join(guest(&bus, "second"), SOON).expect("join");
    for n in 0..100 {
        second.0.send(number("echo", 1_000 + n)).expect("send");
    }
    // What it has goes on.
    assert_echoes(&first, 10..500);
    told(&mut peer, "widen");
    for n in 0..100 {
        assert_eq!(first.1.recv(SOON).expect("echo").payload, 1_000 + n);
    }
}

#[test]
fn a_member_without_descriptors_is_lost_when_the_controller_dies() {
    let bus = name("failover");
    let mut host = Peer::start("peer", "host", &bus);
    host.expect("joined");
    // The host echoes, too, but it comes first and goes.
    let mut peer = Peer::start("peer", "guest", &bus);
    peer.expect("joined");
    host.kill();
    let ends: Ends = join(&bus, label!("test"));
    assert_echoes(&ends, 0..10);
    let mut second = Peer::start("peer", "host", &bus);
    second.expect("joined");
    told(&mut peer, "fill");
    // The controller goes from here to the second; the peer cannot even connect.
    drop(ends);
    let ends: Ends = ipmb::join(guest(&bus, "test"), SOON).expect("join");
    second.kill();
    let _next = join::<u64, u64>(&bus, label!("next"));
    for n in 0..100 {
        ends.0.send(number("echo", n)).expect("send");
    }
    told(&mut peer, "free");
    for n in 0..100 {
        assert_eq!(ends.1.recv(SOON).expect("echo").payload, n);
    }
    let late: Ends = ipmb::join(guest(&bus, "late"), SOON).expect("join");
    late.0.send(number("echo", 100)).expect("send");
    assert_eq!(ends.1.recv(SOON).expect("echo").payload, 100);
}

/// Nobody reads the channel to a stopped controller; what does not fit is said when it runs again.
#[test]
fn what_does_not_fit_into_the_channel_to_the_controller_is_never_said() {
    let bus = name("channel");
    let mut host = Peer::start("peer", "host", &bus);
    host.expect("joined");
    let other: Ends = ipmb::join(guest(&bus, "other"), SOON).expect("join");
    let (sender, receiver): Ends = ipmb::join(guest(&bus, "test"), SOON).expect("join");
    host.stop();
    // Each time that something is parked the controller is asked to tell of joins, and when it has expired, no longer.
    for n in 0..600 {
        let mut selector = Selector::unicast("nobody");
        selector.ttl = Duration::from_micros(1);
        sender.send(Message::new(selector, n)).expect("park");
        let start = Instant::now();
        while sender.stats().expired <= n {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
    }
    drop(receiver);
    host.signal(libc::SIGCONT);
    let start = Instant::now();
    while other.0.stats().dropped == 0 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "it is still listed"
        );
        other.0.send(number("test", 0)).expect("send");
        std::thread::sleep(Duration::from_millis(1));
    }
    sender.leave(SOON).expect("leave");
}
