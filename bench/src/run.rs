//! Measures rows, in turns.

use crate::{
    arguments::Arguments,
    calm, peers,
    report::Measured,
    rows::{Bench, Row},
};
use indicatif::{ProgressBar, ProgressStyle};

/// How many measurements a row takes.
fn steps(row: &dyn Row, arguments: &Arguments) -> usize {
    wanted(row, arguments).len() * row.rounds(arguments.rounds)
}

/// What a line of a row needs and is not here.
fn missing(row: &dyn Row, by: &str) -> Option<&'static str> {
    row.missing().or_else(|| peers::missing(by))
}

/// The steps of a row that are to be taken, and can be.
fn wanted(row: &dyn Row, arguments: &Arguments) -> Vec<(usize, Vec<usize>)> {
    let lines = row.lines();
    let names: Vec<&str> = lines.iter().map(|l| &*l.by).collect();
    let wants = |step: &[usize]| {
        let mut lines = step.iter().map(|line| names[*line]);
        lines.any(|by| arguments.wants_peer(by, &names) && missing(row, by).is_none())
    };
    let steps = row.steps().into_iter().enumerate();
    steps.filter(|(_, lines)| wants(lines)).collect()
}

/// Shows how far the whole run is.
pub fn progress(rows: &[Box<dyn Row>], arguments: &Arguments) -> ProgressBar {
    let all: usize = rows.iter().map(|row| steps(&**row, arguments)).sum();
    let bar = ProgressBar::new(all as u64);
    let style = "{wide_bar} {pos}/{len} {msg:40!} {elapsed_precise}";
    bar.set_style(ProgressStyle::with_template(style).expect("a template"));
    bar
}

/// Measures a row.
pub fn row(row: &dyn Row, bench: &Bench, arguments: &Arguments, bar: &ProgressBar) -> Measured {
    let mut measured = Measured::new(row);
    for line in &mut measured.lines {
        line.missing = missing(row, &line.line.by);
    }
    let wanted = wanted(row, arguments);
    for round in 0..row.rounds(arguments.rounds) {
        for (step, lines) in &wanted {
            let first = &measured.lines[lines[0]].line;
            bar.set_message(format!("{} {}, {}", row.id(), first.what, first.by));
            bar.tick();
            let calm = calm::wait(bench.calm);
            match row.measure(*step, round, bench) {
                Ok(samples) => {
                    for (line, mut sample) in lines.iter().zip(samples) {
                        sample.calm = calm;
                        measured.lines[*line].samples.push(sample);
                    }
                }
                Err(why) => {
                    for line in lines {
                        measured.lines[*line].void = Some(why.clone());
                    }
                }
            }
            bar.inc(1);
        }
    }
    measured.judge(&row.bars());
    measured
}
