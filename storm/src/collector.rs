//! Has messages parked: asks for one of each other survivor to a label that does not exist yet, joins with it a little
//! later, and expects each exactly once.

use crate::{
    board::{Kind, Phase, SURVIVORS},
    member::{self, Place},
    note,
};
use ipmb::{BytesMessage, RecvError, label};
use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

/// The label of a round of a slot's collector.
pub fn label_of(slot: usize, round: u64) -> String {
    format!("late.{slot}.{round}")
}

/// Collects, round by round.
pub fn run(place: Place, done: &AtomicBool) {
    let mut chance = place.chance(3);
    let mine = place.mine();
    let mut round = 0;
    while !done.load(SeqCst) {
        mine.collector_idle.store(1, SeqCst);
        if place.board.phase() != Phase::Run {
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        mine.collector_idle.store(0, SeqCst);
        if place.board.phase() != Phase::Run {
            continue;
        }
        round += 1;
        mine.collect.store(round, SeqCst);
        thread::sleep(chance.time(Duration::from_millis(100)));
        if let Err(what) = collect(place, round) {
            place.violation(&format!("round {round} of parked messages: {what}"));
        }
        thread::sleep(chance.time(Duration::from_millis(500)));
    }
}

fn collect(place: Place, round: u64) -> Result<(), String> {
    let label = label!(label_of(place.slot, round));
    let (sender, receiver) = ipmb::join::<BytesMessage, BytesMessage>(
        member::options(place, label),
        Some(Duration::from_secs(30)),
    )
    .map_err(|e| format!("could not join: {e}"))?;
    let mut missing: Vec<usize> = (0..SURVIVORS).filter(|s| *s != place.slot).collect();
    let mut patience = Duration::from_secs(30);
    loop {
        let head = match receiver.recv(Some(patience)) {
            Ok(message) => note::read(message)?.0,
            Err(RecvError::Timeout) if missing.is_empty() => break,
            Err(e) => return Err(format!("{e}, none came from {missing:?}")),
        };
        let expected = head.kind == Kind::Parked && head.nonce == round;
        match missing.iter().position(|s| *s == head.from) {
            Some(at) if expected => drop(missing.swap_remove(at)),
            _ => return Err(format!("unexpected: {head:?}")),
        }
        let mine = place.mine();
        mine.kinds[Kind::Parked as usize].fetch_add(1, SeqCst);
        if missing.is_empty() {
            // A second copy of one would come now.
            patience = Duration::from_millis(20);
        }
    }
    drop(receiver);
    sender
        .leave(Some(Duration::from_secs(20)))
        .map_err(|e| format!("could not leave: {e}"))
}
