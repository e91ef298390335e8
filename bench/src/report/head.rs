//! On what, and of what, the report is.

use serde::Serialize;
use std::fmt;

#[derive(Serialize)]
pub struct Head {
    pub cpu: String,
    pub cores: usize,
    pub memory: String,
    pub kernel: String,
    pub compiler: &'static str,
    pub versions: Vec<(&'static str, String)>,
    pub rounds: usize,
    pub quick: bool,
    pub command: String,
}

fn read(path: &str, key: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(key)).unwrap_or("?");
    line.rsplit(':').next().unwrap_or("?").trim().to_owned()
}

/// An amount such as "24731708 kB", rounded.
fn gibibytes(amount: &str) -> String {
    let kib = amount.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    kib.map_or("?".into(), |kib| {
        format!("{:.0} GiB", kib / f64::from(1 << 20))
    })
}

/// A release without what its builder added.
fn version(release: &str) -> &str {
    release.split('-').next().unwrap_or(release)
}

impl Head {
    pub fn new(rounds: usize, quick: bool) -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self {
            cpu: read("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory: gibibytes(&read("/proc/meminfo", "MemTotal")),
            kernel: version(&read("/proc/sys/kernel/osrelease", "")).to_owned(),
            compiler: env!("IPMB_BENCH_RUSTC"),
            versions: vec![
                ("ipmb", ipmb::version().to_string()),
                ("ipmb (old)", "0.8.5".into()),
                ("ipc-channel", "0.23.1".into()),
                ("iceoryx2", "0.10.0".into()),
                ("rtrb", "0.4.1".into()),
            ],
            rounds,
            quick,
            command: format!(
                "cargo run --release -p ipmb-bench -- {}",
                arguments.join(" ")
            ),
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions = self
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"));
        let versions: Vec<String> = versions.collect();
        writeln!(
            f,
            "- machine: {}, {} cores, {}",
            self.cpu, self.cores, self.memory
        )?;
        writeln!(f, "- kernel {}, {}", self.kernel, self.compiler)?;
        writeln!(f, "- {}", versions.join(", "))?;
        writeln!(
            f,
            "- `{}`: {} rounds in turns, of short measurements two to ten times as many (P10 and P15: at most three; P11: one; \
             P12: one, the median of five where it takes a second only), medians",
            self.command.trim_end_matches([' ', '-']),
            self.rounds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_says_more_of_a_machine_than_others_need() {
        assert_eq!(gibibytes("24731708 kB"), "24 GiB");
        assert_eq!(gibibytes("?"), "?");
        assert_eq!(version("6.18.1-2-amd64"), "6.18.1");
    }
}
