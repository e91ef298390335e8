//! A storm: 20 endpoints under mixed load, of which random ones, the controller's included, are killed, stopped and
//! restarted, while seven that are never killed must lose nothing.
//!
//! Every message has its sender, its number and checksums; senders and receivers write down what they sent and received
//! in a memory that outlives them. Ends with an error that says what was violated, if something was.
//!
//! ```text
//! ipmb-storm [--seed N] [--seconds S] [--kills N --controllers N --awkward N --messages N] [--log]
//! ```
//!
//! It runs for so many seconds, or until all the counts are reached. The same seed gives the same deeds in the same order;
//! when exactly they hit is the machine's affair.

mod board;
mod chance;
mod collector;
mod conductor;
mod member;
mod note;
mod open;
mod probe;
mod report;
mod seat;
mod traffic;

use board::Board;
use conductor::{Broken, Conductor};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// How long a storm lasts, by default.
const SECONDS: u64 = 60;

#[derive(Debug, Clone, Copy)]
struct Goal {
    seed: u64,
    seconds: u64,
    kills: u64,
    controllers: u64,
    awkward: u64,
    messages: u64,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|w| w == "member") {
        return match member(&words[1..]) {
            Some(()) => ExitCode::SUCCESS,
            None => ExitCode::FAILURE,
        };
    }
    let Some(goal) = arguments(&words) else {
        eprintln!(
            "usage: ipmb-storm [--seed N] [--seconds S] [--kills N] [--controllers N] [--awkward N] [--messages N] [--log]"
        );
        return ExitCode::from(2);
    };
    if words.iter().any(|w| w == "--log") {
        // SAFETY: this process has one thread.
        unsafe { std::env::set_var("STORM_LOG", "1") };
    }
    println!("seed {}", goal.seed);
    match storm(goal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(broken) => {
            println!("VIOLATED (seed {}):\n{broken}", goal.seed);
            ExitCode::FAILURE
        }
    }
}

fn arguments(words: &[String]) -> Option<Goal> {
    let mut goal = Goal {
        seed: board::now(),
        seconds: SECONDS,
        kills: 0,
        controllers: 0,
        awkward: 0,
        messages: 0,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let field = match word.as_str() {
            "--seed" => &mut goal.seed,
            "--seconds" => &mut goal.seconds,
            "--kills" => &mut goal.kills,
            "--controllers" => &mut goal.controllers,
            "--awkward" => &mut goal.awkward,
            "--messages" => &mut goal.messages,
            "--log" => continue,
            _ => return None,
        };
        *field = words.next()?.parse().ok()?;
    }
    Some(goal)
}

/// Plays one member, as the conductor says.
fn member(words: &[String]) -> Option<()> {
    // SAFETY: no pointers. Nobody is left behind when the conductor dies.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let [bus, slot, incarnation, seed, fd] = words else {
        return None;
    };
    let board = Board::open(fd.parse().ok()?).ok()?;
    let place = member::Place {
        board,
        bus: bus.clone().leak(),
        slot: slot.parse().ok()?,
        incarnation: incarnation.parse().ok()?,
        seed: seed.parse().ok()?,
    };
    if std::env::var_os("STORM_LOG").is_some() {
        Log::set(format!("{slot}.{incarnation}"));
    }
    member::run(place);
    Some(())
}

fn storm(goal: Goal) -> Result<(), Broken> {
    let (board, fd) = Board::create().map_err(|e| format!("no board: {e}"))?;
    let bus = format!("storm.{}", std::process::id());
    let mut conductor =
        Conductor::new(board, std::os::fd::AsRawFd::as_raw_fd(&fd), &bus, goal.seed);
    let result = conduct(goal, board, &mut conductor);
    if let Err(broken) = result {
        // What else was seen at the same time.
        std::thread::sleep(Duration::from_millis(300));
        let all = board.violations().join("\n");
        return Err(if broken == all {
            all
        } else {
            format!("{broken}\n{all}")
        });
    }
    drop(conductor);
    let left = seat::names(&bus);
    match left.is_empty() {
        true => Ok(()),
        false => Err(format!("names were left behind: {left:?}")),
    }
}

fn conduct(goal: Goal, board: &'static Board, conductor: &mut Conductor) -> Result<(), Broken> {
    let begin = Instant::now();
    conductor.start()?;
    conductor.calm()?;
    let before = balance(board, conductor, None)?;
    println!("before: {}", report::sums(&before));
    conductor.resume();
    conductor.rest(Duration::from_secs(1))?;
    for _ in 0..5 {
        conductor.prober.probe_calm()?;
    }
    let counted = goal.kills + goal.messages > 0;
    let mut last = begin;
    loop {
        conductor.deed()?;
        let pause = conductor.pause(Duration::from_millis(250));
        conductor.rest(pause)?;
        let messages = report::between_survivors(board);
        let deeds = &conductor.deeds;
        if last.elapsed() > Duration::from_secs(10) {
            last = Instant::now();
            let (kills, controllers) = (deeds.kills, deeds.controllers);
            println!(
                "{:.0?}: {kills} kills, {controllers} of the controller, {messages} messages",
                begin.elapsed()
            );
        }
        let reached = deeds.kills >= goal.kills
            && deeds.controllers >= goal.controllers
            && deeds.awkward >= goal.awkward
            && messages >= goal.messages;
        let over = begin.elapsed() >= Duration::from_secs(goal.seconds);
        if counted && reached || !counted && over {
            break;
        }
    }
    conductor.calm()?;
    let after = balance(board, conductor, Some(&before))?;
    println!("after:  {}", report::sums(&after));
    conductor.finish()?;
    let left = report::count(board);
    println!("after all had left: {}", report::sums(&left));
    let words = report::last_words(board, conductor)?;
    report::print(board, conductor, &words);
    report::pool(board, conductor)?;
    println!("took {:.0?}", begin.elapsed());
    match report::missing_kinds(board) {
        none if none.is_empty() => Ok(()),
        missing => Err(format!("no messages of these kinds were sent: {missing:?}")),
    }
}

/// What the survivors have open while all is quiet: as `before`, or they have leaked something.
fn balance(
    board: &'static Board,
    conductor: &mut Conductor,
    before: Option<&[report::Count]>,
) -> Result<Vec<report::Count>, Broken> {
    let start = Instant::now();
    conductor.rest(Duration::from_secs(1))?;
    loop {
        conductor.rest(Duration::from_millis(200))?;
        let now = report::count(board);
        let Some(before) = before else {
            return Ok(now);
        };
        let leaks = report::unbalanced(before, &now);
        if leaks.is_empty() {
            return Ok(now);
        }
        if start.elapsed() > Duration::from_secs(10) {
            return Err(leaks.join("\n"));
        }
    }
}

/// What the library logs, with the member's name and the time.
struct Log(String);

impl Log {
    fn set(name: String) {
        if log::set_logger(Box::leak(Box::new(Self(name)))).is_ok() {
            log::set_max_level(log::LevelFilter::Debug);
        }
    }
}

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let (now, name) = (board::now() / 1000, &self.0);
        eprintln!("{now} {name} {} {}", record.level(), record.args());
    }

    fn flush(&self) {}
}
