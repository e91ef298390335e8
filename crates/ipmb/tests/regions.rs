//! Memory regions between processes that are really killed (promises 22, 23 and 26).
//!
//! A child is this test binary once more, told by an environment variable to serve commands from its standard input,
//! a socket. `IPMB_TEST_RUNNER` may name a program to start it through, such as an emulator.
#![cfg(any(target_os = "linux", target_os = "android"))]
#![allow(clippy::unwrap_used)]

use ipmb::{Error, MemoryRegion, MemoryRegistry, Object};
use rustix::{
    fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg,
        socketpair,
    },
};
use std::{
    cell::{Cell, RefCell},
    env,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    process::{Child, Command, Stdio},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

const ROLE: &str = "IPMB_REGIONS_CHILD";

/// What a child is asked, one byte each; it answers with a number.
mod ask {
    /// Hold the region that comes along, if it is one; 1, or 0 if it is refused.
    pub const HOLD: u8 = b'h';
    /// Map it, for writing; 1, or 0 if that fails.
    pub const MAP: u8 = b'm';
    pub const UNMAP: u8 = b'u';
    pub const DROP: u8 = b'd';
    /// `ref_count()`.
    pub const COUNT: u8 = b'c';
    /// `buffer_size()`.
    pub const SIZE: u8 = b's';
    /// Add one to the first byte.
    pub const BUMP: u8 = b'b';
    /// First byte of the frozen region, 1000 if it is not frozen.
    pub const FROZEN: u8 = b'f';
    /// Make, use and drop all sorts of things; 1 if descriptors and mappings are as before.
    pub const CHURN: u8 = b'l';
}

struct Peer {
    child: Child,
    socket: OwnedFd,
}

impl Peer {
    fn spawn() -> Self {
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let runner = env::var("IPMB_TEST_RUNNER").unwrap_or_default();
        let mut words: Vec<_> = runner.split_whitespace().map(Into::into).collect();
        words.push(env::current_exe().unwrap().into_os_string());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args([
                "--exact",
                "child_process",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ROLE, "1")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, socket }
    }

    fn ask(&self, what: u8) -> u32 {
        send(&self.socket, &[what], SendFlags::NOSIGNAL).unwrap();
        self.answer()
    }

    fn hand_over(&self, object: &Object) -> u32 {
        self.ask_with(ask::HOLD, object.as_fd())
    }

    fn ask_with(&self, what: u8, fd: BorrowedFd<'_>) -> u32 {
        let mut space = [MaybeUninit::uninit(); 64];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(
            &self.socket,
            &[IoSlice::new(&[what])],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .unwrap();
        self.answer()
    }

    fn answer(&self) -> u32 {
        let mut answer = [0; 4];
        let (_, len) =
            rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::empty()).unwrap();
        assert_eq!(len, 4, "the child is gone");
        u32::from_ne_bytes(answer)
    }

    /// SIGKILL, and until the kernel has torn it down.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what a child runs.
#[test]
fn child_process() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let stdin = std::io::stdin();
    let mut region = None;
    loop {
        let (what, fd) = next_command(stdin.as_fd());
        let answer = match what {
            None => std::process::exit(0),
            Some(ask::HOLD) => {
                region = MemoryRegion::from_object(fd.unwrap().into()).ok();
                u32::from(region.is_some())
            }
            Some(ask::MAP) => u32::from(region.as_mut().unwrap().map(..).is_ok()),
            Some(ask::UNMAP) => {
                region.as_mut().unwrap().unmap();
                1
            }
            Some(ask::DROP) => u32::from(region.take().is_some()),
            Some(ask::COUNT) => region.as_ref().unwrap().ref_count(),
            Some(ask::SIZE) => region.as_ref().unwrap().buffer_size() as u32,
            Some(ask::BUMP) => {
                let data = region.as_mut().unwrap().map(..1).unwrap();
                data[0] += 1;
                data[0].into()
            }
            Some(ask::FROZEN) => region
                .as_ref()
                .unwrap()
                .as_frozen()
                .map_or(1000, |data| data[0].into()),
            Some(ask::CHURN) => {
                churn(); // What is made once per process.
                let before = (descriptors(), mappings());
                churn();
                u32::from(before == (descriptors(), mappings()))
            }
            Some(other) => panic!("command {other}"),
        };
        send(&stdin, &answer.to_ne_bytes(), SendFlags::NOSIGNAL).unwrap();
    }
}

fn next_command(socket: BorrowedFd<'_>) -> (Option<u8>, Option<OwnedFd>) {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); 64];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let len = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .map_or(0, |received| received.bytes);
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            fd = fds.next();
        }
    }
    ((len == 1).then_some(byte[0]), fd)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("ipmb")).count()
}

fn churn() {
    let mut registry = MemoryRegistry::default();
    let mut kept = Vec::new();
    for size in [0, 1, 4096, 100_000] {
        let mut region = MemoryRegion::new(size);
        region.map(..).unwrap().fill(1);
        kept.push(region.clone().unwrap());
        kept.push(MemoryRegion::from_object(region.object().clone().unwrap()).unwrap());
        region.freeze().unwrap();
        assert_eq!(region.as_frozen().unwrap().len(), size);
        let mut region = registry.alloc(size, None);
        region.map(..).unwrap();
        kept.push(region);
    }
    drop(registry);
}

fn inode(region: &MemoryRegion) -> u64 {
    fstat(region.object()).unwrap().st_ino
}

#[test]
fn both_sides_see_one_memory_and_one_size() {
    let mut region = MemoryRegion::new(100_001);
    assert_eq!(region.map(..).unwrap().len(), 100_001);
    assert_eq!(region.map(..).unwrap().as_ptr().align_offset(4096), 0);
    region.map(..).unwrap()[0] = 41;
    let peer = Peer::spawn();
    assert_eq!(peer.hand_over(region.object()), 1);
    assert_eq!(peer.ask(ask::SIZE), 100_001);
    assert_eq!(peer.ask(ask::BUMP), 42);
    assert_eq!(region.map(..).unwrap()[0], 42);
}

#[test]
fn the_count_is_right_after_a_kill() {
    let region = MemoryRegion::new(10);
    let peers = [Peer::spawn(), Peer::spawn()];
    for peer in &peers {
        assert_eq!(peer.hand_over(region.object()), 1);
        assert_eq!(peer.ask(ask::MAP), 1);
    }
    assert_eq!(region.ref_count(), 3);
    let [one, two] = peers;
    assert_eq!(one.ask(ask::COUNT), 3);
    one.kill();
    assert_eq!(region.ref_count(), 2);
    assert_eq!(two.ask(ask::COUNT), 2);
    assert_eq!(two.ask(ask::DROP), 1);
    assert_eq!(region.ref_count(), 1);
}

#[test]
fn many_handles_are_all_counted() {
    let region = MemoryRegion::new(10);
    let handles: Vec<_> = (0..300).map(|_| region.clone().unwrap()).collect();
    assert_eq!(region.ref_count(), 301);
    assert_eq!(handles[7].ref_count(), 301);
    drop(handles);
    assert_eq!(region.ref_count(), 1);
}

#[test]
fn a_region_mapped_elsewhere_cannot_be_frozen() {
    let mut region = MemoryRegion::new(10);
    region.map(..).unwrap()[0] = 1;
    let peer = Peer::spawn();
    assert_eq!(peer.hand_over(region.object()), 1);
    assert_eq!(peer.ask(ask::MAP), 1);
    assert!(matches!(region.freeze(), Err(Error::Busy)));
    // Nothing has changed: both still write.
    assert!(!region.is_frozen());
    assert!(matches!(region.as_frozen(), Err(Error::NotFrozen)));
    assert_eq!(peer.ask(ask::FROZEN), 1000);
    assert_eq!(peer.ask(ask::BUMP), 2);
    assert_eq!(region.map(..).unwrap()[0], 2);
    assert_eq!(peer.ask(ask::UNMAP), 1);
    region.freeze().unwrap();
    region.freeze().unwrap();
    assert!(region.is_frozen());
    assert!(matches!(region.map(..), Err(Error::Frozen)));
    assert_eq!(region.as_frozen().unwrap()[0], 2);
    assert_eq!(peer.ask(ask::MAP), 0);
    assert_eq!(peer.ask(ask::FROZEN), 2);
    // A frozen region is cloned, counted and handed over like any other.
    let second = Peer::spawn();
    assert_eq!(second.hand_over(region.clone().unwrap().object()), 1);
    assert_eq!(second.ask(ask::FROZEN), 2);
    assert_eq!(region.ref_count(), 3);
}

#[test]
fn a_killed_mapper_does_not_keep_a_region_from_being_frozen() {
    let mut region = MemoryRegion::new(10);
    let peer = Peer::spawn();
    assert_eq!(peer.hand_over(region.object()), 1);
    assert_eq!(peer.ask(ask::MAP), 1);
    assert!(matches!(region.freeze(), Err(Error::Busy)));
    peer.kill();
    region.freeze().unwrap();
}

#[test]
fn only_the_asked_bytes_can_be_mapped() {
    let mut region = MemoryRegion::new(10);
    assert_eq!(region.map(..).unwrap().len(), 10);
    assert_eq!(region.map(10..).unwrap().len(), 0);
    assert_eq!(region.map(3..=5).unwrap().len(), 3);
    assert!(matches!(
        region.map(5..11),
        Err(Error::OutOfBounds {
            start: 5,
            end: 11,
            size: 10
        })
    ));
    assert!(region.map(11..).is_err());
    assert!(region.map(0..=usize::MAX).is_err());
    assert!(region.map(usize::MAX..).is_err());
}

#[test]
fn a_region_of_no_bytes_is_a_region() {
    let mut region = MemoryRegion::new(0);
    assert_eq!(region.buffer_size(), 0);
    assert!(region.map(..).unwrap().is_empty());
    assert!(region.map(..1).is_err());
    let peer = Peer::spawn();
    assert_eq!(peer.hand_over(region.object()), 1);
    assert_eq!(peer.ask(ask::SIZE), 0);
    assert_eq!(region.ref_count(), 2);
    assert!(matches!(region.as_frozen(), Err(Error::NotFrozen)));
    region.freeze().unwrap();
    assert!(region.as_frozen().unwrap().is_empty());
    assert!(matches!(region.map(..), Err(Error::Frozen)));
}

#[test]
fn a_large_region_costs_no_more_time_than_a_small_one() {
    let start = Instant::now();
    let mut region = MemoryRegion::new(1 << 30);
    region.map(..).unwrap()[1 << 29] = 1;
    region.clone().unwrap().map(..).unwrap()[(1 << 30) - 1] = 1;
    assert_eq!(region.ref_count(), 1);
    region.freeze().unwrap();
    assert_eq!(region.as_frozen().unwrap()[1 << 29], 1);
    let blocks = fstat(region.object()).unwrap().st_blocks;
    drop(region);
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    assert!(blocks < 64 << 11, "{blocks} blocks");
}

#[test]
fn sizes_that_no_system_has_are_an_error() {
    // A process with 32-bit addresses may well find room for half of them.
    let half = (usize::BITS > 32).then_some(isize::MAX as usize);
    let beyond = [usize::MAX, isize::MAX as usize + 1];
    for size in beyond.into_iter().chain(half) {
        let map = MemoryRegion::try_new(size).and_then(|mut region| region.map(..).map(|_| ()));
        assert!(
            matches!(map, Err(Error::Exhausted(..) | Error::Io(..))),
            "{map:?}"
        );
        assert!(
            MemoryRegistry::default()
                .try_alloc(usize::MAX, None)
                .is_err()
        );
    }
}

/// A memfd with these seals.
fn memfd(flags: MemfdFlags, seals: SealFlags) -> OwnedFd {
    let fd = memfd_create("hostile", flags | MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, 2 << 20).unwrap();
    if !seals.is_empty() {
        fcntl_add_seals(&fd, seals).unwrap();
    }
    fd
}

fn reopened(fd: &OwnedFd, flags: OFlags) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

#[test]
fn what_is_no_region_is_refused() {
    let sealing = MemfdFlags::ALLOW_SEALING;
    let size = SealFlags::SHRINK | SealFlags::GROW;
    let good = memfd(sealing, size);
    let mut hostile: Vec<(&str, OwnedFd)> = vec![
        ("pipe", rustix::pipe::pipe().unwrap().0),
        ("device", std::fs::File::open("/dev/null").unwrap().into()),
        ("directory", std::fs::File::open("/").unwrap().into()),
        (
            "file",
            std::fs::File::open(env::current_exe().unwrap())
                .unwrap()
                .into(),
        ),
        ("unsealed", memfd(sealing, SealFlags::empty())),
        ("unsealable", memfd(MemfdFlags::empty(), SealFlags::empty())),
        ("can grow", memfd(sealing, SealFlags::SHRINK)),
        ("can shrink", memfd(sealing, SealFlags::GROW)),
        ("one writes", memfd(sealing, size | SealFlags::FUTURE_WRITE)),
        ("read-only", reopened(&good, OFlags::RDONLY)),
        ("write-only", reopened(&good, OFlags::WRONLY)),
        ("path", reopened(&good, OFlags::PATH)),
    ];
    if let Ok(huge) = memfd_create("huge", sealing | MemfdFlags::HUGETLB | MemfdFlags::CLOEXEC) {
        if ftruncate(&huge, 2 << 20).is_ok() && fcntl_add_seals(&huge, size).is_ok() {
            hostile.push(("huge pages", huge));
        }
    }
    for (what, fd) in hostile {
        let region = MemoryRegion::from_object(fd.into());
        assert!(
            matches!(region, Err(Error::NotARegion(_))),
            "{what}: {region:?}"
        );
    }
    assert_eq!(
        MemoryRegion::from_object(good.into())
            .unwrap()
            .map(..)
            .unwrap()
            .len(),
        2 << 20
    );
}

#[test]
fn nobody_can_truncate_a_region() {
    let region = MemoryRegion::new(8192);
    let raw = region.object().clone().unwrap();
    assert!(ftruncate(&raw, 0).is_err());
    assert!(ftruncate(&raw, 1 << 20).is_err());
    assert_eq!(region.buffer_size(), 8192);
}

/// What a hostile holder may do with locks.
fn lock(fd: &impl AsRawFd, start: i64, len: i64) {
    // SAFETY: zero bytes are a valid `flock`, and fcntl only reads it.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as _;
        lock.l_start = start as _;
        lock.l_len = len as _;
        libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock);
    }
}

#[test]
fn a_flood_of_locks_hangs_nobody() {
    let region = MemoryRegion::new(10);
    let raw: OwnedFd = region.object().as_fd().try_clone_to_owned().unwrap();
    let hostile = reopened(&raw, OFlags::RDWR);
    for n in 0..3000 {
        lock(&hostile, n * 1000, 1);
    }
    let start = Instant::now();
    assert!((1001..=3001).contains(&region.ref_count()));
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    // All that is free: nobody can get a handle any more, and is told so.
    for n in 0..3001 {
        lock(&hostile, n * 1000 - 999, 999);
    }
    lock(&hostile, 0, 0);
    let _ = region.clone();
    assert!(region.ref_count() >= 1);
    drop(hostile);
    // A child that another test is starting keeps a copy until it executes.
    let start = Instant::now();
    while region.ref_count() != 1 && start.elapsed() < Duration::from_secs(5) {
        thread::yield_now();
    }
    assert_eq!(region.ref_count(), 1);
    region.clone().unwrap();
}

#[test]
fn the_registry_gives_nothing_out_that_another_process_holds() {
    let mut registry = MemoryRegistry::default();
    let mut region = registry.alloc(10_000, None);
    assert!(region.buffer_size() >= 10_000);
    region.map(..).unwrap()[0] = 7;
    let first = inode(&region);
    let peer = Peer::spawn();
    assert_eq!(peer.hand_over(region.object()), 1);
    drop(region);
    assert_ne!(inode(&registry.alloc(10_000, None)), first);
    peer.kill();
    let ids = [(); 2]
        .map(|()| registry.alloc(10_000, None))
        .map(|region| inode(&region));
    assert!(ids.contains(&first), "{ids:?} {first}");
}

#[test]
fn the_registry_minds_tags_and_sizes() {
    let mut registry = MemoryRegistry::default();
    let plain = inode(&registry.alloc(100_000, None));
    let tagged = inode(&registry.alloc(100_000, Some("a")));
    assert_ne!(plain, tagged);
    assert_eq!(inode(&registry.alloc(100_000, Some("a"))), tagged);
    assert_ne!(inode(&registry.alloc(100_000, Some("b"))), tagged);
    assert_eq!(inode(&registry.alloc(60_000, None)), plain);
    assert_ne!(inode(&registry.alloc(200_000, None)), plain);
    let large = inode(&registry.alloc(8 << 20, None));
    assert_ne!(inode(&registry.alloc(1 << 20, None)), large);
    assert_eq!(inode(&registry.alloc(8 << 20, None)), large);
}

#[test]
fn the_registry_does_not_use_a_frozen_region_again() {
    let mut registry = MemoryRegistry::default();
    let mut region = registry.alloc(10, None);
    let first = inode(&region);
    region.freeze().unwrap();
    drop(region);
    let mut region = registry.alloc(10, None);
    assert_ne!(inode(&region), first);
    region.map(..).unwrap();
}

#[test]
fn free_is_called_once_by_the_next_call_and_on_its_thread() {
    let calls = Rc::new(RefCell::new(Vec::new()));
    let note = |name: &'static str| {
        let calls = calls.clone();
        move || calls.borrow_mut().push((name, thread::current().id()))
    };
    let mut registry = MemoryRegistry::default();
    let a = registry.alloc_with_free(10, None, note("a"));
    let b = registry.alloc_with_free(10, None, note("b"));
    let peer = Peer::spawn();
    assert_eq!(peer.hand_over(a.object()), 1);
    thread::spawn(move || drop((a, b))).join().unwrap();
    assert!(calls.borrow().is_empty());
    let _region = registry.alloc(1 << 20, None);
    let here = thread::current().id();
    assert_eq!(*calls.borrow(), [("b", here)]);
    registry.maintain();
    assert_eq!(calls.borrow().len(), 1);
    peer.kill();
    registry.maintain();
    registry.maintain();
    assert_eq!(*calls.borrow(), [("b", here), ("a", here)]);
    let _held = registry.alloc_with_free(10, None, note("c"));
    drop(registry);
    assert_eq!(calls.borrow()[2..], [("c", here)]);
}

#[test]
fn a_free_that_panics_costs_no_other_its_call() {
    let count = Rc::new(Cell::new(0));
    let mut registry = MemoryRegistry::default();
    let regions = [0, 1, 2].map(|n| {
        let count = count.clone();
        registry.alloc_with_free(10, None, move || {
            count.set(count.get() + 1);
            assert_ne!(n, 1);
        })
    });
    drop(regions);
    let maintain = std::panic::AssertUnwindSafe(|| registry.maintain());
    assert!(std::panic::catch_unwind(maintain).is_err());
    registry.maintain();
    assert_eq!(count.get(), 3);
}

#[test]
fn descriptors_and_mappings_are_given_back() {
    let peer = Peer::spawn();
    assert_eq!(peer.ask(ask::CHURN), 1);
}

/// A lease makes whoever opens the memory wait for its holder, and each further handle is opened.
#[test]
fn a_lease_on_a_region_hangs_who_clones_it() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = memfd_create(c"leased", flags).unwrap();
    ftruncate(&made, 4096).unwrap();
    fcntl_add_seals(&made, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    // A lease for writing is given on the only descriptor that was opened for it.
    let path = format!("/proc/self/fd/{}", made.as_raw_fd());
    let opened = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    drop(made);
    // SAFETY: no pointers. The signal tells the holder that somebody wants the lease back.
    let leased = unsafe {
        libc::signal(libc::SIGIO, libc::SIG_IGN);
        libc::fcntl(opened.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
    };
    if leased != 0 {
        println!("SKIPPED a lease on a region: this system gives none");
        return;
    }
    let start = Instant::now();
    let error = MemoryRegion::from_object(Object::from(opened.try_clone().unwrap())).unwrap_err();
    assert!(
        error.to_string().contains("lease") || matches!(error, Error::Io(..)),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(5), "it waited");
    // SAFETY: as above.
    unsafe { libc::fcntl(opened.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    let region = MemoryRegion::from_object(Object::from(opened)).unwrap();
    assert_eq!(region.clone().unwrap().ref_count(), 2);
}
