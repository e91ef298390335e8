//! The messages of a storm: who sent it, its number in each stream it belongs to, when, and checksums of everything.

use crate::{
    board::{Kind, SLOTS},
    chance::mix,
};
use ipmb::{BytesMessage, MemoryRegion, MemoryRegistry, Message, Object, Selector};
use std::{
    fs::File,
    io::Write,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::fs::FileExt,
    },
};

const FORMAT: u16 = 0x5707;
const HEAD: usize = 40;

/// What a message says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The sender's slot.
    pub from: usize,
    /// Which process in that slot.
    pub incarnation: usize,
    /// What it is about.
    pub kind: Kind,
    /// When it was sent.
    pub time: u64,
    /// Of the attachments' contents; and what probes and parked messages are about.
    pub nonce: u64,
    /// Numbers in the streams to each slot; one, if it is for one receiver.
    pub numbers: Vec<u64>,
    /// How many kernel objects.
    pub objects: usize,
    /// Sizes of the memory regions.
    pub regions: usize,
}

/// How much is in a message besides its head.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    /// Bytes of payload.
    pub body: usize,
    /// Kernel objects.
    pub objects: usize,
    /// Memory regions.
    pub regions: usize,
    /// Bytes of each region.
    pub region: usize,
}

/// Makes a message.
pub fn write(
    selector: Selector,
    head: &Head,
    load: Load,
    registry: &mut MemoryRegistry,
) -> Message<BytesMessage> {
    let size = HEAD + head.numbers.len() * 8 + load.body;
    let mut data = Vec::with_capacity(size + 8);
    data.extend([0; 8]);
    data.extend((head.from as u16).to_le_bytes());
    data.extend((head.incarnation as u16).to_le_bytes());
    data.push(head.kind as u8);
    data.push(head.numbers.len() as u8);
    data.push(load.objects as u8);
    data.push(load.regions as u8);
    data.extend(head.time.to_le_bytes());
    data.extend(head.nonce.to_le_bytes());
    data.extend((load.body as u64).to_le_bytes());
    for number in &head.numbers {
        data.extend(number.to_le_bytes());
    }
    let mut word = head.nonce;
    while data.len() < size {
        word = word.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1);
        let rest = (size - data.len()).min(8);
        data.extend(&word.to_le_bytes()[..rest]);
    }
    let sum = checksum(&data[8..]);
    data[..8].copy_from_slice(&sum.to_le_bytes());
    let mut message = Message::new(
        selector,
        BytesMessage {
            format: FORMAT,
            data,
        },
    );
    for i in 0..load.objects {
        message.objects.push(object(head.nonce, i));
    }
    for i in 0..load.regions {
        let mut region = registry.alloc(load.region, None);
        fill(&mut region, mix(head.nonce, 1000 + i as u64));
        message.memory_regions.push(region);
    }
    message
}

/// Takes a message apart, and checks all of it. The regions come back with what they must go on to contain.
pub fn read(message: Message<BytesMessage>) -> Result<(Head, Vec<(MemoryRegion, u64)>), String> {
    let BytesMessage { format, data } = message.payload;
    if format != FORMAT || data.len() < HEAD {
        return Err(format!("format {format:#x}, {} bytes", data.len()));
    }
    let word = |at: usize| {
        let bytes = data[at..at + 8].try_into();
        u64::from_le_bytes(bytes.unwrap_or_default())
    };
    let sum = checksum(&data[8..]);
    let numbers = usize::from(data[13]);
    let body = word(32) as usize;
    if word(0) != sum || HEAD + numbers * 8 + body != data.len() {
        return Err(format!(
            "checksum {sum:#x}, expected {:#x}, {} bytes",
            word(0),
            data.len()
        ));
    }
    let head = Head {
        from: usize::from(u16::from_le_bytes([data[8], data[9]])),
        incarnation: usize::from(u16::from_le_bytes([data[10], data[11]])),
        kind: KINDS[usize::from(data[12]) % KINDS.len()],
        time: word(16),
        nonce: word(24),
        numbers: (0..numbers).map(|i| word(HEAD + 8 * i)).collect(),
        objects: usize::from(data[14]),
        regions: usize::from(data[15]),
    };
    if head.from > SLOTS {
        return Err(format!("from slot {}", head.from));
    }
    if message.objects.len() != head.objects || message.memory_regions.len() != head.regions {
        return Err(format!(
            "{} objects and {} regions of {} and {} ({head:?})",
            message.objects.len(),
            message.memory_regions.len(),
            head.objects,
            head.regions
        ));
    }
    for (i, object) in message.objects.into_iter().enumerate() {
        let mut value = [0; 8];
        let file = File::from(OwnedFd::from(object));
        file.read_exact_at(&mut value, 0)
            .map_err(|e| format!("object {i}: {e} ({head:?})"))?;
        if u64::from_ne_bytes(value) != object_value(head.nonce, i) {
            return Err(format!("object {i} is another one ({head:?})"));
        }
    }
    let mut regions = Vec::new();
    for (i, mut region) in message.memory_regions.into_iter().enumerate() {
        let seed = mix(head.nonce, 1000 + i as u64);
        still_holds(&mut region, seed).map_err(|e| format!("region {i}: {e} ({head:?})"))?;
        regions.push((region, seed));
    }
    Ok((head, regions))
}

const KINDS: [Kind; 12] = [
    Kind::Small,
    Kind::Medium,
    Kind::Large,
    Kind::Huge,
    Kind::Object,
    Kind::Region,
    Kind::Mixed,
    Kind::Multicast,
    Kind::Ttl,
    Kind::Parked,
    Kind::Pool,
    Kind::Probe,
];

/// Whether a region holds what it was filled with: the registry must not give it out while somebody has it.
pub fn still_holds(region: &mut MemoryRegion, seed: u64) -> Result<(), String> {
    let bytes = region.map(..).map_err(|e| e.to_string())?;
    let mut word = seed;
    for (at, chunk) in bytes.chunks(8).enumerate() {
        word = word.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1);
        if chunk != &word.to_le_bytes()[..chunk.len()] {
            return Err(format!("other bytes at {} of {}", at * 8, bytes.len()));
        }
    }
    region.unmap();
    Ok(())
}

fn fill(region: &mut MemoryRegion, seed: u64) {
    let bytes = region.map(..).expect("map a region of one's own");
    let mut word = seed;
    for chunk in bytes.chunks_mut(8) {
        word = word.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1);
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    region.unmap();
}

/// A file that holds a number. All receivers of a multicast get the same one.
fn object(nonce: u64, i: usize) -> Object {
    // SAFETY: the name is a string; the result is a new descriptor, which nobody else owns.
    let fd = unsafe {
        let fd = libc::memfd_create(c"storm-object".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    let mut file = File::from(fd);
    file.write_all(&object_value(nonce, i).to_ne_bytes())
        .expect("write to a memory");
    Object::from(OwnedFd::from(file))
}

fn object_value(nonce: u64, i: usize) -> u64 {
    (mix(nonce, i as u64) >> 8) + 1
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = bytes.len() as u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        sum = (sum ^ word)
            .wrapping_mul(0x9fb2_1c65_1e98_df25)
            .rotate_left(23);
    }
    for byte in words.remainder() {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(0x9fb2_1c65_1e98_df25);
    }
    sum
}
