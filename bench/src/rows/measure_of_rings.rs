//! P0: whether the bare ring, which others are measured by, is a good one.

use super::{Bar, Bench, Line, Row, Unit};
use crate::{peers, report::sample::Sample};
use std::{path::PathBuf, process::Command};

pub struct MeasureOfRings;

const RINGS: [&str; 2] = ["ring", "rtrb"];
const COUNT: u64 = 100_000_000;

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

    /// Both in turns, by one program.
    fn steps(&self) -> Vec<Vec<usize>> {
        vec![vec![0, 1]]
    }

    /// The ratio differs by a quarter from one process to the next.
    fn rounds(&self, asked: usize) -> usize {
        10 * asked
    }

    fn missing(&self) -> Option<&'static str> {
        peers::missing("rtrb")
    }

    fn measure(&self, _: usize, round: usize, bench: &Bench) -> Result<Vec<Sample>, String> {
        let count = bench.count(COUNT);
        let program = program(round == 0)?;
        let output = Command::new(&program)
            .arg(count.to_string())
            .output()
            .map_err(|e| format!("{}: {e}; build all of ipmb-bench", program.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let wrong = || format!("the rings' program ended with {}", output.status);
        let samples = said.split_whitespace().map(|elapsed| {
            let elapsed: f64 = elapsed.parse().map_err(|_| wrong())?;
            let sample = Sample::new(count as f64 * 1e9 / elapsed);
            Ok(Sample {
                sleeps: Some(0.0),
                ..sample
            })
        });
        let samples: Vec<Sample> = samples.collect::<Result<_, String>>()?;
        if samples.len() != RINGS.len() {
            return Err(wrong());
        }
        Ok(samples)
    }
}

/// The program `rtrb`, which lies beside this one. `cargo run` builds the program that it runs and no other, so the first time it is built here.
fn program(is_first: bool) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    if is_first && let Ok(cargo) = std::env::var("CARGO") {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let mut command = Command::new(cargo);
        command.args([
            "build",
            "--quiet",
            "--bin",
            "rtrb",
            "--manifest-path",
            manifest,
        ]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        let status = command.status().map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("the rings' program cannot be built: {status}"));
        }
    }
    Ok(own.with_file_name("rtrb"))
}
