//! P6: a memory region is handed over.

use super::{Bar, Bench, Line, Role, Row, Unit, member};
use crate::{
    bare::spin::Spin,
    peers::{SOON, TOKEN, names},
    process::{Actor, say},
    report::sample::{Sample, Times},
    shared::{Memory, RINGS, Shared},
    usage::Usage,
};
use serde::{Deserialize, Serialize};
use std::{sync::atomic::Ordering, time::Instant};

/// The times of handing over a region of which all pages were written, until the other side has mapped it and read a byte.
pub struct Regions;

const SIZES: [(&str, usize); 5] = [
    ("4 KiB", 4 << 10),
    ("256 KiB", 256 << 10),
    ("16 MiB", 16 << 20),
    ("256 MiB", 256 << 20),
    ("1 GiB", 1 << 30),
];
const COUNT: u64 = 2_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    bus: String,
    size: usize,
    count: u64,
    memory: i32,
}

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
        SIZES.map(line).into()
    }

    fn bars(&self) -> Vec<Bar> {
        vec![Bar::Ratio {
            of: "1 GiB".into(),
            against: vec!["4 KiB".into()],
            at_least: false,
            ratio: 1.2,
            bare: None,
        }]
    }

    fn measure(&self, step: usize, round: usize, bench: &Bench) -> Result<Vec<Sample>, String> {
        let memory = Memory::new(RINGS);
        let bus = format!("{}.region.{step}.{round}", bench.bus);
        let job = Job {
            bus: bus.clone(),
            size: SIZES[step].1,
            count: bench.count(COUNT),
            memory: memory.fd,
        };
        let _host = member::start(&bus, "controller")?;
        let mut receiver = Actor::start(&Role::Region(job.clone(), false))?;
        receiver.ready()?;
        let mut sender = Actor::start(&Role::Region(job.clone(), true))?;
        let [sent, received] = [sender.hear::<Said>()?, receiver.hear::<Said>()?];
        let count = job.count as f64;
        Ok(vec![Sample {
            cpu: Some([sent.usage, received.usage].map(|u| u.cpu_ns as f64 / count)),
            sleeps: Some(received.usage.sleeps as f64 / count),
            times: sent.times.clone(),
            ..Sample::new(sent.times.at(0.5))
        }])
    }
}

impl Job {
    /// Plays one side, in a child.
    pub fn play(&self, sends: bool) {
        let shared = Shared::map(self.memory, RINGS);
        let confirmed = &shared.control().confirmed;
        // The receiver has let go of so many regions: what that takes is no part of handing the next one over.
        let let_go = shared.word(0);
        let (here, there) = names(sends);
        let options = ipmb::Options::new(&*self.bus, ipmb::label!(here), TOKEN);
        let (sender, receiver) = ipmb::join::<u64, u64>(options, SOON).expect("join");
        let warm_up = self.count / 10;
        let mut usage = Usage::now();
        let mut times = Times::default();
        if !sends {
            say(&());
            for number in 0..warm_up + self.count {
                if number == warm_up {
                    usage = Usage::now();
                }
                let mut message = receiver.recv(None).expect("recv");
                assert_eq!(message.payload, number);
                assert_eq!(message.memory_regions[0].buffer_size(), self.size as u64);
                let data = message.memory_regions[0].map(..).expect("map");
                assert_eq!(std::hint::black_box(data)[self.size / 2], 7);
                confirmed.store(number + 1, Ordering::Release);
                drop(message);
                let_go.store(number as u32 + 1, Ordering::Release);
            }
        } else {
            let mut region = ipmb::MemoryRegion::new(self.size);
            region.map(..).expect("map").fill(7);
            region.unmap();
            for number in 0..warm_up + self.count {
                if number == warm_up {
                    usage = Usage::now();
                }
                let mut spin = Spin(0);
                while u64::from(let_go.load(Ordering::Acquire)) < number {
                    spin.once();
                }
                let selector = ipmb::Selector::unicast(there);
                let mut message = ipmb::Message::new(selector, number);
                message.memory_regions.push(region.clone().expect("clone"));
                let start = Instant::now();
                sender.send(message).expect("send");
                let mut spin = Spin(0);
                while confirmed.load(Ordering::Acquire) <= number {
                    spin.once();
                }
                if number >= warm_up {
                    times.record(start.elapsed());
                }
            }
        }
        let usage = Usage::now().since(usage);
        say(&Said { times, usage });
    }
}
