//! Other users. Root only, since the other processes of these tests change their user.

// Users are changed, names squatted and processes spied on by means that Linux has.
#![cfg(any(target_os = "linux", target_os = "android"))]
#![allow(clippy::expect_used)]

mod common;

use common::{Peer, SOON, listen, name, role, say, skip};
use ipmb::{
    Access, EndpointReceiver, EndpointSender, JoinError, MemoryRegion, Message, Options, Selector,
    SendError, label,
};
use std::{
    io::{Read, Write},
    os::fd::{FromRawFd, OwnedFd},
    time::Duration,
};

/// Users and groups that need not exist.
const STRANGER: u32 = 61_235;
const GROUP: u32 = 61_236;

type Ends = (EndpointSender<u64>, EndpointReceiver<u64>);

/// Says why a test does not run, and whether.
fn not_root(test: &str) -> bool {
    // SAFETY: only reads the id.
    let other = unsafe { libc::geteuid() } != 0;
    if other {
        skip(test, "only root can change its user");
    }
    other
}

/// Whether the system tells all groups of whoever is at the other end of a socket: an emulator may not.
fn tells_groups() -> bool {
    use std::os::fd::AsRawFd;
    let (end, _other) = std::os::unix::net::UnixStream::pair().expect("pair");
    let mut len: libc::socklen_t = 0;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERGROUPS);
    // SAFETY: no space is given: the call says how much there must be, or that there is nothing to tell.
    let told = unsafe {
        let nothing = std::ptr::null_mut();
        libc::getsockopt(end.as_raw_fd(), level, option, nothing, &raw mut len)
    };
    told == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::ERANGE)
}

/// Becomes another user, for good, in all threads.
fn become_stranger(gid: u32, groups: &[u32]) {
    // SAFETY: the list is as long as it says; the C library changes all threads.
    unsafe {
        assert_eq!(libc::setgroups(groups.len(), groups.as_ptr()), 0);
        assert_eq!(libc::setresgid(gid, gid, gid), 0);
        assert_eq!(libc::setresuid(STRANGER, STRANGER, STRANGER), 0);
    }
}

fn options(bus: &str, label: &str, owner: u32) -> Options {
    let options = match bus.strip_prefix("path:") {
        Some(path) => Options::new("by.path", label!(label), "token").path(path),
        None => Options::new(bus, label!(label), "token"),
    };
    // Links in use stay in use, however slow the machine is.
    options.owner(owner).idle_link(Duration::MAX)
}

fn number(label: &str, n: u64) -> Message<u64> {
    Message::new(Selector::unicast(label), n)
}

/// Joins and echoes to "test" with all that comes, or says why not.
fn echo(options: Options) {
    let timeout = Some(Duration::from_millis(500));
    let (sender, receiver): Ends = match ipmb::join(options, timeout) {
        Ok(ends) => ends,
        Err(error) => return say(&format!("{error:?}")),
    };
    say("joined");
    while let Ok(mut message) = receiver.recv(None) {
        for region in &mut message.memory_regions {
            region.map(..).expect("map")[0] += 1;
        }
        let mut back = number("test", message.payload);
        back.objects = message.objects;
        back.memory_regions = message.memory_regions;
        sender.send(back).expect("send");
    }
}

/// A listening socket at an abstract name.
fn squat(name: &[u8]) -> Option<OwnedFd> {
    // SAFETY: the address is filled as unix(7) says and as long as it says; the descriptor is fresh.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
        let socket = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as _;
        for (to, from) in address.sun_path[1..].iter_mut().zip(name) {
            *to = *from as _;
        }
        let len = (size_of::<libc::sa_family_t>() + 1 + name.len()) as libc::socklen_t;
        let bound = libc::bind(fd, (&raw const address).cast(), len) == 0;
        (bound && libc::listen(fd, 64) == 0).then_some(socket)
    }
}

/// The abstract names that mention a bus; the controller's, which is the shortest, first.
fn names(bus: &str) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/net/unix").expect("read");
    let names = text
        .lines()
        .filter_map(|line| Some(line.split_once('@')?.1));
    let mut names: Vec<String> = names
        .filter(|n| n.ends_with(bus))
        .map(str::to_owned)
        .collect();
    names.sort_unstable_by_key(|name| (name.len(), name.clone()));
    names.dedup();
    names
}

/// What the other processes of these tests do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    match role.as_str() {
        "guest" => {
            let mut options = options(&bus, "echo", 0);
            options.controller_affinity = false;
            echo(options);
        }
        "host" => {
            let _ends: Ends = ipmb::join(options(&bus, "host", 0), SOON).expect("join");
            say("joined");
            while listen().is_some() {}
        }
        "stranger" => {
            become_stranger(STRANGER, &[]);
            echo(options(&bus, "echo", 0));
        }
        "stranger of the group" => {
            become_stranger(GROUP, &[]);
            echo(options(&bus, "echo", 0));
        }
        "stranger with the group" => {
            become_stranger(STRANGER, &[7, GROUP]);
            echo(options(&bus, "echo", 0));
        }
        // Its own bus of the same name, where root may join.
        "owner" => {
            become_stranger(STRANGER, &[]);
            echo(options(&bus, "echo", STRANGER));
        }
        // Takes what the victim's memory is made of, if it gets it.
        "thief" => {
            become_stranger(STRANGER, &[]);
            let mut stolen: u32 = 0;
            for dir in ["fd", "map_files", "task"] {
                stolen += std::fs::read_dir(format!("/proc/{bus}/{dir}")).map_or(0, |entries| {
                    entries
                        .flatten()
                        .map(|e| e.path())
                        .filter(|p| p.is_file())
                        .count() as u32
                });
            }
            for fd in 0..256 {
                stolen += u32::from(std::fs::File::open(format!("/proc/{bus}/fd/{fd}")).is_ok());
            }
            stolen += u32::from(std::fs::File::open(format!("/proc/{bus}/mem")).is_ok());
            say(&stolen.to_string());
        }
        // Takes the names of a bus, as soon as they are free, and says how many bytes it was told by who came.
        "squatter" => {
            become_stranger(STRANGER, &[]);
            let names = listen().expect("the names");
            let taken: Vec<OwnedFd> = names
                .split(' ')
                .map(|name| {
                    loop {
                        match squat(name.as_bytes()) {
                            Some(socket) => return socket,
                            None => std::thread::sleep(Duration::from_micros(50)),
                        }
                    }
                })
                .collect();
            say("taken");
            let mut heard = 0;
            use std::os::fd::AsRawFd;
            let listener = taken[0].as_raw_fd();
            while let Some(line) = listen() {
                assert_eq!(line, "accept");
                // SAFETY: plain calls on an open socket; what they return is owned by the file.
                let mut visitor = unsafe {
                    let fd = libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut());
                    std::fs::File::from_raw_fd(fd)
                };
                let _ = visitor.write(b"come in");
                heard += visitor.read_to_end(&mut Vec::new()).unwrap_or(0);
                say(&heard.to_string());
            }
        }
        // In a user namespace in which no user has an id.
        "nobody" => {
            // SAFETY: only reads the id.
            let me = unsafe { libc::geteuid() };
            let timeout = Some(Duration::from_millis(300));
            let joined = ipmb::join::<u64, u64>(options(&bus, "nobody", me), timeout);
            say(&format!("{:?}", joined.err()));
        }
        // A bus of the user whose id is also the one that stands for unknown users.
        "overflow" => {
            // SAFETY: as in `become_stranger`.
            unsafe {
                assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
                assert_eq!(libc::setresuid(65534, 65534, 65534), 0);
            }
            echo(options(&bus, "echo", 65534));
        }
        other => panic!("unknown role {other}"),
    }
}

fn join(options: Options) -> Ends {
    ipmb::join(options, SOON).expect("join")
}

fn assert_echoes((sender, receiver): &Ends, n: u64) {
    let mut region = MemoryRegion::new(4096);
    region.map(..).expect("map")[0] = 41;
    let mut message = number("echo", n);
    message.memory_regions.push(region);
    let file = std::fs::File::open("/dev/null").expect("open");
    message
        .objects
        .push(ipmb::Object::from(OwnedFd::from(file)));
    sender.send(message).expect("send");
    let mut back = receiver.recv(SOON).expect("echo");
    assert_eq!((back.payload, back.objects.len()), (n, 1));
    assert_eq!(back.memory_regions[0].map(..).expect("map")[0], 42);
}

#[test]
fn another_user_joins() {
    if not_root("another_user_joins") {
        return;
    }
    let bus = name("user");
    let ends = join(options(&bus, "test", 0));
    for role in [
        "stranger",
        "stranger of the group",
        "stranger with the group",
    ] {
        let mut stranger = Peer::start("peer", role, &bus);
        stranger.expect("PermissionDenied");
        stranger.wait();
    }
    // Without a word on the owner, two users of one program have two buses.
    let mut owner = Peer::start("peer", "owner", &bus);
    owner.expect("joined");
    ends.0.send(number("echo", 1)).expect("send");
    assert_eq!(ends.0.stats().dropped, 1);
    // And root may join the other one.
    let theirs = join(options(&bus, "test", STRANGER));
    assert_echoes(&theirs, 2);
}

#[test]
fn a_user_who_is_allowed_does_not_join() {
    if not_root("a_user_who_is_allowed_does_not_join") {
        return;
    }
    for (access, role) in [
        (Access::owner().allow_uid(STRANGER), "stranger"),
        (Access::owner().allow_gid(GROUP), "stranger of the group"),
        (Access::owner().allow_gid(GROUP), "stranger with the group"),
        (Access::anyone(), "stranger"),
    ] {
        if role == "stranger with the group" && !tells_groups() {
            let why = "in part: the system does not tell the groups of a peer (SO_PEERGROUPS)";
            skip("a_user_who_is_allowed_does_not_join", why);
            continue;
        }
        let bus = name("allowed");
        let ends = join(options(&bus, "test", 0).access(access));
        let mut stranger = Peer::start("peer", role, &bus);
        stranger.expect("joined");
        for n in 0..3 {
            assert_echoes(&ends, n);
        }
        // The rules name that user, and the group, and nobody else.
        if role != "stranger" {
            let mut other = Peer::start("peer", "stranger", &bus);
            other.expect("PermissionDenied");
        }
    }
}

#[test]
fn the_umask_keeps_an_allowed_user_from_a_bus_at_a_path() {
    if not_root("the_umask_keeps_an_allowed_user_from_a_bus_at_a_path") {
        return;
    }
    let dir = std::env::temp_dir().join(name("umask"));
    std::fs::create_dir(&dir).expect("a directory");
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let bus = format!("path:{}", dir.join("bus").display());
    let ends = join(options(&bus, "test", 0).access(Access::anyone()));
    let mut stranger = Peer::start("peer", "stranger", &bus);
    stranger.expect("joined");
    assert_echoes(&ends, 1);
    drop((stranger, ends));
    // Root may host the bus of another user, who then connects.
    let path = format!("path:{}", dir.join("theirs").display());
    let ends = join(options(&path, "test", STRANGER));
    let mut owner = Peer::start("peer", "owner", &path);
    owner.expect("joined");
    assert_echoes(&ends, 2);
    drop((owner, ends));
    std::fs::remove_dir_all(&dir).expect("clean up");
}

#[test]
fn another_user_opens_the_shared_memory() {
    if not_root("another_user_opens_the_shared_memory") {
        return;
    }
    let bus = name("memory");
    let ends = join(options(&bus, "test", 0));
    let mut guest = Peer::start("peer", "guest", &bus);
    guest.expect("joined");
    assert_echoes(&ends, 1);
    for victim in [std::process::id(), guest.child.id()] {
        let mut thief = Peer::start("peer", "thief", &victim.to_string());
        thief.expect("0");
    }
}

#[test]
fn who_takes_the_name_first_gets_messages_or_is_not_named() {
    if not_root("who_takes_the_name_first_gets_messages_or_is_not_named") {
        return;
    }
    let bus = name("squatted");
    drop(join(options(&bus, "test", 0)));
    let probe = join(options(&bus, "test", 0));
    let names = names(&bus);
    assert_eq!(names.len(), 2, "{names:?}");
    drop(probe);
    let mut squatter = Peer::start("peer", "squatter", &bus);
    squatter.tell(&names.join(" "));
    squatter.expect("taken");
    match ipmb::join::<u64, u64>(options(&bus, "test", 0), SOON) {
        Err(error @ JoinError::NameSquatted { uid, pid }) => {
            assert_eq!((uid, pid), (STRANGER, squatter.child.id()));
            let text = error.to_string();
            assert!(text.contains("61235") && text.contains(&pid.to_string()));
        }
        other => panic!("{other:?}"),
    }
    squatter.tell("accept");
    squatter.expect("0");
    drop(squatter);
    drop(join(options(&bus, "test", 0)));
}

/// The name is taken while the controller is dead: members keep what they have, and all is well when the name is free.
#[test]
fn who_takes_the_name_of_a_dead_controller_ends_the_bus() {
    if not_root("who_takes_the_name_of_a_dead_controller_ends_the_bus") {
        return;
    }
    let bus = name("heir");
    let mut host = Peer::start("peer", "host", &bus);
    host.expect("joined");
    let mut guest = Peer::start("peer", "guest", &bus);
    guest.expect("joined");
    let mut mine = options(&bus, "test", 0);
    mine.controller_affinity = false;
    let ends = join(mine);
    assert_echoes(&ends, 0);
    let mut squatter = Peer::start("peer", "squatter", &bus);
    squatter.tell(&names(&bus)[0]);
    host.kill();
    squatter.expect("taken");
    for n in 1..100 {
        assert_echoes(&ends, n);
    }
    let refused = ends
        .0
        .send_timeout(number("host", 0), Some(Duration::from_millis(200)));
    let refused = refused.map_err(SendError::from);
    assert!(matches!(refused, Err(SendError::Timeout)), "{refused:?}");
    drop(squatter);
    let _host = join(options(&bus, "host", 0));
    assert_echoes(&ends, 100);
    ends.0.send(number("host", 0)).expect("a new link");
}

/// Who may join may not host: a controller learns of all members and can read new links.
#[test]
fn a_user_who_is_only_allowed_to_join_hosts() {
    if not_root("a_user_who_is_only_allowed_to_join_hosts") {
        return;
    }
    let bus = name("hosts");
    // The stranger's own rules say that everybody may join root's bus; still it waits for root.
    let mut stranger = Peer::start("peer", "stranger", &bus);
    stranger.expect("Timeout");
}

#[test]
fn users_without_an_id_pass_for_the_same_user() {
    if not_root("users_without_an_id_pass_for_the_same_user") {
        return;
    }
    let allowed = std::process::Command::new("unshare")
        .args(["-U", "true"])
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        skip(
            "users_without_an_id_pass_for_the_same_user",
            "no user namespace can be made here",
        );
        return;
    }
    // Alone, it cannot host a bus of "its" user, who may be anybody.
    let bus = name("nobody");
    let mut nobody = Peer::start_under(&["unshare", "-U"], "peer", "nobody", &bus);
    nobody.expect("Some(Timeout)");
    // Nor does it take the bus of the user whose id stands for the unknown for its own.
    let mut overflow = Peer::start("peer", "overflow", &bus);
    overflow.expect("joined");
    let pid = overflow.child.id();
    let mut nobody = Peer::start_under(&["unshare", "-U"], "peer", "nobody", &bus);
    nobody.expect(&format!("Some(NameSquatted {{ uid: 65534, pid: {pid} }})"));
}
