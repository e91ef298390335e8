//! A chart of lines with logarithmic axes, as SVG.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
/// Colours that people tell apart, also those who see few.
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999",
];

pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

pub struct Axis {
    title: &'static str,
    /// Each mark is so many times the one before.
    step: f64,
    label: fn(f64) -> String,
}

impl Axis {
    pub fn bytes(title: &'static str) -> Self {
        let (step, label) = (16.0, bytes as fn(f64) -> String);
        Self { title, step, label }
    }

    pub fn numbers(title: &'static str) -> Self {
        let (step, label) = (10.0, number as fn(f64) -> String);
        Self { title, step, label }
    }

    /// Nanoseconds.
    pub fn times(title: &'static str) -> Self {
        let (step, label) = (10.0, time as fn(f64) -> String);
        Self { title, step, label }
    }

    /// The marks around these values.
    fn marks(&self, values: impl Iterator<Item = f64> + Clone) -> Vec<f64> {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(0.0, f64::max);
        let first = (least.ln() / self.step.ln() + 1e-9).floor();
        let last = (most.ln() / self.step.ln() - 1e-9).ceil().max(first + 1.0);
        let powers = (first as i32)..=(last as i32);
        powers.map(|power| self.step.powi(power)).collect()
    }
}

fn bytes(value: f64) -> String {
    match value {
        v if v >= 1048576.0 => format!("{} MiB", v / 1048576.0),
        v if v >= 1024.0 => format!("{} KiB", v / 1024.0),
        v => format!("{v} B"),
    }
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", (v / 1e6).round()),
        v if v >= 1e3 => format!("{} k", (v / 1e3).round()),
        v if v >= 1.0 => format!("{}", v.round()),
        v => format!("{v}"),
    }
}

fn time(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{} s", (v / 1e9).round()),
        v if v >= 1e6 => format!("{} ms", (v / 1e6).round()),
        v if v >= 1e3 => format!("{} µs", (v / 1e3).round()),
        v => format!("{} ns", v.round()),
    }
}

pub struct Chart {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

impl Chart {
    /// The SVG; `None` if there is nothing to show.
    pub fn draw(&self) -> Option<String> {
        let points = || {
            self.series
                .iter()
                .flat_map(|s| &s.points)
                .filter(|p| p.0 > 0.0 && p.1 > 0.0)
        };
        points().next()?;
        let xs = self.x.marks(points().map(|p| p.0));
        let ys = self.y.marks(points().map(|p| p.1));
        let place = |value: f64, marks: &[f64]| {
            let (first, last) = (marks[0].ln(), marks[marks.len() - 1].ln());
            (value.ln() - first) / (last - first)
        };
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let x = |value: f64| LEFT + place(value, &xs) * (right - LEFT);
        let y = |value: f64| bottom - place(value, &ys) * (bottom - TOP);

        let mut svg = String::new();
        // Writing to a string cannot fail.
        let mut put = |text: std::fmt::Arguments<'_>| {
            let _ = svg.write_fmt(text);
            svg.push('\n');
        };
        put(format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>
<text x="{LEFT}" y="28" font-size="15" font-weight="bold">{}</text>"#,
            escape(&self.title)
        ));
        for mark in &xs {
            let (at, below) = (x(*mark), bottom + 18.0);
            put(format_args!(
                r##"<path d="M{at:.1} {TOP}V{bottom}" stroke="#dddddd"/><text x="{at:.1}" y="{below}" text-anchor="middle">{}</text>"##,
                (self.x.label)(*mark)
            ));
        }
        for mark in &ys {
            let (at, left) = (y(*mark), LEFT - 8.0);
            put(format_args!(
                r##"<path d="M{LEFT} {at:.1}H{right}" stroke="#dddddd"/><text x="{left}" y="{:.1}" text-anchor="end">{}</text>"##,
                at + 4.0,
                (self.y.label)(*mark)
            ));
        }
        put(format_args!(
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>
<text transform="translate(20 {:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
            f64::midpoint(LEFT, right),
            HEIGHT - 16.0,
            escape(self.x.title),
            f64::midpoint(TOP, bottom),
            escape(self.y.title),
        ));
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let dashes = if index < COLOURS.len() {
                ""
            } else {
                r#" stroke-dasharray="5 3""#
            };
            let path: String = series
                .points
                .iter()
                .filter(|p| p.0 > 0.0 && p.1 > 0.0)
                .enumerate()
                .map(|(at, p)| {
                    let command = if at == 0 { 'M' } else { 'L' };
                    format!("{command}{:.1} {:.1}", x(p.0), y(p.1))
                })
                .collect();
            put(format_args!(
                r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>"#
            ));
            // Few points are measurements, many are a curve.
            if series.points.len() <= 12 {
                for point in &series.points {
                    put(format_args!(
                        r#"<circle cx="{:.1}" cy="{:.1}" r="3.5" fill="{colour}"/>"#,
                        x(point.0),
                        y(point.1)
                    ));
                }
            }
            let (from, at) = (right + 14.0, TOP + 8.0 + 20.0 * index as f64);
            put(format_args!(
                r#"<path d="M{from} {at}h22" stroke="{colour}" stroke-width="2"{dashes}/><text x="{}" y="{}">{}</text>"#,
                from + 28.0,
                at + 4.0,
                escape(&series.name)
            ));
        }
        put(format_args!("</svg>"));
        Some(svg)
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: "a < b".into(),
            x: Axis::bytes("x"),
            y: Axis::numbers("y"),
            series: vec![Series {
                name: "one".into(),
                points,
            }],
        }
    }

    #[test]
    fn a_chart_without_points_is_not_drawn() {
        assert!(chart(Vec::new()).draw().is_none());
    }

    #[test]
    fn all_points_lie_between_the_axes() {
        let svg = chart(vec![(16.0, 3.0), (4096.0, 2e6), (16777216.0, 1.0)])
            .draw()
            .expect("points");
        assert!(svg.contains("a &lt; b"));
        let places: Vec<f64> = svg
            .split("cx=\"")
            .skip(1)
            .flat_map(|rest| rest.split('"').next())
            .flat_map(str::parse)
            .collect();
        assert_eq!(places.len(), 3);
        assert!(places.iter().all(|x| (LEFT..=WIDTH - RIGHT).contains(x)));
    }

    #[test]
    fn a_single_value_has_room() {
        let svg = chart(vec![(1024.0, 5.0)]).draw().expect("a point");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
