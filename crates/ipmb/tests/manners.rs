//! What the library does to the process that it lives in: descriptors, signals, limits, threads; and what it leaves behind.

#![cfg(unix)]
#![allow(clippy::disallowed_types)] // Atomics between its own threads.
#![allow(clippy::expect_used)]

mod common;

use common::{DESCRIPTORS, Peer, SOON, join, listen, name, needs_linux, role, say, skip};
use ipmb::{
    BytesMessage, MemoryRegion, MemoryRegistry, Message, MessageBox, Object, Options, RecvError,
    Selector, SendError, label,
};
use std::{
    collections::BTreeSet,
    os::fd::OwnedFd,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

#[derive(Debug, MessageBox)]
enum Any {
    Number(u64),
    Bytes(BytesMessage),
}

fn number(label: &str, n: u64) -> Message<Any> {
    Message::new(Selector::unicast(label), Any::Number(n))
}

fn bytes(label: &str, len: usize) -> Message<Any> {
    let data = vec![7; len];
    let payload = Any::Bytes(BytesMessage { format: 0, data });
    Message::new(Selector::unicast(label), payload)
}

fn object() -> Object {
    let file = std::fs::File::open("/dev/null").expect("open");
    Object::from(OwnedFd::from(file))
}

/// Joins twice on a bus and does everything that takes descriptors, with "echo", whoever that is. Returns the ends and
/// what came back.
#[allow(clippy::type_complexity)]
fn everything(
    bus: &str,
) -> (
    Vec<(ipmb::EndpointSender<Any>, ipmb::EndpointReceiver<Any>)>,
    Vec<Message<Any>>,
    MemoryRegistry,
) {
    let ends = vec![join(bus, label!("test")), join(bus, label!("second"))];
    let mut registry = MemoryRegistry::default();
    let mut messages = Vec::new();
    for (size, target) in [(0, "echo"), (100_000, "echo"), (900_000, "second")] {
        let mut message = bytes(target, size);
        message.objects.push(object());
        message.memory_regions.push(MemoryRegion::new(5_000));
        message.memory_regions.push(registry.alloc(5_000, None));
        ends[0].0.send(message).expect("send");
        let receiver = match target {
            "echo" => &ends[0].1,
            _ => &ends[1].1,
        };
        messages.push(receiver.recv(SOON).expect("recv"));
    }
    let mut selector = Selector::unicast("nobody");
    selector.ttl = Duration::from_secs(60);
    let parked = Message::new(selector, Any::Number(0));
    ends[0].0.send(parked).expect("park");
    (ends, messages, registry)
}

fn descriptors() -> BTreeSet<i32> {
    let entries = std::fs::read_dir(DESCRIPTORS).expect("list");
    let names = entries.map(|e| e.expect("entry").file_name());
    let mut all: BTreeSet<i32> = names
        .map(|n| n.to_str().expect("ascii").parse().expect("number"))
        .collect();
    // SAFETY: F_GETFD only looks the number up. The one of the listing itself is closed by now.
    all.retain(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0);
    all
}

/// What a library must leave alone.
#[derive(Debug, PartialEq)]
struct Settings {
    umask: libc::mode_t,
    limits: Vec<(libc::rlim_t, libc::rlim_t)>,
    dispositions: Vec<(usize, i32)>,
    mask: Vec<bool>,
    directory: std::path::PathBuf,
}

fn settings() -> Settings {
    // SAFETY: the structures are plain data that the calls fill; nothing is changed but the umask, which is put back.
    unsafe {
        let umask = libc::umask(0o777);
        libc::umask(umask);
        let limits = (0..16).map(|resource| {
            let mut limit: libc::rlimit = std::mem::zeroed();
            libc::getrlimit(resource as _, &raw mut limit);
            (limit.rlim_cur, limit.rlim_max)
        });
        let dispositions = (1..65).map(|signal| {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut action);
            (action.sa_sigaction, action.sa_flags)
        });
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), &raw mut mask);
        Settings {
            umask,
            limits: limits.collect(),
            dispositions: dispositions.collect(),
            mask: (1..65)
                .map(|s| libc::sigismember(&raw const mask, s) == 1)
                .collect(),
            directory: std::env::current_dir().expect("a directory"),
        }
    }
}

/// Names of this process's threads, with the signals that each blocks. Without those that are at their end: who joins a thread goes
/// on before the kernel has taken it off the list.
fn threads() -> Vec<(String, u64)> {
    /// Among a task's flags, see proc_pid_stat(5) and the kernel's `PF_EXITING`.
    const EXITING: u32 = 4;
    let tasks = std::fs::read_dir("/proc/self/task").expect("list");
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let flags = |stat: &str| {
        let behind = stat.rsplit_once(')')?.1;
        behind.split_whitespace().nth(6)?.parse::<u32>().ok()
    };
    tasks
        .map(|task| task.expect("entry").path())
        .filter(|task| flags(&read(task.join("stat"))).is_some_and(|flags| flags & EXITING == 0))
        .map(|task| {
            let status = read(task.join("status"));
            (read(task.join("comm")).trim().to_owned(), blocked(&status))
        })
        .collect()
}

/// An emulator reports the end of a thread while it still has work to do on it: there, waits until no more are left than these.
fn take_ended_off_the_list(left: usize) {
    let emulated = std::env::var_os("IPMB_TEST_RUNNER").is_some();
    let start = std::time::Instant::now();
    while emulated && threads().len() > left && start.elapsed() < Duration::from_secs(10) {
        std::thread::yield_now();
    }
}

/// What the system shows of a thread that blocks all signals: all but those that cannot be blocked, or that the C library or
/// an emulator keeps for itself.
fn all_blocked() -> u64 {
    // SAFETY: plain data that the calls fill; the mask is put back.
    unsafe {
        let (mut all, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
        let name = std::fs::read_link("/proc/thread-self").expect("proc");
        let status = std::fs::read_to_string(Path::new("/proc").join(name).join("status"));
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut());
        blocked(&status.expect("status"))
    }
}

/// The signals that a thread blocks, by its status.
fn blocked(status: &str) -> u64 {
    let mask = status.lines().find_map(|l| l.strip_prefix("SigBlk:\t"));
    u64::from_str_radix(mask.unwrap_or("0").trim(), 16).expect("hex")
}

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// What the other processes of these tests do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    match role.as_str() {
        "echo" => {
            let (sender, receiver) = join::<Any, Any>(&bus, label!("echo"));
            say("joined");
            while let Ok(message) = receiver.recv(None) {
                let mut back = Message::new(Selector::unicast("test"), message.payload);
                back.objects = message.objects;
                back.memory_regions = message.memory_regions;
                sender.send(back).expect("send");
            }
        }
        // Joins and receives nothing.
        "idle" => {
            let _ends = join::<Any, Any>(&bus, label!("idle"));
            say("joined");
            while listen().is_some() {}
        }
        "exec" => {
            let before = descriptors();
            let held = everything(&bus);
            let opened: Vec<i32> = descriptors().difference(&before).copied().collect();
            // SAFETY: F_GETFD only reads the flags.
            let kept = opened
                .iter()
                .filter(|fd| unsafe { libc::fcntl(**fd, libc::F_GETFD) & libc::FD_CLOEXEC == 0 });
            say(&format!(
                "{} {:?}",
                opened.len() > 20,
                kept.collect::<Vec<_>>()
            ));
            drop(held);
        }
        // With no standard streams at all. What it finds goes over the bus.
        "bare" => {
            // SAFETY: nobody uses the streams from here on.
            unsafe { (0..3).for_each(|fd| assert_eq!(libc::close(fd), 0)) };
            let held = everything(&bus);
            let taken = descriptors().iter().filter(|fd| **fd < 3).count() as u64;
            let (ends, messages, _) = &held;
            let lowest = messages
                .iter()
                .flat_map(|m| &m.objects)
                .map(|o| o.as_raw() as u64)
                .min();
            ends[0].0.send(number("result", taken)).expect("send");
            ends[0]
                .0
                .send(number("result", lowest.unwrap_or(0)))
                .expect("send");
        }
        "settings" => {
            // SAFETY: sets what a careful program might have set.
            unsafe {
                libc::umask(0o027);
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
                libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            }
            let before = settings();
            let held = everything(&bus);
            let during = settings();
            drop(held);
            let after = settings();
            say(&format!("{} {}", before == during, before == after));
        }
        // Sends to many who die, with the signal that kills.
        "pipe" => {
            // SAFETY: the default, which the Rust runtime has turned off.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            let (sender, _receiver) = join::<Any, Any>(&bus, label!("pipe"));
            say("joined");
            while let Some(line) = listen() {
                let mut message = bytes(&line, 100);
                message.objects.push(object());
                sender.send(message).expect("send");
                say("sent");
            }
        }
        "threads" => {
            let before = threads();
            for _ in 0..20 {
                let held = everything(&bus);
                let ours: Vec<_> = threads().into_iter().filter(|(n, _)| n == "ipmb").collect();
                let must = all_blocked();
                assert!(
                    matches!(ours[..], [(_, mask)] if mask & must == must),
                    "{ours:x?}"
                );
                drop(held);
                take_ended_off_the_list(before.len());
                assert!(
                    threads().iter().all(|(n, _)| n != "ipmb"),
                    "{:?}",
                    threads()
                );
            }
            say(&format!("{}", threads().len() == before.len()));
        }
        "storm" => storm(&bus),
        // Endpoints of every kind, and then an end without a word.
        "vanish" => {
            let held = everything(&bus);
            say("ready");
            if listen().as_deref() == Some("leave") {
                drop(held);
            } else {
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(0) };
            }
        }
        // At a path.
        "path" => {
            let options = Options::new("by.path", label!("x"), "token").path(&bus);
            let ends = ipmb::join::<u64, u64>(options, SOON).expect("join");
            say("joined");
            while listen().is_some() {}
            drop(ends);
        }
        other => panic!("unknown role {other}"),
    }
}

/// Everything that waits, with a signal every 100 µs in the thread that waits.
fn storm(bus: &str) {
    // SAFETY: the handler only counts. Without SA_RESTART, calls are interrupted.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count_signal as *const () as usize;
        assert_eq!(
            libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()),
            0
        );
    }
    // SAFETY: the thread that is named outlives the scope below.
    let waiter = unsafe { libc::pthread_self() } as usize; // A pointer on some systems.
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // SAFETY: as above.
                unsafe { libc::pthread_kill(waiter as libc::pthread_t, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let during = |what: &str, least: u64, body: &mut dyn FnMut()| {
            let before = SIGNALS.load(Ordering::Relaxed);
            body();
            let signals = SIGNALS.load(Ordering::Relaxed) - before;
            assert!(signals >= least, "{what}: {signals} signals only");
        };
        let wait = Duration::from_millis(200);
        let mut ends = None;
        during("join", 0, &mut || ends = Some(everything(bus)));
        let (ends, messages, registry) = ends.expect("joined");
        let (sender, receiver) = &ends[0];
        during("recv", 20, &mut || {
            let start = Instant::now();
            let none = receiver.recv(Some(wait));
            assert!(matches!(none, Err(RecvError::Timeout)), "{none:?}");
            assert!(start.elapsed() >= wait);
        });
        during("join in vain", 20, &mut || {
            let mut options = Options::new(format!("{bus}.other"), label!("x"), "token");
            options.controller_affinity = false;
            let start = Instant::now();
            assert!(ipmb::join::<Any, Any>(options, Some(wait)).is_err());
            assert!(start.elapsed() >= wait);
        });
        during("send", 20, &mut || {
            loop {
                let start = Instant::now();
                match sender.send_timeout(bytes("idle", 10_000), Some(wait)) {
                    Ok(()) => {}
                    Err(error) => {
                        assert!(matches!(error.kind(), SendError::Timeout), "{error:?}");
                        assert!(start.elapsed() >= wait);
                        break;
                    }
                }
            }
        });
        for n in 0..2_000 {
            let mut message = number("echo", n);
            if n % 10 == 0 {
                message.objects.push(object());
                message.memory_regions.push(MemoryRegion::new(4096));
            }
            sender.send(message).expect("send");
            let back = receiver.recv(SOON).expect("echo");
            assert!(matches!(back.payload, Any::Number(m) if m == n));
        }
        drop((ends, messages, registry));
        over.store(true, Ordering::Relaxed);
    });
    say("over");
}

fn with_echo(test: &str) -> (String, Peer) {
    let bus = name(test);
    let mut echo = Peer::start("peer", "echo", &bus);
    echo.expect("joined");
    (bus, echo)
}

#[test]
fn a_descriptor_survives_exec() {
    let (bus, _echo) = with_echo("exec");
    let mut peer = Peer::start("peer", "exec", &bus);
    peer.expect("true []");
}

#[test]
fn a_closed_standard_stream_becomes_a_descriptor_of_the_bus() {
    let (bus, _echo) = with_echo("bare");
    let (_s, receiver) = join::<Any, Any>(&bus, label!("result"));
    let _peer = Peer::start("peer", "bare", &bus);
    let taken = receiver.recv(SOON).expect("result").payload;
    assert!(matches!(taken, Any::Number(0)), "{taken:?}");
    let lowest = receiver.recv(SOON).expect("result").payload;
    assert!(matches!(lowest, Any::Number(n) if n > 2), "{lowest:?}");
}

#[test]
fn a_setting_of_the_process_is_changed() {
    let (bus, _echo) = with_echo("settings");
    let mut peer = Peer::start("peer", "settings", &bus);
    peer.expect("true true");
}

#[test]
fn a_dead_peer_raises_a_signal() {
    let (bus, mut host) = with_echo("pipe");
    let mut peer = Peer::start("peer", "pipe", &bus);
    peer.expect("joined");
    let mut idle: Vec<Peer> = (0..4).map(|_| Peer::start("peer", "idle", &bus)).collect();
    idle.iter_mut().for_each(|i| i.expect("joined"));
    for _ in 0..8 {
        peer.tell("idle");
        peer.expect("sent");
    }
    host.stop();
    // Sent while nobody reads, and read by nobody.
    for label in ["echo", "idle", "idle"] {
        peer.tell(label);
        peer.expect("sent");
    }
    host.kill();
    for mut idle in idle {
        peer.tell("idle");
        peer.expect("sent");
        idle.kill();
    }
    peer.tell("idle");
    peer.expect("sent");
    peer.wait();
}

#[test]
fn the_thread_takes_signals_has_no_name_or_stays() {
    if needs_linux(
        "the_thread_takes_signals_has_no_name_or_stays",
        "a process cannot list its threads by file",
    ) {
        return;
    }
    // SIGTERM at least, unless the system tells nothing of this.
    if all_blocked() & (1 << (libc::SIGTERM - 1)) == 0 {
        let why = "in part: the system does not show which signals a thread blocks";
        skip("the_thread_takes_signals_has_no_name_or_stays", why);
    }
    let (bus, _echo) = with_echo("threads");
    let mut peer = Peer::start("peer", "threads", &bus);
    peer.expect("true");
    peer.wait();
}

#[test]
fn a_signal_surfaces_or_cuts_a_wait_short() {
    let (bus, _echo) = with_echo("storm");
    let mut idle = Peer::start("peer", "idle", &bus);
    idle.expect("joined");
    let mut peer = Peer::start("peer", "storm", &bus);
    peer.expect("over");
    peer.wait();
}

/// Abstract names and files that mention a bus.
fn left_behind(bus: &str) -> Vec<String> {
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("read");
    let mut left: Vec<String> = sockets
        .lines()
        .filter(|l| l.contains(bus))
        .map(str::to_owned)
        .collect();
    for dir in ["/dev/shm", "/tmp", "/run", "/dev/mqueue"] {
        let Ok(entries) = std::fs::read_dir(dir) else {
            continue;
        };
        let names = entries.flatten().map(|e| e.path());
        let ours = |p: &std::path::PathBuf| {
            p.to_string_lossy().contains(bus) || p.to_string_lossy().contains("ipmb")
        };
        left.extend(names.filter(ours).map(|p| p.display().to_string()));
    }
    left
}

#[test]
fn an_ended_bus_leaves_something_in_a_name_space() {
    if needs_linux(
        "an_ended_bus_leaves_something_in_a_name_space",
        "there are no names that end with their holders, so two files may stay after a kill",
    ) {
        return;
    }
    let before = left_behind("no such bus");
    for end in ["leave", "exit", "kill"] {
        let (bus, mut echo) = with_echo("left");
        let mut peer = Peer::start("peer", "vanish", &bus);
        peer.expect("ready");
        assert!(!left_behind(&bus).is_empty());
        match end {
            "kill" => peer.kill(),
            other => {
                peer.tell(other);
                peer.wait();
            }
        }
        echo.kill();
        let mut left = left_behind(&bus);
        left.retain(|l| !before.contains(l));
        assert!(left.is_empty(), "{end}: {left:?}");
    }
}

fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("list");
    let mut names: Vec<String> = entries
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn a_bus_at_a_path_leaves_more_than_two_files_or_cannot_use_them_again() {
    let dir = std::env::temp_dir().join(name("files"));
    std::fs::create_dir(&dir).expect("a directory");
    let path = dir.join("bus");
    let path = path.to_str().expect("utf-8");
    for _ in 0..3 {
        // Everybody is killed.
        let mut peers: Vec<Peer> = (0..3).map(|_| Peer::start("peer", "path", path)).collect();
        peers.iter_mut().for_each(|p| p.expect("joined"));
        assert_eq!(files(&dir), ["bus", "bus.lock"]);
        peers.iter_mut().for_each(Peer::kill);
        // They die one after the other: the last may be killed just when it replaces the dead controller's socket.
        let left = files(&dir);
        assert!(
            left == ["bus", "bus.lock"] || left == ["bus.lock"],
            "{left:?}"
        );
    }
    // The last one leaves.
    let mut peers: Vec<Peer> = (0..3).map(|_| Peer::start("peer", "path", path)).collect();
    peers.iter_mut().for_each(|p| p.expect("joined"));
    peers.into_iter().for_each(Peer::wait);
    assert_eq!(files(&dir), [""; 0]);
    std::fs::remove_dir(&dir).expect("clean up");
}

/// Many come and go at a path at once, the last one removing the files each time: nobody is alone on a second bus.
#[test]
fn who_comes_while_the_last_one_leaves_is_alone() {
    let dir = std::env::temp_dir().join(name("rush"));
    std::fs::create_dir(&dir).expect("a directory");
    let options =
        |label: &str| Options::new("by.path", label!(label), "token").path(dir.join("bus"));
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..50 {
                    drop(ipmb::join::<u64, u64>(options("rush"), SOON).expect("join"));
                }
            });
        }
        for n in 0..50 {
            let (sender, _r) = ipmb::join::<u64, u64>(options("from"), SOON).expect("join");
            let (_s, receiver) = ipmb::join::<u64, u64>(options("to"), SOON).expect("join");
            sender
                .send(Message::new(Selector::unicast("to"), n))
                .expect("send");
            assert_eq!(receiver.recv(SOON).expect("recv").payload, n);
        }
    });
    assert_eq!(files(&dir), [""; 0]);
    std::fs::remove_dir(&dir).expect("clean up");
}

#[test]
fn a_file_at_the_path_is_removed() {
    let dir = std::env::temp_dir().join(name("precious"));
    std::fs::create_dir(&dir).expect("a directory");
    let path = dir.join("bus");
    std::fs::write(&path, "precious").expect("write");
    let options = Options::new("by.path", label!("x"), "token").path(&path);
    match ipmb::join::<u64, u64>(options, SOON) {
        Err(error) => assert!(format!("{error:?}").contains("no socket"), "{error:?}"),
        Ok(_) => panic!("it joined"),
    }
    assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
    assert_eq!(files(&dir), ["bus"]);
    std::fs::remove_dir_all(&dir).expect("clean up");
}

#[test]
fn a_path_that_cannot_be_used_is_not_named() {
    let dir = std::env::temp_dir().join(name("unusable"));
    std::fs::create_dir(&dir).expect("a directory");
    std::fs::create_dir(dir.join("taken")).expect("a directory");
    for (path, remedy) in [
        ("nowhere/bus", "its directory must exist"),
        ("taken", "remove it, or take another path"),
    ] {
        let path = dir.join(path);
        let options = Options::new("by.path", label!("x"), "token").path(&path);
        let error = ipmb::join::<u64, u64>(options, SOON).expect_err("it joined");
        let cause = std::error::Error::source(&error)
            .expect("a cause")
            .to_string();
        assert!(
            cause.contains(path.to_str().expect("utf-8")) && cause.contains(remedy),
            "{cause}"
        );
    }
    std::fs::remove_dir_all(&dir).expect("clean up");
}
