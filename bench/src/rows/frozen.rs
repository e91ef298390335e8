//! P14: traffic between two while somebody else on the bus is frozen.

use super::{Bar, Bench, Line, Role, Row, Unit, phases::Traffic};
use crate::{
    peers::{SOON, TOKEN},
    process::{Actor, listen, say},
    report::sample::Sample,
};
use serde::{Deserialize, Serialize};
use std::{thread, time::Duration};

pub struct Frozen;

const LINES: [&str; 3] = [
    "nobody is frozen",
    "a member is, and a sender to it waits",
    "the controller's host is, and a sender to it waits",
];
const COUNT: u64 = 1_500_000;
/// Times in a round that each of them takes its turn.
const TURNS: usize = 4;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Part {
    /// Receives.
    Victim,
    /// Sends to this victim, a little each millisecond. Told so, says when it has come to wait for it.
    Sender(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    bus: String,
    label: String,
    part: Part,
}

impl Row for Frozen {
    fn id(&self) -> &'static str {
        "P14"
    }

    fn lines(&self) -> Vec<Line> {
        let line = |by: &str| Line {
            what: "one-way, 16 B struct, between two others".into(),
            by: by.into(),
            unit: Unit::PerSecond,
        };
        LINES.map(line).into()
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |of: usize| Bar::Ratio {
            of: LINES[of].into(),
            against: vec![LINES[0].into()],
            at_least: true,
            ratio: 0.9,
            bare: None,
        };
        vec![bar(1), bar(2)]
    }

    /// A pair on two cores is at ease at more than one speed (see P1 in NOTES.md), and may change it between two phases.
    fn rounds(&self, asked: usize) -> usize {
        3 * asked
    }

    /// One bus serves all lines.
    fn steps(&self) -> Vec<Vec<usize>> {
        vec![vec![0, 1, 2]]
    }

    fn measure(&self, _: usize, round: usize, bench: &Bench) -> Result<Vec<Sample>, String> {
        let bus = format!("{}.frozen.{round}", bench.bus);
        let start = |label: &str, part: Part| {
            let mut actor = Actor::start(&Role::Frozen(Job {
                bus: bus.clone(),
                label: label.into(),
                part,
            }))?;
            actor.ready()?;
            Ok::<_, String>(actor)
        };
        // The first is the controller.
        let victims = [start("host", Part::Victim)?, start("member", Part::Victim)?];
        let mut senders = [
            start("to-host", Part::Sender("host".into()))?,
            start("to-member", Part::Sender("member".into()))?,
        ];
        let mut traffic = Traffic::start(&bus, false)?;
        let count = bench.count(COUNT);
        let mut turns = LINES.map(|_| Vec::new());
        for _ in 0..if bench.quick { 1 } else { TURNS } {
            let (nobody, frozen) = turns.split_at_mut(1);
            for (samples, which) in frozen.iter_mut().zip([1, 0]) {
                nobody[0].push(traffic.phase(count)?);
                // The sender to it fills the link.
                senders[which].tell("until you wait")?;
                victims[which].signal(libc::SIGSTOP);
                senders[which].ready()?;
                samples.push(traffic.phase(count)?);
                victims[which].signal(libc::SIGCONT);
                thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(turns.iter().map(|samples| together(samples)).collect())
    }
}

/// One sample of several that took a like number of messages: the figures of all of them.
fn together(samples: &[Sample]) -> Sample {
    let mean = |value: &dyn Fn(&Sample) -> Option<f64>| {
        let values = samples.iter().map(value).collect::<Option<Vec<f64>>>()?;
        Some(values.iter().sum::<f64>() / samples.len() as f64)
    };
    let cpu = |side: usize| mean(&|sample| sample.cpu.map(|cpu| cpu[side]));
    Sample {
        cpu: cpu(0)
            .zip(cpu(1))
            .map(|(sends, receives)| [sends, receives]),
        sleeps: mean(&|sample| sample.sleeps),
        ..Sample::new(1e9 / mean(&|sample| Some(sample.figure)).unwrap_or_default())
    }
}

impl Job {
    /// In a child.
    pub fn play(&self) {
        let options = ipmb::Options::new(&*self.bus, ipmb::label!(&*self.label), TOKEN);
        let (sender, receiver) =
            ipmb::join::<ipmb::BytesMessage, ipmb::BytesMessage>(options, SOON).expect("join");
        match &self.part {
            Part::Victim => {
                thread::spawn(move || while receiver.recv(None).is_ok() {});
                say(&());
                while listen().is_some() {}
            }
            Part::Sender(to) => {
                let (to, it) = (to.clone(), sender.clone());
                thread::spawn(move || {
                    loop {
                        let data = vec![0; 8 << 10];
                        let payload = ipmb::BytesMessage { format: 0, data };
                        let selector = ipmb::Selector::unicast(to.as_str());
                        sender
                            .send(ipmb::Message::new(selector, payload))
                            .expect("send");
                        thread::sleep(Duration::from_millis(1));
                    }
                });
                say(&());
                while listen().is_some() {
                    let before = it.stats().blocked;
                    // A link of 1 MiB takes 127 messages. In vain, this process is ended by its time limit.
                    while it.stats().blocked == before {
                        thread::sleep(Duration::from_millis(1));
                    }
                    say(&());
                }
            }
        }
        std::process::exit(0);
    }
}
