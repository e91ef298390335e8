//! P11: what an idle bus does.

use super::{Bar, Bench, Line, Role, Row, Unit, member};
use crate::{
    peers::{SOON, TOKEN},
    process::{Actor, TIME_LIMIT, listen, say},
    report::sample::Sample,
    usage::Usage,
};
use serde::{Deserialize, Serialize};
use std::{thread, time::Duration};

pub struct Idle;

const PROCESSES: usize = 4;
const ENDPOINTS: usize = 3;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    bus: String,
    index: usize,
}

impl Row for Idle {
    fn id(&self) -> &'static str {
        "P11"
    }

    fn lines(&self) -> Vec<Line> {
        vec![Line {
            what: "wake-ups of all threads on an idle bus: 13 endpoints in 5 processes, all linked, in `recv`".into(),
            by: "ipmb".into(),
            unit: Unit::Number,
        }]
    }

    fn bars(&self) -> Vec<Bar> {
        vec![Bar::AtMost {
            of: "ipmb".into(),
            limit: 0.0,
        }]
    }

    fn rounds(&self, _: usize) -> usize {
        1
    }

    fn measure(&self, _: usize, _: usize, bench: &Bench) -> Result<Vec<Sample>, String> {
        let bus = format!("{}.idle", bench.bus);
        let seconds = if bench.quick { 3 } else { 60 };
        let limit = TIME_LIMIT + Duration::from_secs(3 * seconds);
        let host = member::start_for(&bus, "controller", limit)?;
        let start = |index| {
            let job = Job {
                bus: bus.clone(),
                index,
            };
            let mut actor = Actor::start_under(&[], &Role::Idle(job), limit)?;
            actor.ready()?;
            Ok(actor)
        };
        let actors: Result<Vec<Actor>, String> = (0..PROCESSES).map(start).collect();
        let mut actors = actors?;
        for actor in &mut actors {
            actor.tell("greet")?;
            actor.ready()?;
        }
        for actor in &mut actors {
            actor.tell("rest")?;
            actor.ready()?;
        }
        actors.push(host);
        let duration = Duration::from_secs(seconds);
        thread::sleep(duration);
        let look = || -> Result<Vec<Usage>, String> {
            actors.iter().map(|a| Usage::of(a.pid())).collect()
        };
        let before = look()?;
        thread::sleep(duration);
        let spent = look()?
            .into_iter()
            .zip(before)
            .map(|(now, then)| now.since(then));
        let [mut wake_ups, mut cpu_ns] = [0, 0];
        for usage in spent {
            wake_ups += usage.sleeps;
            cpu_ns += usage.cpu_ns;
        }
        // All are still there.
        for actor in &mut actors {
            actor.finish()?;
        }
        Ok(vec![Sample {
            note: Some(format!(
                "in {seconds} s, {seconds} s after the last activity; {cpu_ns} ns of CPU time"
            )),
            ..Sample::new(wake_ups as f64)
        }])
    }
}

impl Job {
    /// In a child: some endpoints that talk with all others, and then wait.
    pub fn play(&self) {
        // Greetings of all endpoints reach all, the own ones included.
        let all = PROCESSES * ENDPOINTS;
        let mut senders = Vec::new();
        let mut threads = Vec::new();
        let (done, greeted) = std::sync::mpsc::channel();
        for number in 0..ENDPOINTS {
            let own = format!("endpoint-{}-{number}", self.index);
            let options = ipmb::Options::new(&*self.bus, ipmb::label!("idle", own), TOKEN);
            let (sender, receiver) = ipmb::join::<String, String>(options, SOON).expect("join");
            senders.push(sender);
            let done = done.clone();
            threads.push(thread::spawn(move || {
                for _ in 0..all {
                    receiver.recv(None).expect("a greeting");
                }
                done.send(()).expect("somebody waits");
                // Until the end of the process.
                let _ = receiver.recv(None);
            }));
        }
        say(&());
        while let Some(line) = listen() {
            if line == "greet" {
                for sender in &senders {
                    let selector = ipmb::Selector::multicast("idle");
                    let message = ipmb::Message::new(selector, "good morning".to_owned());
                    sender.send(message).expect("send");
                }
            } else {
                for _ in 0..ENDPOINTS {
                    greeted.recv().expect("all are greeted");
                }
            }
            say(&());
        }
        std::process::exit(0);
    }
}
