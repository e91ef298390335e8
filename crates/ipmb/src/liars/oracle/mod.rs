//! What must hold whatever a peer says: bodies of tests that take any bytes.
//!
//! Each body runs three ways: over the committed seeds of its fuzz target (`fuzz/seeds`), over random bytes as a property
//! test, and without end as the target itself (`fuzz/`, see there). The bytes are read as what a liar does, step by step;
//! between its lies it is honest, so that what it says gets far. A body panics when something does not hold.
//!
//! | file | who lies, and to whom |
//! |---|---|
//! | `parsers.rs` | whoever sends control packets, labels and selectors |
//! | `payloads.rs` | whoever sends a payload |
//! | `directories.rs` | the controller, in its directory |
//! | `controllers.rs` | members, to the controller |
//! | `members.rs` | the controller, to a member |
//! | `readers.rs` | the sender of a link, to its receiver |
//! | `writers.rs` | the receiver of a link, to its sender |
//! | `regions.rs` | whoever hands over a memory region |
//!
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod controllers;
mod directories;
mod members;
mod parsers;
mod payloads;
mod readers;
mod regions;
mod writers;

pub use controllers::controllers;
pub use directories::directories;
pub use members::members;
pub use parsers::parsers;
pub use payloads::payloads;
pub use readers::readers;
pub use regions::regions;
pub use writers::writers;

use crate::{
    Options,
    control::bus::Bus,
    label,
    sync::process::{AtomicU32, Ordering},
    sys,
};
use arbitrary::Unstructured;
use std::os::fd::{AsFd, OwnedFd};

/// A step of the liar's; 0 when there are no more.
fn step(input: &mut Unstructured<'_>, kinds: u8) -> u8 {
    input.arbitrary::<u8>().unwrap_or(0) % kinds
}

/// A number up to a limit.
fn up_to(input: &mut Unstructured<'_>, most: usize) -> usize {
    input.int_in_range(0..=most).unwrap_or(0)
}

/// Some bytes, at most so many.
fn some_bytes<'a>(input: &mut Unstructured<'a>, most: usize) -> &'a [u8] {
    let len = up_to(input, most).min(input.len());
    input.bytes(len).unwrap_or(&[])
}

/// A number that is of no meaning, or near one that has: `near`, a power of two, the largest.
fn odd_number(input: &mut Unstructured<'_>, near: u64) -> u64 {
    let small = |input: &mut Unstructured<'_>| input.arbitrary::<i8>().map_or(0, i64::from);
    match step(input, 6) {
        0 => input.arbitrary().unwrap_or(0),
        1 => 1 << up_to(input, 63),
        2 => (1 << up_to(input, 63)) - 1,
        3 => 0u64.wrapping_add_signed(small(input)),
        4 => near.wrapping_add_signed(small(input)),
        _ => near.wrapping_add_signed(small(input) * 8),
    }
}

/// A handle of some kind: what is asked for, and what is not.
fn odd_handle(input: &mut Unstructured<'_>) -> OwnedFd {
    // SAFETY: calls without pointers but to terminated names; each result is a new descriptor, or checked below.
    let fd = unsafe {
        match step(input, 6) {
            0 => libc::eventfd(0, libc::EFD_CLOEXEC),
            1 => libc::epoll_create1(libc::EPOLL_CLOEXEC),
            2 => libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0),
            3 => libc::open(c"/".as_ptr(), libc::O_DIRECTORY | libc::O_CLOEXEC),
            4 => libc::open(c"/dev/null".as_ptr(), libc::O_PATH | libc::O_CLOEXEC),
            _ => {
                let size = [0, 1, 64, 4096, 8192, 4096 + (64 << 10)][up_to(input, 5)];
                let fd = libc::memfd_create(
                    c"odd".as_ptr(),
                    libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING,
                );
                libc::ftruncate(fd, size);
                libc::fcntl(fd, libc::F_ADD_SEALS, up_to(input, 31) as libc::c_int);
                fd
            }
        }
    };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: opened just now, and nobody else has it.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }
}

/// Up to so many of them.
fn odd_handles(input: &mut Unstructured<'_>, most: usize) -> Vec<OwnedFd> {
    (0..up_to(input, most)).map(|_| odd_handle(input)).collect()
}

/// As a channel takes them.
fn borrowed(handles: &[OwnedFd]) -> Vec<std::os::fd::BorrowedFd<'_>> {
    handles.iter().map(AsFd::as_fd).collect()
}

/// A bus of a name that nobody else uses.
fn fresh_bus() -> Bus {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("oracle.{}.{number}", sys::pid());
    Bus::new(Options::new(name, label!("oracle"), TOKEN)).unwrap()
}

const TOKEN: &str = "a token that liars know";

/// Serves nobody.
#[derive(Default)]
struct Deaf;

impl crate::control::membership::Events for Deaf {
    fn directory_changed(&self) {}
    fn put_off(&self, _: u64) {}
    fn introduced(&self, _: u64, _: u64, _: sys::Received) -> Option<sys::Received> {
        None
    }
    fn introduce(&self, _: &sys::Channel, _: bool) -> std::io::Result<()> {
        Ok(())
    }
    fn no_such_member(&self, _: u64) {}
    fn side_news(&self, _: u64, _: bool) {}
    fn expired(&self) {}
    fn parked(&self, _: crate::control::membership::Parked) {}
    fn left_behind(&self) -> Vec<crate::control::membership::Parked> {
        Vec::new()
    }
    fn lost(&self, _: u64) {}
    fn ended(&self) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// The seeds of a target: inputs that reach far, and those that once told of a fault.
    fn seeds(target: &str, oracle: fn(&[u8])) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        if !folder.exists() {
            println!("SKIPPED seeds of {target}: they are in the repository, not in the package");
            return;
        }
        let mut count = 0;
        for file in std::fs::read_dir(folder.join(target)).unwrap() {
            let path = file.unwrap().path();
            println!("{}", path.display());
            oracle(&std::fs::read(path).unwrap());
            count += 1;
        }
        assert!(count > 0, "no seeds of {target}");
    }

    fn anything() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![any::<u8>(), 0..16_u8], 0..512)
    }

    #[test]
    fn a_known_packet_breaks_a_parser() {
        seeds("parsers", super::parsers);
    }

    #[test]
    fn a_known_payload_breaks_the_codec() {
        seeds("payloads", super::payloads);
    }

    #[test]
    fn a_known_directory_fools_its_reader() {
        seeds("directories", super::directories);
    }

    #[test]
    fn a_known_member_fools_the_controller() {
        seeds("controllers", super::controllers);
    }

    #[test]
    fn a_known_controller_fools_its_member() {
        seeds("members", super::members);
    }

    #[test]
    fn a_known_sender_fools_its_receiver() {
        seeds("readers", super::readers);
    }

    #[test]
    fn a_known_receiver_fools_its_sender() {
        seeds("writers", super::writers);
    }

    #[test]
    fn a_known_handle_passes_for_a_region() {
        seeds("regions", super::regions);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_packet_breaks_a_parser(bytes in anything()) {
            super::parsers(&bytes);
        }

        #[test]
        fn any_payload_breaks_the_codec(bytes in anything()) {
            super::payloads(&bytes);
        }

        #[test]
        fn any_directory_fools_its_reader(bytes in anything()) {
            super::directories(&bytes);
        }

        #[test]
        fn any_member_fools_the_controller(bytes in anything()) {
            super::controllers(&bytes);
        }

        #[test]
        fn any_controller_fools_its_member(bytes in anything()) {
            super::members(&bytes);
        }

        #[test]
        fn any_sender_fools_its_receiver(bytes in anything()) {
            super::readers(&bytes);
        }

        #[test]
        fn any_receiver_fools_its_sender(bytes in anything()) {
            super::writers(&bytes);
        }

        #[test]
        fn any_handle_passes_for_a_region(bytes in anything()) {
            super::regions(&bytes);
        }
    }
}
