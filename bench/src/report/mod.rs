//! What a run gave, and whether it is good enough.

mod head;
mod json;
mod markdown;
pub mod sample;

pub use head::Head;

use crate::rows::{Bar, Line, Row, Unit};
use sample::{Sample, Times, median};
use serde::Serialize;

/// A row with all its samples.
pub struct Measured {
    pub id: &'static str,
    pub lines: Vec<MeasuredLine>,
}

#[derive(Serialize)]
pub struct MeasuredLine {
    #[serde(flatten)]
    pub line: Line,
    /// What is not here and would be needed.
    pub missing: Option<&'static str>,
    /// Why there is no figure: a message was lost, or a process failed.
    pub void: Option<String>,
    pub samples: Vec<Sample>,
    pub verdicts: Vec<Verdict>,
}

/// A comparison, shown on the line that is compared with.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The ratio or difference.
    pub seen: String,
    /// What it has to be.
    pub bar: String,
    /// `None`: the bare mechanism does not reach it either.
    pub met: Option<bool>,
}

impl MeasuredLine {
    /// The median of all rounds, if none was void.
    pub fn figure(&self) -> Option<f64> {
        if self.void.is_some() {
            return None;
        }
        median(self.samples.iter().map(|s| s.figure).collect())
    }

    /// The times of all rounds together.
    pub fn times(&self) -> Times {
        let mut all = Times::default();
        for sample in &self.samples {
            all.add(&sample.times);
        }
        all
    }
}

impl Measured {
    pub fn new(row: &dyn Row) -> Self {
        let line = |line| MeasuredLine {
            line,
            missing: None,
            void: None,
            samples: Vec::new(),
            verdicts: Vec::new(),
        };
        Self {
            id: row.id(),
            lines: row.lines().into_iter().map(line).collect(),
        }
    }

    fn figure(&self, by: &str) -> Option<f64> {
        self.lines.iter().find(|l| l.line.by == by)?.figure()
    }

    /// Holds the figures against the bars.
    pub fn judge(&mut self, bars: &[Bar]) {
        for bar in bars {
            if let Some((by, verdict)) = self.hold_against(bar)
                && let Some(line) = self.lines.iter_mut().find(|l| l.line.by == by)
            {
                line.verdicts.push(verdict);
            }
        }
    }

    /// A comparison, and on which line to show it. `None` if a figure is missing.
    fn hold_against(&self, bar: &Bar) -> Option<(String, Verdict)> {
        match bar {
            Bar::Ratio {
                of,
                against,
                at_least,
                ratio,
                bare,
            } => {
                let ours = self.figure(of)?;
                let others = against.iter().map(|by| Some((by, self.figure(by)?)));
                let others: Vec<_> = others.collect::<Option<_>>()?;
                let unit = self.lines.first()?.line.unit;
                let better = |a: &f64, b: &f64| match unit {
                    Unit::PerSecond => a.total_cmp(b),
                    _ => b.total_cmp(a),
                };
                let (by, theirs) = others.into_iter().max_by(|a, b| better(&a.1, &b.1))?;
                let seen = ours / theirs;
                // Against the bare mechanism itself there is no such excuse.
                let bare = bare.filter(|bare| !against.iter().any(|by| by == bare));
                let bare = bare.and_then(|by| self.figure(by));
                let beyond = *at_least && bare.is_some_and(|bare| bare < ratio * theirs);
                let sign = if *at_least { "≥" } else { "≤" };
                let met = if *at_least {
                    seen >= *ratio
                } else {
                    seen <= *ratio
                };
                let verdict = Verdict {
                    seen: format!("{of} ÷ this = {seen:.2}"),
                    bar: format!("{sign} {ratio}"),
                    met: (met || !beyond).then_some(met),
                };
                Some((by.clone(), verdict))
            }
            Bar::Growth {
                of,
                against,
                ratio,
                bare,
            } => {
                let seen = self.figure(of)? / self.figure(against)?;
                let bare = self.figure(bare[0])? / self.figure(bare[1])?;
                let met = seen <= *ratio;
                let beyond = bare > *ratio && seen <= bare;
                let verdict = Verdict {
                    seen: format!("{of} ÷ this = {seen:.2} (bare: {bare:.2})"),
                    bar: format!("≤ {ratio}"),
                    met: (met || !beyond).then_some(met),
                };
                Some((against.clone(), verdict))
            }
            Bar::Plus { of, against, more } => {
                let line = self.lines.iter().find(|l| l.line.by == *of)?;
                let over = line.figure()? - self.figure(against)?;
                let show = |value: f64| markdown::show(line.line.unit, value);
                let verdict = Verdict {
                    seen: format!("{} over “{against}”", show(over)),
                    bar: format!("≤ {}", show(*more)),
                    met: Some(over <= *more),
                };
                Some((of.clone(), verdict))
            }
            Bar::AtMost { of, limit } => {
                let line = self.lines.iter().find(|l| l.line.by == *of)?;
                let figure = line.figure()?;
                let verdict = Verdict {
                    seen: String::new(),
                    bar: format!("≤ {}", markdown::show(line.line.unit, *limit)),
                    met: Some(figure <= *limit),
                };
                Some((of.clone(), verdict))
            }
        }
    }
}

/// All of a run.
pub struct Report {
    pub head: Head,
    pub rows: Vec<Measured>,
}

impl Report {
    pub fn markdown(&self) -> String {
        let rows: String = self.rows.iter().map(markdown::row).collect();
        format!(
            "{}{}\n{}{rows}{}",
            self.head,
            markdown::LEGEND,
            markdown::COLUMNS,
            self.summary()
        )
    }

    /// With the most important columns only.
    pub fn short(&self) -> String {
        let rows: String = self.rows.iter().map(markdown::short_row).collect();
        format!("{}\n{}{rows}", self.head, markdown::FEW_COLUMNS)
    }

    pub fn json(&self) -> String {
        json::report(self)
    }

    /// How many bars were met, and which were not.
    fn summary(&self) -> String {
        let lines = self
            .rows
            .iter()
            .flat_map(|row| row.lines.iter().map(move |l| (row, l)));
        let (mut met, mut missed, mut beyond) = (0, Vec::new(), Vec::new());
        let (mut void, mut missing) = (Vec::new(), Vec::new());
        for (row, line) in lines {
            let name = format!("{} {}, {}", row.id, line.line.what, line.line.by);
            if line.void.is_some() {
                void.push(name.clone());
            }
            if let Some(what) = line.missing {
                missing.push(format!("{name}: {what}"));
            }
            for verdict in &line.verdicts {
                let named = format!("{name} ({} {})", verdict.seen, verdict.bar);
                match verdict.met {
                    Some(true) => met += 1,
                    Some(false) => missed.push(named),
                    None => beyond.push(named),
                }
            }
        }
        let mut text = format!(
            "\n{met} bars met, {} not met, {} beyond the bare mechanism",
            missed.len(),
            beyond.len()
        );
        for (title, names) in [
            ("not met", missed),
            ("beyond the bare mechanism", beyond),
            ("void", void),
            ("not measured", missing),
        ] {
            if !names.is_empty() {
                text += &format!("; {title}: {}", names.join("; "));
            }
        }
        text + "\n"
    }

    /// Whether a measurement was void: a message was lost, or a process failed.
    pub fn has_void(&self) -> bool {
        let mut lines = self.rows.iter().flat_map(|row| &row.lines);
        lines.any(|line| line.void.is_some())
    }
}

#[cfg(test)]
mod tests;
