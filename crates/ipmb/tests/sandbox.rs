//! Processes that lack system calls: older kernels, and sandboxes that are entered after joining.

// The lists of system calls are those of one processor and one C library.
#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
#![allow(clippy::expect_used)]

mod common;

use common::{Peer, SOON, join, listen, name, role, say};
use ipmb::{
    BytesMessage, EndpointReceiver, EndpointSender, MemoryRegion, MemoryRegistry, Message,
    MessageBox, Object, Options, Selector, TypeUuid, label,
};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

#[derive(Debug, PartialEq, MessageBox)]
enum Any {
    Number(u64),
    Bytes(BytesMessage),
}

type Ends = (EndpointSender<Any>, EndpointReceiver<Any>);

/// What SECURITY.md says is needed after `join`. (Rust's standard library and this test need nothing else either.)
const NEEDED: &[libc::c_long] = &[
    // Links and messages.
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_close,
    libc::SYS_socketpair,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_eventfd2,
    libc::SYS_write,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    // Sockets that nobody asked for.
    libc::SYS_clone3,
    libc::SYS_close_range,
    libc::SYS_prctl,
    libc::SYS_sched_getaffinity,
    // Regions.
    libc::SYS_openat,
    libc::SYS_fstatfs,
    libc::SYS_fchmod,
    libc::SYS_newfstatat,
    // Another controller, here or elsewhere.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_geteuid,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_read,
    libc::SYS_statx,
    // Those that may be missing.
    libc::SYS_recvmmsg,
    libc::SYS_membarrier,
    libc::SYS_pidfd_open,
    libc::SYS_set_robust_list,
    // The standard library and the C library: memory, the ends of threads and of the process.
    libc::SYS_brk,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// From now on, in all threads, `listed` calls get one answer and all others another.
fn enter(listed: &[libc::c_long], answer: u32, others: u32) {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let ret = |k| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    // The number of the call is the first word of what the filter is given (seccomp(2)).
    let mut program = vec![instruction(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        0,
        0,
        0,
    )];
    for call in listed {
        let is_it = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        program.push(instruction(is_it, 0, 1, *call as u32));
        program.push(ret(answer));
    }
    program.push(ret(others));
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program lives until the kernel has copied it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let (set_mode_filter, all_threads) = (1, 1);
        let result = libc::syscall(
            libc::SYS_seccomp,
            set_mode_filter,
            all_threads,
            &raw const program,
        );
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

/// The calls that a role goes without.
fn missing(role: &str) -> Vec<libc::c_long> {
    role.split(' ')
        .map(|name| match name {
            "pidfd_open" => libc::SYS_pidfd_open,
            "membarrier" => libc::SYS_membarrier,
            "recvmmsg" => libc::SYS_recvmmsg,
            "set_robust_list" => libc::SYS_set_robust_list,
            "epoll_pwait2" => libc::SYS_epoll_pwait2,
            "openat" => libc::SYS_openat,
            "statx" => libc::SYS_statx,
            "newfstatat" => libc::SYS_newfstatat,
            "memfd_create" => libc::SYS_memfd_create,
            "eventfd2" => libc::SYS_eventfd2,
            "epoll_create1" => libc::SYS_epoll_create1,
            "socket" => libc::SYS_socket,
            "fstatfs" => libc::SYS_fstatfs,
            "prlimit64" => libc::SYS_prlimit64,
            other => panic!("unknown call {other}"),
        })
        .collect()
}

/// Does as the test says.
fn obey((sender, receiver): Ends) {
    let mut registry = MemoryRegistry::default();
    while let Some(line) = listen() {
        match line.split_once(' ') {
            // Sends one of everything to somebody who sends it back.
            Some(("send", to)) => {
                for (size, regions) in [(0, 0), (10, 0), (100_000, 1), (3 << 20, 2)] {
                    let payload = Any::Bytes(BytesMessage {
                        format: 1,
                        data: vec![5; size],
                    });
                    let mut message = Message::new(Selector::unicast(to), payload);
                    let handle = receiver_handle(&receiver);
                    message.objects.push(Object::from(handle));
                    for _ in 0..regions {
                        let mut region = registry.alloc(10_000, None);
                        region.map(..).expect("map")[9_999] = 1;
                        message.memory_regions.push(region);
                    }
                    sender.send(message).expect("send");
                    let mut back = receiver.recv(SOON).expect("recv");
                    assert_eq!(back.objects.len(), 1);
                    for region in &mut back.memory_regions {
                        assert_eq!(region.map(..).expect("map")[9_999], 2);
                    }
                    match back.payload {
                        Any::Bytes(bytes) => assert_eq!(bytes.data, vec![5; size]),
                        other => panic!("{other:?}"),
                    }
                }
                let mut frozen = MemoryRegion::new(100);
                frozen.map(..).expect("map")[0] = 3;
                frozen.unmap();
                frozen.freeze().expect("freeze");
                assert_eq!(frozen.as_frozen().expect("frozen")[0], 3);
                registry.maintain();
                say("sent");
            }
            Some(("echo", count)) => {
                for _ in 0..count.parse().expect("number") {
                    echo(&sender, receiver.recv(SOON).expect("recv"), "test");
                }
                say("echoed");
            }
            _ => panic!("{line}"),
        }
    }
}

/// A descriptor to send that needs no further call to get.
fn receiver_handle(receiver: &EndpointReceiver<Any>) -> OwnedFd {
    use std::os::fd::AsFd;
    receiver.as_fd().try_clone_to_owned().expect("duplicate")
}

fn echo(sender: &EndpointSender<Any>, mut message: Message<Any>, to: &str) {
    for region in &mut message.memory_regions {
        region.map(..).expect("map")[9_999] += 1;
    }
    let mut back = Message::new(Selector::unicast(to), message.payload);
    back.objects = message.objects;
    back.memory_regions = message.memory_regions;
    sender.send(back).expect("send");
}

/// What the other processes of these tests do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    if role == "idle" {
        let _ends: Ends = join(&bus, label!("idle"));
        say("joined");
        while listen().is_some() {}
    } else if let Some(calls) = role.strip_prefix("without ") {
        enter(&missing(calls), ENOSYS, ALLOW);
        let ends = join(&bus, label!("peer"));
        say("joined");
        obey(ends);
    } else if let Some(calls) = role.strip_prefix("in vain without ") {
        enter(&missing(calls), ENOSYS, ALLOW);
        let options = Options::new(bus, label!("peer"), "token");
        let soon = Some(std::time::Duration::from_millis(500));
        let refused = ipmb::join::<Any, Any>(options, soon).expect_err("it joined");
        let cause = std::error::Error::source(&refused).expect("a cause");
        say(&format!("{refused}: {cause}"));
    } else if role == "sandboxed" {
        let ends = join(&bus, label!("peer"));
        enter(NEEDED, ALLOW, KILL);
        say("joined");
        obey(ends);
    } else if let Some(calls) = role.strip_prefix("sandboxed without ") {
        let ends = join(&bus, label!("peer"));
        let missing = missing(calls);
        enter(&missing, ENOSYS, ALLOW);
        say("joined");
        obey(ends);
    } else {
        panic!("unknown role {role}");
    }
}

/// One that never hosts.
fn guest(bus: &str, label: &str) -> Ends {
    let mut options = Options::new(bus, label!(label), "token");
    options.controller_affinity = false;
    ipmb::join(options, SOON).expect("join")
}

/// Lets a peer send one of everything here, and answers.
fn serve(peer: &mut Peer, (sender, receiver): &Ends, label: &str) {
    peer.tell(&format!("send {label}"));
    for _ in 0..4 {
        echo(sender, receiver.recv(SOON).expect("recv"), "peer");
    }
    peer.expect("sent");
}

/// Sends numbers to a peer and gets them back.
fn ask(peer: &mut Peer, (sender, receiver): &Ends) {
    peer.tell("echo 100");
    for n in 0..100 {
        sender
            .send(Message::new(Selector::unicast("peer"), Any::Number(n)))
            .expect("send");
        let back = receiver.recv(SOON).expect("echo").payload;
        assert_eq!(back, Any::Number(n));
    }
    peer.expect("echoed");
}

/// The same with a descriptor each, all in line before the peer looks.
fn ask_in_line(peer: &mut Peer, (sender, receiver): &Ends) {
    for n in 0..5 {
        let mut message = Message::new(Selector::unicast("peer"), Any::Number(n));
        message
            .objects
            .push(Object::from(receiver_handle(receiver)));
        sender.send(message).expect("send");
    }
    peer.tell("echo 5");
    for n in 0..5 {
        let back = receiver.recv(SOON).expect("echo");
        assert_eq!((back.payload, back.objects.len()), (Any::Number(n), 1));
    }
    peer.expect("echoed");
}

/// Sends the peer a socket with a message of a type that it does not take: it is thrown away there.
fn hand_over_a_socket(bus: &str) {
    #[derive(Debug, MessageBox)]
    enum Other {
        Text(Text),
    }

    #[derive(Debug, Serialize, Deserialize, TypeUuid)]
    #[uuid = "6b3c5f8e-0b5b-4f0e-9d6c-1f2f3a4b5c6d"]
    struct Text(String);

    let options = Options::new(bus, label!("stranger"), "token");
    let (sender, _receiver) = ipmb::join::<Other, Other>(options, SOON).expect("join");
    let mut message = Message::new(Selector::unicast("peer"), Other::Text(Text(String::new())));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    message.objects.push(Object::from(OwnedFd::from(listener)));
    sender.send(message).expect("send");
}

/// The peer is on the bus in every role: with another controller, as its heir, and as one that leaves.
fn assert_lives(role: &str) {
    let bus = name("sandbox");
    let mut host = Peer::start("peer", "idle", &bus);
    host.expect("joined");
    let mut peer = Peer::start("peer", role, &bus);
    peer.expect("joined");
    let ends = guest(&bus, "test");
    serve(&mut peer, &ends, "test");
    ask(&mut peer, &ends);
    ask_in_line(&mut peer, &ends);
    hand_over_a_socket(&bus);
    ask(&mut peer, &ends);
    host.kill();
    // The peer is the only one who may host now.
    ask(&mut peer, &ends);
    let late = guest(&bus, "late");
    serve(&mut peer, &late, "late");
    // Another takes over, and the peer finds it.
    drop(late);
    let mut next = Peer::start("peer", "idle", &bus);
    next.expect("joined");
    ask(&mut peer, &ends);
    peer.wait();
    drop(next);
}

#[test]
fn a_sandboxed_member_needs_more_than_it_is_said_to() {
    assert_lives("sandboxed");
}

#[test]
fn a_member_needs_a_newer_kernel_than_it_is_said_to() {
    for calls in [
        "pidfd_open",
        "membarrier",
        "set_robust_list",
        "epoll_pwait2",
        "statx newfstatat",
        "prlimit64",
        "pidfd_open membarrier set_robust_list epoll_pwait2",
    ] {
        assert_lives(&format!("without {calls}"));
    }
}

/// The fences and the process handles were there when the bus was joined.
#[test]
fn a_member_hangs_when_a_sandbox_takes_away_what_it_used() {
    for calls in [
        "membarrier",
        "pidfd_open set_robust_list",
        "statx newfstatat",
        "recvmmsg",
    ] {
        assert_lives(&format!("sandboxed without {calls}"));
    }
}

/// As in a container whose list of calls was made for something else.
#[test]
fn a_call_that_is_refused_is_not_named() {
    for (call, named) in [
        ("memfd_create", "memfd_create"),
        ("eventfd2", "eventfd2"),
        ("epoll_create1", "epoll_create1"),
        ("socket", "socket"),
        ("fstatfs", "the controller's directory"),
    ] {
        let bus = name("refused");
        let mut peer = Peer::start("peer", &format!("in vain without {call}"), &bus);
        let said = peer.hear();
        assert!(said.contains(named), "{said}");
        peer.wait();
    }
}

/// Where the kernel marks no owner words, the hang-up of its channels tells of a controller's death.
#[test]
fn a_controllers_death_is_never_noticed_without_robust_lists() {
    let bus = name("unmarked");
    let mut host = Peer::start("peer", "without set_robust_list", &bus);
    host.expect("joined");
    let (sender, _r) = guest(&bus, "test");
    let mut next = Peer::start("peer", "idle", &bus);
    next.expect("joined");
    // It has the directory of the first one.
    let nobody = Message::new(Selector::unicast("nobody"), Any::Number(0));
    sender.send(nobody).expect("send");
    host.kill();
    let (_s, new) = guest(&bus, "new");
    let message = Message::new(Selector::unicast("new"), Any::Number(1));
    sender.send(message).expect("send");
    assert_eq!(new.recv(SOON).expect("recv").payload, Any::Number(1));
}
