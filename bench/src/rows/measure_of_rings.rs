//! P0: whether the bare ring, which others are measured by, is a good one.

use super::{Bar, Bench, Line, Row, Unit};
use crate::report::sample::Sample;
use std::process::Command;

pub struct MeasureOfRings;

const RINGS: [&str; 2] = ["ring", "rtrb"];
const COUNT: u64 = 50_000_000;

impl Row for MeasureOfRings {
    fn id(&self) -> &'static str {
        "P0"
    }

    fn lines(&self) -> Vec<Line> {
        let line = |by: &str| Line {
            what: "16 B over a ring in shared memory, nothing allocated".into(),
            by: by.into(),
            unit: Unit::PerSecond,
        };
        RINGS.map(line).into()
    }

    fn bars(&self) -> Vec<Bar> {
        vec![Bar::Ratio {
            of: "ring".into(),
            against: vec!["rtrb".into()],
            at_least: true,
            ratio: 0.9,
            bare: None,
        }]
    }

    /// A measurement takes a quarter of a second, and one differs from the next by a third.
    fn rounds(&self, asked: usize) -> usize {
        5 * asked
    }

    fn measure(&self, step: usize, _: usize, bench: &Bench) -> Result<Vec<Sample>, String> {
        let count = bench.count(COUNT);
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let program = own.with_file_name("rtrb");
        let output = Command::new(&program)
            .args([RINGS[step], &count.to_string()])
            .output()
            .map_err(|e| format!("{}: {e}; build all of ipmb-bench", program.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let elapsed: f64 = said
            .trim()
            .parse()
            .map_err(|_| format!("the rings' program ended with {}", output.status))?;
        let sample = Sample::new(count as f64 * 1e9 / elapsed);
        Ok(vec![Sample {
            sleeps: Some(0.0),
            ..sample
        }])
    }
}
