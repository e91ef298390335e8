//! P15: the controller is killed, again and again.

use super::{Bar, Bench, Line, Role, Row, Unit};
use crate::{
    load::{Load, Pair},
    peers::{SOON, TOKEN, names},
    process::{Actor, listen, say},
    report::sample::{Sample, Times},
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub struct Failover;

const KILLS: u64 = 100;
/// Between two kills.
const PAUSE: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(280);

const WITHOUT: &str = "longest gap, members leave instead";
const WITH: &str = "longest gap, the controller is killed";
const LOADED: &str = "a join after each kill, p99, under load";
const IDLE: &str = "a join after each kill, p99, idle";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Part {
    /// May become the controller; leaves when the input ends.
    Host,
    /// Joins once for each line, says how long it took, and leaves. Never becomes the controller.
    Guest,
    /// Sends as fast as it can.
    Sender,
    /// Says for each line the longest time without a message since the line before, up to now, and how many came so far.
    Receiver,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    bus: String,
    part: Part,
}

#[derive(Clone, Copy)]
struct Course {
    traffic: bool,
    kills: bool,
}

impl Row for Failover {
    fn id(&self) -> &'static str {
        "P15"
    }

    fn lines(&self) -> Vec<Line> {
        let line = |by: &str| Line {
            what: "controller killed 100 times, traffic between two others".into(),
            by: by.into(),
            unit: Unit::Nanoseconds,
        };
        [WITHOUT, WITH, LOADED, IDLE].map(line).into()
    }

    fn bars(&self) -> Vec<Bar> {
        let at_most = |of: &str, limit| Bar::AtMost {
            of: of.into(),
            limit,
        };
        vec![
            Bar::Plus {
                of: WITH.into(),
                against: WITHOUT.into(),
                more: 5e6,
            },
            at_most(LOADED, 200e6),
            at_most(IDLE, 50e6),
        ]
    }

    fn steps(&self) -> Vec<Vec<usize>> {
        vec![vec![0], vec![1, 2], vec![3]]
    }

    fn rounds(&self, asked: usize) -> usize {
        asked.min(3)
    }

    fn measure(&self, step: usize, round: usize, bench: &Bench) -> Result<Vec<Sample>, String> {
        let bus = format!("{}.failover.{step}.{round}", bench.bus);
        let kills = bench.count(KILLS);
        let course = |traffic, kills| Course { traffic, kills };
        let joins = |times: Times| Sample {
            figure: times.at(0.99),
            times,
            ..Sample::new(0.0)
        };
        let gap = |(gap, messages): (u64, u64)| Sample {
            note: Some(format!("{kills} times, {messages} messages")),
            ..Sample::new(gap as f64)
        };
        match step {
            0 => {
                let (seen, _) = run(&bus, kills, course(true, false))?;
                Ok(vec![gap(seen)])
            }
            1 => {
                let (seen, times) = run(&bus, kills, course(true, true))?;
                Ok(vec![gap(seen), joins(times)])
            }
            _ => {
                let (_, times) = run(&bus, kills, course(false, true))?;
                Ok(vec![joins(times)])
            }
        }
    }
}

/// The longest gap and the messages of the traffic, and the times of the joins.
fn run(bus: &str, kills: u64, course: Course) -> Result<((u64, u64), Times), String> {
    let start = |part: Part| {
        let bus = bus.to_owned();
        let mut actor = Actor::start_under(&[], &Role::Failover(Job { bus, part }), LIMIT)?;
        actor.ready()?;
        Ok::<_, String>(actor)
    };
    // The first is the controller, the next one takes over.
    let mut controller = start(Part::Host)?;
    let mut next = start(Part::Host)?;
    let mut guest = start(Part::Guest)?;
    let mut traffic = match course.traffic {
        true => Some((start(Part::Receiver)?, start(Part::Sender)?)),
        false => None,
    };
    thread::sleep(PAUSE);
    let mut heard = |seen: (u64, u64)| -> Result<(u64, u64), String> {
        let Some((receiver, _)) = &mut traffic else {
            return Ok(seen);
        };
        receiver.tell("how is it?")?;
        let (gap, messages): (u64, u64) = receiver.hear()?;
        if messages <= seen.1 {
            return Err(format!("traffic stopped after {messages} messages"));
        }
        Ok((gap.max(seen.0), messages))
    };
    // What the start took is no gap.
    let mut seen = (0, heard((0, 0))?.1);
    let mut times = Times::default();
    for kill in 1..=kills {
        if course.kills {
            controller.kill();
            controller = next;
        } else {
            next.finish()?;
        }
        guest.tell("join")?;
        times.record(Duration::from_nanos(guest.hear()?));
        next = start(Part::Host)?;
        thread::sleep(PAUSE);
        seen = heard(seen).map_err(|e| format!("{e}, at kill {kill}"))?;
    }
    if let Some((mut receiver, mut sender)) = traffic {
        sender.finish()?;
        receiver.finish()?;
    }
    drop(controller);
    Ok((seen, times))
}

impl Job {
    fn options(&self, label: &str, may_host: bool) -> ipmb::Options {
        let mut options = ipmb::Options::new(&*self.bus, ipmb::label!(label), TOKEN);
        options.controller_affinity = may_host;
        options
    }

    /// In a child.
    pub fn play(&self) {
        match self.part {
            Part::Host => {
                let joined = ipmb::join::<(), ()>(self.options("host", true), SOON).expect("join");
                say(&());
                while listen().is_some() {}
                drop(joined);
            }
            Part::Guest => {
                say(&());
                while listen().is_some() {
                    let start = Instant::now();
                    let joined = ipmb::join::<(), ()>(self.options("guest", false), SOON);
                    let took = start.elapsed();
                    drop(joined.expect("join"));
                    say(&(took.as_nanos() as u64));
                }
            }
            Part::Sender => self.send(),
            Part::Receiver => self.receive(),
        }
    }

    fn send(&self) {
        let options = self.options(names(true).0, false);
        let (sender, _receiver) = ipmb::join::<Pair, Pair>(options, SOON).expect("join");
        let over = Arc::new(AtomicBool::new(false));
        let ended = over.clone();
        say(&());
        thread::spawn(move || {
            while listen().is_some() {}
            ended.store(true, Ordering::Relaxed);
        });
        for number in 0.. {
            let selector = ipmb::Selector::unicast(names(true).1);
            let message = ipmb::Message::new(selector, Pair::make(number, 16));
            sender.send(message).expect("send");
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
    }

    fn receive(&self) {
        let options = self.options(names(false).0, false);
        let (_sender, receiver) = ipmb::join::<Pair, Pair>(options, SOON).expect("join");
        let longest = Arc::new(AtomicU64::new(0));
        let messages = Arc::new(AtomicU64::new(0));
        // Nanoseconds from the start to the last message.
        let last = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let now = move || start.elapsed().as_nanos() as u64;
        let counters = (longest.clone(), messages.clone(), last.clone());
        say(&());
        thread::spawn(move || {
            while listen().is_some() {
                let (longest, messages, last) = &counters;
                let since = now().saturating_sub(last.load(Ordering::Relaxed));
                let gap = longest.swap(0, Ordering::Relaxed).max(since);
                say(&(gap, messages.load(Ordering::Relaxed)));
            }
            std::process::exit(0);
        });
        let mut before = now();
        for number in 0.. {
            // In order, complete, each once.
            assert_eq!(receiver.recv(None).expect("recv").payload.check(16), number);
            let at = now();
            let gap = at - before;
            before = at;
            last.store(at, Ordering::Relaxed);
            if gap > longest.load(Ordering::Relaxed) {
                longest.fetch_max(gap, Ordering::Relaxed);
            }
            messages.store(number + 1, Ordering::Relaxed);
        }
    }
}
