//! The only code that knows an operating system. It knows nothing of messages.
//!
//! One *backend* is compiled in: `linux`, `macos`, `windows`, or `shell`, which keeps every other system compiling and refuses at run time. This
//! file is the contract: what a backend provides, by name, and what the rest of the crate relies on. Nothing outside this
//! folder has a `cfg` of a system, but for `liars` (see `lib.rs`) and one test; what differs in the public types (`AsFd`, `AsHandle`) is given to them by the macros
//! [`owned_handle_traits`] and [`waitable_traits`]. [`BorrowedWaitable`] is what the latter lend.
//!
//! # Handles
//!
//! | item | what it is |
//! |---|---|
//! | [`Handle`], [`BorrowedHandle`], [`RawHandle`] | a kernel handle that can travel: a descriptor, a `HANDLE`, a port. What a user's `Object` holds |
//! | [`AsHandle`] | what can be handed over: handles, and the memory, bells and channels of the library |
//! | [`OwnHandle`] | a handle that the library keeps; a forked child has none |
//! | [`duplicate`] | a second handle to the same object, not inherited by child processes |
//! | [`Received`] | handles that came in a packet, until somebody takes them out |
//! | `dispose`, [`Closing`] | closes handles that came from others and that nobody asked for, which may take any time, on a thread that [`Closing`] keeps; a backend whose closes never wait closes them at once |
//! | [`Spare`] | a place in the process's table, given up when the table is full |
//! | [`MAX_HANDLES`] | how many one packet carries |
//!
//! A handle is not what one waits for: on some systems that is a different object. So there is [`AsSource`] beside
//! [`AsHandle`], and a [`SourceRef`] is all that a [`WaitSet`] takes.
//!
//! # Rendezvous
//!
//! A [`Rendezvous`] is a name, or a path, that the system gives to one process only. Whoever [`Rendezvous::win`]s has the
//! [`Seat`] until it ends, however it ends; then the name is free at once. [`Rendezvous::connect`] never waits.
//! [`Rendezvous::mark`] is a second such name, of which every member holds a handle: it is taken while one of them lives.
//! [`Seat::accept`] says by the system's own word who connected ([`Peer`]), and [`Channel::peer`] who listens.
//! [`Users`] says what an id of a user means here. A system whose users have other names maps them to 32-bit ids, and checks
//! the names themselves where the rendezvous is made (with a DACL that admits the owner alone, for instance).
//!
//! # Channel
//!
//! Ordered packets with handles; nothing waits for the other side (`WouldBlock`), and a packet goes whole or not at all. On macOS a
//! read may wait, for a bounded time, for whoever else reads the same end.
//!
//! * What was sent is still received after the sender closed its end or was killed, and so are the handles. After it, reads
//!   say the end (a packet of length 0) or an error of which [`is_hangup`] is true.
//! * A packet whose handles find no room ([`exhausted`]) stays in the channel, and is received when there is room again.
//!   The sender must not be able to pretend that: who asks for a few handles needs room for those only ([`Channel::recv_with`]).
//!   A packet with more of them is said to be one (`Packet::surplus`) and stays there, too: the channel is to be dropped, and
//!   what comes with the packet is closed with it.
//! * [`Channel::recv_next`] is told how many packets of [`AHEAD_SIZE`] bytes and one handle each follow, and may take some of those out as well, which come with the
//!   next calls from an [`Ahead`]. A backend where that is no faster takes one.
//! * [`Channel::pair`] is told for which process the far end is meant (0: not known). It can be read here as well, until it is
//!   lent to be handed over. Descriptors travel in a packet by themselves and need not know. Port rights travel ahead of it to
//!   the process, which has registered where they arrive; where they cannot, sending fails with an error of its own. A system where a handle is put into the table of a particular process by the
//!   one who gives it (`DuplicateHandle`) opens that process here. It needs rights on the process; where the sender
//!   has none, the controller, which passes introductions on, does it instead. The numbers in such a packet are believed
//!   only from those who have these rights: they could do worse than to name a wrong handle.
//! * Handles go in the direction in which messages go; the other carries packets without handles.
//! * Some systems do not let every kind of handle be on its way alone: what [`keep`] returns lives until the receiver has
//!   taken the packet, and the bell that is handed over with a channel carries it ([`Ringer::carry`]) until it has a receiver.
//!
//! # Shared memory
//!
//! A [`Memory`] never changes its size, so that a mapping of it cannot fault. [`Memory::from_peer`] checks that before
//! anything is mapped. It may be larger than what was asked for, up to whole pages; a [`Held`] is as large as asked for. A memory sealed with [`Seal::FutureWrite`] cannot be written to by whoever gets it: it must not be
//! possible to get a writable handle out of the one that is handed over.
//!
//! A [`Held`] is a memory whose handles are counted, in all processes and under way between them; the count is right again
//! once the system has torn a killed holder down, so it cannot be a number in the memory. [`Held::freeze`] makes it
//! immutable for everybody for good, or fails with `ResourceBusy` while anybody can write. What a program makes of the raw
//! handle need not count; `COUNTS_COPIES` tells the tests whether it does.
//!
//! An [`OwnedMapping`] has a word, at [`OwnedMapping::WORD`], that is not 0 while the thread that made the mapping lives. If the
//! system has robust locks it sets [`OWNER_DIED`] in it before the name of the dead process is free. Where there is nothing
//! like that, a death shows at the hang-up, and the backend must hold [`Rendezvous::win`] back until hang-ups are seen.
//!
//! # Sleep and wake
//!
//! A [`bell`] has a [`Ringer`], which never blocks, and a [`Bell`], which can be handed over. Whoever has the bell can sleep
//! on it and do nothing else: not silence it for others, not hold the ringer up. A ring is never lost: rung before the
//! sleep begins, it ends the sleep. A [`WaitSet`] sleeps on many sources ([`Interest`] says for what), and lends a handle
//! that event loops can wait for.
//!
//! [`fence_everybody`] is a full fence on every thread of the processes in which [`fences_reach_us`] is true. A system
//! without such a fence says false, and messages cost a fence each.
//!
//! # Processes and threads
//!
//! [`watch_process`] is a source that becomes readable when the process has ended; it stays with that process when the
//! number is used again. [`start_time`] tells two processes of one number apart, [`pid_space`] whether numbers can be compared.
//! [`generation`] and [`forked_since`] tell a forked child; where there is no fork they never change.
//! [`spawn`] starts a thread on which no signal handler of the program runs. [`prepare`] is called by each join, and opens
//! or registers what a sandbox that is entered later may take away; it fails where the bus cannot run. It is told the application group
//! whose names a sandbox of macOS lets pass. `end_at_once`, for tests,
//! ends the process as a kill would.

#[cfg(all(unix, not(target_os = "macos")))]
#[path = "handles/unix.rs"]
mod handles;
#[cfg(target_os = "macos")]
#[path = "handles/macos.rs"]
mod handles;
#[cfg(windows)]
#[path = "handles/windows.rs"]
mod handles;
#[cfg(not(any(unix, windows)))]
#[path = "handles/none.rs"]
mod handles;

#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos"))]
// A call to the system. Each is a point at which the tests let a process die; `.ci/points` finds those without it.
// `later`: the next call is its point, when what this one opened has an owner.
macro_rules! call {
    (later $call:expr) => {
        $call
    };
    ($call:expr) => {
        $crate::crash::after($call)
    };
}

#[cfg(any(target_os = "macos", test))]
mod ports;
mod received;

#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos"))]
mod unix;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(any(target_os = "linux", target_os = "android"))]
use linux as backend;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
use macos as backend;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as backend;

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    windows
)))]
mod shell;
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    windows
)))]
use shell as backend;

pub(crate) use handles::{
    AsHandle, BorrowedHandle, BorrowedWaitable, Handle, RawHandle, handle_as_raw, handle_from_raw,
    handle_into_raw, owned_handle_traits, waitable, waitable_traits,
};

#[cfg(all(test, any(unix, windows)))]
pub(crate) use handles::handle_into_file;

// Named one by one, so that a backend that lacks something does not compile.
#[cfg(test)]
pub(crate) use backend::COUNTS_COPIES;
#[cfg(fault)]
pub(crate) use backend::end_at_once;
pub(crate) use backend::{
    Ahead, AsSource, Bell, Channel, Closing, Event, Held, Interest, Kept, MAX_HANDLES, Mapping,
    MembersMark, Memory, OWNER_DIED, OwnHandle, OwnedMapping, Peer, Protection, Rendezvous, Ringer,
    Seal, Seat, SourceRef, Spare, Users, WaitSet, bell, duplicate, exhausted, fence_everybody,
    fences_reach_us, forked_since, generation, has_ended, is_hangup, is_no_process, is_stopped,
    keep, pid, pid_space, prepare, spawn, start_time, uid, wait_for, watch_process, yield_now,
};
pub(crate) use received::Received;

/// Packets in an [`Ahead`], at most: so many handles may be in this process's table before their turn.
pub(crate) const AHEAD_MAX: usize = 7;
/// Bytes of each of them.
pub(crate) const AHEAD_SIZE: usize = 16;

/// This test program, to be started once more. `IPMB_TEST_RUNNER` may name a program to start it through, such as an emulator.
#[cfg(test)]
pub(crate) fn own_program() -> std::process::Command {
    let program = std::env::current_exe().expect("own path");
    match std::env::var_os("IPMB_TEST_RUNNER") {
        Some(runner) => {
            let mut command = std::process::Command::new(runner);
            command.arg(program);
            command
        }
        None => std::process::Command::new(program),
    }
}
