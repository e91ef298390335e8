//! Many endpoints on one bus.

use super::Role;
use crate::{
    peers::{SOON, TOKEN},
    process::{Actor, limit_descriptors, listen, say},
    report::sample::Times,
};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Between a join and a leave of those who come and go.
const CHURN: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub bus: String,
    /// Tells the processes of a crowd apart.
    pub index: usize,
    pub task: Task,
    /// Open files that the process may have.
    pub descriptors: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Task {
    /// Joins so many endpoints when told a number, and keeps them. Says why it could not.
    Stay,
    /// The same, until there is no more room; a join that finds none gives up early.
    Fill,
    /// Joins and leaves, one of both every 10 ms, until the input ends. Says how often.
    ComeAndGo,
    /// Joins and leaves so often when told a number. Says how long each join took.
    Visit,
}

/// How many endpoints a process has now; if it could not join more: whether the bus was full, and the error in words.
pub type Joined = (usize, Option<(bool, String)>);

/// What a process holds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Holdings {
    /// Bytes in memory.
    pub resident: u64,
    /// The same, with shared pages divided among those who share them.
    pub share: u64,
    pub descriptors: u64,
    pub threads: u64,
}

impl Holdings {
    /// Fails where the process is gone, or where the system does not tell.
    pub fn of(pid: u32) -> Result<Self, String> {
        let file = format!("/proc/{pid}/smaps_rollup");
        let rollup = std::fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
        let bytes = |key: &str| {
            let line = rollup.lines().find_map(|l| l.strip_prefix(key));
            let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024)
                .ok_or(format!("{file} has no {key}"))
        };
        let entries = |dir: &str| {
            let dir = format!("/proc/{pid}/{dir}");
            let entries = std::fs::read_dir(&dir).map_err(|e| format!("{dir}: {e}"))?;
            Ok::<_, String>(entries.count() as u64)
        };
        Ok(Self {
            resident: bytes("Rss:")?,
            share: bytes("Pss:")?,
            descriptors: entries("fd")?,
            threads: entries("task")?,
        })
    }

    pub fn since(self, before: Self) -> [f64; 4] {
        let less = |now: u64, then: u64| now as f64 - then as f64;
        [
            less(self.resident, before.resident),
            less(self.share, before.share),
            less(self.descriptors, before.descriptors),
            less(self.threads, before.threads),
        ]
    }
}

/// Starts a process of a crowd and waits until it can be told something.
pub fn start(bus: &str, index: usize, task: Task, descriptors: u64) -> Result<Actor, String> {
    let job = Job {
        bus: bus.into(),
        index,
        task,
        descriptors,
    };
    let limit = Duration::from_secs(280);
    let mut actor = Actor::start_under(&[], &Role::Crowd(job), limit)?;
    actor.ready()?;
    Ok(actor)
}

/// Has these processes join so many endpoints each, at the same time.
pub fn join_all(actors: &mut [Actor], each: usize) -> Result<(), String> {
    for actor in &mut *actors {
        actor.tell(&each.to_string())?;
    }
    for actor in actors {
        let (joined, why) = actor.hear::<Joined>()?;
        if let Some((_, why)) = why {
            return Err(format!("after {joined} endpoints in a process: {why}"));
        }
    }
    Ok(())
}

impl Job {
    /// In a child.
    pub fn play(&self) {
        limit_descriptors(self.descriptors);
        say(&());
        match self.task {
            Task::Stay => self.stay(SOON),
            Task::Fill => self.stay(Some(Duration::from_secs(2))),
            Task::ComeAndGo => self.come_and_go(),
            Task::Visit => self.visit(),
        }
    }

    fn options(&self, number: usize) -> ipmb::Options {
        let own = format!("endpoint-{}-{number}", self.index);
        ipmb::Options::new(&*self.bus, ipmb::label!("crowd", own), TOKEN)
    }

    fn stay(&self, patience: Option<Duration>) {
        let mut endpoints = Vec::new();
        while let Some(line) = listen() {
            let wanted: usize = line.parse().expect("a number of endpoints");
            let mut why = None;
            for _ in 0..wanted {
                match ipmb::join::<(), ()>(self.options(endpoints.len()), patience) {
                    Ok(endpoint) => endpoints.push(endpoint),
                    Err(e) => {
                        let is_full = matches!(e, ipmb::JoinError::BusFull { .. });
                        why = Some((is_full, e.to_string()));
                        break;
                    }
                }
            }
            say(&(endpoints.len(), why));
        }
        // A member that goes one by one leaves in good order; the end of the process is quicker.
        std::process::exit(0);
    }

    fn come_and_go(&self) {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            while listen().is_some() {}
            drop(end);
        });
        let mut times = 0u64;
        let mut due = Instant::now();
        let mut endpoint = None;
        loop {
            due += CHURN;
            let left = due.saturating_duration_since(Instant::now());
            if ended.recv_timeout(left) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected) {
                break;
            }
            endpoint = match endpoint.take() {
                Some(_) => None,
                None => Some(ipmb::join::<(), ()>(self.options(0), SOON).expect("join")),
            };
            times += 1;
        }
        say(&times);
    }

    fn visit(&self) {
        while let Some(line) = listen() {
            let wanted: usize = line.parse().expect("a number of visits");
            let mut times = Times::default();
            for _ in 0..wanted {
                let start = Instant::now();
                let endpoint = ipmb::join::<(), ()>(self.options(0), SOON).expect("join");
                times.record(start.elapsed());
                drop(endpoint);
            }
            say(&times);
        }
    }
}
