//! P6: a memory region is handed over.

use super::{
    Bar, Bench, Line, Role, Row, Unit, member,
    objects::{Socket, SocketPair},
};
use crate::{
    bare::spin::Spin,
    peers::{SOON, TOKEN, names},
    process::{Actor, say},
    report::sample::{Sample, Times},
    shared::{Memory, RINGS, Shared},
    usage::Usage,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    ops::Range,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The times of handing over a region of which all pages were written, until the other side has mapped it and read a byte.
pub struct Regions;

/// The last two show what of it is the kernel's: its own shared memory over a socket that the receiver asks again and again.
const LINES: [(&str, usize); 7] = [
    ("4 KiB", 4 << 10),
    ("256 KiB", 256 << 10),
    ("16 MiB", 16 << 20),
    ("256 MiB", 256 << 20),
    ("1 GiB", 1 << 30),
    ("4 KiB, bare memfd", 4 << 10),
    ("1 GiB, bare memfd", 1 << 30),
];
/// By whom which of the lines are measured, in turns between the same two processes: how long a hand-over takes differs from one pair
/// to the next by more than from one size to the next.
const STEPS: [(Peer, Range<usize>); 2] = [(Peer::Ipmb, 0..5), (Peer::Bare, 5..7)];
/// Of each size. Enough of them that it does not matter on which cores the system starts the two: on one, a hand-over takes twice as
/// long, and they stay there for some milliseconds.
const COUNT: u64 = 10_000;
/// Hand-overs of one size before those of the next.
const TURN: u64 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Peer {
    Ipmb,
    Bare,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    peer: Peer,
    sockets: [i32; 2],
    bus: String,
    sizes: Vec<usize>,
    count: u64,
    memory: i32,
}

/// What a side says of one size.
#[derive(Default, Serialize, Deserialize)]
struct Said {
    times: Times,
    usage: Usage,
}

impl Row for Regions {
    fn id(&self) -> &'static str {
        "P6"
    }

    fn lines(&self) -> Vec<Line> {
        let line = |(by, _): (&str, usize)| Line {
            what: "region handed over, mapped, one byte read".into(),
            by: by.into(),
            unit: Unit::Nanoseconds,
        };
        LINES.map(line).into()
    }

    fn bars(&self) -> Vec<Bar> {
        vec![Bar::Growth {
            of: "1 GiB".into(),
            against: "4 KiB".into(),
            ratio: 1.2,
            bare: ["1 GiB, bare memfd", "4 KiB, bare memfd"],
        }]
    }

    fn steps(&self) -> Vec<Vec<usize>> {
        STEPS.map(|(_, lines)| lines.collect()).into()
    }

    fn measure(&self, step: usize, round: usize, bench: &Bench) -> Result<Vec<Sample>, String> {
        let memory = Memory::new(RINGS);
        let pair = SocketPair::new();
        let (peer, lines) = STEPS[step].clone();
        let bus = format!("{}.region.{step}.{round}", bench.bus);
        let job = Job {
            peer,
            sockets: pair.0,
            bus: bus.clone(),
            sizes: LINES[lines].iter().map(|(_, size)| *size).collect(),
            count: bench.count(COUNT).next_multiple_of(TURN),
            memory: memory.fd,
        };
        let host = || member::start(&bus, "controller");
        let _host = (peer == Peer::Ipmb).then(host).transpose()?;
        let mut receiver = Actor::start(&Role::Region(job.clone(), false))?;
        receiver.ready()?;
        let mut sender = Actor::start(&Role::Region(job.clone(), true))?;
        drop(pair);
        let [sent, received] = [sender.hear::<Vec<Said>>()?, receiver.hear::<Vec<Said>>()?];
        sender.finish()?;
        receiver.finish()?;
        let count = job.count as f64;
        let sample = |(sent, received): (Said, Said)| Sample {
            cpu: Some([sent.usage, received.usage].map(|u| u.cpu_ns as f64 / count)),
            sleeps: Some(received.usage.sleeps as f64 / count),
            times: sent.times.clone(),
            ..Sample::new(sent.times.at(0.5))
        };
        Ok(sent.into_iter().zip(received).map(sample).collect())
    }
}

/// One end of a way for shared memory.
trait Way {
    /// What the receiver lets go of in the end.
    type Given;
    /// Hands over the one of this index. Returns when that began.
    fn send(&mut self, which: usize, number: u64) -> Instant;
    /// Waits for it, maps it, and reads the byte in the middle.
    fn recv(&mut self, size: usize) -> (u64, u8, Self::Given);
}

struct Bus {
    sender: ipmb::EndpointSender<u64>,
    receiver: ipmb::EndpointReceiver<u64>,
    there: &'static str,
    regions: Vec<ipmb::MemoryRegion>,
}

impl Way for Bus {
    type Given = ipmb::Message<u64>;

    fn send(&mut self, which: usize, number: u64) -> Instant {
        let mut message = ipmb::Message::new(ipmb::Selector::unicast(self.there), number);
        let region = self.regions[which].clone().expect("clone");
        message.memory_regions.push(region);
        let start = Instant::now();
        self.sender.send(message).expect("send");
        start
    }

    fn recv(&mut self, size: usize) -> (u64, u8, Self::Given) {
        let mut message = self.receiver.recv(None).expect("recv");
        let region = &mut message.memory_regions[0];
        assert_eq!(region.buffer_size(), size as u64);
        let byte = std::hint::black_box(region.map(..).expect("map"))[size / 2];
        (message.payload, byte, message)
    }
}

struct Bare {
    socket: Socket,
    files: Vec<File>,
}

struct Mapping {
    start: *mut libc::c_void,
    size: usize,
    _file: OwnedFd,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `recv`, and nobody else knows of it.
        unsafe { libc::munmap(self.start, self.size) };
    }
}

impl Way for Bare {
    type Given = Mapping;

    fn send(&mut self, which: usize, number: u64) -> Instant {
        let start = Instant::now();
        self.socket.put(number, self.files[which].as_fd());
        start
    }

    fn recv(&mut self, size: usize) -> (u64, u8, Self::Given) {
        let (number, file) = loop {
            if let Some(came) = self.socket.take(libc::MSG_DONTWAIT) {
                break came;
            }
        };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let null = std::ptr::null_mut();
        // SAFETY: a new mapping at a place that the system chooses.
        let start = unsafe {
            libc::mmap(
                null,
                size,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED, "mmap");
        // SAFETY: inside the mapping.
        let byte = unsafe { start.cast::<u8>().add(size / 2).read_volatile() };
        let mapping = Mapping {
            start,
            size,
            _file: file,
        };
        (number, byte, mapping)
    }
}

impl Job {
    /// Plays one side, in a child.
    pub fn play(&self, sends: bool) {
        let (here, there) = names(sends);
        let sizes = self.sizes.iter().filter(|_| sends);
        match self.peer {
            Peer::Ipmb => {
                let options = ipmb::Options::new(&*self.bus, ipmb::label!(here), TOKEN);
                let (sender, receiver) = ipmb::join::<u64, u64>(options, SOON).expect("join");
                let written = |size: &usize| {
                    let mut region = ipmb::MemoryRegion::new(*size);
                    region.map(..).expect("map").fill(7);
                    region.unmap();
                    region
                };
                let bus = Bus {
                    sender,
                    receiver,
                    there,
                    regions: sizes.map(written).collect(),
                };
                self.go(sends, bus);
            }
            Peer::Bare => {
                let written = |size: &usize| {
                    // SAFETY: the name ends with NUL; the descriptor is ours, or none.
                    let file = unsafe {
                        let file = libc::memfd_create(c"bare".as_ptr(), libc::MFD_CLOEXEC);
                        assert!(file >= 0, "memfd_create");
                        File::from_raw_fd(file)
                    };
                    let page = [7; 4 << 10];
                    for at in (0..*size).step_by(page.len()) {
                        file.write_all_at(&page, at as u64).expect("write");
                    }
                    file
                };
                let socket = Socket(self.sockets[usize::from(!sends)]);
                let files = sizes.map(written).collect();
                self.go(sends, Bare { socket, files });
            }
        }
    }

    fn go(&self, sends: bool, mut way: impl Way) {
        let shared = Shared::map(self.memory, RINGS);
        let confirmed = &shared.control().confirmed;
        // The receiver has let go of so many: what that takes is no part of handing the next one over.
        let let_go = shared.word(0);
        if !sends {
            say(&());
        }
        let turns = self.count / TURN;
        let warm_up = turns.div_ceil(10);
        let mut said: Vec<Said> = self.sizes.iter().map(|_| Said::default()).collect();
        let mut numbers = 0..;
        for turn in 0..warm_up + turns {
            for (which, (size, said)) in self.sizes.iter().zip(&mut said).enumerate() {
                let usage = Usage::now();
                for number in numbers.by_ref().take(TURN as usize) {
                    if !sends {
                        take(&mut way, number, *size, confirmed, let_go);
                        continue;
                    }
                    let time = hand_over(&mut way, number, which, confirmed, let_go);
                    if turn >= warm_up {
                        said.times.record(time);
                    }
                }
                if turn >= warm_up {
                    said.usage.add(Usage::now().since(usage));
                }
            }
        }
        say(&said);
    }
}

/// The receiver's part of a hand-over: it says when it has read, and when it has let go.
fn take(way: &mut impl Way, number: u64, size: usize, confirmed: &AtomicU64, let_go: &AtomicU32) {
    let (seen, byte, given) = way.recv(size);
    assert_eq!((seen, byte), (number, 7));
    confirmed.store(number + 1, Ordering::Release);
    drop(given);
    let_go.store(number as u32 + 1, Ordering::Release);
}

/// The sender's part: how long it took until the receiver had read, from when it had let go of the one before.
fn hand_over(
    way: &mut impl Way,
    number: u64,
    which: usize,
    confirmed: &AtomicU64,
    let_go: &AtomicU32,
) -> Duration {
    let mut spin = Spin(0);
    while u64::from(let_go.load(Ordering::Acquire)) < number {
        spin.once();
    }
    let start = way.send(which, number);
    let mut spin = Spin(0);
    while confirmed.load(Ordering::Acquire) <= number {
        spin.once();
    }
    start.elapsed()
}
