//! What lies where in the memories of a link, in fixed-width integers, little-endian where it is not a word of the
//! machine: a 32-bit and a 64-bit process, or two releases, can share a link.

use crate::{
    sync::{SharedU32, SharedU64},
    sys::Mapping,
};
use std::{io, ptr::NonNull, sync::Arc};

/// Bytes in front of the ring.
pub(crate) const HEADER: usize = 4096;
/// Size of the returns.
pub(crate) const RETURNS: usize = 4096;
/// Smallest and largest ring.
pub(crate) const CAPACITY_MIN: usize = 64 << 10;
/// Most blocks of one link.
pub(crate) const BLOCKS: usize = 32;
/// Largest ring.
pub(crate) const CAPACITY_MAX: usize = 64 << 20;

const RECORDS_MAGIC: u64 = u64::from_le_bytes(*b"ipmb-rec");
const RETURNS_MAGIC: u64 = u64::from_le_bytes(*b"ipmb-ret");
const LAYOUT_VERSION: u32 = 1;

/// The writer's process receives the fences of others.
pub(crate) const FENCES_REACH_WRITER: u32 = 1;

// Words at the same place in both memories. Words that different sides touch at different times lie 128 bytes apart:
// processors fetch cache lines in pairs.
const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 8;
const AT_FLAGS: usize = 12;
const AT_CAPACITY: usize = 16;
const AT_START: usize = 24;
/// Records: the tail. Returns: the head.
const AT_INDEX: usize = 128;
/// Records: does the sender sleep for space? Returns: does the receiver sleep for messages?
const AT_SLEEP: usize = 256;
/// Returns: the receiver has mapped the link.
const AT_ACCEPTED: usize = 384;

/// Returns: how often each block was let go of.
const AT_RELEASED: usize = 512;

/// The head of a records or returns memory.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Where the mapping begins: known here, so that an access to a word needs no look at the mapping.
    start: NonNull<u8>,
    mapping: Arc<Mapping>,
}

// SAFETY: as the mapping itself, whose start it names: its words are accessed atomically only.
unsafe impl Send for Head {}
// SAFETY: as above.
unsafe impl Sync for Head {}

/// What the maker of a link wrote into the head of its records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub flags: u32,
    pub capacity: u64,
    pub start: u64,
}

impl Head {
    fn new(mapping: Mapping) -> Self {
        Self {
            start: mapping.start(),
            mapping: Arc::new(mapping),
        }
    }

    /// Writes the head of fresh records.
    pub(crate) fn init_records(mapping: Mapping, facts: Facts) -> Self {
        let head = Self::new(mapping);
        head.write(RECORDS_MAGIC, facts.flags);
        head.put(AT_CAPACITY, facts.capacity);
        head.put(AT_START, facts.start);
        head.index()
            .store(facts.start, crate::sync::Ordering::Relaxed);
        head
    }

    /// Writes the head of fresh returns. The receiver fills in its flags when it accepts.
    pub(crate) fn init_returns(mapping: Mapping, start: u64) -> Self {
        let head = Self::new(mapping);
        head.write(RETURNS_MAGIC, 0);
        head.index().store(start, crate::sync::Ordering::Relaxed);
        head
    }

    /// Reads a peer's records.
    pub(crate) fn open_records(mapping: Mapping) -> io::Result<(Self, Facts)> {
        let head = Self::new(mapping);
        let facts = Facts {
            flags: head.read(RECORDS_MAGIC)?,
            capacity: head.get(AT_CAPACITY),
            start: head.get(AT_START),
        };
        let capacity = usize::try_from(facts.capacity).unwrap_or(0);
        if !capacity.is_power_of_two()
            || !(CAPACITY_MIN..=CAPACITY_MAX).contains(&capacity)
            || head.mapping.len() < HEADER + capacity
            || facts.start % 8 != 0
        {
            return Err(invalid("a ring of a wrong size"));
        }
        Ok((head, facts))
    }

    /// Reads the returns that came with a peer's records.
    pub(crate) fn open_returns(mapping: Mapping) -> io::Result<Self> {
        let head = Self::new(mapping);
        head.read(RETURNS_MAGIC)?;
        Ok(head)
    }

    fn write(&self, magic: u64, flags: u32) {
        self.put(AT_MAGIC, magic);
        self.word(AT_VERSION)
            .store(LAYOUT_VERSION, crate::sync::Ordering::Relaxed);
        self.flags().store(flags, crate::sync::Ordering::Relaxed);
    }

    fn read(&self, magic: u64) -> io::Result<u32> {
        if self.mapping.len() < HEADER.min(RETURNS) || self.get(AT_MAGIC) != magic {
            return Err(invalid("shared memory that is no part of a link"));
        }
        if self.word(AT_VERSION).load(crate::sync::Ordering::Relaxed) != LAYOUT_VERSION {
            return Err(invalid("a link of another layout version"));
        }
        Ok(self.flags().load(crate::sync::Ordering::Relaxed))
    }

    fn put(&self, at: usize, value: u64) {
        self.wide(at).store(value, crate::sync::Ordering::Relaxed);
    }

    fn get(&self, at: usize) -> u64 {
        self.wide(at).load(crate::sync::Ordering::Relaxed)
    }

    #[inline]
    fn wide(&self, at: usize) -> &SharedU64 {
        debug_assert!(at + 8 <= self.mapping.len() && at % 8 == 0);
        // SAFETY: within the mapping, which is at least a page and page-aligned; accessed atomically only.
        unsafe { self.start.add(at).cast().as_ref() }
    }

    #[inline]
    fn word(&self, at: usize) -> &SharedU32 {
        debug_assert!(at + 4 <= self.mapping.len() && at % 4 == 0);
        // SAFETY: as above.
        unsafe { self.start.add(at).cast().as_ref() }
    }

    /// Whether this is a forked child, which does not have the memory.
    pub(crate) fn forked(&self) -> bool {
        self.mapping.forked()
    }

    /// The flags of the memory's writer.
    pub(crate) fn flags(&self) -> &SharedU32 {
        self.word(AT_FLAGS)
    }

    /// The index that the memory's writer publishes.
    #[inline]
    pub(crate) fn index(&self) -> &SharedU64 {
        self.wide(AT_INDEX)
    }

    /// The sleep word of the memory's writer.
    #[inline]
    pub(crate) fn sleep(&self) -> &SharedU32 {
        self.word(AT_SLEEP)
    }

    /// Not 0 once the receiver has accepted the link (in the returns).
    pub(crate) fn accepted(&self) -> &SharedU32 {
        self.word(AT_ACCEPTED)
    }

    /// How often the receiver has let go of a block (in the returns). Counts for this block's sender only: who lies here has
    /// its own messages overwritten.
    pub(crate) fn released(&self, block: usize) -> &SharedU32 {
        self.word(AT_RELEASED + 4 * (block % BLOCKS))
    }

    /// First byte of the ring (in the records).
    #[inline]
    pub(crate) fn ring(&self) -> NonNull<u8> {
        // SAFETY: the records are longer than their header.
        unsafe { self.start.add(HEADER) }
    }
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The payload follows.
    Inline,
    /// A [`BlockRef`] follows; the payload lies in a block.
    Block,
    /// Nothing until the end of the ring.
    Pad,
}

/// The first word of a record.
///
/// | bits | what |
/// |---|---|
/// | 0–31 | bytes of the body, without this word, uuid and attachment number |
/// | 32–39 | kind |
/// | 40–47 | flags: 1 the uuid follows (else it is that of the record before), 2 the attachment number follows |
/// | 48–55 | objects |
/// | 56–63 | memory regions |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub kind: Kind,
    pub len: u32,
    pub has_uuid: bool,
    pub has_attachments: bool,
    pub objects: u8,
    pub regions: u8,
}

/// The upper half of a record's first word that has only a payload, of the type of the one before.
const PLAIN: u64 = 1;

/// Bytes of the first word.
pub(crate) const WORD: usize = 8;
/// Bytes of a type's uuid.
pub(crate) const UUID: usize = 16;

impl RecordHead {
    /// Bytes of the largest record that refers to a block.
    pub(crate) const LARGEST_OF_BLOCK: u64 = (WORD + UUID + 8 + BlockRef::SIZE) as u64;

    pub(crate) fn pad(len: u32) -> Self {
        Self {
            kind: Kind::Pad,
            len,
            has_uuid: false,
            has_attachments: false,
            objects: 0,
            regions: 0,
        }
    }

    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        let kind = match self.kind {
            Kind::Inline => 1,
            Kind::Block => 2,
            Kind::Pad => 3,
        };
        let flags = u64::from(self.has_uuid) | u64::from(self.has_attachments) << 1;
        u64::from(self.len)
            | kind << 32
            | flags << 40
            | u64::from(self.objects) << 48
            | u64::from(self.regions) << 56
    }

    /// The word of the usual record: its body has `len` bytes, and nothing else follows.
    #[inline]
    pub(crate) fn plain(len: u32) -> u64 {
        PLAIN << 32 | u64::from(len)
    }

    /// The body's length, if the word is that of the usual record.
    #[inline]
    pub(crate) fn plain_len(word: u64) -> Option<u32> {
        (word >> 32 == PLAIN).then_some(word as u32)
    }

    #[inline]
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        let flags = (word >> 40) as u8;
        if flags > 3 {
            return None;
        }
        Some(Self {
            kind: match (word >> 32) as u8 {
                1 => Kind::Inline,
                2 => Kind::Block,
                3 => Kind::Pad,
                _ => return None,
            },
            len: word as u32,
            has_uuid: flags & 1 != 0,
            has_attachments: flags & 2 != 0,
            objects: (word >> 48) as u8,
            regions: (word >> 56) as u8,
        })
    }

    /// Bytes from the record's start to its body.
    #[inline]
    pub(crate) fn body_at(self) -> usize {
        WORD + if self.has_uuid { UUID } else { 0 } + if self.has_attachments { 8 } else { 0 }
    }

    /// Objects and regions.
    #[inline]
    pub(crate) fn handles(self) -> usize {
        usize::from(self.objects) + usize::from(self.regions)
    }

    /// Bytes of the whole record.
    #[inline]
    pub(crate) fn size(self) -> u64 {
        (self.body_at() as u64 + u64::from(self.len) + 7) & !7
    }
}

/// Where a large payload lies: the body of a record of kind block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockRef {
    /// Number of the block on this link.
    pub block: u32,
    /// Where in the block the payload begins.
    pub at: u8,
    /// Bytes of the payload.
    pub len: u64,
    /// The block's memory is the first handle that comes with this record; it replaces what had the number.
    pub fresh: bool,
    /// The block is not used again.
    pub once: bool,
}

impl BlockRef {
    /// Bytes of a reference.
    pub(crate) const SIZE: usize = 16;

    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.block.to_le_bytes());
        bytes[4] = u8::from(self.fresh) | u8::from(self.once) << 1;
        bytes[5] = self.at;
        bytes[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let (mut block, mut len) = ([0; 4], [0; 8]);
        block.copy_from_slice(&bytes[..4]);
        len.copy_from_slice(&bytes[8..]);
        Self {
            block: u32::from_le_bytes(block),
            at: bytes[5],
            len: u64::from_le_bytes(len),
            fresh: bytes[4] & 1 != 0,
            once: bytes[4] & 2 != 0,
        }
    }
}

pub(crate) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_head_changes_on_its_way(word: u64) {
            if let Some(head) = RecordHead::from_word(word) {
                prop_assert_eq!(head.to_word(), word);
                prop_assert_eq!(RecordHead::plain_len(word).is_some(), RecordHead::plain(head.len) == word);
                prop_assert!(head.size() >= WORD as u64 && head.size() % 8 == 0);
            }
        }

        #[test]
        fn a_block_reference_changes_on_its_way(block: u32, at: u8, len: u64, fresh: bool, once: bool) {
            let sent = BlockRef { block, at, len, fresh, once };
            prop_assert_eq!(BlockRef::from_bytes(&sent.to_bytes()), sent);
        }
    }
}
