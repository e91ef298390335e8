//! Counts the instructions of a send and of a receive, which no other load on the machine changes, and holds them against the
//! committed figures.
//!
//! `cargo run --release -p ipmb-bench --bin gate` fails if one has risen by over 5 %; with `-- --write` it writes the file
//! anew. A change that raises one has to say why. Ends with 3 if it cannot be checked here: valgrind is missing, or the
//! figures are of another compiler.

use ipmb_bench::load::{Load, Pair};
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

const TOLERANCE: f64 = 1.05;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
/// What is counted: an end and a size.
const KINDS: [(&str, usize); 4] = [
    ("send", 16),
    ("receive", 16),
    ("send", 4096),
    ("receive", 4096),
];
/// Two runs of different length: what they have in common, the start above all, cancels out.
const MESSAGES: [u64; 2] = [2_000, 12_000];
/// So many are sent before they are received. They fit into the ring: nobody ever waits.
const BATCH: u64 = 100;

/// Valgrind is missing, or there is nothing to compare with.
const CANNOT: u8 = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["work", size, count] => {
            work(
                size.parse().expect("a size"),
                count.parse().expect("a number"),
            );
            ExitCode::SUCCESS
        }
        [] => check(),
        ["--write"] => match count_all().and_then(|counts| write(&counts)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => fail(&why),
        },
        _ => {
            eprintln!("usage: gate [--write]");
            ExitCode::from(2)
        }
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

/// Sends and receives so many messages, in one process.
fn work(size: usize, count: u64) {
    match size {
        16 => exchange::<Pair>(size, count),
        _ => exchange::<ipmb::BytesMessage>(size, count),
    }
}

fn exchange<T: Load + ipmb::MessageBox>(size: usize, count: u64) {
    let bus = format!("ipmb-gate.{}", std::process::id());
    let soon = Some(Duration::from_secs(60));
    // Nothing depends on how long anything takes.
    let options =
        |label: &str| ipmb::Options::new(&*bus, ipmb::label!(label), "gate").spin(Duration::ZERO);
    let (sender, _answers) = ipmb::join::<T, T>(options("sender"), soon).expect("join");
    let (_asks, receiver) = ipmb::join::<T, T>(options("receiver"), soon).expect("join");
    for batch in 0..count / BATCH {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        send(&sender, numbers.clone(), size);
        receive(&receiver, numbers, size);
    }
}

/// Callgrind counts in here, by name.
#[inline(never)]
fn send<T: Load + ipmb::MessageBox>(
    sender: &ipmb::EndpointSender<T>,
    numbers: std::ops::Range<u64>,
    size: usize,
) {
    for number in numbers {
        let selector = ipmb::Selector::unicast("receiver");
        let message = ipmb::Message::new(selector, T::make(number, size));
        sender.send(message).expect("send");
    }
}

/// Callgrind counts in here, by name.
#[inline(never)]
fn receive<T: Load + ipmb::MessageBox>(
    receiver: &ipmb::EndpointReceiver<T>,
    numbers: std::ops::Range<u64>,
    size: usize,
) {
    for number in numbers {
        let message = receiver.recv(None).expect("recv");
        assert_eq!(message.payload.check(size), number);
    }
}

/// Instructions per message of an end.
fn count(end: &str, size: usize) -> Result<f64, String> {
    let [few, many] = MESSAGES.map(|messages| instructions(end, size, messages));
    let (few, many) = (few?, many?);
    Ok((many - few) as f64 / (MESSAGES[1] - MESSAGES[0]) as f64)
}

/// Instructions in the function of an end, for so many messages.
fn instructions(end: &str, size: usize, messages: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            &format!("--toggle-collect=gate::{end}*"),
        ])
        .arg(program)
        .args(["work", &size.to_string(), &messages.to_string()])
        .output()
        .map_err(|e| format!("valgrind: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!(
            "the counted program ended with {}: {said}",
            output.status
        ));
    }
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let number = collected.and_then(|(_, number)| number.trim().parse().ok());
    match number {
        Some(number) if number > 0 => Ok(number),
        _ => Err(format!("callgrind counted nothing: {said}")),
    }
}

type Counts = BTreeMap<String, f64>;

fn count_all() -> Result<Counts, String> {
    let name = |end: &str, size| format!("{end} {size} B");
    KINDS
        .into_iter()
        .map(|(end, size)| Ok((name(end, size), count(end, size)?)))
        .collect()
}

/// What the figures depend on besides the code.
fn conditions() -> String {
    format!("{}, {}", env!("IPMB_BENCH_RUSTC"), std::env::consts::ARCH)
}

fn write(counts: &Counts) -> Result<(), String> {
    let mut text = format!(
        "# Instructions per message, counted by callgrind. Written by `cargo run --release -p ipmb-bench --bin gate -- --write`.\n\
         # {}\n",
        conditions()
    );
    for (name, count) in counts {
        text += &format!("{name}: {count:.1}\n");
    }
    print!("{text}");
    std::fs::write(FILE, text).map_err(|e| format!("{FILE}: {e}"))
}

/// The committed figures, and under what conditions they were taken.
fn read(text: &str) -> Result<(String, Counts), String> {
    let mut lines = text.lines();
    let taken = lines.nth(1).and_then(|l| l.strip_prefix("# "));
    let taken = taken.ok_or("the second line does not say of which compiler the figures are")?;
    let figure = |line: &str| {
        let (name, count) = line.split_once(": ")?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    let figures = lines.map(|line| figure(line).ok_or(format!("what is “{line}”?")));
    Ok((taken.to_owned(), figures.collect::<Result<_, _>>()?))
}

fn check() -> ExitCode {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("valgrind is missing");
        return ExitCode::from(CANNOT);
    }
    let text = std::fs::read_to_string(Path::new(FILE)).map_err(|e| format!("{FILE}: {e}"));
    let (taken, expected) = match text.and_then(|text| read(&text)) {
        Ok(read) => read,
        Err(why) => return fail(&why),
    };
    if taken != conditions() {
        eprintln!("the figures are of {taken}, this is {}", conditions());
        return ExitCode::from(CANNOT);
    }
    let counts = match count_all() {
        Ok(counts) => counts,
        Err(why) => return fail(&why),
    };
    let risen = compare(&expected, &counts);
    if risen.is_empty() {
        return ExitCode::SUCCESS;
    }
    fail(&format!(
        "more than 5 % over {FILE}: {}; find out why, or write it anew and say why",
        risen.join(", ")
    ))
}

/// What has risen too far, or is not counted any more.
fn compare(expected: &Counts, counts: &Counts) -> Vec<String> {
    let mut risen = Vec::new();
    for (name, before) in expected {
        let Some(now) = counts.get(name) else {
            risen.push(format!("{name} is not counted"));
            continue;
        };
        let percent = (now / before - 1.0) * 100.0;
        println!("{name}: {now:.1} instructions ({percent:+.1} %)");
        if *now > before * TOLERANCE {
            risen.push(name.clone());
        }
    }
    for name in counts.keys().filter(|name| !expected.contains_key(*name)) {
        risen.push(format!("{name} is not in the file"));
    }
    risen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(send: f64) -> Counts {
        Counts::from([("send 16 B".to_owned(), send)])
    }

    #[test]
    fn a_rise_of_over_five_percent_is_named() {
        assert!(compare(&counts(100.0), &counts(104.9)).is_empty());
        assert_eq!(compare(&counts(100.0), &counts(105.1)), ["send 16 B"]);
    }

    #[test]
    fn what_is_missing_on_either_side_is_named() {
        assert_eq!(compare(&counts(100.0), &Counts::new()).len(), 1);
        assert_eq!(compare(&Counts::new(), &counts(100.0)).len(), 1);
    }

    #[test]
    fn the_file_is_read_as_it_is_written() {
        let text = format!("# title\n# {}\nsend 16 B: 12.5\n", conditions());
        assert_eq!(read(&text), Ok((conditions(), counts(12.5))));
        assert!(read("# title\n# compiler\nnonsense\n").is_err());
    }

    #[test]
    fn the_committed_file_names_all_that_is_counted() {
        let text = std::fs::read_to_string(FILE).expect("the committed figures");
        let (_, expected) = read(&text).expect("figures");
        let names: Vec<String> = KINDS
            .iter()
            .map(|(end, size)| format!("{end} {size} B"))
            .collect();
        assert!(
            names.iter().all(|name| expected.contains_key(name)) && expected.len() == names.len()
        );
    }
}
