//! Prints what a bus costs while nothing happens: memory, descriptors, threads and CPU time per process, endpoint, link and
//! parked message, at 2, 100 and 1,000 endpoints. `--write` puts the table into `docs/costs.md` as well.

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
    /// A process, besides its endpoints.
    process: [f64; 4],
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
    order(&mut host, &Task::Prepare)?;
    order(&mut host, &Task::Join(1))?;
    // What a process needs once is counted apart. All are there before the first is looked at: pages that they share are divided.
    let mut crowd = Vec::new();
    let mut once = [0.0; 4];
    for index in 1..=(size - 1).div_ceil(EACH) {
        let mut actor = start(&bus, index)?;
        let bare = holdings(&actor)?;
        order(&mut actor, &Task::Prepare)?;
        add(&mut once, holdings(&actor)?.since(bare));
        crowd.push(actor);
    }
    let before_crowd = holdings(&host)?;
    let before = crowd.iter().map(holdings).collect::<Result<Vec<_>, _>>()?;
    let mut left = size - 1;
    for actor in &mut crowd {
        let now = left.min(EACH);
        order(actor, &Task::Join(now))?;
        left -= now;
    }
    std::thread::sleep(Duration::from_millis(500));
    let mut grown = [0.0; 4];
    let mut threads = 0;
    for (actor, before) in crowd.iter().zip(before) {
        let after = holdings(actor)?;
        threads = threads.max(after.threads - 1);
        add(&mut grown, after.since(before));
    }
    let others = (size - 1) as f64;
    let controller = holdings(&host)?.since(before_crowd).map(|v| v / others);
    // Links from an endpoint in one process to those in another.
    let mut sender = start(&bus, 1_000)?;
    order(&mut sender, &Task::Prepare)?;
    order(&mut sender, &Task::Join(1))?;
    let linked = crowd[0].pid();
    let links = (size - 1).min(EACH);
    let before = [holdings(&sender)?, Holdings::of(linked)?];
    order(&mut sender, &Task::Greet(1, links))?;
    order(&mut crowd[0], &Task::Take)?;
    let after = [holdings(&sender)?, Holdings::of(linked)?];
    let per_link = |side: usize| after[side].since(before[side]).map(|v| v / links as f64);
    let (link_sender, link_receiver) = (per_link(0), per_link(1));
    let before = holdings(&sender)?;
    order(&mut sender, &Task::Park(PARKED, PAYLOAD))?;
    let parked = holdings(&sender)?.since(before)[0] / PARKED as f64;
    // Nothing happens any more.
    std::thread::sleep(Duration::from_secs(1));
    let watched: Vec<u32> = crowd
        .iter()
        .map(Actor::pid)
        .chain([host.pid(), sender.pid()])
        .collect();
    let spent = || -> Result<u64, String> {
        let mut sum = 0;
        for pid in &watched {
            sum += Usage::of(*pid)?.cpu_ns;
        }
        Ok(sum)
    };
    let then = spent()?;
    std::thread::sleep(WATCHED);
    let processes = crowd.len() as f64;
    Ok(Costs {
        process: once.map(|v| v / processes),
        endpoint: grown.map(|v| v / others),
        controller,
        link_sender,
        link_receiver,
        parked,
        threads,
        cpu_ns: spent()? - then,
    })
}

fn add(sum: &mut [f64; 4], more: [f64; 4]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

/// A row of the table: its name, how a value is shown, and the value.
type Shown<'a> = (&'a str, fn(f64) -> String, fn(&Costs) -> f64);

fn table(costs: &[Costs]) -> String {
    let kib: fn(f64) -> String = |bytes| format!("{:.1} KiB", bytes / 1024.0);
    let tenths: fn(f64) -> String = |number| format!("{number:.1}");
    let of_each_endpoint: [Shown; 10] = [
        (
            "an idle endpoint: resident memory of its process",
            kib,
            |c| c.endpoint[0],
        ),
        (
            "the same, shared pages divided among their users",
            kib,
            |c| c.endpoint[1],
        ),
        (
            "an idle endpoint: descriptors of its process",
            tenths,
            |c| c.endpoint[2],
        ),
        (
            "an idle endpoint: resident memory of the controller's process",
            kib,
            |c| c.controller[0],
        ),
        (
            "an idle endpoint: descriptors of the controller's process",
            tenths,
            |c| c.controller[2],
        ),
        (
            "a link: resident memory of the sender's process",
            kib,
            |c| c.link_sender[0],
        ),
        (
            "a link: resident memory of the receiver's process",
            kib,
            |c| c.link_receiver[0],
        ),
        ("a link: descriptors of the sender's process", tenths, |c| {
            c.link_sender[2]
        }),
        (
            "a link: descriptors of the receiver's process",
            tenths,
            |c| c.link_receiver[2],
        ),
        (
            "a parked message of 100 B: resident memory of its sender's process",
            |bytes| format!("{bytes:.0} B"),
            |c| c.parked,
        ),
    ];
    let of_each_process: [Shown; 3] = [
        (
            "a process with endpoints, besides them: resident memory",
            kib,
            |c| c.process[0],
        ),
        (
            "threads of a process with endpoints, besides its own",
            |n| n.to_string(),
            |c| c.threads as f64,
        ),
        (
            "CPU time of all processes in 5 s without activity",
            |ns| format!("{ns} ns"),
            |c| c.cpu_ns as f64,
        ),
    ];
    let mut text = String::from("\n| on a bus of so many endpoints |");
    for size in SIZES {
        let _ = write!(text, " {size} |");
    }
    text += " growth with the endpoints |\n|---|--:|--:|--:|---|\n";
    let rows = of_each_endpoint.iter().map(|row| (row, true));
    let rows = rows.chain(of_each_process.iter().map(|row| (row, false)));
    for ((name, show, value), of_endpoint) in rows {
        let values: Vec<f64> = costs.iter().map(value).collect();
        let _ = write!(text, "| {name} |");
        for value in &values {
            let _ = write!(text, " {} |", show(*value));
        }
        let growth = growth(&values);
        // What each endpoint costs grows by one power more when all are added up.
        let together = match growth {
            "flat" if of_endpoint => " (all endpoints together: linear)",
            "linear" if of_endpoint => " (all endpoints together: quadratic)",
            _ => "",
        };
        let _ = writeln!(text, " {growth}{together} |");
    }
    text + "\n"
}

/// How a cost grows with the number of endpoints.
fn growth(values: &[f64]) -> &'static str {
    let [_, middle, last] = values[..] else {
        return "";
    };
    match last / middle {
        _ if middle.abs() < 0.5 && last.abs() < 0.5 => "none at all",
        ratio if ratio < 2.0 => "flat",
        ratio if ratio < 15.0 => "linear",
        _ => "more than linear",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_named_by_the_ratio_from_100_to_1000() {
        assert_eq!(growth(&[9.0, 10.0, 11.0]), "flat");
        assert_eq!(growth(&[1.0, 10.0, 100.0]), "linear");
        assert_eq!(growth(&[1.0, 10.0, 1000.0]), "more than linear");
        assert_eq!(growth(&[0.0, 0.0, 0.0]), "none at all");
    }
}
