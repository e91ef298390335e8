//! P13: a file descriptor with each message.

use super::{Bar, Bench, Line, Role, Row, Unit, member};
use crate::{
    bare::spin::Spin,
    peers::{SOON, TOKEN, names},
    process::{Actor, say},
    report::sample::Sample,
    shared::{Memory, RINGS, Shared},
    usage::Usage,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::atomic::Ordering,
    time::Instant,
};

pub struct Objects;

const PEERS: [&str; 2] = ["ipmb", "SCM_RIGHTS"];
const COUNT: u64 = 100_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    peer: String,
    bus: String,
    count: u64,
    memory: i32,
    sockets: [i32; 2],
}

impl Row for Objects {
    fn id(&self) -> &'static str {
        "P13"
    }

    fn lines(&self) -> Vec<Line> {
        let line = |by: &str| Line {
            what: "one-way, one descriptor with each message".into(),
            by: by.into(),
            unit: Unit::PerSecond,
        };
        PEERS.map(line).into()
    }

    fn bars(&self) -> Vec<Bar> {
        vec![Bar::Ratio {
            of: PEERS[0].into(),
            against: vec![PEERS[1].into()],
            at_least: true,
            ratio: 0.6,
            bare: None,
        }]
    }

    /// Either figure goes up and down by a quarter from one pair of processes to the next.
    fn rounds(&self, asked: usize) -> usize {
        4 * asked
    }

    fn measure(&self, step: usize, round: usize, bench: &Bench) -> Result<Vec<Sample>, String> {
        let memory = Memory::new(RINGS);
        let pair = SocketPair::new();
        let bus = format!("{}.objects.{step}.{round}", bench.bus);
        let job = Job {
            peer: PEERS[step].into(),
            bus: bus.clone(),
            count: bench.count(COUNT),
            memory: memory.fd,
            sockets: pair.0,
        };
        let _host = (step == 0)
            .then(|| member::start(&bus, "controller"))
            .transpose()?;
        let mut receiver = Actor::start(&Role::Objects(job.clone(), false))?;
        receiver.ready()?;
        let mut sender = Actor::start(&Role::Objects(job.clone(), true))?;
        drop(pair);
        let (elapsed, sent): (u64, Usage) = sender.hear()?;
        let received: Usage = receiver.hear()?;
        sender.finish()?;
        receiver.finish()?;
        let count = job.count as f64;
        Ok(vec![Sample {
            cpu: Some([sent, received].map(|u| u.cpu_ns as f64 / count)),
            sleeps: Some(received.sleeps as f64 / count),
            ..Sample::new(count * 1e9 / elapsed as f64)
        }])
    }
}

/// One end of a way for a number with a descriptor.
trait Way {
    fn send(&mut self, number: u64, file: OwnedFd);
    fn recv(&mut self) -> (u64, OwnedFd);
}

struct Bus {
    sender: ipmb::EndpointSender<u64>,
    receiver: ipmb::EndpointReceiver<u64>,
    there: &'static str,
}

impl Way for Bus {
    fn send(&mut self, number: u64, file: OwnedFd) {
        let mut message = ipmb::Message::new(ipmb::Selector::unicast(self.there), number);
        message.objects.push(ipmb::Object::from(file));
        self.sender.send(message).expect("send");
    }

    fn recv(&mut self) -> (u64, OwnedFd) {
        let mut message = self.receiver.recv(None).expect("recv");
        let object = message.objects.pop().expect("an object");
        (message.payload, object.into())
    }
}

/// Room for one descriptor in a control message.
#[repr(C, align(8))]
struct Control([u8; 24]);

/// A connected pair of sockets for the bare mechanism, which child processes inherit.
pub(super) struct SocketPair(pub [i32; 2]);

impl SocketPair {
    pub(super) fn new() -> Self {
        let mut sockets = [0; 2];
        // SAFETY: room for two descriptors.
        let made = unsafe {
            libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, sockets.as_mut_ptr())
        };
        assert_eq!(made, 0, "socketpair");
        Self(sockets)
    }
}

impl Drop for SocketPair {
    fn drop(&mut self) {
        for socket in self.0 {
            // SAFETY: made in `new`; the children have their own.
            unsafe { libc::close(socket) };
        }
    }
}

/// A socket: the kernel's own way.
pub(super) struct Socket(pub i32);

impl Socket {
    /// Runs `call` on a message of these parts.
    fn with<R>(
        number: &mut u64,
        control: &mut Control,
        call: impl FnOnce(&mut libc::msghdr) -> R,
    ) -> R {
        let mut part = libc::iovec {
            iov_base: (&raw mut *number).cast(),
            iov_len: 8,
        };
        // SAFETY: plain data, all zero is valid.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len();
        call(&mut message)
    }

    pub(super) fn put(&self, mut number: u64, file: BorrowedFd<'_>) {
        let mut control = Control([0; 24]);
        let sent = Self::with(&mut number, &mut control, |message| {
            // SAFETY: the control buffer has room for the header and one descriptor.
            unsafe {
                let header = libc::CMSG_FIRSTHDR(message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
                libc::CMSG_DATA(header)
                    .cast::<i32>()
                    .write_unaligned(file.as_raw_fd());
                libc::sendmsg(self.0, message, libc::MSG_NOSIGNAL)
            }
        });
        assert_eq!(sent, 8, "sendmsg: {}", std::io::Error::last_os_error());
    }

    /// `None`: there is nothing, and it was not to wait (`MSG_DONTWAIT`).
    pub(super) fn take(&self, flags: libc::c_int) -> Option<(u64, OwnedFd)> {
        let (mut number, mut control) = (0, Control([0; 24]));
        let file = Self::with(&mut number, &mut control, |message| {
            // SAFETY: the parts have room for what is written; a descriptor that came is ours.
            unsafe {
                let n = libc::recvmsg(self.0, message, libc::MSG_CMSG_CLOEXEC | flags);
                if n < 0 && flags & libc::MSG_DONTWAIT != 0 {
                    let error = std::io::Error::last_os_error();
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "recvmsg");
                    return None;
                }
                assert_eq!(n, 8, "recvmsg");
                let header = libc::CMSG_FIRSTHDR(message);
                assert!(!header.is_null(), "a descriptor was lost");
                let file = libc::CMSG_DATA(header).cast::<i32>().read_unaligned();
                Some(OwnedFd::from_raw_fd(file))
            }
        })?;
        Some((number, file))
    }
}

impl Way for Socket {
    fn send(&mut self, number: u64, file: OwnedFd) {
        self.put(number, file.as_fd());
    }

    fn recv(&mut self) -> (u64, OwnedFd) {
        self.take(0).expect("a descriptor")
    }
}

impl Job {
    /// Plays one side, in a child.
    pub fn play(&self, sends: bool) {
        let shared = Shared::map(self.memory, RINGS);
        let [first, second] = self.sockets;
        if self.peer == "ipmb" {
            let (here, there) = names(sends);
            let options = ipmb::Options::new(&*self.bus, ipmb::label!(here), TOKEN);
            let (sender, receiver) = ipmb::join(options, SOON).expect("join");
            let bus = Bus {
                sender,
                receiver,
                there,
            };
            self.go(&shared, sends, bus);
        } else {
            self.go(&shared, sends, Socket(if sends { first } else { second }));
        }
    }

    fn go(&self, shared: &Shared, sends: bool, mut way: impl Way) {
        let confirmed = &shared.control().confirmed;
        let warm_up = self.count / 10;
        let reach = |count| {
            let mut spin = Spin(0);
            while confirmed.load(Ordering::Acquire) < count {
                spin.once();
            }
        };
        let mut usage = Usage::now();
        if sends {
            let file = OwnedFd::from(File::open("/dev/null").expect("/dev/null"));
            for number in 0..warm_up {
                way.send(number, file.try_clone().expect("clone"));
            }
            reach(warm_up);
            usage = Usage::now();
            let start = Instant::now();
            for number in warm_up..warm_up + self.count {
                way.send(number, file.try_clone().expect("clone"));
            }
            reach(warm_up + self.count);
            let elapsed = start.elapsed().as_nanos() as u64;
            say(&(elapsed, Usage::now().since(usage)));
        } else {
            say(&());
            for number in 0..warm_up + self.count {
                if number == warm_up {
                    usage = Usage::now();
                }
                let (came, file) = way.recv();
                assert_eq!(came, number);
                drop(file);
                confirmed.store(number + 1, Ordering::Release);
            }
            say(&Usage::now().since(usage));
        }
    }
}
