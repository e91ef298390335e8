//! The table.

use super::{Measured, MeasuredLine, Verdict};
use crate::rows::Unit;

pub const COLUMNS: &str = "\
| row | what | by | median | least – most | p90, p99, p99.9, max | CPU | receiver | calm | compared | bar | |
|---|---|---|--:|--:|--:|--:|---|--:|---|---|---|
";

/// What some of them are.
pub const LEGEND: &str = "\
- CPU: nanoseconds per message (or round trip) of the side that sends first + the other, all threads; receiver: whether it slept; calm: rounds \
that began while nobody else used the machine
";

pub const FEW_COLUMNS: &str = "\
| row | what | by | median | compared | bar | |
|---|---|---|--:|---|---|---|
";

/// The most important columns of a row.
pub fn short_row(row: &Measured) -> String {
    let line = |line: &MeasuredLine| {
        let figure = match (line.figure(), line.missing) {
            (Some(figure), _) if line.void.is_none() => show(line.line.unit, figure),
            (_, Some(what)) => format!("not measured: {what}"),
            _ => return None,
        };
        Some(format!(
            "| {} | {} | {} | {figure} | {} | {} | {} |\n",
            row.id,
            line.line.what,
            line.line.by,
            join(line, |v| v.seen.clone()),
            join(line, |v| v.bar.clone()),
            join(line, said),
        ))
    };
    row.lines.iter().filter_map(line).collect()
}

/// A part of all verdicts of a line.
fn join(line: &MeasuredLine, part: fn(&Verdict) -> String) -> String {
    let parts: Vec<String> = line.verdicts.iter().map(part).collect();
    parts.join("; ")
}

fn said(verdict: &Verdict) -> String {
    match verdict.met {
        Some(true) => "met".into(),
        Some(false) => "**not met**".into(),
        None => "beyond the bare mechanism".into(),
    }
}

pub fn show(unit: Unit, figure: f64) -> String {
    match unit {
        Unit::PerSecond if figure >= 1e6 => format!("{:.2} M/s", figure / 1e6),
        Unit::PerSecond if figure >= 1e4 => format!("{:.0} k/s", figure / 1e3),
        Unit::PerSecond => format!("{figure:.0} /s"),
        Unit::Nanoseconds if figure.abs() >= 1e9 => format!("{:.2} s", figure / 1e9),
        Unit::Nanoseconds if figure.abs() >= 1e6 => format!("{:.2} ms", figure / 1e6),
        Unit::Nanoseconds if figure.abs() >= 1e3 => format!("{:.2} µs", figure / 1e3),
        Unit::Nanoseconds => format!("{figure:.0} ns"),
        Unit::Bytes => format!("{:.1} KiB", figure / 1024.0),
        Unit::Number if figure == figure.trunc() => format!("{figure}"),
        Unit::Number => format!("{figure:.6}"),
    }
}

/// Whether the receiver slept, by how often it did per message.
fn slept(sleeps: f64) -> String {
    if sleeps < 0.01 {
        "awake".into()
    } else if sleeps >= 0.95 {
        "asleep".into()
    } else {
        format!("asleep for {:.0} %", sleeps * 100.0)
    }
}

pub fn row(row: &Measured) -> String {
    row.lines.iter().filter_map(|l| line(row.id, l)).collect()
}

fn line(id: &str, line: &MeasuredLine) -> Option<String> {
    let (what, by) = (&line.line.what, &line.line.by);
    if let Some(why) = &line.void {
        let why = why.replace('|', "/");
        return Some(format!(
            "| {id} | {what} | {by} | void: {why} | | | | | | | | |\n"
        ));
    }
    if let Some(what) = line.missing {
        return Some(format!(
            "| {id} | {what_} | {by} | not measured: {what} | | | | | | | | |\n",
            what_ = line.line.what
        ));
    }
    let figure = line.figure()?;
    let show = |value: f64| show(line.line.unit, value);
    let all = line.samples.iter().map(|s| s.figure);
    let least = all.clone().fold(f64::INFINITY, f64::min);
    let most = all.fold(f64::NEG_INFINITY, f64::max);
    let times = line.times();
    let tail = if times.is_empty() {
        String::new()
    } else {
        let at = [0.9, 0.99, 0.999].map(|share| times.at(share));
        let all = [at[0], at[1], at[2], times.max()];
        all.map(|t| self::show(Unit::Nanoseconds, t)).join(", ")
    };
    let middle = |values: Vec<f64>| super::median(values);
    let cpu = |side: usize| {
        middle(
            line.samples
                .iter()
                .flat_map(|s| s.cpu)
                .map(|c| c[side])
                .collect(),
        )
    };
    let cpu = match (cpu(0), cpu(1)) {
        (Some(first), Some(second)) => format!("{first:.0} + {second:.0}"),
        _ => String::new(),
    };
    let sleeps = middle(line.samples.iter().flat_map(|s| s.sleeps).collect());
    let sleeps = sleeps.map(slept).unwrap_or_default();
    let calm = line.samples.iter().filter(|s| s.calm).count();
    let note = line.samples.iter().rev().find_map(|s| s.note.clone());
    let note = note.map(|n| format!(" ({n})")).unwrap_or_default();
    Some(format!(
        "| {id} | {what} | {by} | {}{note} | {} – {} | {tail} | {cpu} | {sleeps} | {calm}/{} | {} | {} | {} |\n",
        show(figure),
        show(least),
        show(most),
        line.samples.len(),
        join(line, |v| v.seen.clone()),
        join(line, |v| v.bar.clone()),
        join(line, said),
    ))
}
