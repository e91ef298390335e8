//! A bus with two survivors and a victim. The *keeper* is an endpoint of the test's own process; the *echo*, in a process that
//! lives as long as the test, sends back whatever it gets. Between them messages go to and fro all the time.

use super::{
    common::{Peer, SOON, descriptors, listen, name, owned, say},
    victim::{self, WORK, for_a_minute, message, number, pipe_with},
};
use ipmb::{
    BytesMessage, EndpointReceiver, EndpointSender, MemoryRegion, Message, Options, Selector,
    SendError, label,
};
use std::{
    collections::HashMap,
    io::Read,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What the echo adds to a message's format.
pub const ECHO: u16 = 0x100;
const PING: u16 = 10;
const ORDER: u16 = 11;
/// Longer than anything may take, on a machine under load.
const LONG: Duration = Duration::from_secs(20);

type Sender = EndpointSender<BytesMessage>;
type Receiver = EndpointReceiver<BytesMessage>;

/// What the victim is, besides what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// Another process hosts the controller.
    Member,
    /// It hosts the controller.
    Host,
    /// The only one that may host, when the host is killed.
    Heir,
}

/// What became of the victim, and what it had said.
#[derive(Debug)]
pub enum Fate {
    Died { said: Vec<String> },
    Lived { said: Vec<String>, left: u64 },
}

impl Fate {
    fn words(&self) -> &[String] {
        match self {
            Self::Died { said } | Self::Lived { said, .. } => said,
        }
    }

    pub fn said(&self, what: &str) -> bool {
        self.words().iter().any(|word| word == what)
    }

    /// The highest number that was said after a word.
    pub fn count(&self, word: &str) -> u64 {
        let numbers = self.words().iter().filter_map(|line| {
            let (first, n) = line.split_once(' ')?;
            (first == word).then(|| n.parse().ok())?
        });
        numbers.max().unwrap_or(0)
    }
}

#[track_caller]
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The mappings of a dead process go with it, but not before others have read its `/proc/PID/stat`, as members do to see whether
/// somebody is stopped: the kernel keeps the address space for so long.
fn freeze_when_the_dead_are_gone(region: &mut MemoryRegion) {
    eventually("nobody maps it", || match region.freeze() {
        Ok(()) => true,
        Err(ipmb::Error::Busy) => false,
        Err(other) => panic!("{other}"),
    });
}

/// Ends the test with what it was at, if it hangs where no time limit is.
pub struct Watch(Arc<AtomicBool>);

pub fn watch(what: String) -> Watch {
    let over = Arc::new(AtomicBool::new(false));
    let watched = over.clone();
    std::thread::spawn(move || {
        let start = Instant::now();
        while !watched.load(Ordering::Relaxed) {
            if start.elapsed() > Duration::from_secs(90) {
                eprintln!("it hangs: {what}");
                std::process::abort();
            }
            std::thread::park_timeout(Duration::from_millis(500));
        }
    });
    Watch(over)
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What an endpoint of this process got.
#[derive(Default)]
struct Books {
    notes: HashMap<u16, Vec<u64>>,
    regions: Vec<(u64, MemoryRegion)>,
}

/// An endpoint that notes what it gets.
struct Noting {
    sender: Sender,
    books: Arc<Mutex<Books>>,
    thread: JoinHandle<()>,
}

impl Noting {
    fn join(bus: &str, label: ipmb::Label, may_host: bool) -> Self {
        let mut options = Options::new(bus, label, "token");
        options.controller_affinity = may_host;
        let (sender, receiver): (Sender, Receiver) =
            ipmb::join(options, Some(LONG)).expect("a survivor joins");
        let books = Arc::new(Mutex::new(Books::default()));
        let ours = books.clone();
        let thread = std::thread::spawn(move || {
            while let Ok(message) = receiver.recv(None) {
                take(&ours, message);
            }
        });
        Self {
            sender,
            books,
            thread,
        }
    }

    fn notes(&self, kind: u16) -> Vec<u64> {
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.notes.get(&kind).cloned().unwrap_or_default()
    }

    fn send(&self, message: Message<BytesMessage>) {
        let sent = self.sender.send_timeout(message, Some(LONG));
        sent.expect("a survivor sends");
    }

    fn leave(self) {
        self.sender.leave(Some(LONG)).expect("a survivor leaves");
        self.thread.join().expect("whatever came was right");
    }
}

/// Enters a message that is as it was sent, with all that came with it.
fn take(books: &Mutex<Books>, message: Message<BytesMessage>) {
    let n = number(&message.payload).expect("a message that is as it was made");
    for object in message.objects {
        let mut bytes = [0; 8];
        let mut pipe = std::fs::File::from(owned(object));
        pipe.read_exact(&mut bytes).expect("what is in the pipe");
        assert_eq!(u64::from_le_bytes(bytes), n);
    }
    let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
    for mut region in message.memory_regions {
        assert!(holds(&mut region, n), "a region that is as it was filled");
        books.regions.push((n, region));
    }
    books
        .notes
        .entry(message.payload.format)
        .or_default()
        .push(n);
}

fn holds(region: &mut MemoryRegion, n: u64) -> bool {
    let bytes = region.map(..10_000).expect("map");
    bytes.iter().all(|byte| *byte == n as u8)
}

/// Descriptors, and mappings of the library's memory.
fn balance() -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let ours = maps.lines().filter(|line| line.contains("memfd:ipmb"));
    (descriptors(), ours.count())
}

/// The same once it stays: what others handed over is closed by a thread that nobody waits for.
fn settled() -> (usize, usize) {
    let mut last = balance();
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(10) {
        std::thread::sleep(Duration::from_millis(1));
        let now = balance();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

pub struct Scene {
    bus: String,
    pub seat: Seat,
    keeper: Noting,
    echo: Peer,
    victim: Option<Peer>,
    first_host: Option<Peer>,
    pings: JoinHandle<u64>,
    over: Arc<AtomicBool>,
    late: Option<Noting>,
    next: Option<Noting>,
    leaver: Option<Noting>,
    /// Regions that the keeper has sent and still holds.
    sent_regions: Vec<MemoryRegion>,
    /// Before anybody was on the bus, and before the victim was.
    empty: ((usize, usize), String),
    before: ((usize, usize), String),
}

fn balance_of(echo: &mut Peer) -> String {
    echo.tell("balance");
    echo.hear()
}

impl Scene {
    /// A bus whose survivors talk to each other, and a victim that is ready and will die at the given point.
    pub fn set(operation: &str, seat: Seat, mut echo: Peer, points: u64) -> Self {
        let bus = name("crash");
        let empty = (settled(), balance_of(&mut echo));
        let victim = || {
            let role = format!("{operation} {points}");
            Peer::start("peer", &role, &bus)
        };
        let joined = |victim: &mut Peer| {
            if operation != "join" {
                assert_eq!(victim.hear(), "joined");
            }
        };
        let (mut early, mut first_host) = (None, None);
        match seat {
            Seat::Member => {}
            Seat::Host => {
                let mut victim = victim();
                joined(&mut victim);
                early = Some(victim);
            }
            Seat::Heir => {
                let mut host = Peer::start("peer", "survivor", "");
                host.tell(&format!("join {bus} true host"));
                host.expect("joined");
                first_host = Some(host);
                let mut victim = victim();
                joined(&mut victim);
                early = Some(victim);
            }
        }
        let may_host = seat != Seat::Heir;
        let keeper = Noting::join(&bus, label!("keep"), may_host);
        echo.tell(&format!("join {bus} {may_host}"));
        echo.expect("joined");
        let (pings, over) = keep_talking(&keeper);
        eventually("the first contact between the survivors", || {
            keeper.notes(PING | ECHO).len() >= 3
        });
        let before = (settled(), balance_of(&mut echo));
        let mut victim = early.unwrap_or_else(|| {
            let mut victim = victim();
            joined(&mut victim);
            victim
        });
        if operation != "join" {
            victim.tell("prepare");
            assert_eq!(victim.hear(), "ready");
        }
        Self {
            bus,
            seat,
            keeper,
            echo,
            victim: Some(victim),
            first_host,
            pings,
            over,
            late: None,
            next: None,
            leaver: None,
            sent_regions: Vec::new(),
            empty,
            before,
        }
    }

    /// Lets the victim do what it does, until it dies or all of it has had its effect.
    pub fn run(&mut self, heard: fn(&mut Self, &str), complete: fn(&mut Self) -> bool) -> Fate {
        let mut victim = self.victim.take().expect("a victim");
        victim.tell_if_it_lives("go");
        let mut said = Vec::new();
        while let Some(line) = victim.hear_if_it_lives() {
            heard(self, &line);
            let done = line == "done";
            said.push(line);
            if !done {
                continue;
            }
            let start = Instant::now();
            while !complete(self) && victim.lives() {
                assert!(start.elapsed() < LONG, "what lived had no effect: {said:?}");
                std::thread::sleep(Duration::from_micros(200));
            }
            victim.tell_if_it_lives("over");
            if let Some(line) = victim.hear_if_it_lives() {
                let left = line.strip_prefix("left ").map(str::parse);
                let left = left.expect("what is left").expect("a number");
                victim.wait();
                return Fate::Lived { said, left };
            }
        }
        let status = victim.child.wait().expect("wait");
        assert_eq!(status.code(), Some(ipmb::crash::EXIT), "{said:?}");
        Fate::Died { said }
    }

    /// The traffic between the survivors goes on, they have let go of all that was for the victim, and a newcomer is welcome.
    pub fn others_go_on(&mut self) {
        let so_far = self.keeper.notes(PING | ECHO).len();
        eventually("the survivors talk", || {
            self.keeper.notes(PING | ECHO).len() > so_far + 3
        });
        // Where another was the controller, the survivors must have no more than before they knew the victim.
        if self.seat == Seat::Member && self.late.is_none() && self.sent_regions.is_empty() {
            let books = &self.keeper.books;
            let kept =
                std::mem::take(&mut books.lock().unwrap_or_else(PoisonError::into_inner).regions);
            let kept_handles = kept.len();
            eventually("this process has let go of the victim", || {
                let (fds, maps) = balance();
                fds == self.before.0.0 + kept_handles && maps <= self.before.0.1 + kept_handles
            });
            books
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .regions
                .extend(kept);
            eventually("the other survivor has let go of the victim", || {
                balance_of(&mut self.echo) == self.before.1
            });
        }
        let new = Noting::join(&self.bus, label!("new"), true);
        self.keeper
            .send(message(Selector::unicast("new"), ORDER, 1, 16));
        eventually("a newcomer is sent to", || new.notes(ORDER) == [1]);
        new.send(message(Selector::unicast("echo"), ORDER, 2, 16));
        eventually("a newcomer sends", || {
            self.keeper.notes(ORDER | ECHO).last() == Some(&2)
        });
        new.leave();
    }

    /// Ends the scene: nothing was lost or came twice between the survivors, and nothing is left. Gives the echo back.
    pub fn end(mut self) -> Peer {
        self.over.store(true, Ordering::Relaxed);
        let sent = self.pings.join().expect("the survivors talk");
        let came = self.keeper.notes(PING | ECHO);
        assert!(came.iter().copied().eq(1..=sent), "sent {sent}: {came:?}");
        for noting in [self.late.take(), self.next.take()].into_iter().flatten() {
            noting.leave();
        }
        self.sent_regions.clear();
        self.keeper.leave();
        self.echo.tell("leave");
        self.echo.expect("left");
        drop(self.first_host.take());
        eventually("this process has what it had at first", || {
            balance() == self.empty.0
        });
        eventually("the other process has what it had at first", || {
            balance_of(&mut self.echo) == self.empty.1
        });
        self.echo
    }

    /// Waits until the keeper has so many first messages of the victim: then its links are accepted.
    pub fn meets_the_victim(&mut self, kinds: &[u16]) {
        eventually("the victim's first contacts", || {
            kinds.iter().all(|kind| self.notes(*kind).len() == 1)
        });
    }

    pub fn notes(&self, kind: u16) -> Vec<u64> {
        self.keeper.notes(kind)
    }

    /// The one that the victim's parked message is for.
    pub fn join_late(&mut self) {
        if self.late.is_none() {
            self.late = Some(Noting::join(&self.bus, label!("late"), true));
        }
    }

    pub fn late(&self) -> Vec<u64> {
        let late = self.late.as_ref();
        late.map_or(Vec::new(), |late| late.notes(victim::NOTE))
    }

    /// One that leaves something behind for the late one, when it goes.
    pub fn join_a_leaver(&mut self) {
        let leaver = Noting::join(&self.bus, label!("leaver"), false);
        let parked = for_a_minute(Selector::unicast("late"));
        leaver.send(message(parked, victim::NOTE, 1, 16));
        self.leaver = Some(leaver);
    }

    /// It leaves while the late one joins, so that what it leaves is passed on at once.
    pub fn the_leaver_hands_over(&mut self) {
        let leaver = self.leaver.take().expect("a leaver");
        let leaves = std::thread::spawn(|| leaver.leave());
        self.join_late();
        leaves.join().expect("it leaves");
    }

    /// The next to get what the victim had not taken.
    pub fn join_next(&mut self) {
        if self.next.is_none() {
            self.next = Some(Noting::join(&self.bus, label!("work"), true));
        }
    }

    pub fn next(&self) -> Vec<u64> {
        let next = self.next.as_ref();
        next.map_or(Vec::new(), |next| next.notes(WORK))
    }

    /// Six messages for the victim, or who comes after it.
    pub fn keeper_sends_work(&mut self, size: usize, handles: bool) {
        for n in 1..=6 {
            let mut work = message(for_a_minute(Selector::unicast("work")), WORK, n, size);
            if handles {
                let mut region = MemoryRegion::new(10_000);
                region.map(..).expect("map").fill(n as u8);
                let ours = region.clone().expect("clone");
                self.sent_regions.push(ours);
                work.memory_regions.push(region);
                work.objects.push(pipe_with(n));
            }
            self.keeper.send(work);
        }
    }

    /// The dead do not count, and nobody writes any more to what the survivors hold.
    pub fn nobody_else_holds_the_regions(&mut self) {
        let mut books = self
            .keeper
            .books
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (n, region) in &mut books.regions {
            assert!(
                holds(region, *n),
                "a region that somebody else has used again"
            );
            eventually("the dead do not count", || region.ref_count() == 1);
            freeze_when_the_dead_are_gone(region);
        }
        for region in &mut self.sent_regions {
            eventually("the dead do not count", || region.ref_count() == 1);
            freeze_when_the_dead_are_gone(region);
        }
    }

    /// One who joins, and is met and meets for the first time, while the controller counts its points.
    pub fn a_newcomer_meets_everybody(&mut self) {
        let new = Noting::join(&self.bus, label!("newcomer"), true);
        for n in 1..=2 {
            self.keeper
                .send(message(Selector::unicast("newcomer"), ORDER, n, 16));
            new.send(message(Selector::unicast("echo"), victim::NOTE, n, 16));
        }
        eventually("first contacts by way of the controller", || {
            new.notes(ORDER) == [1, 2] && self.notes(victim::NOTE | ECHO) == [1, 2]
        });
        new.leave();
    }

    pub fn kill_the_first_host(&mut self) {
        self.first_host.take().expect("the first host").kill();
    }

    /// Whether there is a controller again who knows everybody.
    pub fn is_settled(&mut self) -> bool {
        let nobody = message(Selector::unicast("nobody"), ORDER, 0, 16);
        match self.keeper.sender.try_send(nobody) {
            Ok(()) => true,
            Err(refused) => {
                assert!(matches!(refused.kind(), SendError::Settling), "{refused:?}");
                false
            }
        }
    }
}

/// What a process opens once and keeps is opened, so that books that are balanced agree.
pub fn warm_up(echo: &mut Peer) {
    let bus = name("warm");
    let keeper = Noting::join(&bus, label!("keep"), true);
    echo.tell(&format!("join {bus} true"));
    echo.expect("joined");
    let mut hello = message(Selector::unicast("echo"), PING, 1, 16);
    hello.memory_regions.push(MemoryRegion::new(10_000));
    keeper.send(hello);
    eventually("the first contact between the survivors", || {
        keeper.notes(PING | ECHO) == [1]
    });
    keeper.leave();
    echo.tell("leave");
    echo.expect("left");
}

/// Sends the echo one message after the other, each when the one before has come back. Returns how many.
fn keep_talking(keeper: &Noting) -> (JoinHandle<u64>, Arc<AtomicBool>) {
    let over = Arc::new(AtomicBool::new(false));
    let (until, sender, books) = (over.clone(), keeper.sender.clone(), keeper.books.clone());
    let thread = std::thread::spawn(move || {
        let mut n = 0;
        while !until.load(Ordering::Relaxed) {
            n += 1;
            let ping = message(Selector::unicast("echo"), PING, n, 64);
            sender
                .send_timeout(ping, Some(LONG))
                .expect("a survivor sends");
            eventually("an answer between survivors", || {
                let books = books.lock().unwrap_or_else(PoisonError::into_inner);
                books.notes.get(&(PING | ECHO)).map(Vec::len) == Some(n as usize)
            });
        }
        n
    });
    (thread, over)
}

/// The other survivor's process: joins, sends back what it gets, leaves, and says what it has open.
pub fn survive() {
    let mut endpoint: Option<(Sender, JoinHandle<()>)> = None;
    while let Some(line) = listen() {
        let mut words = line.split(' ');
        match words.next() {
            Some("join") => {
                let bus = words.next().expect("a bus");
                let may_host = words.next() == Some("true");
                let label = words.next().unwrap_or("echo");
                let mut options = Options::new(bus, label!(label), "token");
                options.controller_affinity = may_host;
                let (sender, receiver): (Sender, Receiver) =
                    ipmb::join(options, SOON).expect("join");
                let back = sender.clone();
                let thread = std::thread::spawn(move || {
                    while let Ok(message) = receiver.recv(None) {
                        let mut payload = message.payload;
                        payload.format |= ECHO;
                        let message = Message::new(Selector::unicast("keep"), payload);
                        // The keeper may have left by now.
                        let _ = back.send_timeout(message, Some(LONG));
                    }
                });
                endpoint = Some((sender, thread));
                say("joined");
            }
            Some("leave") => {
                let (sender, thread) = endpoint.take().expect("joined before");
                sender.leave(Some(LONG)).expect("leave");
                thread.join().expect("the echo");
                drop(sender);
                say("left");
            }
            Some("balance") => say(&format!("{:?}", settled())),
            other => panic!("unknown command {other:?}"),
        }
    }
}
