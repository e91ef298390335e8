//! What the user wants.

use std::{path::PathBuf, time::Duration};

pub const USAGE: &str = "\
usage: ipmb-bench [--rows P1,P3] [--peers ipmb,ring] [--rounds N] [--calm SECONDS] [--quick] [--out DIRECTORY]
  --rows    only these rows of the table (P0 to P15, L)
  --peers   only these in the rows that compare ipmb with others
  --rounds  how often each is measured, in turns (5; 3 with --quick)
  --calm    wait, at most so long, until nobody else uses the machine, before each measurement
  --quick   fewer messages: all rows in less than two minutes
  --out     where the report, its plots and its JSON file go (target/bench)";

pub struct Arguments {
    pub rows: Option<Vec<String>>,
    pub peers: Option<Vec<String>>,
    pub rounds: usize,
    pub calm: Duration,
    pub quick: bool,
    pub out: PathBuf,
}

impl Arguments {
    pub fn new(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut rounds = None;
        let mut found = Self {
            rows: None,
            peers: None,
            rounds: 0,
            calm: Duration::ZERO,
            quick: false,
            out: PathBuf::from("target/bench"),
        };
        while let Some(option) = given.next() {
            let mut value = || given.next().ok_or(format!("{option} needs a value"));
            match option.as_str() {
                "--rows" => {
                    found.rows = Some(value()?.split(',').map(str::to_uppercase).collect());
                }
                "--peers" => found.peers = Some(value()?.split(',').map(str::to_owned).collect()),
                "--rounds" => {
                    rounds = Some(value()?.parse().map_err(|e| format!("--rounds: {e}"))?);
                }
                "--calm" => {
                    let seconds = value()?.parse().map_err(|e| format!("--calm: {e}"))?;
                    found.calm = Duration::from_secs(seconds);
                }
                "--quick" => found.quick = true,
                "--out" => found.out = value()?.into(),
                _ => return Err(format!("unknown option {option}")),
            }
        }
        found.rounds = rounds.unwrap_or(if found.quick { 3 } else { 5 });
        if found.rounds == 0 {
            return Err("--rounds must be at least 1".into());
        }
        Ok(found)
    }

    /// Names a row or a peer that was asked for and that there is not.
    pub fn unknown<'a>(&'a self, rows: &[&str], peers: &[&str]) -> Option<&'a str> {
        let asked = [(&self.rows, rows), (&self.peers, peers)].into_iter();
        let mut unknown = asked.flat_map(|(asked, known)| {
            let asked = asked.iter().flatten();
            asked.filter(|name| !known.contains(&name.as_str()))
        });
        unknown.next().map(String::as_str)
    }

    pub fn wants_row(&self, id: &str) -> bool {
        let rows = self.rows.as_ref();
        rows.is_none_or(|rows| rows.iter().any(|r| r == id))
    }

    /// Of the names in a row, whether this one is to be measured. A row without any of the chosen names is no comparison.
    pub fn wants_peer(&self, name: &str, all: &[&str]) -> bool {
        let Some(peers) = &self.peers else {
            return true;
        };
        let chosen = |name: &str| peers.iter().any(|p| p == name);
        chosen(name) || !all.iter().any(|other| chosen(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_or_a_peer_that_there_is_not_is_named() {
        let unknown = |given: &[&str]| {
            let given = given.iter().map(|word| (*word).to_owned());
            let arguments = Arguments::new(given).unwrap();
            arguments
                .unknown(&["P1", "P2"], &["ring"])
                .map(str::to_owned)
        };
        assert_eq!(unknown(&["--rows", "p1,P2", "--peers", "ring"]), None);
        assert_eq!(unknown(&["--rows", "P1,P16"]).as_deref(), Some("P16"));
        assert_eq!(unknown(&["--peers", "rign"]).as_deref(), Some("rign"));
    }
}
