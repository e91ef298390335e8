//! Two processes: one way, or there and back.

use super::{Outcome, Role};
use crate::{
    bare::{ring, spin::Spin},
    load::{Load, Pair},
    peers::{Batches, EventFd, Futex, Lent, Loans, Ours, Peer, Ring},
    process::{Actor, say},
    report::sample::{Sample, Times},
    shared::{Memory, RINGS, Shared},
    usage::Usage,
};
use serde::{Deserialize, Serialize};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// What to do, as the processes of a measurement are told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub peer: String,
    pub bus: String,
    pub pattern: Pattern,
    /// Bytes of payload; 16 is the struct.
    pub size: usize,
    pub count: u64,
    /// Capacity of the bare ring.
    pub ring: usize,
    pub events: [i32; 2],
    /// The shared memory's descriptor.
    pub memory: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pattern {
    OneWay,
    RoundTrip,
    /// Round trips with pauses, in which both sides fall asleep.
    Asleep,
}

const PAUSE: Duration = Duration::from_millis(10);

/// What a side tells when it is done.
#[derive(Default, Serialize, Deserialize)]
struct Said {
    elapsed_ns: u64,
    usage: Usage,
    times: Times,
}

/// Plays both sides of a job and puts together what they say.
pub fn run(mut job: Job) -> Outcome {
    let memory = Memory::new(RINGS + 2 * ring::bytes(job.ring));
    job.memory = memory.fd;
    // SAFETY: fresh descriptors, without close-on-exec: the children inherit them.
    job.events = [0; 2].map(|_| unsafe { libc::eventfd(0, 0) });
    let start = |sends_first| Actor::start(&Role::Pair(job.clone(), sends_first));
    let sides = [true, false].map(start);
    for fd in job.events {
        // SAFETY: opened above and used by nobody else here.
        unsafe { libc::close(fd) };
    }
    let [sender, receiver] = sides;
    let (mut sender, mut receiver) = (sender?, receiver?);
    let [sent, received] = [sender.hear::<Said>()?, receiver.hear::<Said>()?];
    sender.finish()?;
    receiver.finish()?;
    let count = job.count as f64;
    let figure = match job.pattern {
        Pattern::OneWay => count * 1e9 / sent.elapsed_ns as f64,
        _ => sent.times.at(0.5),
    };
    Ok(Sample {
        cpu: Some([sent.usage, received.usage].map(|u| u.cpu_ns as f64 / count)),
        sleeps: Some(received.usage.sleeps as f64 / count),
        times: sent.times,
        ..Sample::new(figure)
    })
}

impl Job {
    /// Messages that are not counted.
    fn warm_up(&self) -> u64 {
        match self.pattern {
            Pattern::Asleep => 5,
            _ => self.count / 10 + 5,
        }
    }

    /// Plays one side, in a child.
    pub fn play(&self, sends_first: bool) {
        let shared = Shared::map(self.memory, RINGS + 2 * ring::bytes(self.ring));
        let go = |play: fn(&Self, &Shared, bool) -> Said| say(&play(self, &shared, sends_first));
        match (&*self.peer, self.size) {
            ("ipmb-loan", _) => go(Self::with::<Lent, Loans>),
            ("ipmb", 16) => go(Self::with::<Pair, Ours<Pair>>),
            ("ipmb", _) => go(Self::with::<_, Ours<ipmb::BytesMessage>>),
            #[cfg(feature = "ipmb-old")]
            ("0.8.5", 16) => go(Self::with::<Pair, crate::peers::Old<Pair>>),
            #[cfg(feature = "ipmb-old")]
            ("0.8.5", _) => go(Self::with::<_, crate::peers::Old<ipmb_old::BytesMessage>>),
            ("ring, in batches", _) => go(Self::with::<Pair, Batches>),
            ("ring", 16) => go(Self::with::<Pair, Ring>),
            ("ring", _) => go(Self::with::<ipmb::BytesMessage, Ring>),
            #[cfg(feature = "ipc-channel")]
            ("ipc-channel", 16) => go(Self::with::<_, crate::peers::TypedChannel>),
            #[cfg(feature = "ipc-channel")]
            ("ipc-channel", _) => go(Self::with::<_, crate::peers::ByteChannel>),
            #[cfg(feature = "iceoryx2")]
            ("iceoryx2", 16) => go(Self::with::<_, crate::peers::Samples>),
            #[cfg(feature = "iceoryx2")]
            ("iceoryx2", _) => go(Self::with::<crate::peers::InPlace, crate::peers::Slices>),
            ("futex", _) => go(Self::with::<Pair, Futex>),
            ("eventfd", _) => go(Self::with::<Pair, EventFd>),
            other => panic!("unknown peer {other:?}"),
        }
    }

    fn with<T: Load, P: Peer<T>>(&self, shared: &Shared, sends_first: bool) -> Said {
        let control = shared.control();
        let wait = |flag: &AtomicU32| {
            while flag.load(Ordering::Acquire) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        // The first sender joins first: ipmb 0.8.5 needs it as the controller.
        if sends_first {
            let mut peer = P::join(self, shared, true);
            control.sender.store(1, Ordering::Release);
            wait(&control.receiver);
            match self.pattern {
                Pattern::OneWay => self.send_all(&mut peer, shared),
                _ => self.ask_all(&mut peer),
            }
        } else {
            if !P::MEETS {
                wait(&control.sender);
            }
            let mut peer = P::join(self, shared, false);
            control.receiver.store(1, Ordering::Release);
            match self.pattern {
                Pattern::OneWay => self.receive_all(&mut peer, shared),
                _ => self.answer_all(&mut peer),
            }
        }
    }

    fn send_all<T: Load, P: Peer<T>>(&self, peer: &mut P, shared: &Shared) -> Said {
        let confirmed = &shared.control().confirmed;
        let confirm = |count| {
            let mut spin = Spin(0);
            while confirmed.load(Ordering::Acquire) < count {
                spin.once();
            }
        };
        let warm_up = self.warm_up();
        for number in 0..warm_up {
            peer.send(T::make(number, self.size));
        }
        confirm(warm_up);
        let (start, usage) = (Instant::now(), Usage::now());
        for number in warm_up..warm_up + self.count {
            peer.send(T::make(number, self.size));
        }
        confirm(warm_up + self.count);
        Said {
            elapsed_ns: start.elapsed().as_nanos() as u64,
            usage: Usage::now().since(usage),
            times: Times::default(),
        }
    }

    fn receive_all<T: Load, P: Peer<T>>(&self, peer: &mut P, shared: &Shared) -> Said {
        let confirmed = &shared.control().confirmed;
        let mut take = |from, to| {
            for number in from..to {
                // In order, complete, each once.
                assert_eq!(peer.recv().check(self.size), number);
            }
        };
        let warm_up = self.warm_up();
        take(0, warm_up);
        let usage = Usage::now();
        confirmed.store(warm_up, Ordering::Release);
        take(warm_up, warm_up + self.count);
        confirmed.store(warm_up + self.count, Ordering::Release);
        Said {
            usage: Usage::now().since(usage),
            ..Said::default()
        }
    }

    fn ask_all<T: Load, P: Peer<T>>(&self, peer: &mut P) -> Said {
        let mut times = Times::default();
        let mut usage = Usage::now();
        let warm_up = self.warm_up();
        for number in 0..warm_up + self.count {
            if number == warm_up {
                usage = Usage::now();
            }
            if self.pattern == Pattern::Asleep {
                std::thread::sleep(PAUSE);
            }
            let start = Instant::now();
            peer.send(T::make(number, self.size));
            assert_eq!(peer.recv().check(self.size), number);
            if number >= warm_up {
                times.record(start.elapsed());
            }
        }
        Said {
            usage: Usage::now().since(usage),
            times,
            ..Said::default()
        }
    }

    fn answer_all<T: Load, P: Peer<T>>(&self, peer: &mut P) -> Said {
        let mut usage = Usage::now();
        let warm_up = self.warm_up();
        for number in 0..warm_up + self.count {
            if number == warm_up {
                usage = Usage::now();
            }
            let asked = peer.recv().check(self.size);
            assert_eq!(asked, number);
            peer.send(T::make(asked, self.size));
        }
        Said {
            usage: Usage::now().since(usage),
            ..Said::default()
        }
    }
}
