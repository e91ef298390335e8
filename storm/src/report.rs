//! What is checked at the end, and what is printed.

use crate::{
    board::{BLOCKS, Board, KINDS, Kind, OPEN, Open, SLOTS, SURVIVORS},
    conductor::Conductor,
};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// A new link may wait for an introduction that began so long before, in nanoseconds.
const MARGIN: u64 = 500_000_000;
/// How much more memory a survivor may have after than before, in KiB: what the allocator's arenas keep.
const MORE_MEMORY: u64 = 12 << 10;

/// The place of expired messages in a slot's `stats`.
const EXPIRED: usize = 4;

/// Streams between survivors in which something has not arrived.
pub fn behind(board: &Board) -> Vec<String> {
    let mut behind = Vec::new();
    for from in 0..SURVIVORS {
        for to in 0..SURVIVORS {
            let stream = board.stream(from, 0, to);
            let (sent, received) = (stream.accepted.load(SeqCst), stream.received.load(SeqCst));
            if sent != received {
                behind.push(format!(
                    "{from} sent {sent} messages to {to}, which received {received}"
                ));
            }
        }
    }
    behind
}

/// What became of the messages from members that were killed to survivors.
#[derive(Debug, Default)]
pub struct LastWords {
    /// Messages, and those of them that arrived.
    pub messages: u64,
    /// Streams.
    pub streams: u64,
    /// Streams of which nothing arrived, because the controller died as well before it had passed on the first contact.
    pub unmet: u64,
    /// Messages in those.
    pub unmet_messages: u64,
}

/// Checks the messages from victims to survivors: all that was accepted has arrived.
pub fn last_words(board: &Board, conductor: &Conductor) -> Result<LastWords, String> {
    let mut words = LastWords::default();
    let mut lost = Vec::new();
    for from in SURVIVORS..SLOTS {
        for incarnation in 0..conductor.incarnations(from) {
            for to in 0..SURVIVORS {
                let stream = board.stream(from, incarnation, to);
                let accepted = stream.accepted.load(SeqCst);
                let received = stream.received.load(SeqCst);
                if accepted == 0 {
                    continue;
                }
                words.messages += accepted;
                words.streams += 1;
                if received >= accepted {
                    continue;
                }
                let begun = stream.begun.load(SeqCst);
                let killed = conductor.killed(from, incarnation);
                let controller = killed.is_some_and(|killed| {
                    let during = |at: &u64| *at + MARGIN >= begun && *at <= killed + MARGIN;
                    conductor.deeds.times.iter().any(during)
                });
                if received == 0 && controller {
                    words.unmet += 1;
                    words.unmet_messages += accepted;
                } else {
                    let lived = killed.map(|at| at.saturating_sub(begun) / 1000);
                    lost.push(format!(
                        "{from}.{incarnation} sent {accepted} messages to {to}, which received {received} (killed {lived:?} us after the first)"
                    ));
                }
            }
        }
    }
    match lost.is_empty() {
        true => Ok(words),
        false => Err(format!("last words were lost:\n{}", lost.join("\n"))),
    }
}

/// Messages to whichever victim joined first: those that a killed one had not taken go to the next. Gone is only what was
/// taken by one that was killed before it wrote that down, which takes it microseconds.
pub fn pool(board: &Board, conductor: &Conductor) -> Result<(), String> {
    let (mut sent, mut accounted) = (0, 0);
    for from in 0..SURVIVORS {
        sent += board.slots[from].pooled.load(SeqCst);
        accounted += board.pooled(from) + board.slots[from].stats[EXPIRED].load(SeqCst);
    }
    let (missing, may) = (
        sent.saturating_sub(accounted),
        2 + conductor.deeds.kills / 100,
    );
    match missing <= may {
        true => Ok(()),
        false => Err(format!(
            "of {sent} messages to the first victim {missing} are gone, and at most {may} can have died with it"
        )),
    }
}

/// What a survivor had open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    descriptors: [u64; OPEN.len()],
    mappings: u64,
    links: (u64, u64),
    resident: u64,
}

/// What the survivors have open now.
pub fn count(board: &Board) -> Vec<Count> {
    let load = |n: &AtomicU64| n.load(SeqCst);
    let count = |open: &Open| Count {
        descriptors: std::array::from_fn(|i| load(&open.descriptors[i])),
        mappings: load(&open.mappings),
        links: (load(&open.links_in), load(&open.links_out)),
        resident: load(&open.resident),
    };
    board.slots[..SURVIVORS]
        .iter()
        .map(|s| count(&s.open))
        .collect()
}

/// What differs between two counts of the survivors: what has leaked.
pub fn unbalanced(before: &[Count], after: &[Count]) -> Vec<String> {
    let mut leaks = Vec::new();
    for (slot, (before, after)) in before.iter().zip(after).enumerate() {
        for (i, what) in OPEN.iter().enumerate() {
            let (had, has) = (before.descriptors[i], after.descriptors[i]);
            // A link keeps its blocks: at most as many as were ever under way at once.
            let may = if i == BLOCKS {
                has.min(32 * after.links.1)
            } else {
                had
            };
            if has != may {
                leaks.push(format!(
                    "survivor {slot} had {had} descriptors ({what}), now {has}"
                ));
            }
        }
        if before.mappings != after.mappings {
            let (had, has) = (before.mappings, after.mappings);
            leaks.push(format!("survivor {slot} had {had} mappings, now {has}"));
        }
        if before.links != after.links {
            let (had, has) = (before.links, after.links);
            leaks.push(format!(
                "survivor {slot} had {had:?} links in and out, now {has:?}"
            ));
        }
        if after.resident > before.resident + MORE_MEMORY {
            let (had, has) = (before.resident, after.resident);
            leaks.push(format!("survivor {slot} had {had} KiB, now {has}"));
        }
    }
    leaks
}

/// The sums over the survivors, in words.
pub fn sums(counts: &[Count]) -> String {
    let sum = |f: &dyn Fn(&Count) -> u64| counts.iter().map(f).sum::<u64>();
    let blocks = sum(&|c| c.descriptors[BLOCKS]);
    let all = sum(&|c| c.descriptors.iter().sum()) - blocks;
    format!(
        "{all} descriptors and {blocks} of blocks, {} mappings, {} links in, {} out, {} KiB",
        sum(&|c| c.mappings),
        sum(&|c| c.links.0),
        sum(&|c| c.links.1),
        sum(&|c| c.resident),
    )
}

/// Messages that survivors had from survivors, by kind.
pub fn kinds(board: &Board) -> ([u64; KINDS.len()], u64) {
    let mut sums = [0; KINDS.len()];
    let mut own = 0;
    for slot in &board.slots[..SURVIVORS] {
        for (sum, count) in sums.iter_mut().zip(&slot.kinds) {
            *sum += count.load(SeqCst);
        }
        own += slot.own.load(SeqCst);
    }
    (sums, own)
}

/// How many of them one survivor had from another.
pub fn between_survivors(board: &Board) -> u64 {
    let (kinds, own) = kinds(board);
    kinds.iter().sum::<u64>().saturating_sub(own)
}

/// Prints the figures.
pub fn print(board: &Board, conductor: &Conductor, words: &LastWords) {
    let deeds = &conductor.deeds;
    println!(
        "kills: {}, of the controller {}, of which awkward {} (within 5 ms of another {}, during a join {}, within 5 ms of first contacts {}); {} were stopped",
        deeds.kills,
        deeds.controllers,
        deeds.awkward,
        deeds.double,
        deeds.joining,
        deeds.contact,
        deeds.killed_stopped
    );
    println!(
        "stopped and continued: {} (the controller {}); orderly leaves: {}",
        deeds.stops, deeds.stopped_controllers, deeds.leaves
    );
    let (kinds, own) = kinds(board);
    let list: Vec<String> = KINDS
        .iter()
        .zip(kinds)
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    println!(
        "between survivors, none lost, doubled, out of order or corrupt: {} messages, and {own} to oneself (together {})",
        between_survivors(board),
        list.join(", ")
    );
    println!(
        "from victims to survivors: {} messages in {} streams; of {} streams ({} messages) nothing arrived, because sender and controller died before the first contact was passed on",
        words.messages, words.streams, words.unmet, words.unmet_messages
    );
    let (mut sent, mut received) = (0, 0);
    for from in 0..SURVIVORS {
        sent += board.slots[from].pooled.load(SeqCst);
        received += board.pooled(from);
    }
    println!("to the first victim: {sent} messages, received {received}, none twice");
    let names = ["parked", "rerouted", "lost", "dropped", "expired"];
    let of = |i: usize| -> u64 {
        let slots = &board.slots[..SURVIVORS];
        slots.iter().map(|s| s.stats[i].load(SeqCst)).sum()
    };
    let list: Vec<String> = (0..names.len())
        .map(|i| format!("{} {}", names[i], of(i)))
        .collect();
    println!("counters of the survivors: {}", list.join(", "));
    let prober = &conductor.prober;
    println!("from the kill of the controller until a newcomer");
    println!(
        "  had joined:                    {}",
        percentiles(&prober.joined)
    );
    println!(
        "  was answered by all survivors: {}",
        percentiles(&prober.served)
    );
    println!("under the same load, without a kill, from the start of its join until a newcomer");
    println!(
        "  had joined:                    {}",
        percentiles(&prober.calm_joined)
    );
    println!(
        "  was answered by all survivors: {}",
        percentiles(&prober.calm_served)
    );
}

fn percentiles(times: &[u64]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |per_cent: usize| {
        let place = (times.len() * per_cent).div_ceil(100).max(1) - 1;
        times.get(place).map_or(f64::NAN, |t| *t as f64 / 1e6)
    };
    format!(
        "p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms of {}",
        at(50),
        at(99),
        at(100),
        times.len()
    )
}

/// Whether every kind of message was among them.
pub fn missing_kinds(board: &Board) -> Vec<&'static str> {
    let (kinds, _) = kinds(board);
    let elsewhere = [Kind::Pool as usize, Kind::Probe as usize];
    (0..KINDS.len())
        .filter(|k| kinds[*k] == 0 && !elsewhere.contains(k))
        .map(|k| KINDS[k])
        .collect()
}
