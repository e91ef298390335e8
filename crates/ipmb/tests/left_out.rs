//! Names what cannot be built for a system, as other tests name themselves when they are left out.

#![allow(dead_code)]

mod common;

use common::needs_linux;

#[test]
fn files_are_left_out_without_a_word() {
    for (file, why) in [
        (
            "clock.rs",
            "its clock stands in for the one of Linux's C libraries",
        ),
        (
            "forks.rs",
            "its child is told apart by Linux's own mappings",
        ),
        (
            "handles_under_way.rs",
            "only Linux counts the handles that a user has under way",
        ),
        (
            "little_memory.rs",
            "its limit is that of Linux's groups of processes",
        ),
        ("regions.rs", "it forges sealed memories and locks on them"),
        ("strangers.rs", "it changes users and squats abstract names"),
        (
            "sandbox.rs",
            "its system calls are those of Linux on x86-64",
        ),
        (
            "unit::liars",
            "they forge sealed memories and packet sockets",
        ),
    ] {
        needs_linux(file, why);
    }
}
