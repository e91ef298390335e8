//! Measures ipmb against bare mechanisms and other crates, in one run, in turns, and says which bars are met.
//!
//! `cargo run --release -p ipmb-bench -- [--rows P1,P3] [--peers ipmb,ring] [--rounds 5] [--calm 10] [--quick]` prints a Markdown table.
//! With `--calm`, each measurement first waits, so long at most, until nobody else uses the machine.

mod calm;
mod job;
mod peers;
mod report;
mod ring;
mod shared;

use job::{Job, Pattern};
use report::Sample;
use shared::{RINGS, Shared};
use std::{
    io::Read,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A comparison: the figure of ours over that of a peer, or the least of several peers.
struct Bar {
    against: &'static [&'static str],
    ratio: f64,
}

/// What is measured, by whom, and how good it must be.
struct Row {
    id: &'static str,
    what: &'static str,
    pattern: Pattern,
    size: usize,
    /// Each with the number of messages.
    peers: &'static [(&'static str, u64)],
    bars: &'static [Bar],
}

const fn bar(against: &'static [&'static str], ratio: f64) -> Bar {
    Bar { against, ratio }
}

const ROWS: &[Row] = &[
    Row {
        id: "P1",
        what: "one-way, 16 B struct",
        pattern: Pattern::OneWay,
        size: 16,
        peers: &[("ipmb", 4_000_000), ("ring", 8_000_000), ("0.8.5", 200_000)],
        bars: &[bar(&["ring"], 0.6), bar(&["0.8.5"], 15.0)],
    },
    Row {
        id: "P2",
        what: "round trip, 16 B struct, both hot",
        pattern: Pattern::RoundTrip,
        size: 16,
        peers: &[("ipmb", 300_000), ("ring", 300_000), ("0.8.5", 10_000)],
        bars: &[bar(&["ring"], 2.0)],
    },
    Row {
        id: "P3",
        what: "round trip, 16 B struct, 10 ms pauses",
        pattern: Pattern::Asleep,
        size: 16,
        peers: &[("ipmb", 100), ("futex", 100), ("eventfd", 100)],
        bars: &[bar(&["futex", "eventfd"], 1.25)],
    },
    Row {
        id: "P4",
        what: "one-way, 4 KiB",
        pattern: Pattern::OneWay,
        size: 4 << 10,
        peers: &[("ipmb", 500_000), ("ring", 500_000), ("0.8.5", 50_000)],
        bars: &[bar(&["ring"], 0.7), bar(&["0.8.5"], 4.0)],
    },
    Row {
        id: "P4",
        what: "one-way, 16 KiB",
        pattern: Pattern::OneWay,
        size: 16 << 10,
        peers: &[("ipmb", 150_000), ("ring", 150_000), ("0.8.5", 30_000)],
        bars: &[bar(&["ring"], 0.7), bar(&["0.8.5"], 2.0)],
    },
    Row {
        id: "P5",
        what: "one-way, 1 MiB",
        pattern: Pattern::OneWay,
        size: 1 << 20,
        peers: &[("ipmb", 2_000), ("ring", 2_000)],
        bars: &[bar(&["ring"], 0.8)],
    },
    Row {
        id: "P5",
        what: "one-way, 16 MiB",
        pattern: Pattern::OneWay,
        size: 16 << 20,
        peers: &[("ipmb", 100), ("ring", 100)],
        bars: &[bar(&["ring"], 0.8)],
    },
];

struct Arguments {
    rows: Option<Vec<String>>,
    peers: Option<Vec<String>>,
    rounds: usize,
    calm: Duration,
    quick: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments {
        rows: None,
        peers: None,
        rounds: 5,
        calm: Duration::ZERO,
        quick: false,
    };
    let mut given = std::env::args().skip(1);
    while let Some(option) = given.next() {
        let mut value = || given.next().ok_or(format!("{option} needs a value"));
        match option.as_str() {
            "--rows" => found.rows = Some(value()?.split(',').map(str::to_uppercase).collect()),
            "--peers" => found.peers = Some(value()?.split(',').map(str::to_owned).collect()),
            "--rounds" => {
                found.rounds = value()?.parse().map_err(|e| format!("--rounds: {e}"))?;
            }
            "--calm" => {
                let seconds = value()?.parse().map_err(|e| format!("--calm: {e}"))?;
                found.calm = Duration::from_secs(seconds);
            }
            "--quick" => found.quick = true,
            _ => return Err(format!("unknown option {option}")),
        }
    }
    if found.rounds == 0 {
        return Err("--rounds must be at least 1".into());
    }
    Ok(found)
}

const ROLE: &str = "IPMB_BENCH_ROLE";
/// A measurement that takes longer has lost a message.
const TIME_LIMIT: u32 = 60;

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        return child(&role);
    }
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!(
                "{message}\nusage: ipmb-bench [--rows P1,P3] [--peers ipmb,ring] [--rounds N] [--calm SECONDS] [--quick]"
            );
            std::process::exit(2);
        }
    };
    let bus = format!("ipmb-bench.{}", std::process::id());
    let mut controller = start(&format!("controller {bus}"));
    let mut joined = [0];
    let output = controller.stdout.as_mut().expect("piped");
    output
        .read_exact(&mut joined)
        .expect("the controller joins");
    report::head(arguments.rounds);
    for row in ROWS {
        let chosen = |rows: &Vec<String>| rows.iter().any(|r| r == row.id);
        if arguments.rows.as_ref().is_none_or(chosen) {
            measure(row, &arguments, &bus);
        }
    }
    let _ = controller.kill();
    let _ = controller.wait();
}

fn measure(row: &Row, arguments: &Arguments, bus: &str) {
    let mut results: Vec<Vec<Result<Sample, String>>> = Vec::new();
    results.resize_with(row.peers.len(), Vec::new);
    for round in 0..arguments.rounds {
        for (at, &(peer, count)) in row.peers.iter().enumerate() {
            let chosen = |peers: &Vec<String>| peers.iter().any(|p| p == peer);
            if !arguments.peers.as_ref().is_none_or(chosen) {
                continue;
            }
            eprint!(
                "\r{} {} {peer} {}/{}   ",
                row.id,
                row.what,
                round + 1,
                arguments.rounds
            );
            let count = if arguments.quick { count / 10 } else { count };
            let job = Job {
                peer,
                bus: match peer {
                    "0.8.5" => format!("{bus}.{}.{}.{round}", row.id, row.size),
                    _ => bus.to_owned(),
                },
                pattern: row.pattern,
                size: row.size,
                count: count.max(10),
                ring: (4 * row.size).next_power_of_two().max(1 << 20),
                events: [0; 2],
            };
            let calm = calm::wait(arguments.calm);
            results[at].push(run(job).map(|sample| Sample { calm, ..sample }));
        }
    }
    eprint!("\r{:60}\r", "");
    report::row(row, &results);
}

/// Starts the two processes of a measurement and hears what they say.
fn run(mut job: Job) -> Result<Sample, String> {
    let len = RINGS + 2 * ring::bytes(job.ring);
    let memory = shared::memfd(len);
    // SAFETY: fresh descriptors, without close-on-exec: the children inherit them.
    job.events = [0; 2].map(|_| unsafe { libc::eventfd(0, 0) });
    let role = |side: &str| {
        let [e, f] = job.events;
        let Job {
            peer,
            bus,
            size,
            count,
            ring,
            ..
        } = &job;
        let pattern = job.pattern as u8;
        start(&format!(
            "{side} {peer} {bus} {pattern} {size} {count} {ring} {e} {f} {memory}"
        ))
    };
    let (sender, receiver) = (role("sender"), role("receiver"));
    let said = [("sender", sender), ("receiver", receiver)].map(|(side, child)| {
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(format!("the {side} ended with {}", output.status));
        }
        let said = String::from_utf8_lossy(&output.stdout);
        let numbers = said.split_whitespace().map(str::parse::<u64>);
        numbers
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| e.to_string())
    });
    for fd in [memory, job.events[0], job.events[1]] {
        // SAFETY: opened above and used by nobody else here.
        unsafe { libc::close(fd) };
    }
    let [sender, receiver] = said;
    Sample::new(&job, &sender?, &receiver?)
}

fn start(role: &str) -> Child {
    let program = std::env::current_exe().expect("own path");
    Command::new(program)
        .env(ROLE, role)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a process")
}

fn child(role: &str) {
    // SAFETY: neither call takes memory.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
    let words: Vec<&str> = role.split(' ').collect();
    if let ["controller", bus] = words[..] {
        let options = ipmb::Options::new(bus, ipmb::label!("controller"), "bench");
        let _joined = ipmb::join::<(), ()>(options, None).expect("join");
        print!(".");
        std::io::Write::flush(&mut std::io::stdout()).expect("say");
        loop {
            std::thread::park();
        }
    }
    let [side, peer, bus, ref numbers @ ..] = words[..] else {
        panic!("a role that is cut: {role}");
    };
    let numbers: Vec<u64> = numbers.iter().map(|n| n.parse().expect("number")).collect();
    let [pattern, size, count, ring, e, f, memory] = numbers[..] else {
        panic!("a role that is cut: {role}");
    };
    let peers = ROWS.iter().flat_map(|row| row.peers);
    let job = Job {
        peer: peers
            .map(|p| p.0)
            .find(|p| *p == peer)
            .expect("a known peer"),
        bus: bus.to_owned(),
        pattern: [Pattern::OneWay, Pattern::RoundTrip, Pattern::Asleep][pattern as usize],
        size: size as usize,
        count,
        ring: ring as usize,
        events: [e as i32, f as i32],
    };
    // Shown by perf and ps.
    let name = std::ffi::CString::new(format!("{peer}-{side}")).expect("no zero");
    // SAFETY: a string with a NUL; and a signal that ends a process that waits in vain.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        libc::alarm(TIME_LIMIT);
    }
    let shared = Shared::map(memory as i32, RINGS + 2 * ring::bytes(job.ring));
    println!("{}", job.play(&shared, side == "sender"));
}
