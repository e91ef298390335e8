//! A limit on the memory of a group of processes (cgroups(7)). The kernel ends a process that goes over it, wherever it is: in
//! the middle of a copy into a block that others map.

#![cfg(any(target_os = "linux", target_os = "android"))]
#![allow(clippy::expect_used)]

mod common;

use common::{Peer, SOON, join, listen, name, role, say, skip};
use ipmb::{BytesMessage, MemoryRegion, Message, Options, Selector, label};
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
};

const LITTLE: usize = 32 << 20;
/// Alone it has room for it; not for the copy.
const MUCH: usize = 20 << 20;

/// A group below that of this process, whose own limits go on to hold.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let found = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let root = match controllers {
                "" => Path::new("/sys/fs/cgroup"),
                _ if controllers.split(',').any(|c| c == "memory") => {
                    Path::new("/sys/fs/cgroup/memory")
                }
                _ => return None,
            };
            let limits = ["memory.limit_in_bytes", "memory.max"];
            let dir = root.join(path.trim_start_matches('/')).join(name);
            fs::create_dir(&dir).ok()?;
            let group = Self(dir);
            limits
                .iter()
                .any(|limit| fs::write(group.0.join(limit), LITTLE.to_string()).is_ok())
                .then_some(group)
        });
        let group = found.ok_or("this user may not limit the memory of a group")?;
        // What is over the limit is not to go to the swap instead. Where there is none there are no such files.
        for (limit, value) in [
            ("memory.memsw.limit_in_bytes", LITTLE),
            ("memory.swap.max", 0),
        ] {
            let _ = fs::write(group.0.join(limit), value.to_string());
        }
        Ok(group)
    }

    fn take(&self, pid: u32) -> std::io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir(&self.0) {
            println!("{} stays: {e}", self.0.display());
        }
    }
}

fn bytes(to: &str, size: usize) -> Message<BytesMessage> {
    let data = vec![7; size];
    Message::new(Selector::unicast(to), BytesMessage { format: 1, data })
}

/// What the processes of the test do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    let options = Options::new(&bus, label!("little"), "token");
    let (sender, receiver) = ipmb::join::<BytesMessage, BytesMessage>(options, SOON).expect("join");
    say("joined");
    listen().expect("told to go on");
    sender.send(bytes("test", 300_000)).expect("send");
    match &*role {
        "sends" => sender.send(bytes("test", MUCH)).expect("send"),
        "fills" => {
            let mut region = MemoryRegion::new(2 * LITTLE);
            region.map(..).expect("map").fill(7);
        }
        // What it gets is the sender's memory; the copy of it is not.
        "receives" => {
            say("receives");
            let _all: Vec<_> = std::iter::from_fn(|| receiver.recv(SOON).ok()).collect();
        }
        other => panic!("unknown role {other}"),
    }
    say("there was room");
}

#[test]
fn a_member_that_is_out_of_memory_takes_others_with_it() {
    for (role, is_host) in [
        ("sends", false),
        ("sends", true),
        ("fills", false),
        ("receives", false),
        ("receives", true),
    ] {
        let bus = name("little");
        let group = match Group::new(&bus) {
            Ok(group) => group,
            Err(why) => {
                skip("a_member_that_is_out_of_memory_takes_others_with_it", &why);
                return;
            }
        };
        let host = (!is_host).then(|| join::<(), ()>(&bus, label!("host")));
        let mut little = Peer::start("peer", role, &bus);
        little.expect("joined");
        let (sender, receiver) = join::<BytesMessage, BytesMessage>(&bus, label!("test"));
        let (other, echoes) = join::<BytesMessage, BytesMessage>(&bus, label!("other"));
        if let Err(e) = group.take(little.child.id()) {
            skip(
                "a_member_that_is_out_of_memory_takes_others_with_it",
                &format!("a process does not go into a group: {e}"),
            );
            return;
        }
        little.tell("go on");
        let first = receiver.recv(SOON).expect("sent before").payload;
        assert!(first.data.len() == 300_000 && first.data.iter().all(|b| *b == 7));
        if role == "receives" {
            little.expect("receives");
            for _ in 0..8 {
                // It may be gone by now.
                let _ = sender.send_timeout(bytes("little", MUCH / 4), SOON);
            }
        }
        assert_eq!(little.hear_if_it_lives(), None);
        let status = little.child.wait().expect("wait");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{role}: {status}");
        // What it had not sent whole does not arrive; the others go on, and it can come back.
        for n in 1..=100 {
            sender.send(bytes("other", n * 1_000)).expect("send");
            let there = echoes.recv(SOON).expect("recv").payload;
            assert_eq!(there.data.len(), n * 1_000);
            other.send(bytes("test", n)).expect("send");
            assert_eq!(receiver.recv(SOON).expect("recv").payload.data.len(), n);
        }
        let (_s, again) = join::<BytesMessage, BytesMessage>(&bus, label!("little again"));
        sender.send(bytes("little again", MUCH)).expect("send");
        assert_eq!(again.recv(SOON).expect("recv").payload.data.len(), MUCH);
        drop(host);
    }
}
