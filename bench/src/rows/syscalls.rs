//! P12: system calls per message, counted by the kernel or, where it does not tell, by strace.

use super::{Bar, Bench, Line, Role, Row, Unit, member};
use crate::{
    bare::{
        ring::{self, Consumer, Producer},
        waiting::{self, Receiving, Sending, Sleeper},
    },
    calls::Calls,
    load::{self, Load, Pair},
    peers::{SOON, TOKEN, names},
    process::{Actor, say},
    report::sample::Sample,
    shared::{Memory, RINGS, Shared},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, process::Command, time::Duration};

pub struct SystemCalls;

const SIZES: [(&str, usize, u64); 5] = [
    ("16 B", 16, 1_000_000),
    ("4 KiB", 4 << 10, 1_000_000),
    ("1 MiB", 1 << 20, 1_000_000),
    ("4 KiB, over a bare ring that sleeps", 4 << 10, 1_000_000),
    ("1 MiB, over a bare ring that sleeps", 1 << 20, 200_000),
];
/// Exchanges of which the median is taken.
const TRIES: usize = 5;
/// From here on what a bare ring needs that spins and sleeps as the product does: for comparison.
const RINGS_FROM: usize = 3;
const CAPACITY: usize = 4 << 20;
/// A million messages of 1 MiB take minutes.
const LIMIT: Duration = Duration::from_secs(600);
const MEMORY: usize = RINGS + ring::bytes(CAPACITY);
/// Closing these descriptors, which do not exist, marks what is counted.
const BEGIN: i32 = -1001;
const END: i32 = -1002;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    bus: String,
    size: usize,
    count: u64,
    /// The memory of the bare ring.
    memory: Option<i32>,
}

impl Row for SystemCalls {
    fn id(&self) -> &'static str {
        "P12"
    }

    fn lines(&self) -> Vec<Line> {
        let line = |(by, ..): (&str, usize, u64)| Line {
            what: "system calls per message, both sides, all threads".into(),
            by: by.into(),
            unit: Unit::Number,
        };
        SIZES.map(line).into()
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |(by, ..): (&str, usize, u64)| Bar::AtMost {
            of: by.into(),
            limit: 0.001,
        };
        SIZES[..RINGS_FROM].iter().copied().map(bar).collect()
    }

    fn missing(&self) -> Option<&'static str> {
        let found = Calls::new().is_ok() || Command::new("strace").arg("-V").output().is_ok();
        (!found).then_some("neither tracepoints are allowed nor strace is installed")
    }

    fn rounds(&self, _: usize) -> usize {
        1
    }

    /// The median of several where one takes a second only: anything else that runs in it makes them sleep.
    fn measure(&self, step: usize, _: usize, bench: &Bench) -> Result<Vec<Sample>, String> {
        let (_, size, count) = SIZES[step];
        let is_large = size >= 1 << 20;
        let (tries, count) = match (bench.quick, is_large) {
            (true, _) if step >= RINGS_FROM => (1, count / 10),
            (true, true) => (TRIES, count / 200),
            (false, true) => (1, count),
            // A tenth is over in less than 0.1 s, in which the start still shows: 2 to 170 calls.
            (_, false) => (TRIES, count),
        };
        let samples = (0..tries).map(|i| {
            let bus = format!("{}.syscalls.{step}.{i}", bench.bus);
            count_calls(step, count, bus)
        });
        let mut samples = samples.collect::<Result<Vec<_>, _>>()?;
        samples.sort_by(|a, b| a.figure.total_cmp(&b.figure));
        Ok(vec![samples.swap_remove(tries / 2)])
    }
}

/// The calls of one exchange of so many messages.
fn count_calls(step: usize, count: u64, bus: String) -> Result<Sample, String> {
    let size = SIZES[step].1;
    let memory = (step >= RINGS_FROM).then(|| Memory::new(MEMORY));
    let job = Job {
        bus: bus.clone(),
        size,
        count,
        memory: memory.as_ref().map(|m| m.fd),
    };
    let mut host = member::start_for(&bus, "controller", LIMIT)?;
    let counts = Calls::new().is_ok();
    let mut lists = Vec::new();
    let mut start = |sends: bool| {
        let mut under = Vec::new();
        if !counts {
            let list = list(&bus, sends);
            let file = list.to_string_lossy();
            under = ["strace", "-f", "-qq", "-o", &*file]
                .map(String::from)
                .into();
            lists.push(list);
        }
        Actor::start_under(&under, &Role::SystemCalls(job.clone(), sends), LIMIT)
    };
    let mut receiver = start(false)?;
    receiver.ready()?;
    let mut sender = start(true)?;
    let mut counted = Vec::new();
    for actor in [&mut sender, &mut receiver] {
        counted.push(actor.hear::<Option<u64>>()?);
        actor.finish()?;
    }
    // Neither side became the controller.
    host.finish()?;
    if let [Some(sent), Some(received)] = counted[..] {
        let note =
            format!("{count} messages: {sent} calls of the sender, {received} of the receiver");
        return Ok(Sample {
            note: Some(note),
            ..Sample::new((sent + received) as f64 / count as f64)
        });
    }
    if counts {
        return Err("a side was not allowed to count its calls".into());
    }
    let mut calls = BTreeMap::new();
    for list in lists {
        let text = std::fs::read_to_string(&list).map_err(|e| e.to_string())?;
        let _ = std::fs::remove_file(list);
        add(&mut calls, &text)?;
    }
    let all: u64 = calls.values().sum();
    let mut most: Vec<(String, u64)> = calls.into_iter().collect();
    most.sort_by_key(|call| std::cmp::Reverse(call.1));
    let most = most.iter().take(4).map(|(name, n)| format!("{n} {name}"));
    let most: Vec<String> = most.collect();
    Ok(Sample {
        note: Some(format!(
            "{count} messages, under strace: {}",
            most.join(", ")
        )),
        ..Sample::new(all as f64 / count as f64)
    })
}

/// Where strace writes what it saw.
fn list(bus: &str, sends: bool) -> PathBuf {
    std::env::temp_dir().join(format!("{bus}.{}", names(sends).0))
}

/// Counts the system calls between the marks, by name.
fn add(calls: &mut BTreeMap<String, u64>, text: &str) -> Result<(), String> {
    // Without what follows the number: where another thread's call comes in between, that is not the bracket.
    let [begin, end] = [BEGIN, END].map(|mark| format!("close({mark}"));
    let start = text.find(&begin).ok_or("strace saw no beginning")?;
    let counted = &text[start..];
    let counted = &counted[..counted.find(&end).ok_or("strace saw no end")?];
    for line in counted.lines().skip(1) {
        // "PID name(arguments) = result"; the second half of an interrupted line is no call of its own.
        let call = line
            .split_once(' ')
            .map_or("", |(_, call)| call.trim_start());
        if let Some((name, _)) = call.split_once('(')
            && !call.starts_with("<...")
        {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    Ok(())
}

impl Job {
    /// Plays one side, in a child.
    pub fn play(&self, sends: bool) {
        // Before other threads are started.
        let calls = Calls::new().ok();
        match (self.memory, self.size) {
            (Some(memory), _) => self.over_a_ring(memory, sends, calls),
            (None, 16) => self.with::<Pair>(sends, calls),
            (None, _) => self.with::<ipmb::BytesMessage>(sends, calls),
        }
    }

    fn over_a_ring(&self, memory: i32, sends: bool, calls: Option<Calls>) {
        waiting::register();
        let shared = Shared::map(memory, MEMORY);
        let (bell, space) = (shared.word(0), shared.word(1));
        if sends {
            let mut to = Sending {
                ring: Producer::new(&shared, RINGS, CAPACITY),
                bell,
                space: Sleeper::new(space).for_space(self.size),
            };
            self.run(sends, calls, |number| {
                let data = load::data(number, self.size);
                while !to.try_push(&data, &[]) {
                    to.wait();
                }
            });
        } else {
            let mut from = Receiving {
                ring: Consumer::new(&shared, RINGS, CAPACITY),
                space,
            };
            let mut sleeper = Sleeper::new(bell).beside(self.size);
            self.run(sends, calls, |number| {
                let data = loop {
                    match from.try_pop(<[u8]>::to_vec) {
                        Some(data) => break data,
                        None => sleeper.wait(|| !from.ring.is_empty()),
                    }
                };
                assert_eq!(load::number_of(&data, self.size), number);
            });
        }
    }

    fn with<T: Load + ipmb::MessageBox>(&self, sends: bool, calls: Option<Calls>) {
        let (here, there) = names(sends);
        let options = ipmb::Options::new(&*self.bus, ipmb::label!(here), TOKEN);
        let (sender, receiver) = ipmb::join::<T, T>(options, SOON).expect("join");
        self.run(sends, calls, |number| {
            if sends {
                let selector = ipmb::Selector::unicast(there);
                let message = ipmb::Message::new(selector, T::make(number, self.size));
                sender.send(message).expect("send");
            } else {
                let message = receiver.recv(None).expect("recv");
                assert_eq!(message.payload.check(self.size), number);
            }
        });
    }

    /// Sends or receives all messages, those that are not counted first.
    fn run(&self, sends: bool, mut calls: Option<Calls>, mut each: impl FnMut(u64)) {
        let warm_up = self.count / 10 + 5;
        if !sends {
            say(&());
        }
        let mut so_far = || calls.as_mut().map(|calls| calls.so_far().expect("a count"));
        let mut before = None;
        for number in 0..warm_up + self.count {
            if number == warm_up {
                mark(BEGIN);
                before = so_far();
            }
            each(number);
        }
        let counted = so_far().zip(before).map(|(after, before)| after - before);
        mark(END);
        say(&counted);
        // The other side may not have read all yet.
        while crate::process::listen().is_some() {}
    }
}

fn mark(which: i32) {
    // SAFETY: no such descriptor.
    unsafe { libc::close(which) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_between_the_marks_are_counted_and_each_once() {
        let text = "\
7 read(0, \"\", 1) = 0
7 close(-1001 <unfinished ...>
8 <... read resumed>\"\", 1) = 0
7 <... close resumed>) = -1 EBADF (Bad file descriptor)
7 futex(0x1, FUTEX_WAIT) = 0
8 epoll_wait(3,  <unfinished ...>
7 write(1, \"(\", 1) = 1
8 <... epoll_wait resumed>[{}]) = 1
9 futex(0x1, FUTEX_WAKE) = 1
7 close(-1002) = -1 EBADF (Bad file descriptor)
7 write(1, \"\", 1) = 1
";
        let mut calls = BTreeMap::new();
        add(&mut calls, text).expect("both marks");
        let seen: Vec<(&str, u64)> = calls.iter().map(|(name, n)| (&**name, *n)).collect();
        assert_eq!(seen, [("epoll_wait", 1), ("futex", 2), ("write", 1)]);
        assert!(add(&mut calls, "7 close(-1001) = -1").is_err());
    }
}
