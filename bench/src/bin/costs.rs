//! Prints what a bus costs while nothing happens: memory, descriptors, threads and CPU time per endpoint, per link and
//! per parked message, at 2, 100 and 1,000 endpoints. `--write` puts the table into `docs/costs.md` as well.

use ipmb_bench::{
    process::{self, Actor},
    rows::{
        Role,
        costs::{Job, Task},
        crowd::Holdings,
    },
    usage::Usage,
};
use std::{fmt::Write, process::ExitCode, time::Duration};

const SIZES: [usize; 3] = [2, 100, 1_000];
/// Endpoints in one process.
const EACH: usize = 50;
/// Parked messages, and the bytes of each.
const PARKED: usize = 1_000;
const PAYLOAD: usize = 100;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/costs.md");
/// How long an idle bus is watched.
const WATCHED: Duration = Duration::from_secs(5);

/// Costs on a bus of some size.
struct Costs {
    endpoint: [f64; 4],
    controller: [f64; 4],
    link_sender: [f64; 4],
    link_receiver: [f64; 4],
    parked: f64,
    threads: u64,
    cpu_ns: u64,
}

fn main() -> ExitCode {
    if process::play_if_child() {
        return ExitCode::SUCCESS;
    }
    let writes = std::env::args().any(|a| a == "--write");
    let mut costs = Vec::new();
    for size in SIZES {
        eprintln!("{size} endpoints");
        match measure(size) {
            Ok(found) => costs.push(found),
            Err(why) => {
                eprintln!("{size} endpoints: {why}");
                return ExitCode::FAILURE;
            }
        }
    }
    let text = table(&costs);
    print!("{text}");
    if writes {
        let file = std::fs::read_to_string(FILE).unwrap_or_default();
        let head = file.split(BEGIN).next().unwrap_or_default();
        let tail = file.split(END).nth(1).unwrap_or_default();
        if let Err(e) = std::fs::write(FILE, format!("{head}{BEGIN}\n{text}{END}{tail}")) {
            eprintln!("{FILE}: {e}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Between these lines of the file stands what this program wrote.
const BEGIN: &str = "<!-- written by the program `costs` -->";
const END: &str = "<!-- end -->";

/// A process that was told something and has done it.
fn start(bus: &str, index: usize) -> Result<Actor, String> {
    let job = Job {
        bus: bus.into(),
        index,
    };
    let limit = Duration::from_secs(200);
    let mut actor = Actor::start_under(&[], &Role::Costs(job), limit)?;
    actor.ready()?;
    Ok(actor)
}

fn order(actor: &mut Actor, task: &Task) -> Result<(), String> {
    actor.tell(&serde_json::to_string(task).map_err(|e| e.to_string())?)?;
    actor.ready()
}

fn measure(size: usize) -> Result<Costs, String> {
    let bus = format!("ipmb-costs.{}.{size}", std::process::id());
    let holdings = |actor: &Actor| Holdings::of(actor.pid());
    // The controller is an endpoint of the bus too, alone in its process.
    let mut host = start(&bus, 0)?;
    order(&mut host, &Task::Join(1))?;
    let before_crowd = holdings(&host);
    let mut crowd = Vec::new();
    let mut left = size - 1;
    let mut grown = [0.0; 4];
    let mut threads = 0;
    while left > 0 {
        let now = left.min(EACH);
        let mut actor = start(&bus, crowd.len() + 1)?;
        // A process has a thread with its first endpoint: that is counted apart.
        order(&mut actor, &Task::Prepare)?;
        let before = holdings(&actor);
        order(&mut actor, &Task::Join(now))?;
        crowd.push((actor, before));
        left -= now;
    }
    std::thread::sleep(Duration::from_millis(500));
    for (actor, before) in &crowd {
        let after = holdings(actor);
        threads = threads.max(after.threads - 1);
        for (sum, more) in grown.iter_mut().zip(after.since(*before)) {
            *sum += more;
        }
    }
    let others = (size - 1) as f64;
    let controller = holdings(&host).since(before_crowd).map(|v| v / others);
    // Links from an endpoint in one process to those in another.
    let mut sender = start(&bus, 1_000)?;
    order(&mut sender, &Task::Join(1))?;
    let linked = crowd[0].0.pid();
    let links = (size - 1).min(EACH);
    let before = [holdings(&sender), Holdings::of(linked)];
    order(&mut sender, &Task::Greet(1, links))?;
    order(&mut crowd[0].0, &Task::Take)?;
    let after = [holdings(&sender), Holdings::of(linked)];
    let per_link = |side: usize| after[side].since(before[side]).map(|v| v / links as f64);
    let (link_sender, link_receiver) = (per_link(0), per_link(1));
    let before = holdings(&sender);
    order(&mut sender, &Task::Park(PARKED, PAYLOAD))?;
    let parked = holdings(&sender).since(before)[0] / PARKED as f64;
    // Nothing happens any more.
    std::thread::sleep(Duration::from_secs(1));
    let watched: Vec<u32> = crowd
        .iter()
        .map(|c| c.0.pid())
        .chain([host.pid()])
        .collect();
    let spent = || {
        watched
            .iter()
            .map(|pid| Usage::of(*pid).cpu_ns)
            .sum::<u64>()
    };
    let then = spent();
    std::thread::sleep(WATCHED);
    Ok(Costs {
        endpoint: grown.map(|v| v / others),
        controller,
        link_sender,
        link_receiver,
        parked,
        threads,
        cpu_ns: spent() - then,
    })
}

fn table(costs: &[Costs]) -> String {
    let mut text = String::from("\n| on a bus of so many endpoints |");
    for size in SIZES {
        let _ = write!(text, " {size} |");
    }
    text += " growth with the endpoints |\n|---|--:|--:|--:|---|\n";
    let mut row = |name: &str, show: &dyn Fn(&Costs) -> String, values: &dyn Fn(&Costs) -> f64| {
        let _ = write!(text, "| {name} |");
        for cost in costs {
            let _ = write!(text, " {} |", show(cost));
        }
        let all: Vec<f64> = costs.iter().map(values).collect();
        let _ = writeln!(text, " {} |", growth(&all));
    };
    let kib = |bytes: f64| format!("{:.1} KiB", bytes / 1024.0);
    let number = |value: f64| format!("{value:.1}");
    row(
        "an idle endpoint: resident memory of its process",
        &|c| kib(c.endpoint[0]),
        &|c| c.endpoint[0],
    );
    row(
        "the same, shared pages divided among their users",
        &|c| kib(c.endpoint[1]),
        &|c| c.endpoint[1],
    );
    row(
        "an idle endpoint: descriptors of its process",
        &|c| number(c.endpoint[2]),
        &|c| c.endpoint[2],
    );
    row(
        "an idle endpoint: resident memory of the controller's process",
        &|c| kib(c.controller[0]),
        &|c| c.controller[0],
    );
    row(
        "an idle endpoint: descriptors of the controller's process",
        &|c| number(c.controller[2]),
        &|c| c.controller[2],
    );
    row(
        "a link: resident memory of the sender's process",
        &|c| kib(c.link_sender[0]),
        &|c| c.link_sender[0],
    );
    row(
        "a link: resident memory of the receiver's process",
        &|c| kib(c.link_receiver[0]),
        &|c| c.link_receiver[0],
    );
    row(
        "a link: descriptors of the sender's process",
        &|c| number(c.link_sender[2]),
        &|c| c.link_sender[2],
    );
    row(
        "a link: descriptors of the receiver's process",
        &|c| number(c.link_receiver[2]),
        &|c| c.link_receiver[2],
    );
    row(
        "a parked message of 100 B: resident memory of its sender's process",
        &|c| format!("{:.0} B", c.parked),
        &|c| c.parked,
    );
    row(
        "threads of a process with endpoints, besides its own",
        &|c| c.threads.to_string(),
        &|c| c.threads as f64,
    );
    row(
        "CPU time of all processes in 5 s without activity",
        &|c| format!("{} ns", c.cpu_ns),
        &|c| c.cpu_ns as f64,
    );
    text + "\n"
}

/// How a cost per endpoint grows with their number: the total grows by one power more.
fn growth(values: &[f64]) -> &'static str {
    let [_, middle, last] = values[..] else {
        return "";
    };
    match last / middle {
        _ if middle.abs() < 0.5 && last.abs() < 0.5 => "none at all",
        ratio if ratio < 2.0 => "flat (all endpoints together: linear)",
        ratio if ratio < 15.0 => "linear (all endpoints together: quadratic)",
        _ => "more than linear",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_named_by_the_ratio_from_100_to_1000() {
        assert_eq!(
            growth(&[9.0, 10.0, 11.0]),
            "flat (all endpoints together: linear)"
        );
        assert_eq!(
            growth(&[1.0, 10.0, 100.0]),
            "linear (all endpoints together: quadratic)"
        );
        assert_eq!(growth(&[1.0, 10.0, 1000.0]), "more than linear");
        assert_eq!(growth(&[0.0, 0.0, 0.0]), "none at all");
    }
}
