//! Traffic between two processes that goes on in phases, while the rest of the bus changes.

use super::Role;
use crate::{
    bare::spin::Spin,
    load::{Load, Pair},
    peers::{SOON, TOKEN, names},
    process::{Actor, listen, say},
    report::sample::Sample,
    shared::{Memory, RINGS, Shared},
    usage::Usage,
};
use ipmb::LabelOp;
use serde::{Deserialize, Serialize};
use std::{sync::atomic::Ordering, time::Instant};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    bus: String,
    memory: i32,
    /// Selectors of five terms instead of one.
    five_terms: bool,
}

/// The two processes.
pub struct Traffic {
    sender: Actor,
    receiver: Actor,
    _memory: Memory,
}

impl Traffic {
    /// Starts both; neither becomes the controller of a bus that has one.
    pub fn start(bus: &str, five_terms: bool) -> Result<Self, String> {
        let memory = Memory::new(RINGS);
        let job = Job {
            bus: bus.into(),
            memory: memory.fd,
            five_terms,
        };
        let mut receiver = Actor::start(&Role::Phases(job.clone(), false))?;
        receiver.ready()?;
        let mut sender = Actor::start(&Role::Phases(job, true))?;
        sender.ready()?;
        let mut traffic = Self {
            sender,
            receiver,
            _memory: memory,
        };
        traffic.phase(50_000)?;
        Ok(traffic)
    }

    /// Sends so many messages. The figure is nanoseconds per message.
    pub fn phase(&mut self, count: u64) -> Result<Sample, String> {
        let before = Usage::of(self.receiver.pid())?;
        self.sender.tell(&count.to_string())?;
        let (elapsed, sent): (u64, Usage) = self.sender.hear()?;
        let received = Usage::of(self.receiver.pid())?.since(before);
        let each = |total: u64| total as f64 / count as f64;
        Ok(Sample {
            cpu: Some([sent, received].map(|u| each(u.cpu_ns))),
            sleeps: Some(each(received.sleeps)),
            ..Sample::new(each(elapsed))
        })
    }
}

impl Job {
    /// Plays one side, in a child.
    pub fn play(&self, sends: bool) {
        let shared = Shared::map(self.memory, RINGS);
        let confirmed = &shared.control().confirmed;
        let (here, there) = names(sends);
        let label = ipmb::label!(here, "traffic", "of", "five-terms");
        let options = ipmb::Options::new(&*self.bus, label, TOKEN);
        let (sender, receiver) = ipmb::join::<Pair, Pair>(options, SOON).expect("join");
        say(&());
        if !sends {
            for number in 0.. {
                // In order, complete, each once.
                assert_eq!(receiver.recv(None).expect("recv").payload.check(16), number);
                confirmed.store(number + 1, Ordering::Release);
            }
        }
        let mut next = 0;
        while let Some(line) = listen() {
            let count: u64 = line.parse().expect("a number of messages");
            let (start, usage) = (Instant::now(), Usage::now());
            for number in next..next + count {
                let mut label_op = LabelOp::from(there);
                if self.five_terms {
                    let rest = LabelOp::from("of").or("other").and(!LabelOp::from("none"));
                    label_op = label_op.and("traffic").and(rest);
                }
                let message =
                    ipmb::Message::new(ipmb::Selector::unicast(label_op), Pair::make(number, 16));
                sender.send(message).expect("send");
            }
            next += count;
            let mut spin = Spin(0);
            while confirmed.load(Ordering::Acquire) < next {
                spin.once();
            }
            let elapsed = start.elapsed().as_nanos() as u64;
            say(&(elapsed, Usage::now().since(usage)));
        }
    }
}
