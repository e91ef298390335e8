//! The table.

use crate::{
    Row,
    job::{Job, Pattern},
};

/// What one measurement gave.
pub struct Sample {
    /// Messages per second, or nanoseconds of a round trip (median).
    pub figure: f64,
    /// Nanoseconds of CPU time per message (or round trip): sender, receiver.
    pub cpu: [f64; 2],
    /// p90, p99, p99.9, max in nanoseconds; empty for throughput.
    pub tail: Vec<u64>,
    /// Nobody else used the machine when it began.
    pub calm: bool,
}

impl Sample {
    pub fn new(job: &Job, sender: &[u64], receiver: &[u64]) -> Result<Self, String> {
        let ([first, cpu, tail @ ..], [other]) = (sender, receiver) else {
            return Err("a process said nothing".into());
        };
        let count = job.count as f64;
        Ok(Self {
            figure: match job.pattern {
                Pattern::OneWay => count * 1e9 / *first as f64,
                _ => *first as f64,
            },
            cpu: [*cpu as f64 / count, *other as f64 / count],
            tail: tail.to_vec(),
            calm: false,
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 0 {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    }
}

fn read(path: &str, key: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(key)).unwrap_or("?");
    line.rsplit(':').next().unwrap_or("?").trim().to_owned()
}

pub fn head(rounds: usize) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "- machine: {}, {cores} cores, {}",
        read("/proc/cpuinfo", "model name"),
        read("/proc/meminfo", "MemTotal")
    );
    println!("- kernel: {}", read("/proc/sys/kernel/osrelease", ""));
    println!(
        "- ipmb {} against ipmb 0.8.5 (its sender as its controller) and bare mechanisms",
        ipmb::version()
    );
    println!(
        "- {rounds} rounds in turns, medians; processes: sender, receiver, and a controller that idles"
    );
    println!(
        "- CPU: nanoseconds per message (or round trip), sender + receiver, all threads; calm: rounds that began while nobody else used the machine\n"
    );
    println!(
        "| row | what | by | median | least – most | p99 | CPU | calm | ipmb ÷ this | bar | |"
    );
    println!("|---|---|---|--:|--:|--:|--:|--:|--:|--:|---|");
}

fn show(pattern: Pattern, figure: f64) -> String {
    match pattern {
        Pattern::OneWay if figure >= 1e6 => format!("{:.2} M/s", figure / 1e6),
        Pattern::OneWay if figure >= 1e4 => format!("{:.0} k/s", figure / 1e3),
        Pattern::OneWay => format!("{figure:.0} /s"),
        _ => format!("{:.2} µs", figure / 1e3),
    }
}

pub fn row(row: &Row, results: &[Vec<Result<Sample, String>>]) {
    let figures = |peer: &str| -> Option<Vec<f64>> {
        let at = row.peers.iter().position(|p| p.0 == peer)?;
        let good = results[at].iter().map(|r| r.as_ref().map(|s| s.figure));
        let good = good.collect::<Result<Vec<_>, _>>().ok()?;
        (!good.is_empty()).then_some(good)
    };
    let ours = figures("ipmb").map(median);
    for (&(peer, _), samples) in row.peers.iter().zip(results) {
        if samples.is_empty() {
            continue;
        }
        print!("| {} | {} | {peer} ", row.id, row.what);
        if let Some(Err(why)) = samples.iter().find(|s| s.is_err()) {
            println!("| void: {why} | | | | | | | |");
            continue;
        }
        let samples: Vec<&Sample> = samples.iter().flatten().collect();
        let all: Vec<f64> = samples.iter().map(|s| s.figure).collect();
        let least = all.iter().copied().fold(f64::INFINITY, f64::min);
        let most = all.iter().copied().fold(0.0, f64::max);
        let figure = median(all);
        let p99: Vec<f64> = samples
            .iter()
            .filter_map(|s| s.tail.get(1))
            .map(|n| *n as f64)
            .collect();
        let p99 = if p99.is_empty() {
            String::new()
        } else {
            show(row.pattern, median(p99))
        };
        let calm = samples.iter().filter(|s| s.calm).count();
        let [sender, receiver] =
            [0, 1].map(|side| median(samples.iter().map(|s| s.cpu[side]).collect()));
        print!(
            "| {} | {} – {} | {p99} | {sender:.0} + {receiver:.0} | {calm}/{} ",
            show(row.pattern, figure),
            show(row.pattern, least),
            show(row.pattern, most),
            samples.len()
        );
        let ratio = match ours {
            Some(ours) if peer != "ipmb" => ours / figure,
            _ => {
                println!("| | | |");
                continue;
            }
        };
        // A bar against several counts against the best of them.
        let bar = row.bars.iter().find(|b| {
            b.against.contains(&peer)
                && b.against
                    .iter()
                    .all(|other| figures(other).map(median).is_none_or(|f| f >= figure))
        });
        match bar {
            None => println!("| {ratio:.2} | | |"),
            Some(bar) => {
                let (sign, met) = match row.pattern {
                    Pattern::OneWay => ("≥", ratio >= bar.ratio),
                    _ => ("≤", ratio <= bar.ratio),
                };
                println!(
                    "| {ratio:.2} | {sign} {} | {} |",
                    bar.ratio,
                    if met { "met" } else { "**not met**" }
                );
            }
        }
    }
}
