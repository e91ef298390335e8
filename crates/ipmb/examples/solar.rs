//! A tour of the bus: `cargo run --release --example solar`.
//!
//! The program starts itself several more times; each of these processes joins the same bus in the role that the
//! variable `SOLAR_ROLE` gives it. The first process directs them through pipes, prints what they report, and fails
//! with a clear line if something that it announced did not happen.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use ipmb::{
    BytesMessage, EndpointReceiver, EndpointSender, Label, LabelOp, MemoryRegion, Message,
    MessageBox, Object, Options, Selector, TypeUuid, label,
};
use serde::{Deserialize, Serialize};
use std::{
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

// What a received object becomes: the system's own type.
#[cfg(unix)]
use std::os::fd::OwnedFd as OwnedObject;
#[cfg(windows)]
use std::os::windows::io::OwnedHandle as OwnedObject;

/// A type of our own. The UUID tells receivers what it is.
#[derive(Debug, Serialize, Deserialize, TypeUuid)]
#[uuid = "6f3c0ad4-3a0e-4d0c-9f3b-0a8d54c1e2b7"]
struct Position {
    x: i32,
    y: i32,
}

/// What an endpoint sends and receives: any of these types.
#[derive(Debug, MessageBox)]
enum Mail {
    Text(String),
    Position(Position),
    Bytes(BytesMessage),
    Tick(u64),
}

fn main() -> ExitCode {
    if let (Ok(role), Ok(bus)) = (env::var("SOLAR_ROLE"), env::var("SOLAR_BUS")) {
        Member::play(role, &bus);
        return ExitCode::SUCCESS;
    }
    match direct() {
        Ok(()) => ExitCode::SUCCESS,
        Err(missing) => {
            eprintln!("\nFAILED: {missing}");
            ExitCode::FAILURE
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The members of the bus

fn label_of(role: &str) -> Label {
    match role {
        "sun" => label!("sun", "star"),
        "earth" => label!("earth", "planet", "water"),
        "mars" => label!("mars", "planet", "rock"),
        "moon" => label!("moon", "rock"),
        "comet" => label!("comet", "visitor"),
        _ => label!("probe", "visitor"),
    }
}

/// What the two threads of a member share: one carries out orders, one receives.
struct Member {
    role: String,
    sender: EndpointSender<Mail>,
    /// The region that was sent away and that its receiver is going to change.
    region: Mutex<Option<MemoryRegion>>,
    /// How many ticks went to the moon and came back.
    rounds: Mutex<u64>,
    more_rounds: Condvar,
}

fn report(line: &str) {
    println!("{line}");
}

impl Member {
    fn play(role: String, bus: &str) {
        let options = Options::new(bus, label_of(&role), "");
        let (sender, receiver) =
            ipmb::join::<Mail, Mail>(options, Some(Duration::from_secs(5))).expect("join the bus");
        let member = Arc::new(Self {
            role,
            sender,
            region: Mutex::new(None),
            rounds: Mutex::new(0),
            more_rounds: Condvar::new(),
        });
        report("joined");
        // The comet has a receiver, but never takes a message out of it.
        let _idle = if member.role == "comet" {
            Some(receiver)
        } else {
            let member = member.clone();
            thread::spawn(move || member.receive(&receiver));
            None
        };
        for order in io::stdin().lines() {
            member.obey(&order.expect("read an order"));
        }
        // The receiving thread ends with the process. Whoever could not leave in time is missed a moment later.
        if let Err(error) = member.sender.leave(Some(Duration::from_secs(1))) {
            eprintln!("{} left without good-bye: {error}", member.role);
        }
    }

    fn send(&self, selector: Selector, mail: Mail) {
        self.sender
            .send(Message::new(selector, mail))
            .expect("send a message");
    }

    fn text(&self, selector: Selector, text: &str) {
        self.send(selector, Mail::Text(text.to_owned()));
    }

    fn obey(self: &Arc<Self>, order: &str) {
        match order {
            "types" => {
                let moon = || Selector::unicast("moon");
                self.text(moon(), "hello moon");
                self.send(moon(), Mail::Position(Position { x: 384, y: -400 }));
                let data = vec![1, 2, 3];
                self.send(moon(), Mail::Bytes(BytesMessage { format: 7, data }));
            }
            "multicast" => {
                let leaf = |part: &str| LabelOp::from(part);
                let and = leaf("planet").and("rock");
                self.text(Selector::multicast(and), "to planet AND rock");
                let or = leaf("star").or("water");
                self.text(Selector::multicast(or), "to star OR water");
                self.text(Selector::multicast(!leaf("planet")), "to NOT planet");
                self.text(Selector::multicast(LabelOp::True), "to everybody");
            }
            "file" => {
                let path = env::temp_dir().join(format!("solar.{}", std::process::id()));
                fs::write(&path, "written before it was sent").expect("write a file");
                let file = File::open(&path).expect("open the file");
                fs::remove_file(&path).expect("remove the file's name");
                let mail = Mail::Text("a file".to_owned());
                let mut message = Message::new(Selector::unicast("moon"), mail);
                message.objects.push(Object::from(file));
                self.sender.send(message).expect("send the file");
            }
            "region" => {
                let mut region = MemoryRegion::new(1 << 20);
                region.map(..5).expect("map the region")[..].copy_from_slice(b"earth");
                let mail = Mail::Text("a region".to_owned());
                let mut message = Message::new(Selector::unicast("moon"), mail);
                let copy = region.clone().expect("a second handle");
                message.memory_regions.push(copy);
                *self.region.lock().unwrap() = Some(region);
                self.sender.send(message).expect("send the region");
            }
            "traffic" => {
                self.send(Selector::unicast("moon"), Mail::Tick(0));
            }
            "more traffic" => {
                let mut rounds = self.rounds.lock().unwrap();
                let (before, start) = (*rounds, Instant::now());
                while *rounds < before + 300 {
                    rounds = self.more_rounds.wait(rounds).unwrap();
                }
                let took = start.elapsed().as_micros();
                report("ticks went to the moon and back");
                report(&format!(
                    "({} rounds so far, the last {} in {took} µs)",
                    *rounds,
                    *rounds - before
                ));
            }
            "end traffic" => *self.rounds.lock().unwrap() = u64::MAX,
            "park" => {
                let mut selector = Selector::unicast("probe");
                selector.ttl = Duration::from_secs(60);
                self.text(selector, "welcome, probe");
                report(&format!("parked {}", self.sender.stats().parked));
            }
            "visitors" => {
                for n in 1..=3 {
                    self.text(
                        Selector::unicast("visitor"),
                        &format!("visitor's guide {n}"),
                    );
                }
                report("sent 3 messages to a visitor");
            }
            other => panic!("the order {other:?} is unknown"),
        }
    }

    fn receive(&self, receiver: &EndpointReceiver<Mail>) {
        for message in receiver {
            let mut message = message.expect("receive a message");
            match &message.payload {
                Mail::Tick(n) => self.tick(*n),
                Mail::Text(text) => report(&format!("received {text:?}")),
                Mail::Position(position) => report(&format!("received {position:?}")),
                Mail::Bytes(bytes) => report(&format!("received {bytes:?}")),
            }
            if let Some(object) = message.objects.pop() {
                let mut text = String::new();
                #[allow(clippy::unnecessary_fallible_conversions)] // On macOS it can be a port.
                let file = OwnedObject::try_from(object).expect("a file");
                File::from(file)
                    .read_to_string(&mut text)
                    .expect("read the file");
                report(&format!("read {text:?} from the file"));
            }
            if let Some(mut region) = message.memory_regions.pop() {
                let data = region.map(..5).expect("map the region");
                report(&format!("found {:?} in it", String::from_utf8_lossy(data)));
                data.copy_from_slice(b"moon!");
                self.text(Selector::unicast("earth"), "look again");
            } else if let Some(mut region) = self.region.lock().unwrap().take() {
                let data = region.map(..5).expect("map the region");
                report(&format!("now finds {:?}", String::from_utf8_lossy(data)));
            }
        }
    }

    /// The moon returns ticks; the earth counts them and sends the next.
    fn tick(&self, n: u64) {
        if self.role == "moon" {
            return self.send(Selector::unicast("earth"), Mail::Tick(n));
        }
        let mut rounds = self.rounds.lock().unwrap();
        if *rounds == u64::MAX {
            return report("ends the game");
        }
        assert_eq!(n, *rounds, "a tick was lost or came twice");
        *rounds += 1;
        self.more_rounds.notify_one();
        drop(rounds);
        self.send(Selector::unicast("moon"), Mail::Tick(n + 1));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The director

/// Everything must have happened within this time.
const PATIENCE: Duration = Duration::from_secs(8);

/// A line that a member reported; `None` when it has ended.
type Report = (&'static str, Option<String>);

struct Director {
    bus: String,
    deadline: Instant,
    members: Vec<(&'static str, Child)>,
    reporter: Option<Sender<Report>>,
    reports: Receiver<Report>,
    /// What was reported and not looked at yet.
    seen: Vec<(&'static str, String)>,
}

fn heading(text: &str) {
    println!("\n{text}");
}

fn direct() -> Result<(), String> {
    let (reporter, reports) = mpsc::channel();
    let mut solar = Director {
        bus: format!("com.solar.{}", std::process::id()),
        deadline: Instant::now() + PATIENCE,
        members: Vec::new(),
        reporter: Some(reporter),
        reports,
        seen: Vec::new(),
    };

    heading(
        "1. Joining\n   Four processes join one bus by its name. The first, the sun, becomes its controller: it \
         introduces the others\n   to each other, and messages then go directly between them.",
    );
    for role in ["sun", "earth", "mars", "moon"] {
        solar.start(role)?;
    }

    heading(
        "2. Unicast, several types\n   The earth sends a string, a struct and bytes to whoever is labelled \"moon\". \
         They arrive typed and in order.",
    );
    solar.order("earth", "types")?;
    solar.expect("moon", "received \"hello moon\"")?;
    solar.expect("moon", "received Position { x: 384, y: -400 }")?;
    solar.expect(
        "moon",
        "received BytesMessage { format: 7, data: [1, 2, 3] }",
    )?;

    heading(
        "3. Multicast\n   A selector is an expression over labels; everybody who matches gets the message, the sender \
         too.\n   sun: star; earth: planet, water; mars: planet, rock; moon: rock.",
    );
    solar.order("earth", "multicast")?;
    for (role, texts) in [
        ("mars", &["to planet AND rock"][..]),
        ("sun", &["to star OR water", "to NOT planet"]),
        ("earth", &["to star OR water"]),
        ("moon", &["to NOT planet"]),
    ] {
        // The last one goes to everybody. Messages of one sender keep their order: nothing else came before it.
        for text in texts.iter().chain(&["to everybody"]) {
            solar.expect(role, &format!("received {text:?}"))?;
        }
    }

    heading(
        "4. A file\n   The earth opens a file and sends the open file along with a message. The moon reads it; its \
         name is gone already.",
    );
    solar.order("earth", "file")?;
    solar.expect("moon", "received \"a file\"")?;
    solar.expect("moon", "read \"written before it was sent\" from the file")?;

    heading(
        "5. A memory region\n   The earth writes into memory and sends it, which copies nothing. The moon reads it and \
         writes into it, and\n   the earth sees that.",
    );
    solar.order("earth", "region")?;
    solar.expect("moon", "received \"a region\"")?;
    solar.expect("moon", "found \"earth\" in it")?;
    solar.expect("earth", "received \"look again\"")?;
    solar.expect("earth", "now finds \"moon!\"")?;

    heading(
        "6. The controller is killed\n   Earth and moon play ping-pong with numbers when the sun, the controller, is \
         killed. They do not notice: no\n   number is lost. Another member becomes controller.",
    );
    solar.order("earth", "traffic")?;
    for killed in [false, true] {
        if killed {
            solar.kill("sun")?;
        }
        solar.order("earth", "more traffic")?;
        solar.expect("earth", "ticks went to the moon and back")?;
        solar.next("earth", "counts the ticks")?;
    }

    solar.order("earth", "end traffic")?;
    solar.expect("earth", "ends the game")?;

    heading(
        "7. A message that waits\n   The earth writes to a probe that does not exist yet. The message has a time to \
         live, so it waits. A comet joins,\n   then the probe, which gets it. That they can join shows that there is \
         a new controller.",
    );
    solar.order("earth", "park")?;
    solar.expect("earth", "parked 1")?;
    solar.start("comet")?;
    solar.start("probe")?;
    solar.expect("probe", "received \"welcome, probe\"")?;

    heading(
        "8. A receiver is killed\n   Comet and probe are both visitors. A unicast goes to the one that joined first, \
         the comet. It is killed before\n   it takes its messages; they go to the probe.",
    );
    solar.order("earth", "visitors")?;
    solar.expect("earth", "sent 3 messages to a visitor")?;
    solar.kill("comet")?;
    for n in 1..=3 {
        solar.expect("probe", &format!("received \"visitor's guide {n}\""))?;
    }

    heading(
        "9. Leaving\n   The others leave the bus one after the other and end. A controller that leaves hands its role \
         over.",
    );
    solar.end()?;
    println!("\nEverything happened as announced.");
    Ok(())
}

impl Director {
    fn start(&mut self, role: &'static str) -> Result<(), String> {
        let mut child = Command::new(env::current_exe().map_err(|e| e.to_string())?)
            .env("SOLAR_ROLE", role)
            .env("SOLAR_BUS", &self.bus)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{role} did not start: {e}"))?;
        let output = child.stdout.take();
        self.members.push((role, child));
        let reporter = self.reporter.clone();
        thread::spawn(move || {
            let reporter = reporter?;
            for line in BufReader::new(output?).lines().map_while(Result::ok) {
                reporter.send((role, Some(line))).ok()?;
            }
            reporter.send((role, None)).ok()
        });
        self.expect(role, "joined")
    }

    fn child(&mut self, role: &str) -> Result<&mut Child, String> {
        let mut members = self.members.iter_mut();
        members
            .find_map(|(r, child)| (*r == role).then_some(child))
            .ok_or_else(|| format!("{role} is not running"))
    }

    fn order(&mut self, role: &str, order: &str) -> Result<(), String> {
        let input = self.child(role)?.stdin.as_mut();
        let input = input.ok_or_else(|| format!("{role} is ending"))?;
        writeln!(input, "{order}").map_err(|e| format!("{role} does not listen: {e}"))
    }

    fn kill(&mut self, role: &str) -> Result<(), String> {
        let child = self.child(role)?;
        let killed = child.kill().and_then(|()| child.wait());
        killed.map_err(|e| format!("{role} was not killed: {e}"))?;
        self.members.retain(|(r, _)| *r != role);
        println!("   {role:>6}: (killed)");
        Ok(())
    }

    /// The next line of `role`. Prints it, and whatever the others report meanwhile when its turn comes.
    fn next(&mut self, role: &'static str, awaited: &str) -> Result<String, String> {
        loop {
            if let Some(at) = self.seen.iter().position(|(r, _)| *r == role) {
                let (_, line) = self.seen.remove(at);
                println!("   {role:>6}: {line}");
                return Ok(line);
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok((from, Some(line))) => self.seen.push((from, line)),
                Ok((from, None)) if self.child(from).is_ok() => {
                    return Err(format!("{from} ended too early; awaited: {role} {awaited}"));
                }
                Ok(_) => {}
                Err(_) => return Err(format!("did not happen in time: {role} {awaited}")),
            }
        }
    }

    fn expect(&mut self, role: &'static str, awaited: &str) -> Result<(), String> {
        let line = self.next(role, awaited)?;
        if line == awaited {
            Ok(())
        } else {
            Err(format!("did not happen: {role} {awaited}; instead: {line}"))
        }
    }

    /// Lets all members end, and makes sure that none had anything more to report.
    fn end(&mut self) -> Result<(), String> {
        for (role, child) in &mut self.members {
            drop(child.stdin.take()); // No more orders.
            loop {
                let left = self.deadline.saturating_duration_since(Instant::now());
                match self.reports.recv_timeout(left) {
                    Ok((from, None)) if from == *role => break,
                    Ok((from, Some(line))) => self.seen.push((from, line)),
                    Ok(_) => {}
                    Err(_) => return Err(format!("did not happen in time: {role} leaves")),
                }
            }
            match child.wait() {
                Ok(status) if status.success() => println!("   {role:>6}: (left and ended)"),
                other => return Err(format!("{role} did not end well: {other:?}")),
            }
        }
        // Ends once all that was reported is read.
        drop(self.reporter.take());
        self.seen.extend(
            self.reports
                .iter()
                .filter_map(|(role, line)| Some((role, line?))),
        );
        match self.seen.first() {
            None => Ok(()),
            Some((role, line)) => Err(format!("was not announced: {role} {line}")),
        }
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        for (_, child) in &mut self.members {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
