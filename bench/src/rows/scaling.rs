//! P9: what a send costs by how many endpoints are on the bus.

use super::{
    Bar, Bench, Line, Row, Unit,
    crowd::{self, Task},
    phases::Traffic,
};
use crate::report::sample::Sample;
use std::time::{Duration, Instant};

pub struct Scaling;

const LINES: [&str; 4] = [
    "2 endpoints",
    "100 endpoints",
    "1,000 endpoints",
    "1,000, of which one joins or leaves every 10 ms",
];
/// Processes of the crowd.
const PROCESSES: usize = 20;
const DESCRIPTORS: u64 = 4096;
const COUNT: u64 = 3_000_000;

impl Row for Scaling {
    fn id(&self) -> &'static str {
        "P9"
    }

    fn lines(&self) -> Vec<Line> {
        let line = |by: &str| Line {
            what: "one-way, 16 B struct, selectors of 5 terms: per message".into(),
            by: by.into(),
            unit: Unit::Nanoseconds,
        };
        LINES.map(line).into()
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |of: usize, ratio| Bar::Ratio {
            of: LINES[of].into(),
            against: vec![LINES[0].into()],
            at_least: false,
            ratio,
            bare: None,
        };
        vec![bar(2, 1.2), bar(3, 1.5)]
    }

    /// One crowd that grows serves all lines.
    fn steps(&self) -> Vec<Vec<usize>> {
        vec![vec![0, 1, 2, 3]]
    }

    fn measure(&self, _: usize, round: usize, bench: &Bench) -> Result<Vec<Sample>, String> {
        let bus = format!("{}.scaling.{round}", bench.bus);
        let count = bench.count(COUNT);
        // The controller is one of the endpoints of the crowd.
        let mut host = [crowd::start(&bus, PROCESSES, Task::Stay, DESCRIPTORS)?];
        crowd::join_all(&mut host, 1)?;
        let mut traffic = Traffic::start(&bus, true)?;
        let mut samples = vec![traffic.phase(count)?];
        let crowd: Result<Vec<_>, String> = (0..PROCESSES)
            .map(|index| crowd::start(&bus, index, Task::Stay, DESCRIPTORS))
            .collect();
        let mut crowd = crowd?;
        for each in [5, 45] {
            crowd::join_all(&mut crowd, each)?;
            traffic.phase(count / 10)?;
            samples.push(traffic.phase(count)?);
        }
        let mut guest = crowd::start(&bus, PROCESSES + 1, Task::ComeAndGo, DESCRIPTORS)?;
        let start = Instant::now();
        traffic.phase(count / 10)?;
        // Long enough for some joins.
        let mut churned = Vec::new();
        while churned.is_empty() || start.elapsed() < Duration::from_secs(1) {
            churned.push(traffic.phase(count)?);
        }
        let took = start.elapsed();
        guest.close();
        let changes: u64 = guest.hear()?;
        let due = took.as_millis() as u64 / 10;
        if changes * 10 < due * 8 {
            return Err(format!("{changes} joins and leaves where {due} were due"));
        }
        let figures = churned.iter().map(|s| s.figure);
        let figure = figures.sum::<f64>() / churned.len() as f64;
        samples.push(Sample {
            figure,
            note: Some(format!("{changes} in {:.1} s", took.as_secs_f64())),
            ..churned.swap_remove(0)
        });
        Ok(samples)
    }
}
