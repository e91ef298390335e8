use super::{borrowed, odd_handles, odd_number, some_bytes, step, up_to};
use crate::{
    BytesMessage, MessageBox, Payload, TypeUuid,
    liars::by_hand::{
        self, AT_INDEX, BLOCK, CAPACITY, HAS_HANDLES, HAS_UUID, HEADER, HandLink, INLINE, PAD,
        half, memory, word,
    },
    link::incoming::{Incoming, Kept, Record, Trouble},
    sys::{self, Handle},
};
use arbitrary::Unstructured;
use std::{collections::VecDeque, sync::atomic::Ordering};

/// Largest payload that the receiver takes.
const PAYLOAD_MAX: usize = 1 << 20;

/// The sender of a link, by hand.
struct Sender {
    link: HandLink,
    tail: u64,
    attachments: u64,
    /// Its blocks, and how they are filled.
    blocks: Vec<u8>,
    /// What was sent and not received; without a lie it comes as it is.
    sent: VecDeque<(Vec<u8>, usize)>,
    honest: bool,
    /// What the receiver keeps of it.
    kept: VecDeque<Option<Kept>>,
    /// The receiver had no memory for the message at the head.
    short: bool,
}

impl Sender {
    fn free(&self) -> u64 {
        CAPACITY.saturating_sub(self.tail.wrapping_sub(self.link.read()))
    }

    /// Room for a record of so many words in one piece, behind a pad if it must be. `None`: there is none.
    fn room(&mut self, words: u64) -> Option<()> {
        let to_end = CAPACITY - self.tail % CAPACITY;
        let pad = if words * 8 > to_end { to_end } else { 0 };
        if words * 8 + pad > self.free() {
            return None;
        }
        if pad > 0 {
            self.link.put(
                self.tail,
                &[by_hand::head(PAD, pad.saturating_sub(8), 0, 0, 0)],
            );
            self.tail = self.tail.wrapping_add(pad);
        }
        Some(())
    }

    /// Writes a record that a sender may write: in the ring or in a block, with or without handles.
    fn message(&mut self, data: &[u8], handles: usize, block: Option<u64>) -> Option<()> {
        let mut payload = 7u16.to_le_bytes().to_vec();
        payload.extend(data);
        let uuid = BytesMessage::UUID;
        let half_of = |at: usize| u64::from_ne_bytes(uuid[at..at + 8].try_into().unwrap());
        let fresh = block.is_some_and(|b| b as usize >= self.blocks.len());
        let attached = handles > 0 || fresh;
        let body = if block.is_some() {
            16
        } else {
            payload.len() as u64
        };
        let words = 3 + u64::from(attached) + body.div_ceil(8);
        self.room(words)?;
        let flags = HAS_UUID | if attached { HAS_HANDLES } else { 0 };
        let kind = if block.is_some() { BLOCK } else { INLINE };
        let objects = handles as u64;
        let mut record = vec![
            by_hand::head(kind, body, flags, objects, 0),
            half_of(0),
            half_of(8),
        ];
        if attached {
            self.attachments += 1;
            let mut lent: Vec<Handle> = Vec::new();
            if let Some(number) = block.filter(|_| fresh) {
                self.blocks.resize(number as usize + 1, 0);
                let made = memory(128 << 10, 0, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW).unwrap();
                lent.push(made);
            }
            for _ in 0..handles {
                lent.push(std::fs::File::open("/dev/null").unwrap().into());
            }
            for part in borrowed(&lent).chunks(1) {
                self.link.attach(self.attachments, part);
            }
            record.push(self.attachments);
        }
        if let Some(number) = block {
            // The memory is all zeros: nobody writes to it.
            payload.fill(0);
            record.push(number | u64::from(fresh) << 32);
            record.push(payload.len() as u64);
        } else {
            for part in payload.chunks(8) {
                let mut bytes = [0; 8];
                bytes[..part.len()].copy_from_slice(part);
                record.push(u64::from_ne_bytes(bytes));
            }
        }
        self.link.put(self.tail, &record);
        self.tail = self.tail.wrapping_add(words * 8);
        self.sent.push_back((payload, handles));
        Some(())
    }

    /// A lie of some kind.
    fn lie(&mut self, input: &mut Unstructured<'_>) {
        self.honest = false;
        match step(input, 7) {
            0 => {
                let at = up_to(input, CAPACITY as usize / 8 - 1) as u64 * 8;
                self.link.put(at, &[odd_head(input)]);
            }
            1 => {
                let back = up_to(input, 64) as u64 * 8;
                self.link
                    .put(self.tail.wrapping_sub(back), &[odd_head(input)]);
            }
            2 => {
                let at = up_to(input, HEADER / 8 - 1) * 8;
                word(&self.link.records, at).store(odd_number(input, self.tail), Ordering::Relaxed);
            }
            3 => {
                let at = up_to(input, HEADER / 8 - 1) * 8;
                word(&self.link.returns, at).store(odd_number(input, self.tail), Ordering::Relaxed);
            }
            4 => {
                let bytes = some_bytes(input, 20);
                let handles = odd_handles(input, 3);
                if !bytes.is_empty() {
                    let _ = self.link.side.send(bytes, &borrowed(&handles));
                }
            }
            5 => {
                let handles = odd_handles(input, 3);
                let number = odd_number(input, self.attachments);
                self.link.attach(number, &borrowed(&handles));
            }
            _ => {
                self.tail = odd_number(input, self.tail);
                self.link.publish(self.tail);
            }
        }
    }
}

/// A word that may pass for a record's head.
fn odd_head(input: &mut Unstructured<'_>) -> u64 {
    match step(input, 3) {
        0 => odd_number(input, 1 << 32),
        _ => by_hand::head(
            u64::from(step(input, 5)),
            odd_number(input, 16) & 0xffff_ffff,
            u64::from(step(input, 5)),
            u64::from(step(input, 4)),
            u64::from(step(input, 4)),
        ),
    }
}

/// Reads what there is, as the inbox does. False: the link has ended.
fn receive(incoming: &mut Incoming, sender: &mut Sender, input: &mut Unstructured<'_>) -> bool {
    // A ring holds so many records at most.
    for _ in 0..=CAPACITY / 8 {
        let record = match incoming.next_plain() {
            Some(record) => record,
            None => match incoming.next() {
                Ok(Some(record)) => record,
                Ok(None) => {
                    assert!(
                        !sender.honest || sender.sent.is_empty(),
                        "a message is lost"
                    );
                    return true;
                }
                Err(Trouble::Broken(why)) => {
                    assert!(!sender.honest, "an honest sender is dropped: {why}");
                    return false;
                }
                Err(Trouble::TooLarge(record, size)) => {
                    assert!(!sender.honest && size > PAYLOAD_MAX && record.len == 0);
                    drop(incoming.take_handles());
                    incoming.taken(&record);
                    continue;
                }
                Err(Trouble::Exhausted(_)) => return false,
            },
        };
        // Whoever is no longer honest lies while a message is looked at, too.
        if !sender.honest && step(input, 3) == 0 {
            sender.lie(input);
        }
        take(incoming, sender, &record);
    }
    panic!("a receive without end");
}

fn take(incoming: &mut Incoming, sender: &mut Sender, record: &Record) {
    assert!(record.len <= PAYLOAD_MAX, "a payload over the limit");
    let handles = if record.has_handles {
        incoming.take_handles()
    } else {
        sys::Received::default()
    };
    if record.len % 5 == 1 && !std::mem::replace(&mut sender.short, true) {
        if record.has_handles {
            incoming.put_back(handles);
        }
        return;
    }
    sender.short = false;
    let uuid = *incoming.uuid();
    let mut scratch = Vec::new();
    let decode = |payload: &mut Payload<'_>| BytesMessage::decode(&uuid, payload);
    // SAFETY: the record says so; that it is true is what this is about.
    let read = unsafe {
        let (len, readable, keep) = (record.len, record.readable(), &mut || None);
        Payload::with_shared(record.payload, len, readable, &mut scratch, keep, decode)
    };
    // Some of them are kept for a while, and let go of later than their record.
    let kept = (record.len % 3 == 0)
        .then(|| incoming.keep(record))
        .flatten();
    incoming.taken(record);
    sender.kept.push_back(kept);
    sender.kept.truncate(4);
    if sender.honest {
        let (bytes, objects) = sender.sent.pop_front().expect("more comes than was sent");
        let read = read.expect("what was sent");
        assert_eq!([&read.format.to_le_bytes()[..], &read.data].concat(), bytes);
        assert_eq!(
            (handles.len(), usize::from(record.objects)),
            (objects, objects)
        );
    }
}

/// A sender writes records and lies, its receiver reads. What an honest one sends comes as it was; a lie ends the link or does
/// nothing, and nothing is read but the link's own memory.
pub fn readers(bytes: &[u8]) {
    let input = &mut Unstructured::new(bytes);
    let start = odd_number(input, 0) & !7;
    let mut link = HandLink::starting_at(start);
    let offer = link.offer();
    let mut sender = Sender {
        link,
        tail: start,
        attachments: 0,
        blocks: Vec::new(),
        sent: VecDeque::new(),
        honest: true,
        kept: VecDeque::new(),
        short: false,
    };
    if step(input, 8) == 1 {
        // It lies from the first: the head of the records, or the handles themselves.
        sender.lie(input);
    }
    let own = sys::Ringer::local().unwrap();
    let Ok(mut incoming) = Incoming::accept(1, offer.into(), PAYLOAD_MAX, &own) else {
        assert!(!sender.honest);
        return;
    };
    while !input.is_empty() {
        match step(input, 12) {
            0..=3 => {
                let data = some_bytes(input, 100);
                sender.message(data, 0, None);
            }
            4 => {
                // So that the ring comes round.
                let data = vec![input.arbitrary().unwrap_or(0); up_to(input, 4000)];
                sender.message(&data, 0, None);
            }
            5 => {
                let handles = up_to(input, 3);
                sender.message(b"", handles, None);
            }
            6 => {
                let known = sender.blocks.len() as u64;
                let number = up_to(input, known.min(30) as usize) as u64;
                let data = vec![1; up_to(input, 5000)];
                sender.message(&data, 0, Some(number));
            }
            7 | 8 => sender.lie(input),
            9 => {
                incoming.announce_sleep();
                incoming.awake();
            }
            10 => {
                let _ = incoming.looks_ready();
                if incoming.rang().is_err() {
                    return;
                }
            }
            _ => {}
        }
        if sender.honest || step(input, 2) == 0 {
            word(&sender.link.records, AT_INDEX).store(sender.tail, Ordering::Release);
        }
        if step(input, 3) == 0 && !receive(&mut incoming, &mut sender, input) {
            return;
        }
    }
    let _ = half(&sender.link.records, by_hand::AT_SLEEP).load(Ordering::Relaxed);
    receive(&mut incoming, &mut sender, input);
}
