//! Starts, kills, stops and restarts the members.

use crate::{
    board::{Board, JOINED, JOINING, LEFT, Phase, SLOTS, SURVIVORS, now},
    chance::Chance,
    probe::Prober,
    seat,
};
use std::{
    os::unix::process::ExitStatusExt,
    process::{Child, Command},
    sync::atomic::Ordering::SeqCst,
    thread::sleep,
    time::{Duration, Instant},
};

/// Nothing here takes longer, however loaded the machine.
const HANG: Duration = Duration::from_secs(30);
/// What is near enough to another event to be at the same time, in nanoseconds.
const NEAR: u64 = 5_000_000;

/// What the storm did.
#[derive(Debug, Default)]
pub struct Deeds {
    /// Processes killed, all in all.
    pub kills: u64,
    /// Those that were the controller's.
    pub controllers: u64,
    /// Those of the controller's within 5 ms of another kill, or during a join or a first contact.
    pub awkward: u64,
    /// Of which within 5 ms of another kill.
    pub double: u64,
    /// Of which while somebody was in `join`.
    pub joining: u64,
    /// Of which within 5 ms of a member's first contacts.
    pub contact: u64,
    /// Processes stopped and continued.
    pub stops: u64,
    /// Of which the controller's.
    pub stopped_controllers: u64,
    /// Processes killed while they were stopped.
    pub killed_stopped: u64,
    /// Orderly leaves.
    pub leaves: u64,
    /// When controllers were killed.
    pub times: Vec<u64>,
}

/// One process, or the wait for the next.
#[derive(Default)]
struct Slot {
    child: Option<Child>,
    incarnation: usize,
    /// Started before.
    used: bool,
    /// Killed by us; or told to leave.
    ends: bool,
    continue_at: Option<Instant>,
    restart_at: Option<Instant>,
    /// When it was killed, by incarnation.
    killed: Vec<u64>,
}

/// Conducts the storm.
pub struct Conductor {
    board: &'static Board,
    bus: String,
    seed: u64,
    fd: i32,
    chance: Chance,
    slots: Vec<Slot>,
    last_kill: u64,
    quiet: bool,
    /// What was done.
    pub deeds: Deeds,
    /// How long the bus was without service.
    pub prober: Prober,
}

/// Why a storm ended early.
pub type Broken = String;

impl Conductor {
    /// As long as nobody is there.
    pub fn new(board: &'static Board, fd: i32, bus: &str, seed: u64) -> Self {
        Self {
            board,
            bus: bus.into(),
            seed,
            fd,
            chance: Chance::new(seed, 0),
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            last_kill: 0,
            quiet: false,
            deeds: Deeds::default(),
            prober: Prober::new(bus),
        }
    }

    /// When the process of that incarnation was killed; `None` if it was not.
    pub fn killed(&self, slot: usize, incarnation: usize) -> Option<u64> {
        let at = self.slots[slot].killed.get(incarnation);
        at.copied().filter(|at| *at > 0)
    }

    /// How many incarnations a slot had.
    pub fn incarnations(&self, slot: usize) -> usize {
        self.slots[slot].incarnation + 1
    }

    /// Everybody joins.
    pub fn start(&mut self) -> Result<(), Broken> {
        self.board.set_phase(Phase::Quiet);
        for slot in (0..SLOTS).rev() {
            self.spawn(slot)?;
        }
        self.until("everybody has joined", |c| {
            (0..SLOTS).all(|s| c.board.slots[s].state.load(SeqCst) == JOINED)
        })?;
        self.board.set_phase(Phase::Run);
        Ok(())
    }

    fn spawn(&mut self, slot: usize) -> Result<(), Broken> {
        let state = &mut self.slots[slot];
        if state.used {
            state.incarnation += 1;
        }
        if state.incarnation + 1 >= crate::board::INCARNATIONS {
            return Err(format!("slot {slot} was restarted too often for the board"));
        }
        state.used = true;
        state.ends = false;
        state.restart_at = None;
        state.killed.resize(state.incarnation + 1, 0);
        let shared = &self.board.slots[slot];
        shared.state.store(0, SeqCst);
        shared.leave.store(0, SeqCst);
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let child = Command::new(program)
            .arg("member")
            .arg(&self.bus)
            .arg(slot.to_string())
            .arg(state.incarnation.to_string())
            .arg(self.seed.to_string())
            .arg(self.fd.to_string())
            .spawn()
            .map_err(|e| format!("could not start a process: {e}"))?;
        state.child = Some(child);
        Ok(())
    }

    /// Raises what is due: restarts, continuations; looks for those who ended by themselves, and for violations.
    fn turn(&mut self) -> Result<(), Broken> {
        let now = Instant::now();
        for slot in 0..SLOTS {
            let state = &mut self.slots[slot];
            if let Some(child) = state.child.as_mut() {
                if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
                    let left = self.board.slots[slot].state.load(SeqCst) == LEFT;
                    let killed = status.signal() == Some(libc::SIGKILL);
                    if !state.ends || !(killed || left && status.success()) {
                        let incarnation = state.incarnation;
                        return Err(format!("endpoint {slot}.{incarnation} ended: {status}"));
                    }
                    state.child = None;
                    state.continue_at = None;
                    let pause = self.chance.time(Duration::from_millis(150));
                    state.restart_at = Some(now + pause);
                } else if state.continue_at.is_some_and(|at| at <= now) {
                    state.continue_at = None;
                    signal(child, libc::SIGCONT);
                }
            } else if !self.quiet && state.restart_at.is_some_and(|at| at <= now) {
                self.spawn(slot)?;
            }
        }
        match self.board.violations() {
            none if none.is_empty() => Ok(()),
            found => Err(found.join("\n")),
        }
    }

    /// Waits for something that must come.
    pub fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), Broken> {
        let start = Instant::now();
        while !done(self) {
            self.turn()?;
            if start.elapsed() > HANG {
                return Err(format!("after {HANG:?} it was not so that {what}"));
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Lets time pass without a deed.
    pub fn rest(&mut self, time: Duration) -> Result<(), Broken> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn()?;
            let left = end.saturating_duration_since(Instant::now());
            sleep(left.min(Duration::from_millis(1)));
        }
        Ok(())
    }

    /// Whether somebody could become the controller: alive, not stopped, and a member.
    fn candidates(&self) -> bool {
        (SURVIVORS..SLOTS).any(|s| s % 6 != 0 && self.lives(s))
    }

    fn lives(&self, slot: usize) -> bool {
        let state = &self.slots[slot];
        state.child.is_some() && !state.ends && state.continue_at.is_none()
    }

    /// The slot of the process that hosts the controller. Waits for an election to end.
    fn controller(&mut self) -> Result<usize, Broken> {
        let start = Instant::now();
        loop {
            if let Some(pid) = seat::holder(&self.bus) {
                let holds = |s: &Slot| s.child.as_ref().is_some_and(|c| c.id() == pid);
                if let Some(slot) = self.slots.iter().position(holds)
                    && !self.slots[slot].ends
                {
                    return Ok(slot);
                }
            }
            self.turn()?;
            if start.elapsed() > HANG && self.candidates() {
                return Err(format!("nobody became controller within {HANG:?}"));
            }
            sleep(Duration::from_micros(100));
        }
    }

    fn victim(&mut self) -> usize {
        SURVIVORS + self.chance.below((SLOTS - SURVIVORS) as u64) as usize
    }

    fn kill(&mut self, slot: usize, controller: bool) {
        if self.slots[slot].ends {
            return;
        }
        let Some(child) = self.slots[slot].child.as_mut() else {
            return;
        };
        let joining = |b: &Board| {
            let joins = |s: usize| s != slot && b.slots[s].state.load(SeqCst) == JOINING;
            (0..SLOTS).find(|s| joins(*s))
        };
        let before = joining(self.board);
        if child.kill().is_err() {
            return;
        }
        let at = now();
        let after = joining(self.board);
        let state = &mut self.slots[slot];
        state.ends = true;
        state.killed[state.incarnation] = at;
        self.deeds.kills += 1;
        self.deeds.killed_stopped += u64::from(state.continue_at.is_some());
        if controller {
            let contact = (0..SLOTS).any(|s| {
                let contact = self.board.slots[s].contact.load(SeqCst);
                s != slot && contact <= at && at - contact < NEAR
            });
            let double = at - self.last_kill < NEAR;
            let joining = before.is_some() && before == after;
            self.deeds.controllers += 1;
            self.deeds.awkward += u64::from(contact || double || joining);
            self.deeds.contact += u64::from(contact);
            self.deeds.double += u64::from(double);
            self.deeds.joining += u64::from(joining);
            self.deeds.times.push(at);
        }
        self.last_kill = at;
    }

    fn stop(&mut self, slot: usize) {
        if self.lives(slot)
            && let Some(child) = &self.slots[slot].child
        {
            signal(child, libc::SIGSTOP);
            let time = self.chance.time(Duration::from_millis(300));
            self.slots[slot].continue_at = Some(Instant::now() + time);
            self.deeds.stops += 1;
        }
    }

    /// Does one of the things that this program is for.
    pub fn deed(&mut self) -> Result<(), Broken> {
        match self.chance.below(100) {
            // The controller, by itself; and how long the bus was without service.
            0..25 => {
                let stopped = |s: &Slot| s.continue_at.is_some();
                if !self.slots.iter().any(stopped) && self.candidates() {
                    let controller = self.controller()?;
                    self.kill(controller, true);
                    let others = self.candidates();
                    if others {
                        self.prober.probe(self.last_kill)?;
                        // The same load without a kill, to compare with.
                        self.prober.probe_calm()?;
                    }
                }
            }
            // The controller and somebody else, in either order.
            25..38 => {
                let controller = self.controller()?;
                let other = self.victim();
                let pause = self.chance.time(Duration::from_millis(4));
                if self.chance.per_mille(500) && other != controller {
                    self.kill(other, false);
                    sleep(pause);
                    self.kill(controller, true);
                } else {
                    self.kill(controller, true);
                    sleep(pause);
                    self.kill(other, false);
                }
            }
            // The controller, and the one that follows it as soon as it does.
            38..50 => {
                let first = self.controller()?;
                self.kill(first, true);
                let second = self.controller()?;
                sleep(self.chance.time(Duration::from_millis(3)));
                self.kill(second, true);
            }
            // The controller or the newcomer, while one is joining or has just joined.
            50..70 => {
                let ended = |s: &Slot| s.child.is_none() && s.restart_at.is_some();
                let Some(slot) = self.slots.iter().position(ended) else {
                    return Ok(());
                };
                let controller = self.controller()?;
                if self.slots[slot].child.is_none() {
                    self.spawn(slot)?;
                }
                let state = [JOINING, JOINED][self.chance.below(2) as usize];
                let start = Instant::now();
                while self.board.slots[slot].state.load(SeqCst) < state
                    && start.elapsed() < Duration::from_millis(200)
                {
                    std::hint::spin_loop();
                }
                let most = if state == JOINING { 1 } else { 3 };
                sleep(self.chance.time(Duration::from_millis(most)));
                if self.chance.per_mille(800) {
                    self.kill(controller, true);
                }
                if self.chance.per_mille(300) {
                    self.kill(slot, false);
                }
            }
            // Somebody who does not host it.
            70..80 => {
                let victim = self.victim();
                let controller = seat::holder(&self.bus);
                let hosts = self.slots[victim].child.as_ref().map(Child::id) == controller;
                self.kill(victim, hosts);
            }
            // Anybody is stopped for a while, sometimes several.
            80..88 => {
                for _ in 0..=self.chance.below(3) {
                    let slot = self.chance.below(SLOTS as u64) as usize;
                    self.stop(slot);
                }
            }
            // The controller is stopped; sometimes killed then.
            88..94 => {
                let controller = self.controller()?;
                self.stop(controller);
                self.deeds.stopped_controllers += 1;
                if self.chance.per_mille(300) {
                    sleep(self.chance.time(Duration::from_millis(50)));
                    self.kill(controller, true);
                }
            }
            // Somebody leaves in good order.
            _ => {
                let victim = self.victim();
                if self.lives(victim) && self.board.slots[victim].state.load(SeqCst) == JOINED {
                    self.slots[victim].ends = true;
                    self.board.slots[victim].leave.store(1, SeqCst);
                    self.deeds.leaves += 1;
                }
            }
        }
        self.turn()
    }

    /// Nobody sends any more, and all but one of the victims are gone. What survivors sent to survivors has arrived.
    pub fn calm(&mut self) -> Result<(), Broken> {
        self.rest(Duration::from_millis(500))?;
        self.until("everybody is there", |c| {
            (0..SLOTS).all(|s| c.lives(s) && c.board.slots[s].state.load(SeqCst) == JOINED)
        })?;
        // Everybody meets everybody.
        self.rest(Duration::from_secs(2))?;
        self.quiet = true;
        self.board.set_phase(Phase::Quiet);
        self.until("the survivors' senders and collectors stood still", |c| {
            c.board.slots[..SURVIVORS].iter().all(|s| {
                s.phase.load(SeqCst) == Phase::Quiet as u32 && s.collector_idle.load(SeqCst) == 1
            })
        })?;
        self.until("everything between survivors had arrived", |c| {
            let behind = crate::report::behind(c.board);
            behind.is_empty()
        })
        .map_err(|e| format!("{e}\n{}", crate::report::behind(self.board).join("\n")))?;
        for slot in SURVIVORS..SLOTS - 1 {
            self.slots[slot].ends = true;
            self.board.slots[slot].leave.store(1, SeqCst);
        }
        self.until("all victims but the last had left", |c| {
            (SURVIVORS..SLOTS - 1).all(|s| c.slots[s].child.is_none())
        })?;
        self.board.set_phase(Phase::Balance);
        Ok(())
    }

    /// A time of random length between two deeds.
    pub fn pause(&mut self, most: Duration) -> Duration {
        self.chance.time(most)
    }

    /// On with it.
    pub fn resume(&mut self) {
        self.quiet = false;
        self.board.set_phase(Phase::Run);
    }

    /// Everybody leaves; the survivors write down what is open after that.
    pub fn finish(&mut self) -> Result<(), Broken> {
        self.quiet = true;
        (0..SLOTS).for_each(|s| self.slots[s].ends = true);
        self.board.set_phase(Phase::Leave);
        self.until("everybody had left", |c| {
            c.slots.iter().all(|s| s.child.is_none())
        })
    }
}

impl Drop for Conductor {
    fn drop(&mut self) {
        for child in self.slots.iter_mut().filter_map(|s| s.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: the child was not waited for, so the id is its.
    unsafe { libc::kill(child.id() as i32, signal) };
}
