//! The plots.

mod chart;

use crate::{report::Measured, rows::Unit};
use chart::{Axis, Chart, Series};

/// The files to write, with their text.
pub fn all(rows: &[Measured]) -> Vec<(&'static str, String)> {
    let plots = [
        ("throughput.svg", throughput(rows)),
        ("latency.svg", latency(rows)),
        ("scaling.svg", scaling(rows)),
    ];
    let drawn = plots
        .into_iter()
        .filter_map(|(name, chart)| Some((name, chart.draw()?)));
    drawn.collect()
}

/// The size that a text names, such as `4 KiB`.
fn size(what: &str) -> Option<f64> {
    let words: Vec<&str> = what.split([' ', ',']).filter(|w| !w.is_empty()).collect();
    words.windows(2).find_map(|pair| {
        let unit = match pair[1] {
            "B" => 1.0,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            _ => return None,
        };
        Some(pair[0].parse::<f64>().ok()? * unit)
    })
}

/// Adds a point to the series of that name.
fn add(series: &mut Vec<Series>, name: &str, point: (f64, f64)) {
    match series.iter_mut().find(|s| s.name == name) {
        Some(series) => series.points.push(point),
        None => series.push(Series {
            name: name.into(),
            points: vec![point],
        }),
    }
}

/// One-way messages per second over their size.
fn throughput(rows: &[Measured]) -> Chart {
    let mut series = Vec::new();
    for row in rows.iter().filter(|r| ["P1", "P4", "P5"].contains(&r.id)) {
        for line in &row.lines {
            if let (Some(size), Some(figure)) = (size(&line.line.what), line.figure()) {
                add(&mut series, &line.line.by, (size, figure));
            }
        }
    }
    Chart {
        title: "One-way messages between two processes".into(),
        x: Axis::bytes("payload"),
        y: Axis::numbers("messages per second"),
        series,
    }
}

/// Which share of round trips took longer than so much.
fn latency(rows: &[Measured]) -> Chart {
    let mut series = Vec::new();
    for row in rows.iter().filter(|r| ["P2", "P3"].contains(&r.id)) {
        let state = if row.id == "P2" { "hot" } else { "asleep" };
        for line in row.lines.iter().filter(|l| l.void.is_none()) {
            let counts = line.times().counts();
            let all: u64 = counts.iter().map(|c| c.1).sum();
            let mut left = all;
            let mut points: Vec<(f64, f64)> = Vec::new();
            for (time, count) in counts {
                let share = left as f64 / all as f64;
                // Close points are one on paper.
                let far = |last: &(f64, f64)| last.0 * 1.02 < time as f64 || last.1 > share * 1.05;
                if points.last().is_none_or(far) {
                    points.push((time.max(1) as f64, share));
                }
                left -= count;
            }
            if !points.is_empty() {
                let name = format!("{}, {state}", line.line.by);
                series.push(Series { name, points });
            }
        }
    }
    Chart {
        title: "Round trips of 16 B: the share that took at least so long".into(),
        x: Axis::times("round trip"),
        y: Axis::numbers("share of round trips"),
        series,
    }
}

/// What a send costs by how many endpoints are on the bus.
fn scaling(rows: &[Measured]) -> Chart {
    let mut series = Vec::new();
    for row in rows.iter().filter(|r| r.id == "P9") {
        for line in row
            .lines
            .iter()
            .filter(|l| l.line.unit == Unit::Nanoseconds)
        {
            let mut words = line.line.by.splitn(2, ' ');
            let endpoints = words.next().unwrap_or_default().replace(',', "");
            let what = match words.next() {
                Some("endpoints") => "quiet bus",
                _ => "one joins or leaves every 10 ms",
            };
            if let (Ok(endpoints), Some(figure)) = (endpoints.parse(), line.figure()) {
                add(&mut series, what, (endpoints, figure));
            }
        }
    }
    Chart {
        title: "A send of 16 B with a selector of 5 terms".into(),
        x: Axis::numbers("endpoints on the bus"),
        y: Axis::times("time per message"),
        series,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_what_a_line_says() {
        assert_eq!(size("one-way, 16 B struct"), Some(16.0));
        assert_eq!(size("one-way, 4 KiB"), Some(4096.0));
        assert_eq!(size("one-way, 1 MiB"), Some(1048576.0));
        assert_eq!(size("one-way"), None);
    }
}
