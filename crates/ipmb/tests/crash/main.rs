//! A process dies after any store to shared memory and any system call of what it does, and the others go on.
//!
//! Each test is one *operation*. It is run again and again, each time by a new process that dies one point later (see
//! `ipmb::crash`), until it completes without reaching that point; so every point is tried. Built with `--cfg fault` only.
//! `IPMB_CRASH_STRIDE` tries each n-th point only.
//!
//! | file | job |
//! |---|---|
//! | here | the operations: what the survivors do meanwhile, and what must hold afterwards |
//! | `victim.rs` | what the dying process does |
//! | `scene.rs` | a bus with its survivors, their traffic and their books |

#![cfg(fault)]
#![allow(clippy::expect_used)]
#![allow(clippy::disallowed_types)] // Atomics between its own threads.

#[path = "../common/mod.rs"]
mod common;
mod scene;
mod victim;

use common::{Peer, listen, role, say};
use scene::{Fate, Scene, Seat, eventually};
use std::time::Instant;

/// What the other processes do; nothing when run as a test.
#[test]
fn peer() {
    let Some((role, bus)) = role() else { return };
    match role.as_str() {
        "survivor" => scene::survive(),
        role => victim::play(role, &bus),
    }
}

/// What to do with a scene at what times.
struct Operation {
    name: &'static str,
    /// Before the victim begins.
    before: fn(&mut Scene),
    /// When the victim has said something.
    heard: fn(&mut Scene, &str),
    /// Whether all that the victim did has had its effect.
    complete: fn(&mut Scene) -> bool,
    /// When it is over.
    after: fn(&mut Scene, &Fate),
}

fn nothing(_: &mut Scene) {}
fn silence(_: &mut Scene, _: &str) {}

/// Runs an operation with a victim that dies at its first point, at its second one, and so on.
fn at_every_point(operation: &Operation, seat: Seat) {
    let stride = std::env::var("IPMB_CRASH_STRIDE").map_or(1, |n| n.parse().expect("a number"));
    let (begin, mut tried, mut last) = (Instant::now(), 0u32, 1u64);
    let mut survivor = Peer::start("peer", "survivor", "");
    scene::warm_up(&mut survivor);
    loop {
        let watch = scene::watch(format!("{} {seat:?}, point {last}", operation.name));
        let mut scene = Scene::set(operation.name, seat, survivor, last);
        (operation.before)(&mut scene);
        let fate = scene.run(operation.heard, operation.complete);
        scene.others_go_on();
        (operation.after)(&mut scene, &fate);
        survivor = scene.end();
        drop(watch);
        if let Fate::Lived { left, .. } = fate {
            assert!(tried > 0 && left > 0, "nothing was tried");
            break;
        }
        tried += 1;
        last += stride;
        assert!(last < 5_000, "it never ends");
    }
    println!(
        "CRASH {} as {seat:?}: died at {tried} points, each up to {last}, in {:.1} s",
        operation.name,
        begin.elapsed().as_secs_f32()
    );
}

/// Messages of this kind came to the keeper in order, each once, whole: all that the victim knew of, and at most the one that
/// it was about to know of.
fn came_in_order(scene: &Scene, kind: u16, fate: &Fate) {
    let sent = fate.count("sent");
    let came = scene.notes(kind);
    assert!(came.iter().copied().eq(1..=came.len() as u64), "{came:?}");
    assert!(
        came.len() as u64 >= sent,
        "accepted {sent}, delivered {came:?}"
    );
    assert!(
        came.len() as u64 <= sent + 1,
        "accepted {sent}, delivered {came:?}"
    );
}

fn came_to_the_keeper(scene: &mut Scene, fate: &Fate) {
    let sent = fate.count("sent");
    eventually("what was accepted is delivered", || {
        scene.notes(victim::NOTE).len() as u64 >= sent
    });
    came_in_order(scene, victim::NOTE, fate);
}

const SEND: Operation = Operation {
    name: "send",
    before: |scene| scene.meets_the_victim(&[victim::HELLO]),
    heard: silence,
    complete: |scene| scene.notes(victim::NOTE).len() == 4,
    after: came_to_the_keeper,
};

#[test]
fn a_sender_dies_between_any_two_steps() {
    at_every_point(&SEND, Seat::Member);
    at_every_point(&SEND, Seat::Host);
}

#[test]
fn a_sender_of_large_messages_dies_between_any_two_steps() {
    let operation = Operation {
        name: "large",
        complete: |scene| scene.notes(victim::NOTE).len() == 3,
        ..SEND
    };
    at_every_point(&operation, Seat::Member);
    at_every_point(&operation, Seat::Host);
}

/// The one gap: a first contact is not passed on if its sender hosts the controller and dies.
fn first_contact(scene: &mut Scene, fate: &Fate) {
    match scene.seat {
        Seat::Member => came_to_the_keeper(scene, fate),
        _ => {
            let came = scene.notes(victim::NOTE);
            assert!(came.iter().copied().eq(1..=came.len() as u64), "{came:?}");
            assert!(
                came.len() as u64 <= fate.count("sent") + 1,
                "delivered {came:?}"
            );
        }
    }
}

#[test]
fn a_sender_dies_during_a_first_contact() {
    let operation = Operation {
        name: "first",
        before: nothing,
        complete: |scene| scene.notes(victim::NOTE).len() == 2,
        after: first_contact,
        ..SEND
    };
    at_every_point(&operation, Seat::Member);
    at_every_point(&operation, Seat::Host);
}

#[test]
fn a_sender_of_handles_dies_between_any_two_steps() {
    let operation = Operation {
        name: "handles",
        complete: |scene| scene.notes(victim::NOTE).len() == 2,
        after: |scene, fate| {
            came_to_the_keeper(scene, fate);
            scene.nobody_else_holds_the_regions();
        },
        ..SEND
    };
    at_every_point(&operation, Seat::Member);
    at_every_point(&operation, Seat::Host);
}

#[test]
fn a_user_of_a_registry_dies_between_any_two_steps() {
    let operation = Operation {
        name: "registry",
        complete: |scene| scene.notes(victim::NOTE).len() == 3,
        after: |scene, fate| {
            came_to_the_keeper(scene, fate);
            scene.nobody_else_holds_the_regions();
        },
        ..SEND
    };
    at_every_point(&operation, Seat::Member);
    at_every_point(&operation, Seat::Host);
}

#[test]
fn a_sender_of_multicasts_dies_between_any_two_steps() {
    let operation = Operation {
        name: "multicast",
        before: |scene| scene.meets_the_victim(&[victim::HELLO, victim::HELLO | scene::ECHO]),
        complete: |scene| {
            scene.notes(victim::NOTE).len() == 3
                && scene.notes(victim::NOTE | scene::ECHO).len() == 3
        },
        after: |scene, fate| {
            came_to_the_keeper(scene, fate);
            let sent = fate.count("sent");
            eventually("what was accepted reaches everybody", || {
                scene.notes(victim::NOTE | scene::ECHO).len() as u64 >= sent
            });
            came_in_order(scene, victim::NOTE | scene::ECHO, fate);
        },
        ..SEND
    };
    at_every_point(&operation, Seat::Member);
    at_every_point(&operation, Seat::Host);
}

#[test]
fn a_sender_dies_when_its_parked_message_finds_a_receiver() {
    let operation = Operation {
        name: "parked",
        before: nothing,
        heard: |scene, said| {
            if said == "sent 1" {
                scene.join_late();
            }
        },
        complete: |scene| scene.late() == [1],
        after: |scene, _| assert!(scene.late().len() <= 1, "delivered twice"),
        ..SEND
    };
    at_every_point(&operation, Seat::Member);
    at_every_point(&operation, Seat::Host);
}

#[test]
fn a_leaver_dies_while_it_hands_over() {
    let operation = Operation {
        name: "leave",
        before: nothing,
        complete: |scene| {
            scene.join_late();
            scene.late() == [1]
        },
        after: |scene, fate| {
            scene.join_late();
            if fate.said("left") {
                eventually("what was handed over is delivered", || scene.late() == [1]);
            }
            assert!(scene.late().len() <= 1, "delivered twice");
        },
        ..SEND
    };
    at_every_point(&operation, Seat::Member);
    at_every_point(&operation, Seat::Host);
}

/// What the victim has taken, and what goes to the next receiver: at most the one in between is missing.
fn the_rest_goes_to_the_next(scene: &mut Scene, fate: &Fate) {
    let got = fate.count("got");
    if matches!(fate, Fate::Died { .. }) {
        scene.join_next();
        eventually("what the dead one had not taken is delivered", || {
            got >= 5 || scene.next().last() == Some(&6)
        });
        let next = scene.next();
        let first = next.first().copied().unwrap_or(7);
        assert!(
            first == got + 1 || first == got + 2,
            "got {got}, then {next:?}"
        );
        assert!(
            next.iter().copied().eq(first..=6),
            "got {got}, then {next:?}"
        );
    }
}

const RECEIVE: Operation = Operation {
    name: "receive",
    before: |scene| scene.keeper_sends_work(16, false),
    heard: silence,
    complete: |_| true,
    after: the_rest_goes_to_the_next,
};

#[test]
fn a_receiver_dies_between_any_two_steps() {
    at_every_point(&RECEIVE, Seat::Member);
    at_every_point(&RECEIVE, Seat::Host);
}

#[test]
fn a_receiver_of_large_messages_dies_between_any_two_steps() {
    let operation = Operation {
        name: "receive large",
        before: |scene| scene.keeper_sends_work(300_000, false),
        ..RECEIVE
    };
    at_every_point(&operation, Seat::Member);
    at_every_point(&operation, Seat::Host);
}

#[test]
fn a_receiver_of_handles_dies_between_any_two_steps() {
    let operation = Operation {
        name: "receive handles",
        before: |scene| scene.keeper_sends_work(16, true),
        // Those with handles do not go to anybody else.
        after: |scene, fate| {
            if matches!(fate, Fate::Died { .. }) {
                scene.join_next();
                assert!(scene.next().is_empty());
            }
            scene.nobody_else_holds_the_regions();
        },
        ..RECEIVE
    };
    at_every_point(&operation, Seat::Member);
    at_every_point(&operation, Seat::Host);
}

/// The receiver is contacted for the first time, and woken, while it counts its points.
#[test]
fn a_receiver_dies_while_it_accepts_a_link() {
    let operation = Operation {
        name: "accept",
        before: nothing,
        heard: |scene, said| {
            if said == "armed" {
                scene.keeper_sends_work(16, false);
            }
        },
        ..RECEIVE
    };
    at_every_point(&operation, Seat::Member);
    at_every_point(&operation, Seat::Host);
}

#[test]
fn a_joiner_dies_between_any_two_steps() {
    let operation = Operation {
        name: "join",
        before: nothing,
        complete: |_| true,
        after: |_, _| (),
        ..SEND
    };
    at_every_point(&operation, Seat::Member);
    at_every_point(&operation, Seat::Host);
}

#[test]
fn a_controller_dies_while_others_join_and_meet() {
    let operation = Operation {
        name: "admit",
        before: nothing,
        heard: |scene, said| {
            if said == "armed" {
                scene.a_newcomer_meets_everybody();
            }
        },
        complete: |_| true,
        after: |_, _| (),
        ..SEND
    };
    at_every_point(&operation, Seat::Host);
}

/// What it had taken over goes with it, at worst.
#[test]
fn a_controller_dies_while_it_takes_over_from_a_leaver() {
    let operation = Operation {
        name: "inherit",
        before: Scene::join_a_leaver,
        heard: |scene, said| {
            if said == "armed" {
                scene.the_leaver_hands_over();
            }
        },
        complete: |scene| scene.late() == [1],
        after: |scene, _| assert!(scene.late().len() <= 1, "delivered twice"),
        ..SEND
    };
    at_every_point(&operation, Seat::Host);
}

#[test]
fn a_successor_dies_while_it_takes_over() {
    let operation = Operation {
        name: "succeed",
        before: nothing,
        heard: |scene, said| {
            if said == "armed" {
                scene.kill_the_first_host();
            }
        },
        complete: Scene::is_settled,
        after: |_, _| (),
        ..SEND
    };
    at_every_point(&operation, Seat::Heir);
}

/// A process that is told to wait only.
fn wait_for_the_end() {
    say("done");
    while listen().is_some_and(|line| line != "over") {}
}
