//! One measurement: what the two processes of it do.

use crate::{
    peers::{EventFd, Futex, Load, Old, Ours, Pair, Peer, Ring},
    ring::Spin,
    shared::Shared,
};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// What to do, as the processes of a measurement are told.
#[derive(Debug, Clone)]
pub struct Job {
    pub peer: &'static str,
    pub bus: String,
    pub pattern: Pattern,
    /// Bytes of payload; 16 is the struct.
    pub size: usize,
    pub count: u64,
    /// Capacity of the bare ring.
    pub ring: usize,
    pub events: [i32; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    OneWay,
    RoundTrip,
    /// Round trips with pauses, in which both sides fall asleep.
    Asleep,
}

const PAUSE: Duration = Duration::from_millis(10);

impl Job {
    /// Messages that are not counted.
    fn warm_up(&self) -> u64 {
        match self.pattern {
            Pattern::Asleep => 5,
            _ => self.count / 10 + 5,
        }
    }

    /// Plays one side; what it returns goes to the parent: numbers, separated by spaces.
    pub fn play(&self, shared: &Shared, sends_first: bool) -> String {
        match (self.peer, self.size) {
            ("ipmb", 16) => self.with::<Pair, Ours<Pair>>(shared, sends_first),
            ("ipmb", _) => self.with::<_, Ours<ipmb::BytesMessage>>(shared, sends_first),
            ("0.8.5", 16) => self.with::<Pair, Old<Pair>>(shared, sends_first),
            ("0.8.5", _) => self.with::<_, Old<ipmb_old::BytesMessage>>(shared, sends_first),
            ("ring", 16) => self.with::<Pair, Ring>(shared, sends_first),
            ("ring", _) => self.with::<ipmb::BytesMessage, Ring>(shared, sends_first),
            ("futex", _) => self.with::<Pair, Futex>(shared, sends_first),
            ("eventfd", _) => self.with::<Pair, EventFd>(shared, sends_first),
            other => panic!("unknown peer {other:?}"),
        }
    }

    fn with<T: Load, P: Peer<T>>(&self, shared: &Shared, sends_first: bool) -> String {
        let control = shared.control();
        let wait = |flag: &std::sync::atomic::AtomicU32| {
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
            wait(&control.sender);
            let mut peer = P::join(self, shared, false);
            control.receiver.store(1, Ordering::Release);
            match self.pattern {
                Pattern::OneWay => self.receive_all(&mut peer, shared),
                _ => self.answer_all(&mut peer),
            }
        }
    }

    fn send_all<T: Load, P: Peer<T>>(&self, peer: &mut P, shared: &Shared) -> String {
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
        let (start, cpu) = (Instant::now(), cpu_time());
        for number in warm_up..warm_up + self.count {
            peer.send(T::make(number, self.size));
        }
        confirm(warm_up + self.count);
        let (time, cpu) = (start.elapsed(), cpu_time() - cpu);
        format!("{} {}", time.as_nanos(), cpu.as_nanos())
    }

    fn receive_all<T: Load, P: Peer<T>>(&self, peer: &mut P, shared: &Shared) -> String {
        let confirmed = &shared.control().confirmed;
        let mut take = |from, to| {
            for number in from..to {
                // In order, complete, each once.
                assert_eq!(peer.recv().check(self.size), number);
            }
        };
        let warm_up = self.warm_up();
        take(0, warm_up);
        let cpu = cpu_time();
        confirmed.store(warm_up, Ordering::Release);
        take(warm_up, warm_up + self.count);
        confirmed.store(warm_up + self.count, Ordering::Release);
        format!("{}", (cpu_time() - cpu).as_nanos())
    }

    fn ask_all<T: Load, P: Peer<T>>(&self, peer: &mut P) -> String {
        let mut times = Vec::with_capacity(self.count as usize);
        let mut cpu = Duration::ZERO;
        let warm_up = self.warm_up();
        for number in 0..warm_up + self.count {
            if number == warm_up {
                cpu = cpu_time();
            }
            if self.pattern == Pattern::Asleep {
                std::thread::sleep(PAUSE);
            }
            let start = Instant::now();
            peer.send(T::make(number, self.size));
            assert_eq!(peer.recv().check(self.size), number);
            if number >= warm_up {
                times.push(start.elapsed().as_nanos());
            }
        }
        let cpu = cpu_time() - cpu;
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let [p50, p90, p99, p999, max] = [0.5, 0.9, 0.99, 0.999, 1.0].map(at);
        let cpu = cpu.as_nanos();
        format!("{p50} {cpu} {p90} {p99} {p999} {max}")
    }

    fn answer_all<T: Load, P: Peer<T>>(&self, peer: &mut P) -> String {
        let mut cpu = Duration::ZERO;
        let warm_up = self.warm_up();
        for number in 0..warm_up + self.count {
            if number == warm_up {
                cpu = cpu_time();
            }
            let asked = peer.recv().check(self.size);
            assert_eq!(asked, number);
            peer.send(T::make(asked, self.size));
        }
        format!("{}", (cpu_time() - cpu).as_nanos())
    }
}

/// CPU time of all threads of this process.
fn cpu_time() -> Duration {
    // SAFETY: plain data, filled by the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    };
    let part = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    part(usage.ru_utime) + part(usage.ru_stime)
}
