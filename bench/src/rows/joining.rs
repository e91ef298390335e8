//! P10: a thousand endpoints join.

use super::{
    Bar, Bench, Line, Row, Unit,
    crowd::{self, Holdings, Task},
};
use crate::{
    process::Actor,
    report::sample::{Sample, Times},
};
use std::time::{Duration, Instant};

pub struct Joining;

const PROCESSES: usize = 20;
const EACH: usize = 50;
const MANY: u64 = 4096;
const FEW: u64 = 1024;
const VISITS: u64 = 300;

const ALL: &str = "all 1,000";
const RESIDENT: &str = "memory per idle endpoint";
const LATER: &str = "a later join, p99";
const LIMIT: &str = "endpoints at ulimit -n 1024";

impl Row for Joining {
    fn id(&self) -> &'static str {
        "P10"
    }

    fn lines(&self) -> Vec<Line> {
        let line = |(by, unit): (&str, Unit)| Line {
            what: "1,000 endpoints in 20 processes join an idle bus".into(),
            by: by.into(),
            unit,
        };
        [
            (ALL, Unit::Nanoseconds),
            (RESIDENT, Unit::Bytes),
            (LATER, Unit::Nanoseconds),
            (LIMIT, Unit::Number),
        ]
        .map(line)
        .into()
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |of: &str, limit| Bar::AtMost {
            of: of.into(),
            limit,
        };
        vec![
            bar(ALL, 2e9),
            bar(RESIDENT, 100.0 * 1024.0),
            bar(LATER, 5e6),
        ]
    }

    fn steps(&self) -> Vec<Vec<usize>> {
        vec![vec![0, 1, 2], vec![3]]
    }

    fn rounds(&self, asked: usize) -> usize {
        asked.min(3)
    }

    fn measure(&self, step: usize, round: usize, bench: &Bench) -> Result<Vec<Sample>, String> {
        let bus = format!("{}.joining.{step}.{round}", bench.bus);
        if step == 1 {
            return limit(&bus).map(|sample| vec![sample]);
        }
        let mut host = [crowd::start(&bus, PROCESSES, Task::Stay, MANY)?];
        crowd::join_all(&mut host, 1)?;
        let start = |index| crowd::start(&bus, index, Task::Stay, MANY);
        let actors: Result<Vec<Actor>, String> = (0..PROCESSES).map(start).collect();
        let mut actors = actors?;
        let holdings = |actors: &[Actor]| -> Result<Vec<Holdings>, String> {
            actors.iter().map(|a| Holdings::of(a.pid())).collect()
        };
        let before = holdings(&actors)?;
        let begin = Instant::now();
        crowd::join_all(&mut actors, EACH)?;
        let elapsed = begin.elapsed();
        // What is freed when a bus has been idle is not counted.
        std::thread::sleep(Duration::from_millis(500));
        let after = holdings(&actors)?;
        let grown = after.iter().zip(before).map(|(now, then)| now.since(then));
        let total: Vec<[f64; 4]> = grown.collect();
        let endpoints = (PROCESSES * EACH) as f64;
        let each = |field: usize| total.iter().map(|g| g[field]).sum::<f64>() / endpoints;
        let note = format!(
            "{:.1} KiB with shared pages divided, {:.1} descriptors",
            each(1) / 1024.0,
            each(2)
        );
        let mut visitor = crowd::start(&bus, PROCESSES + 1, Task::Visit, MANY)?;
        visitor.tell(&bench.count(VISITS).max(100).to_string())?;
        let times: Times = visitor.hear()?;
        Ok(vec![
            Sample::new(elapsed.as_nanos() as f64),
            Sample {
                note: Some(note),
                ..Sample::new(each(0))
            },
            Sample {
                figure: times.at(0.99),
                times,
                ..Sample::new(0.0)
            },
        ])
    }
}

/// How many endpoints a bus takes whose processes may have 1,024 descriptors each.
fn limit(bus: &str) -> Result<Sample, String> {
    let mut host = [crowd::start(bus, 0, Task::Stay, FEW)?];
    crowd::join_all(&mut host, 1)?;
    let mut others = Vec::new();
    let mut all = 1;
    loop {
        let mut actor = crowd::start(bus, others.len() + 1, Task::Fill, FEW)?;
        actor.tell(&EACH.to_string())?;
        let (joined, why) = actor.hear::<crowd::Joined>()?;
        others.push(actor);
        all += joined;
        if let Some((is_full, why)) = why {
            if !is_full {
                return Err(format!("after {all} endpoints: {why}"));
            }
            return Ok(Sample {
                note: Some(format!("the next: “{why}”")),
                ..Sample::new(all as f64)
            });
        }
        if others.len() > 100 {
            return Err(format!("{all} endpoints joined, and no end"));
        }
    }
}
