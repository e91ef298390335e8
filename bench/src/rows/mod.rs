//! The rows of the table: what is measured, by whom, and how good it must be.

mod basic;
pub mod costs;
pub mod crowd;
mod failover;
mod frozen;
mod idle;
mod joining;
pub mod many;
mod measure_of_rings;
pub mod member;
mod objects;
pub mod pair;
mod phases;
mod region;
mod scaling;
mod syscalls;

use crate::report::sample::Sample;
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub type Outcome = Result<Sample, String>;

/// What all rows are told.
pub struct Bench {
    /// The start of the names of all buses.
    pub bus: String,
    pub quick: bool,
    /// Wait so long, at most, for a quiet machine before each measurement.
    pub calm: Duration,
}

impl Bench {
    /// A number of messages: a tenth, if it is to be quick.
    pub fn count(&self, count: u64) -> u64 {
        if self.quick {
            (count / 10).max(10)
        } else {
            count
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// More is better; all others: less is better.
    PerSecond,
    Nanoseconds,
    Bytes,
    /// A plain number.
    Number,
}

/// A line of the table: something measured under a name that is unique in its row.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub what: String,
    pub by: String,
    pub unit: Unit,
}

/// How good it must be. Names are those of lines in the same row.
#[derive(Debug, Clone)]
pub enum Bar {
    /// So many times the best of others; at least, or at most. Where `bare` does not reach a minimum itself, the bar
    /// against `bare` counts alone.
    Ratio {
        of: String,
        against: Vec<String>,
        at_least: bool,
        ratio: f64,
        bare: Option<&'static str>,
    },
    /// At most so many times another. Where the bare mechanism's own ratio of two such lines is over that, too, and ours is not above it,
    /// the bar is out of reach.
    Growth {
        of: String,
        against: String,
        ratio: f64,
        bare: [&'static str; 2],
    },
    /// At most so much more than another.
    Plus {
        of: String,
        against: String,
        more: f64,
    },
    AtMost {
        of: String,
        limit: f64,
    },
}

pub trait Row {
    fn id(&self) -> &'static str;
    fn lines(&self) -> Vec<Line>;
    fn bars(&self) -> Vec<Bar>;

    /// What this row needs and is not here.
    fn missing(&self) -> Option<&'static str> {
        None
    }

    /// What is measured in turns: each step fills these lines. As a rule, one line each.
    fn steps(&self) -> Vec<Vec<usize>> {
        (0..self.lines().len()).map(|line| vec![line]).collect()
    }

    /// How often each step is taken, if `asked` is what the user wants.
    fn rounds(&self, asked: usize) -> usize {
        asked
    }

    /// Takes a step: one sample per line of it.
    fn measure(&self, step: usize, round: usize, bench: &Bench) -> Result<Vec<Sample>, String>;
}

/// All rows, in order.
pub fn all() -> Vec<Box<dyn Row>> {
    let mut rows: Vec<Box<dyn Row>> = vec![Box::new(measure_of_rings::MeasureOfRings)];
    rows.extend(basic::rows());
    rows.push(Box::new(region::Regions));
    for row in &many::ROWS {
        rows.push(Box::new(row));
    }
    rows.push(Box::new(scaling::Scaling));
    rows.push(Box::new(joining::Joining));
    rows.push(Box::new(idle::Idle));
    rows.push(Box::new(syscalls::SystemCalls));
    rows.push(Box::new(objects::Objects));
    rows.push(Box::new(frozen::Frozen));
    rows.push(Box::new(failover::Failover));
    rows
}

/// What a child process is. A flag tells which of two sides: true is the one that sends first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Role {
    Pair(pair::Job, bool),
    Region(region::Job, bool),
    Phases(phases::Job, bool),
    SystemCalls(syscalls::Job, bool),
    Objects(objects::Job, bool),
    /// The one (`None`), or one of the many.
    Many(many::Job, Option<usize>),
    Crowd(crowd::Job),
    Costs(costs::Job),
    Idle(idle::Job),
    Frozen(frozen::Job),
    Failover(failover::Job),
    /// An endpoint that does nothing, on a bus; the first of them is the controller.
    Member {
        bus: String,
        label: String,
    },
}

impl Role {
    /// At most 15 bytes, for the list of processes.
    pub fn name(&self) -> String {
        let side = |first: bool| if first { "sender" } else { "receiver" };
        let name = match self {
            Self::Pair(job, first) => format!("{}-{}", job.peer, side(*first)),
            Self::Region(_, first)
            | Self::Phases(_, first)
            | Self::SystemCalls(_, first)
            | Self::Objects(_, first) => format!("bench-{}", side(*first)),
            Self::Many(_, index) => format!("many-{index:?}"),
            Self::Crowd(_) => "crowd".into(),
            Self::Costs(_) => "costs".into(),
            Self::Idle(_) => "idle".into(),
            Self::Frozen(_) => "frozen".into(),
            Self::Failover(_) => "failover".into(),
            Self::Member { label, .. } => label.clone(),
        };
        name.chars().take(15).collect()
    }

    pub fn play(&self) {
        match self {
            Self::Pair(job, sends_first) => job.play(*sends_first),
            Self::Region(job, sends) => job.play(*sends),
            Self::Phases(job, sends) => job.play(*sends),
            Self::SystemCalls(job, sends) => job.play(*sends),
            Self::Objects(job, sends) => job.play(*sends),
            Self::Many(job, index) => job.play(*index),
            Self::Crowd(job) => job.play(),
            Self::Costs(job) => job.play(),
            Self::Idle(job) => job.play(),
            Self::Frozen(job) => job.play(),
            Self::Failover(job) => job.play(),
            Self::Member { bus, label } => member::play(bus, label),
        }
    }
}
