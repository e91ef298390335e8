use super::{odd_number, some_bytes, step, up_to};
use crate::{
    control::directory::{Directory, Listed, Reader},
    label,
    liars::by_hand::{half, word},
    sys::{Mapping, Memory, Protection},
};
use arbitrary::Unstructured;
use std::{collections::BTreeSet, sync::atomic::Ordering};

const SIZE: usize = 8192;
const MAGIC: u64 = u64::from_le_bytes(*b"ipmb-dir");
const AT_VERSION: usize = 8;
const AT_OWNER: usize = 128;
const AT_LENGTH: usize = 136;
const LOG: usize = 256;

/// A directory by hand, and what an honest one would say so far.
struct Author {
    mapping: Mapping,
    written: usize,
    members: BTreeSet<u64>,
    honest: bool,
}

impl Author {
    /// Appends an entry of some bytes, if there is room.
    fn append(&mut self, entry: &[u8]) -> bool {
        let whole = 8 + entry.len().next_multiple_of(8);
        if LOG + self.written + whole > SIZE {
            return false;
        }
        self.put(LOG + self.written, &(entry.len() as u64).to_le_bytes());
        self.put(LOG + self.written + 8, entry);
        self.written += whole;
        true
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        for (i, part) in bytes.chunks(8).enumerate() {
            let mut value = [0; 8];
            value[..part.len()].copy_from_slice(part);
            let at = (at / 8 + i) * 8;
            if at + 8 <= SIZE {
                word(&self.mapping, at).store(u64::from_le_bytes(value), Ordering::Relaxed);
            }
        }
    }

    fn publish(&self, length: u64) {
        word(&self.mapping, AT_LENGTH).store(length, Ordering::Release);
    }
}

fn entry(kind: u8, rest: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_allocvec(&(kind, rest)).unwrap()
}

fn listed(id: u64, label: Vec<u8>) -> Listed {
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

/// A controller writes its directory, and lies; a member reads on after each step. What an honest controller wrote, the reader
/// knows; and after a lie that it has noticed it learns nothing more.
pub fn directories(bytes: &[u8]) {
    let input = &mut Unstructured::new(bytes);
    let memory = Memory::new(c"oracle", SIZE).unwrap();
    let mut author = Author {
        mapping: memory.map_all(Protection::ReadWrite).unwrap(),
        written: 0,
        members: BTreeSet::new(),
        honest: true,
    };
    word(&author.mapping, 0).store(MAGIC, Ordering::Relaxed);
    half(&author.mapping, AT_VERSION).store(1, Ordering::Relaxed);
    half(&author.mapping, AT_OWNER).store(1, Ordering::Relaxed);
    let directory = Directory::open(memory).expect("its head is right");
    let mut reader = Reader::new(directory);
    let mut good = Vec::new();
    label!("a", "b").encode(&mut good);
    let mut refused = None;
    while !input.is_empty() {
        let id = 1 + up_to(input, 9) as u64;
        match step(input, 10) {
            0 | 1 => {
                if author.append(&entry(0, &listed(id, good.clone()))) {
                    author.members.insert(id);
                }
            }
            2 => {
                if author.append(&entry(1, &id)) {
                    author.members.remove(&id);
                }
            }
            3 => drop(author.append(&entry(2, &id))),
            4 => drop(author.append(&[3])),
            5 => {
                author.honest = false;
                let label = some_bytes(input, 300).to_vec();
                let id = odd_number(input, 1 << 62);
                author.append(&entry(0, &listed(id, label)));
            }
            6 => {
                author.honest = false;
                author.append(some_bytes(input, 100));
            }
            7 => {
                author.honest = false;
                let at = LOG + up_to(input, SIZE - LOG - 8) / 8 * 8;
                author.put(at, &odd_number(input, 64).to_le_bytes());
            }
            8 => {
                author.honest = false;
                let near = author.written as u64;
                author.publish(odd_number(input, near));
            }
            _ => {
                author.honest = false;
                let at = up_to(input, LOG / 8 - 1) * 8;
                author.put(at, &odd_number(input, 0).to_le_bytes());
            }
        }
        if author.honest || step(input, 2) == 0 {
            author.publish(author.written as u64);
        }
        let done = reader.catch_up();
        let known: Vec<u64> = reader.members.keys().copied().collect();
        if author.honest {
            done.expect("an honest directory is read");
            assert!(known.iter().eq(&author.members));
        } else if let Some(before) = &refused {
            assert!(done.is_err() && known == *before, "it reads on after a lie");
        } else if done.is_err() {
            refused = Some(known);
        }
        for member in reader.members.values() {
            member.label.check().expect("within the limits");
            assert!((1..1 << 62).contains(&member.listed.id));
        }
        let directory = reader.directory();
        let _ = (
            directory.look(),
            directory.generation(),
            directory.next_id(),
        );
    }
}
