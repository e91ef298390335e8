//! P7 and P8: one to eight, eight to one.

use super::{Bar, Bench, Line, Role, Row, Unit, member};
use crate::{
    bare::{
        ring::{self, Consumer, Producer},
        spin::Spin,
        waiting::{self, Receiving, Sending, Sleeper},
    },
    load::{Load, Pair},
    peers::{SOON, TOKEN, received},
    process::{Actor, TIME_LIMIT, say},
    report::sample::Sample,
    shared::{Memory, RINGS, Shared},
    usage::Usage,
};
use serde::{Deserialize, Serialize};
use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How many are on the side of the many.
const MANY: usize = 8;
/// Capacity of each ring, as of the product's links.
const RING: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// One sends each message to all of the many.
    Multicast,
    /// Each of the many sends to one.
    FanIn,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    peer: String,
    bus: String,
    shape: Shape,
    size: usize,
    /// Messages of each sender.
    count: u64,
    memory: i32,
}

pub struct Many {
    shape: Shape,
    what: &'static str,
    size: usize,
    peers: &'static [(&'static str, u64)],
}

pub const ROWS: [Many; 3] = [
    Many {
        shape: Shape::Multicast,
        what: "multicast 1→8, 16 B struct: deliveries",
        size: 16,
        peers: &[("ipmb", 400_000), ("ring", 400_000), ("0.8.5", 20_000)],
    },
    Many {
        shape: Shape::Multicast,
        what: "multicast 1→8, 4 KiB: deliveries",
        size: 4 << 10,
        peers: &[("ipmb", 100_000), ("ring", 100_000), ("0.8.5", 10_000)],
    },
    Many {
        shape: Shape::FanIn,
        what: "fan-in 8→1, 16 B struct",
        size: 16,
        peers: &[("ipmb", 500_000), ("ring", 500_000)],
    },
];

impl Row for &'static Many {
    fn id(&self) -> &'static str {
        match self.shape {
            Shape::Multicast => "P7",
            Shape::FanIn => "P8",
        }
    }

    fn lines(&self) -> Vec<Line> {
        let line = |(peer, _): &(&str, u64)| Line {
            what: self.what.into(),
            by: (*peer).into(),
            unit: Unit::PerSecond,
        };
        self.peers.iter().map(line).collect()
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |(against, ratio): (&str, f64)| Bar::Ratio {
            of: "ipmb".into(),
            against: vec![against.into()],
            at_least: true,
            ratio,
            bare: Some("ring"),
        };
        match self.shape {
            Shape::Multicast => vec![bar(("ring", 0.8)), bar(("0.8.5", 10.0))],
            Shape::FanIn => vec![bar(("ring", 0.8))],
        }
    }

    /// Where nine processes share two cores, who runs when differs from one time to the next: of the fan-in the ratio of three
    /// rounds went from 0.73 to 1.0 within minutes.
    fn rounds(&self, asked: usize) -> usize {
        match self.shape {
            Shape::Multicast => 2 * asked,
            Shape::FanIn => 6 * asked,
        }
    }

    fn measure(&self, step: usize, round: usize, bench: &Bench) -> Result<Vec<Sample>, String> {
        let (peer, count) = self.peers[step];
        let memory = Memory::new(RINGS + MANY * ring::bytes(RING));
        let bus = format!("{}.{}.{}.{peer}.{round}", bench.bus, self.id(), self.size);
        let job = Job {
            peer: peer.into(),
            bus: bus.clone(),
            shape: self.shape,
            size: self.size,
            count: match self.shape {
                Shape::Multicast => bench.count(count),
                // A tenth of it would fit into the rings, and nobody would wait.
                Shape::FanIn => count,
            },
            memory: memory.fd,
        };
        let host = || member::start(&bus, "controller");
        let _host = (peer == "ipmb").then(host).transpose()?;
        let start = |index| Actor::start(&Role::Many(job.clone(), index));
        // The one joins first: ipmb 0.8.5 needs it as the controller.
        let mut one = start(None)?;
        one.ready()?;
        let many: Result<Vec<Actor>, String> = (0..MANY).map(|i| start(Some(i))).collect();
        let mut many = many?;
        // The one knows how long it took, sending or receiving; all tell what they used.
        let (elapsed, one_used) = one.hear::<(u64, Usage)>()?;
        let mut all_used = Usage::default();
        for actor in &mut many {
            let (_, used) = actor.hear::<(u64, Usage)>()?;
            all_used.add(used);
        }
        for actor in many.iter_mut().chain([&mut one]) {
            actor.finish()?;
        }
        let messages = (job.count * MANY as u64) as f64;
        let [sent, received] = match self.shape {
            Shape::Multicast => [one_used, all_used],
            Shape::FanIn => [all_used, one_used],
        };
        Ok(vec![Sample {
            cpu: Some([sent, received].map(|u| u.cpu_ns as f64 / messages)),
            sleeps: Some(received.sleeps as f64 / messages),
            ..Sample::new(messages * 1e9 / elapsed as f64)
        }])
    }
}

/// Sends to all of the many, or to the one.
trait Sends<T> {
    fn send(&mut self, payload: T);
}

/// Receives from all that send here.
trait Receives<T> {
    fn recv(&mut self) -> T;
}

macro_rules! on_the_bus {
    ($ipmb:ident, $to_all:ident, $from_all:ident, $ttl:expr) => {
        struct $to_all<T>($ipmb::EndpointSender<T>, Shape);
        struct $from_all<T>($ipmb::EndpointReceiver<T>);

        impl<T: $ipmb::MessageBox> Sends<T> for $to_all<T> {
            #[inline]
            fn send(&mut self, payload: T) {
                let mut selector = match self.1 {
                    Shape::Multicast => $ipmb::Selector::multicast("receiver"),
                    Shape::FanIn => $ipmb::Selector::unicast("receiver"),
                };
                selector.ttl = $ttl;
                self.0
                    .send($ipmb::Message::new(selector, payload))
                    .expect("send");
            }
        }

        impl<T: $ipmb::MessageBox> Receives<T> for $from_all<T> {
            #[inline]
            fn recv(&mut self) -> T {
                self.0.recv(None).expect("recv").payload
            }
        }

        impl<T: $ipmb::MessageBox> $to_all<T> {
            fn join(job: &Job, label: &str) -> (Self, $from_all<T>) {
                let options = $ipmb::Options::new(&*job.bus, $ipmb::label!(label), TOKEN);
                let (sender, receiver) = $ipmb::join(options, SOON).expect("join");
                (Self(sender, job.shape), $from_all(receiver))
            }
        }
    };
}

on_the_bus!(ipmb, OursOut, OursIn, Duration::ZERO);
// Its sender may not have noticed yet that the others joined.
#[cfg(feature = "ipmb-old")]
on_the_bus!(ipmb_old, OldOut, OldIn, Duration::from_secs(2));

/// A payload that the bare ring carries in two parts.
trait Bare: Sized {
    fn push(&self, to: &mut Sending) -> bool;
    fn pop(bytes: &[u8]) -> Self;
}

impl Bare for Pair {
    #[inline]
    fn push(&self, to: &mut Sending) -> bool {
        to.try_push(&self.a.to_le_bytes(), &self.b.to_le_bytes())
    }

    #[inline]
    fn pop(bytes: &[u8]) -> Self {
        Self::from_bytes(bytes)
    }
}

impl Bare for ipmb::BytesMessage {
    #[inline]
    fn push(&self, to: &mut Sending) -> bool {
        to.try_push(&self.format.to_le_bytes(), &self.data)
    }

    #[inline]
    fn pop(bytes: &[u8]) -> Self {
        Self {
            format: u16::from_le_bytes([bytes[0], bytes[1]]),
            data: bytes[2..].to_vec(),
        }
    }
}

/// Rings to all receivers. It allocates what ours does: a selector and a message.
struct RingsOut {
    rings: Vec<Sending>,
    /// Rings that have not got the message yet.
    left: Vec<usize>,
}

/// Rings from all senders.
struct RingsIn {
    rings: Vec<Receiving>,
    sleeper: Sleeper,
    at: usize,
    /// Messages taken from this ring in a row.
    burst: u32,
}

/// As many in a row from one ring.
const BURST: u32 = 64;

impl<T: Bare> Sends<T> for RingsOut {
    fn send(&mut self, payload: T) {
        let selector = ipmb::Selector::multicast("receiver");
        let message = std::hint::black_box(ipmb::Message::new(selector, payload));
        // Everybody who has space first.
        self.left.clear();
        for (index, ring) in self.rings.iter_mut().enumerate() {
            if !message.payload.push(ring) {
                self.left.push(index);
            }
        }
        while let Some(first) = self.left.first() {
            self.rings[*first].wait();
            let rings = &mut self.rings;
            self.left.retain(|i| !message.payload.push(&mut rings[*i]));
        }
    }
}

impl<T: Bare> Receives<T> for RingsIn {
    fn recv(&mut self) -> T {
        loop {
            for _ in 0..self.rings.len() {
                if self.burst < BURST
                    && let Some(taken) = self.rings[self.at].try_pop(T::pop)
                {
                    self.burst += 1;
                    return received(taken);
                }
                self.at = (self.at + 1) % self.rings.len();
                self.burst = 0;
            }
            let rings = &mut self.rings;
            let mut any = || rings.iter_mut().any(|r| !r.ring.is_empty());
            if !any() {
                self.sleeper.wait(any);
            }
        }
    }
}

/// Words of the shared page: where receivers sleep (from 0), and senders that find a ring full (from 8).
fn bell(shared: &Shared, shape: Shape, index: usize) -> &'static AtomicU32 {
    match shape {
        Shape::Multicast => shared.word(index),
        Shape::FanIn => shared.word(0),
    }
}

fn rings_out(job: &Job, shared: &Shared, indices: &[usize]) -> RingsOut {
    waiting::register();
    let ring = |index: &usize| Sending {
        ring: Producer::new(shared, RINGS + index * ring::bytes(RING), RING),
        bell: bell(shared, job.shape, *index),
        space: Sleeper::new(shared.word(8 + index)),
    };
    let rings = indices.iter().map(ring).collect();
    let left = Vec::new();
    RingsOut { rings, left }
}

fn rings_in(job: &Job, shared: &Shared, indices: &[usize]) -> RingsIn {
    waiting::register();
    let ring = |index: &usize| Receiving {
        ring: Consumer::new(shared, RINGS + index * ring::bytes(RING), RING),
        space: shared.word(8 + index),
    };
    RingsIn {
        rings: indices.iter().map(ring).collect(),
        sleeper: Sleeper::new(bell(shared, job.shape, indices[0])),
        at: 0,
        burst: 0,
    }
}

/// The first of a sender's numbers, which so tell senders apart. No larger than needed: the product writes large numbers in more bytes.
fn first_of(sender: usize) -> u64 {
    (sender as u64) << 20
}

impl Job {
    /// Plays the one, or one of the many, in a child.
    pub fn play(&self, index: Option<usize>) {
        // SAFETY: takes no memory. More processes than cores: they take longer.
        unsafe { libc::alarm(TIME_LIMIT.as_secs() as u32 * 2) };
        let shared = Shared::map(self.memory, RINGS + MANY * ring::bytes(RING));
        let is_one = index.is_none();
        let sends = is_one == (self.shape == Shape::Multicast);
        let label = if sends { "sender" } else { "receiver" };
        let indices: Vec<usize> = index.map_or_else(|| (0..MANY).collect(), |i| vec![i]);
        match (&*self.peer, self.size) {
            ("ipmb", 16) => {
                let (to, from) = OursOut::<Pair>::join(self, label);
                self.go(&shared, index, sends.then_some(to), from);
            }
            ("ipmb", _) => {
                let (to, from) = OursOut::<ipmb::BytesMessage>::join(self, label);
                self.go(&shared, index, sends.then_some(to), from);
            }
            #[cfg(feature = "ipmb-old")]
            ("0.8.5", 16) => {
                let (to, from) = OldOut::<Pair>::join(self, label);
                self.go(&shared, index, sends.then_some(to), from);
            }
            #[cfg(feature = "ipmb-old")]
            ("0.8.5", _) => {
                let (to, from) = OldOut::<ipmb_old::BytesMessage>::join(self, label);
                self.go(&shared, index, sends.then_some(to), from);
            }
            ("ring", 16) => {
                let to = sends.then(|| rings_out(self, &shared, &indices));
                self.go::<Pair>(&shared, index, to, rings_in(self, &shared, &indices));
            }
            ("ring", _) => {
                let to = sends.then(|| rings_out(self, &shared, &indices));
                let from = rings_in(self, &shared, &indices);
                self.go::<ipmb::BytesMessage>(&shared, index, to, from);
            }
            other => panic!("unknown peer {other:?}"),
        }
    }

    fn go<T: Load>(
        &self,
        shared: &Shared,
        index: Option<usize>,
        to: Option<impl Sends<T>>,
        mut from: impl Receives<T>,
    ) {
        let control = shared.control();
        if index.is_none() {
            say(&());
        }
        // All are there before the first message.
        control.receiver.fetch_add(1, Ordering::AcqRel);
        while control.receiver.load(Ordering::Acquire) < MANY as u32 + 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let all = self.count * MANY as u64;
        assert!(self.count <= first_of(1));
        let reached = |count: &AtomicU64, goal| {
            let mut spin = Spin(0);
            while count.load(Ordering::Acquire) < goal {
                spin.once();
                if spin.0.is_multiple_of(4096) {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
        };
        let (start, usage) = (Instant::now(), Usage::now());
        if let Some(mut to) = to {
            let first = first_of(index.unwrap_or_default());
            for number in first..first + self.count {
                to.send(T::make(number, self.size));
            }
            reached(&control.confirmed, all);
        } else {
            let expected = match self.shape {
                Shape::Multicast => self.count,
                Shape::FanIn => all,
            };
            let mut next: [u64; MANY] = std::array::from_fn(first_of);
            for _ in 0..expected {
                let number = from.recv().check(self.size);
                // Of each sender in order, complete, each once.
                let due = &mut next[(number / first_of(1)) as usize];
                assert_eq!(number, *due);
                *due += 1;
            }
            control.confirmed.fetch_add(expected, Ordering::AcqRel);
        }
        let elapsed = start.elapsed().as_nanos() as u64;
        say(&(elapsed, Usage::now().since(usage)));
    }
}
