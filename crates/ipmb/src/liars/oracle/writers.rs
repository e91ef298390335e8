use super::{odd_number, some_bytes, step, up_to};
use crate::{
    LabelOp,
    liars::by_hand::{AT_ACCEPTED, AT_INDEX, AT_RELEASED, HEADER, half, word},
    link::{
        layout::BLOCKS,
        outgoing::{Outgoing, Parcel, Refusal},
        runs::Origin,
    },
    sys::{self, AsHandle, Channel, Mapping, Memory, Protection},
};
use arbitrary::Unstructured;
use std::{
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
};

const CAPACITY: usize = 64 << 10;

/// What was accepted: its number is in its payload.
struct Sent {
    uuid: [u8; 16],
    payload: Vec<u8>,
    /// Whether it goes to another when the receiver dies.
    unicast: bool,
    /// The index after it.
    end: u64,
    /// The number of the block that the payload lies in.
    block: Option<usize>,
}

/// A receiver by hand.
struct Receiver {
    records: Mapping,
    returns: Mapping,
    side: Channel,
    /// How often it had each block.
    uses: [u32; BLOCKS],
    /// How many messages it has given back.
    taken: usize,
    honest: bool,
}

/// A sender writes, its receiver gives back and lies, and then dies. What it had not taken is found again as it was sent, in its
/// order, and nothing that was never sent: a place within a payload of the receiver's choice passes for no record.
pub fn writers(bytes: &[u8]) {
    let input = &mut Unstructured::new(bytes);
    let start = odd_number(input, 0);
    let mut link = Outgoing::new(0, CAPACITY, start).unwrap();
    let offer = link.offer().expect("it is new").handles();
    let [records, returns, _bell, side] = offer.map(|handle| sys::duplicate(handle).unwrap());
    let map = |handle, protection| {
        let memory = Memory::from_peer(handle, 1, 1 << 20).unwrap();
        memory.map_all(protection).unwrap()
    };
    let mut receiver = Receiver {
        records: map(records, Protection::Read),
        returns: map(returns, Protection::ReadWrite),
        uses: [0; BLOCKS],
        side: Channel::from_peer(side).unwrap(),
        taken: 0,
        honest: true,
    };
    let origins: Vec<_> = ["a", "b"]
        .map(|part| {
            Arc::new(Origin {
                label_op: LabelOp::from(part),
            })
        })
        .into();
    let mut sent: Vec<Sent> = Vec::new();
    while !input.is_empty() {
        match step(input, 10) {
            0..=3 => {
                let Some(message) = write(&mut link, &receiver, input, &origins, sent.len()) else {
                    return;
                };
                sent.extend(message);
            }
            4 | 5 => give_back(&mut receiver, input, &sent),
            6 => lie(&mut receiver, input, link.books().1),
            7 => {
                half(&receiver.returns, AT_ACCEPTED).store(1, Ordering::Release);
                link.look_for_acceptance();
            }
            8 => {
                let slept = {
                    let lack = link.lack();
                    link.sleep_for_space(&lack)
                };
                assert!(slept.is_ok() || !receiver.honest, "{slept:?}");
                link.awake();
            }
            _ => {
                let lack = link.lack();
                let _ = (link.has_moved(&lack), link.has_hung_up(), link.quiet_at());
                let _ = link.untaken_origins().count();
            }
        }
    }
    // What was given back by the books of the sender, who believes no lie.
    let (untaken, _) = link.untaken();
    let (head, _) = link.books();
    let first = sent.iter().take_while(|s| is_before(s.end, head)).count();
    let expected: Vec<_> = sent[first..].iter().filter(|s| s.unicast).collect();
    assert!(
        !receiver.honest || first == receiver.taken,
        "it takes {first} for {}",
        receiver.taken
    );
    assert_eq!(
        untaken.len(),
        expected.len(),
        "of {} sent, {first} taken",
        sent.len()
    );
    for (untaken, sent) in untaken.iter().zip(expected) {
        assert!(
            untaken.payload == sent.payload && untaken.uuid == sent.uuid,
            "a forged message"
        );
    }
}

/// Whether an index is at another or before it.
fn is_before(index: u64, other: u64) -> bool {
    other.wrapping_sub(index) as i64 >= 0
}

/// Sends something. `None`: the link is broken. `Some(None)`: it was not accepted.
fn write(
    link: &mut Outgoing,
    receiver: &Receiver,
    input: &mut Unstructured<'_>,
    origins: &[Arc<Origin>],
    number: usize,
) -> Option<Option<Sent>> {
    let uuid = [step(input, 2); 16];
    let origin = origins.get(usize::from(step(input, 3)));
    let mut payload = (number as u64).to_le_bytes().to_vec();
    // Bytes that may look like a record, and as many as it takes.
    payload.extend(some_bytes(input, 64));
    if step(input, 4) == 0 {
        payload.resize(payload.len() + up_to(input, 4000), 1);
    }
    let (head, rest) = payload.split_at(8);
    let file = std::fs::File::open("/dev/null").unwrap();
    let handles = vec![
        file.as_fd();
        if step(input, 8) == 7 {
            up_to(input, 3)
        } else {
            0
        }
    ];
    let parcel = Parcel {
        uuid: &uuid,
        head,
        tail: rest,
        objects: handles.len() as u8,
        regions: 0,
        handles: &handles,
    };
    let blocks = step(input, 8) == 7;
    let result = if blocks {
        link.lease(payload.len(), head.len()).and_then(|lease| {
            lease.fill(head, rest);
            let written = link.write_block(&parcel, &lease, origin, None);
            if written.is_err() {
                link.abandon(&lease);
            }
            written
        })
    } else if handles.is_empty() && step(input, 2) == 0 && link.append(&uuid, head, rest, origin) {
        Ok(())
    } else {
        link.write(&parcel, origin, None)
    };
    match result {
        Ok(()) => {
            let end = link.books().1;
            // A record that refers to a block ends with the reference, which begins with the block's number.
            let at = HEADER + (end.wrapping_sub(16) % CAPACITY as u64) as usize;
            let number = || word(&receiver.records, at).load(Ordering::Relaxed) as u32 as usize;
            Some(Some(Sent {
                uuid,
                unicast: origin.is_some() && handles.is_empty(),
                end,
                block: blocks.then(number),
                payload,
            }))
        }
        Err(Refusal::Broken(why)) => {
            assert!(!receiver.honest, "an honest receiver is dropped: {why}");
            Some(None)
        }
        Err(Refusal::Full(_) | Refusal::Busy(_)) => Some(None),
        Err(Refusal::Io(e)) => panic!("{e}"),
    }
}

/// Takes some messages off, as an honest receiver does.
fn give_back(receiver: &mut Receiver, input: &mut Unstructured<'_>, sent: &[Sent]) {
    let more = up_to(input, sent.len() - receiver.taken);
    for number in sent[receiver.taken..][..more]
        .iter()
        .filter_map(|s| s.block)
    {
        receiver.uses[number] += 1;
        let released = AT_RELEASED + 4 * number;
        half(&receiver.returns, released).store(receiver.uses[number], Ordering::Release);
    }
    receiver.taken += more;
    if let Some(last) = receiver.taken.checked_sub(1) {
        word(&receiver.returns, AT_INDEX).store(sent[last].end, Ordering::Release);
    }
    // It takes what came over the side channel, too.
    while receiver.side.skip().is_ok_and(|len| len > 0) {}
}

fn lie(receiver: &mut Receiver, input: &mut Unstructured<'_>, tail: u64) {
    receiver.honest = false;
    match step(input, 4) {
        0 => {
            let at = up_to(input, 511) * 8;
            word(&receiver.returns, at).store(odd_number(input, tail), Ordering::Relaxed);
        }
        1 | 2 => {
            let back = up_to(input, 1 << 16) as u64;
            let index = tail.wrapping_sub(if step(input, 2) == 0 { back & !7 } else { back });
            word(&receiver.returns, AT_INDEX).store(index, Ordering::Release);
        }
        _ => {
            let bytes = some_bytes(input, 20);
            if !bytes.is_empty() {
                let _ = receiver.side.send(bytes, &[receiver.side.as_handle()]);
            }
        }
    }
}
