//! The directory: who is on the bus, in a shared memory that the controller writes and members map read-only.
//!
//! It is a log. The controller appends entries and then publishes the new length; a reader keeps its place and reads what
//! is new. So a reader never sees a half-written entry and never has to wait or to start again, whatever happens to the
//! controller, and catching up costs what has changed, not what there is. A full log is replaced by a new, compact one.
//!
//! Beside the length lies a word that belongs to the controller's thread and that the kernel marks when it dies (see
//! `sys::OwnedMapping`): a reader learns in the same look whether the log still stands for the bus.

use crate::{
    Label,
    sync::{Ordering, SharedU32, SharedU64, copy_from_shared, copy_to_shared},
    sys::{Mapping, Memory, OWNER_DIED, OwnedMapping, Protection, Seal},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, ptr::NonNull, sync::Arc};

const MAGIC: u64 = u64::from_le_bytes(*b"ipmb-dir");
const LAYOUT_VERSION: u32 = 1;

const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 8;
const AT_PID: usize = 12;
const AT_GENERATION: usize = 16;
const AT_PID_SPACE: usize = 24;
const AT_NEXT_ID: usize = 32;
/// The word at [`OwnedMapping::WORD`] lies on the same cache line.
const AT_LENGTH: usize = OwnedMapping::WORD + 8;
const LOG: usize = 256;

/// Size of a first directory, and largest one.
const SIZE: usize = 64 << 10;
pub(crate) const SIZE_MAX: usize = 64 << 20;
/// Longest entry: a label of the largest size, and what stands around it.
const ENTRY_MAX: usize = 32 << 10;

/// No id and no generation comes near this: only a liar says so. A controller that learns from a directory goes no further,
/// so that those after it neither overflow nor pass [`ID_MAX`].
pub(crate) const PLAUSIBLE: u64 = 1 << 48;
/// Readers take ids below this.
const ID_MAX: u64 = 1 << 62;
/// Most members that a directory can list.
pub(super) const MEMBERS: usize = 1 << 16;

/// A member, as the directory has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub id: u64,
    pub pid: u32,
    pub uid: u32,
    /// Tells the process from later ones with its id.
    pub start_time: u64,
    pub secret_hash: [u8; 32],
    pub receives: bool,
    pub label: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Entry {
    Joined(Listed),
    Left(u64),
    StoppedReceiving(u64),
    Settled,
}

/// A directory's memory as a member sees it.
#[derive(Debug)]
pub(crate) struct Directory {
    mapping: Mapping,
    memory: Memory,
}

/// What one look at a directory tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Grows with each change.
    pub length: u64,
    /// The controller that writes it lives and has not given it up.
    pub valid: bool,
}

impl Directory {
    /// Takes a directory that came from the controller.
    pub(crate) fn open(memory: Memory) -> io::Result<Arc<Self>> {
        let mapping = memory.map_all(Protection::Read)?;
        let directory = Self { mapping, memory };
        if directory.wide(AT_MAGIC).load(Ordering::Relaxed) != MAGIC
            || directory.word(AT_VERSION).load(Ordering::Relaxed) != LAYOUT_VERSION
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a directory of this layout",
            ));
        }
        Ok(Arc::new(directory))
    }

    /// Takes the memory of a directory from a peer, within bounds.
    pub(crate) fn memory_from_peer(handle: crate::sys::Handle) -> io::Result<Memory> {
        Memory::from_peer(handle, LOG, SIZE_MAX)
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    #[inline]
    pub(crate) fn look(&self) -> Look {
        // Acquire: the entries come before the length. The owner word is read after the length: if it says that the
        // controller lives, it lived when the length was read.
        let length = self.wide(AT_LENGTH).load(Ordering::Acquire);
        let owner = self.word(OwnedMapping::WORD).load(Ordering::Acquire);
        Look {
            length,
            valid: owner != 0 && owner & OWNER_DIED == 0,
        }
    }

    /// Grows with each controller.
    pub(crate) fn generation(&self) -> u64 {
        self.wide(AT_GENERATION)
            .load(Ordering::Relaxed)
            .min(PLAUSIBLE)
    }

    /// In which space process ids are counted.
    pub(crate) fn pid_space(&self) -> u64 {
        self.wide(AT_PID_SPACE).load(Ordering::Relaxed)
    }

    /// Higher than any id that was given.
    pub(crate) fn next_id(&self) -> u64 {
        self.wide(AT_NEXT_ID).load(Ordering::Acquire).min(PLAUSIBLE)
    }

    fn wide(&self, at: usize) -> &SharedU64 {
        wide(self.mapping.start(), at)
    }

    fn word(&self, at: usize) -> &SharedU32 {
        word(self.mapping.start(), at)
    }
}

fn wide<'a>(start: NonNull<u8>, at: usize) -> &'a SharedU64 {
    debug_assert!(at + 8 <= LOG && at % 8 == 0);
    // SAFETY: inside the head of a mapping, whose owner is borrowed or lives longer by its own lifetime; atomic only.
    unsafe { start.add(at).cast().as_ref() }
}

fn word<'a>(start: NonNull<u8>, at: usize) -> &'a SharedU32 {
    debug_assert!(at + 4 <= LOG && at % 4 == 0);
    // SAFETY: as above.
    unsafe { start.add(at).cast().as_ref() }
}

/// A member, as a reader knows it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub label: Label,
    pub receives: bool,
    pub listed: Listed,
}

/// A reader of a directory: what it has read so far.
#[derive(Debug)]
pub(crate) struct Reader {
    directory: Arc<Directory>,
    at: u64,
    /// It makes no sense: nothing more is read of it.
    broken: bool,
    /// By id, which is the order of joining.
    pub(crate) members: BTreeMap<u64, Member>,
    pub(crate) settled: bool,
}

impl Reader {
    pub(crate) fn new(directory: Arc<Directory>) -> Self {
        Self {
            directory,
            at: 0,
            broken: false,
            members: BTreeMap::new(),
            settled: false,
        }
    }

    pub(crate) fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// What was read last: equal to `look().length` if nothing is new.
    #[inline]
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Reads what is new. An error means that the controller lies; what was read before stays, and nothing is read after.
    pub(crate) fn catch_up(&mut self) -> io::Result<()> {
        if self.broken {
            return Err(liar());
        }
        let done = self.read_on();
        self.broken = done.is_err();
        done
    }

    fn read_on(&mut self) -> io::Result<()> {
        let length = self.directory.look().length;
        let end = usize::try_from(length).unwrap_or(usize::MAX);
        let room = self.directory.mapping.len() - LOG;
        if length < self.at || end > room {
            return Err(liar());
        }
        let mut at = self.at as usize;
        let mut bytes = Vec::new();
        while at < end {
            if end - at < 8 {
                return Err(liar());
            }
            let mut size = [0; 8];
            // SAFETY: at + 8 <= end <= the mapping's room.
            unsafe { copy_from_shared(self.directory.entry(at), size.as_mut_ptr(), 8) };
            let size = usize::try_from(u64::from_le_bytes(size)).unwrap_or(usize::MAX);
            if size == 0 || size > ENTRY_MAX || size > end - at - 8 {
                return Err(liar());
            }
            bytes.clear();
            bytes.reserve(size);
            // SAFETY: at + 8 + size <= end; the vector has room for size bytes, which are all written.
            unsafe {
                copy_from_shared(self.directory.entry(at + 8), bytes.as_mut_ptr(), size);
                bytes.set_len(size);
            }
            let (entry, _) = postcard::take_from_bytes(&bytes).map_err(|_| liar())?;
            self.apply(entry)?;
            at += 8 + size.next_multiple_of(8);
        }
        self.at = length;
        Ok(())
    }

    fn apply(&mut self, entry: Entry) -> io::Result<()> {
        match entry {
            Entry::Joined(listed) => {
                let full = self.members.len() >= MEMBERS && !self.members.contains_key(&listed.id);
                if full || listed.id == 0 || listed.id >= ID_MAX {
                    return Err(liar());
                }
                let label = Label::decode(&listed.label).map_err(|_| liar())?;
                self.members.insert(
                    listed.id,
                    Member {
                        label,
                        receives: listed.receives,
                        listed,
                    },
                );
            }
            Entry::Left(id) => drop(self.members.remove(&id)),
            Entry::StoppedReceiving(id) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.receives = false;
                    member.listed.receives = false;
                }
            }
            Entry::Settled => self.settled = true,
        }
        Ok(())
    }
}

impl Directory {
    fn entry(&self, at: usize) -> NonNull<u8> {
        // SAFETY: the caller has checked that the place lies in the mapping.
        unsafe { self.mapping.start().add(LOG + at) }
    }
}

fn liar() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a directory that makes no sense",
    )
}

/// The controller's side of a directory. Lives on one thread.
#[derive(Debug)]
pub(crate) struct Writer {
    memory: Memory,
    mapping: OwnedMapping,
    length: u64,
}

/// The log is full; write a new one.
#[derive(Debug)]
pub(crate) struct Full;

impl Writer {
    /// An empty directory with room for about `room` bytes of entries.
    pub(crate) fn new(generation: u64, next_id: u64, room: usize) -> io::Result<Self> {
        let size = (LOG + room * 2).max(SIZE).next_power_of_two().min(SIZE_MAX);
        let mut memory = Memory::new(c"ipmb-directory", size)?;
        let mapping = OwnedMapping::new(&memory)?;
        memory.seal(Seal::FutureWrite)?;
        let writer = Self {
            memory,
            mapping,
            length: 0,
        };
        let start = writer.mapping.start();
        word(start, AT_VERSION).store(LAYOUT_VERSION, Ordering::Relaxed);
        word(start, AT_PID).store(crate::sys::pid(), Ordering::Relaxed);
        wide(start, AT_GENERATION).store(generation, Ordering::Relaxed);
        wide(start, AT_PID_SPACE).store(crate::sys::pid_space(), Ordering::Relaxed);
        wide(start, AT_NEXT_ID).store(next_id, Ordering::Relaxed);
        wide(start, AT_MAGIC).store(MAGIC, Ordering::Release);
        Ok(writer)
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Notes what is known by now of the directory before: to be called before any of its members is listed.
    pub(crate) fn follows(&mut self, generation: u64, next_id: u64) {
        let start = self.mapping.start();
        wide(start, AT_GENERATION).store(generation, Ordering::Relaxed);
        wide(start, AT_NEXT_ID).store(next_id, Ordering::Release);
    }

    pub(crate) fn joined(&mut self, listed: &Listed) -> Result<(), Full> {
        let next = wide(self.mapping.start(), AT_NEXT_ID);
        if next.load(Ordering::Relaxed) <= listed.id {
            next.store(listed.id + 1, Ordering::Release);
        }
        self.append(&Entry::Joined(listed.clone()))
    }

    pub(crate) fn left(&mut self, id: u64) -> Result<(), Full> {
        self.append(&Entry::Left(id))
    }

    pub(crate) fn stopped_receiving(&mut self, id: u64) -> Result<(), Full> {
        self.append(&Entry::StoppedReceiving(id))
    }

    pub(crate) fn settled(&mut self) -> Result<(), Full> {
        self.append(&Entry::Settled)
    }

    /// From now on readers take it for the past.
    pub(crate) fn give_up(&mut self) {
        self.mapping.disown();
    }

    fn append(&mut self, entry: &Entry) -> Result<(), Full> {
        let bytes = super::protocol::encode(entry);
        let at = LOG + self.length as usize;
        let whole = 8 + bytes.len().next_multiple_of(8);
        if at + whole > self.mapping.len() {
            return Err(Full);
        }
        // SAFETY: inside the mapping by the check above; readers do not look beyond the published length.
        unsafe {
            let to = self.mapping.start().add(at);
            copy_to_shared(&(bytes.len() as u64).to_le_bytes(), to);
            copy_to_shared(&bytes, to.add(8));
        }
        self.length += whole as u64;
        // Release: the entry comes before the length that makes it visible.
        wide(self.mapping.start(), AT_LENGTH).store(self.length, Ordering::Release);
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::AsHandle;

    fn listed(id: u64) -> Listed {
        let mut label = Vec::new();
        crate::label!("a", "b").encode(&mut label);
        Listed {
            id,
            pid: 1,
            uid: 2,
            start_time: 3,
            secret_hash: [4; 32],
            receives: true,
            label,
        }
    }

    #[test]
    fn a_reader_misses_what_the_controller_wrote() {
        let mut writer = Writer::new(7, 1, 0).unwrap();
        let memory = Memory::from_peer(
            crate::sys::duplicate(writer.memory().as_handle()).unwrap(),
            1,
            1 << 30,
        )
        .unwrap();
        let mut reader = Reader::new(Directory::open(memory).unwrap());
        assert!(reader.directory().look().valid);
        writer.joined(&listed(1)).unwrap();
        writer.joined(&listed(2)).unwrap();
        reader.catch_up().unwrap();
        assert_eq!(reader.members.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert!(!reader.settled);
        writer.left(1).unwrap();
        writer.stopped_receiving(2).unwrap();
        writer.settled().unwrap();
        reader.catch_up().unwrap();
        assert!(reader.settled && !reader.members[&2].receives && reader.members.len() == 1);
        assert_eq!(reader.directory().next_id(), 3);
        writer.give_up();
        assert!(!reader.directory().look().valid);
    }
}
