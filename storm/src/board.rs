//! What all processes of a storm write down: a shared memory that outlives those who are killed.
//!
//! Each field has one writer at a time; who is killed leaves what it wrote last. All zero is the state before anything.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst},
};

/// Endpoints at a time, each with its place.
pub const SLOTS: usize = 20;
/// The first of them are never killed.
pub const SURVIVORS: usize = 7;
/// How many processes can follow each other in one slot.
pub const INCARNATIONS: usize = 1024;
/// Numbers of pool messages per sender.
pub const POOL: usize = 1 << 22;
const TEXTS: usize = 16;
const TEXT: usize = 512;

/// What everybody is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
#[repr(u32)]
pub enum Phase {
    /// Send and receive.
    Run,
    /// Send nothing new.
    Quiet,
    /// Hold nothing, and write down what is open.
    Balance,
    /// Leave the bus, and write down what is open then.
    Leave,
}

/// What a message is about, for the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Up to 256 bytes.
    Small,
    /// Up to 16 KiB.
    Medium,
    /// Up to 1 MiB.
    Large,
    /// Over 64 MiB.
    Huge,
    /// With kernel objects.
    Object,
    /// With memory regions.
    Region,
    /// A large payload with objects and regions.
    Mixed,
    /// To all survivors or to everybody.
    Multicast,
    /// With a time to live, to a label that is mostly there.
    Ttl,
    /// With a time to live, to a label that nobody has yet.
    Parked,
    /// To whichever victim joined first.
    Pool,
    /// Between the prober and the survivors.
    Probe,
}

/// Their names.
pub const KINDS: [&str; 12] = [
    "small",
    "medium",
    "large",
    "huge",
    "object",
    "region",
    "mixed",
    "multicast",
    "ttl",
    "parked",
    "pool",
    "probe",
];

/// One direction between two members: its sender's log and its receiver's.
#[repr(C)]
pub struct Stream {
    /// The last number that the sender began to send.
    pub attempted: AtomicU64,
    /// The last number whose `send` returned success.
    pub accepted: AtomicU64,
    /// The last number that was received.
    pub received: AtomicU64,
    /// When the first was sent.
    pub begun: AtomicU64,
}

/// What kinds of descriptors are counted apart.
pub const OPEN: [&str; 12] = [
    "socket",
    "epoll",
    "eventfd",
    "pidfd",
    "pipe",
    "records",
    "returns",
    "block",
    "directory",
    "region",
    "memfd",
    "other",
];
/// The place of blocks in [`OPEN`]: a link keeps as many as it once needed at a time.
pub const BLOCKS: usize = 7;

/// What a process has open.
#[repr(C)]
pub struct Open {
    /// Descriptors, by [`OPEN`].
    pub descriptors: [AtomicU64; OPEN.len()],
    /// Mappings of the library's memory, without blocks.
    pub mappings: AtomicU64,
    /// Resident memory, KiB.
    pub resident: AtomicU64,
    /// Links of the endpoint.
    pub links_in: AtomicU64,
    /// Links of the endpoint.
    pub links_out: AtomicU64,
    /// Grows with each count.
    pub counts: AtomicU64,
}

/// The state of the process in a slot.
#[repr(C)]
pub struct Slot {
    /// Zero, then [`JOINING`], [`JOINED`] and [`LEFT`].
    pub state: AtomicU32,
    /// Set by the conductor: leave in good order.
    pub leave: AtomicU32,
    /// When it last began to send to somebody for the first time.
    pub contact: AtomicU64,
    /// The highest phase that its sending thread has seen and obeyed.
    pub phase: AtomicU32,
    /// Its collector is between two rounds.
    pub collector_idle: AtomicU32,
    /// The round for which its collector wants a parked message of each other survivor.
    pub collect: AtomicU64,
    /// Messages sent and received, of any kind: to see that it does something.
    pub progress: AtomicU64,
    /// Received from survivors, by kind.
    pub kinds: [AtomicU64; KINDS.len()],
    /// Received from itself.
    pub own: AtomicU64,
    /// The counters of `Stats` at the end: parked, rerouted, lost, dropped, expired.
    pub stats: [AtomicU64; 5],
    /// What is open.
    pub open: Open,
    /// Number of the last pool message.
    pub pooled: AtomicU64,
}

/// The process is in `join`.
pub const JOINING: u32 = 1;
/// It is a member.
pub const JOINED: u32 = 2;
/// It has left in good order.
pub const LEFT: u32 = 3;

/// The shared memory.
#[repr(C)]
pub struct Board {
    phase: AtomicU32,
    violations: AtomicU32,
    texts: [[AtomicU8; TEXT]; TEXTS],
    /// By slot.
    pub slots: [Slot; SLOTS],
    streams: [[[Stream; SLOTS]; INCARNATIONS]; SLOTS],
    pool: [[AtomicU64; POOL / 64]; SURVIVORS],
}

impl Board {
    /// A new board, and the descriptor that children inherit.
    pub fn create() -> io::Result<(&'static Self, OwnedFd)> {
        // SAFETY: the name is a string; the result is a new descriptor, which nobody else owns.
        let fd = unsafe {
            let fd = libc::memfd_create(c"storm-board".as_ptr(), 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        File::from(fd.try_clone()?).set_len(size_of::<Self>() as u64)?;
        Ok((Self::open(fd.as_raw_fd())?, fd))
    }

    /// The board behind an inherited descriptor.
    pub fn open(fd: RawFd) -> io::Result<&'static Self> {
        // SAFETY: a fresh mapping of a file of this size, never unmapped; atomics only, for which zero is valid.
        unsafe {
            let at = libc::mmap(
                std::ptr::null_mut(),
                size_of::<Self>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                0,
            );
            if at == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            Ok(&*at.cast())
        }
    }

    /// What everybody is to do.
    pub fn phase(&self) -> Phase {
        match self.phase.load(SeqCst) {
            0 => Phase::Run,
            1 => Phase::Quiet,
            2 => Phase::Balance,
            _ => Phase::Leave,
        }
    }

    /// Tells everybody what to do.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u32, SeqCst);
    }

    /// The messages of `incarnation` of slot `from` to slot `to`.
    pub fn stream(&self, from: usize, incarnation: usize, to: usize) -> &Stream {
        &self.streams[from][incarnation][to]
    }

    /// Marks a pool message as received; false if it was already.
    pub fn pool(&self, from: usize, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        self.pool[from][word].fetch_or(bit, SeqCst) & bit == 0
    }

    /// How many pool messages of `from` were received.
    pub fn pooled(&self, from: usize) -> u64 {
        let ones = |word: &AtomicU64| u64::from(word.load(SeqCst).count_ones());
        self.pool[from].iter().map(ones).sum()
    }

    /// Writes down that a promise was broken.
    pub fn violation(&self, what: &str) {
        let place = self.violations.fetch_add(1, SeqCst) as usize;
        if let Some(text) = self.texts.get(place) {
            for (to, byte) in text.iter().zip(what.bytes().take(TEXT - 1)) {
                to.store(byte, SeqCst);
            }
        }
    }

    /// All that was broken.
    pub fn violations(&self) -> Vec<String> {
        let count = self.violations.load(SeqCst) as usize;
        let text = |text: &[AtomicU8; TEXT]| {
            let bytes = text.iter().map(|b| b.load(SeqCst)).take_while(|b| *b != 0);
            String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
        };
        self.texts.iter().take(count).map(text).collect()
    }
}

/// Nanoseconds of the clock that all processes share.
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure is ours; the kernel only writes it.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
