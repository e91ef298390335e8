//! The sender or the receiver of a link dies in the middle of a message.

use super::{at_every_point, eventually};
use crate::{
    LabelOp, MemoryRegion,
    crash::{Abandoned, abandon},
    link::{
        incoming::Incoming,
        outgoing::{Outgoing, Parcel, Sleep},
        runs::Origin,
    },
    sys::{self, AsHandle, BorrowedHandle, Handle, Ringer},
};
use std::{cell::Cell, sync::Arc, time::Duration};

const CAPACITY: usize = 64 << 10;
/// What is larger goes into a block.
const INLINE: usize = CAPACITY / 16;
const PAYLOAD_MAX: usize = 1 << 30;
const TIMEOUT: Option<Duration> = Some(Duration::from_secs(10));

/// Starts of the ring's indices: an ordinary one, and those from which a record is cut by the ring's end (so that a pad comes
/// before it) and by the end of all numbers.
const STARTS: [u64; 3] = [0, CAPACITY as u64 - 24, u64::MAX - 31];

/// What the n-th message of a kind is.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    size: usize,
    /// Whether each is of another type than the one before.
    types: bool,
    objects: usize,
    regions: usize,
}

const SMALL: Kind = Kind {
    name: "16 bytes",
    size: 16,
    types: false,
    objects: 0,
    regions: 0,
};

const KINDS: [Kind; 6] = [
    SMALL,
    Kind {
        name: "other types",
        types: true,
        ..SMALL
    },
    Kind {
        name: "blocks",
        size: INLINE + 1,
        ..SMALL
    },
    Kind {
        name: "handles",
        objects: 2,
        regions: 1,
        ..SMALL
    },
    Kind {
        name: "one handle each",
        regions: 1,
        ..SMALL
    },
    Kind {
        name: "blocks and handles",
        size: INLINE + 1,
        objects: 1,
        regions: 1,
        types: true,
    },
];

impl Kind {
    fn uuid(self, n: u64) -> [u8; 16] {
        [if self.types { n as u8 } else { 9 }; 16]
    }

    fn payload(self, n: u64) -> Vec<u8> {
        let mut payload = n.to_le_bytes().to_vec();
        payload.extend((8..self.size).map(|at| (at as u64 * 3 + n) as u8));
        payload
    }

    fn handles(self) -> usize {
        self.objects + self.regions
    }
}

/// The sender's end, and what its messages have in common.
struct From {
    out: Outgoing,
    kind: Kind,
    origin: Arc<Origin>,
    region: MemoryRegion,
}

impl From {
    fn send(&mut self, n: u64) {
        let payload = self.kind.payload(n);
        let objects: Vec<Handle> = (0..self.kind.objects)
            .map(|_| sys::duplicate(self.region.lend().unwrap()).unwrap())
            .collect();
        let regions: Vec<Handle> = (0..self.kind.regions)
            .map(|_| self.region.try_clone_handle().unwrap())
            .collect();
        let handles: Vec<BorrowedHandle<'_>> = objects
            .iter()
            .chain(&regions)
            .map(AsHandle::as_handle)
            .collect();
        let uuid = self.kind.uuid(n);
        let (head, tail) = payload.split_at(8);
        let parcel = Parcel {
            uuid: &uuid,
            head,
            tail,
            objects: self.kind.objects as u8,
            regions: self.kind.regions as u8,
            handles: &handles,
        };
        let origin = Some(&self.origin);
        if self.out.fits_inline(payload.len()) {
            if handles.is_empty() && self.out.append(&uuid, head, tail, Some(&self.origin)) {
                return;
            }
            self.out.write(&parcel, origin, None).unwrap();
        } else {
            let lease = self.out.lease(payload.len(), head.len()).unwrap();
            lease.fill(head, tail);
            self.out.write_block(&parcel, &lease, origin, None).unwrap();
        }
    }
}

/// A link, with its sender's copies of the receiver's handles.
fn link(kind: Kind, start: u64) -> (From, Vec<Handle>) {
    let mut out = Outgoing::new(sys::pid(), CAPACITY, start).unwrap();
    let offer = out.offer().unwrap();
    let handles = offer.handles().map(|h| sys::duplicate(h).unwrap());
    let origin = Arc::new(Origin {
        label_op: LabelOp::from("x"),
    });
    let from = From {
        out,
        kind,
        origin,
        region: MemoryRegion::new(10_000),
    };
    (from, handles.into())
}

fn accept(handles: Vec<Handle>) -> Incoming {
    Incoming::accept(1, handles.into(), PAYLOAD_MAX, &Ringer::local().unwrap()).unwrap()
}

fn accepted(kind: Kind, start: u64) -> (From, Incoming) {
    let (mut from, handles) = link(kind, start);
    let incoming = accept(handles);
    from.out.look_for_acceptance();
    (from, incoming)
}

/// Takes the next message and checks that it is the n-th. False: there is none.
fn take(incoming: &mut Incoming, kind: Kind, n: u64) -> bool {
    let Some(record) = incoming.next().expect("a link that is as it should be") else {
        return false;
    };
    let mut payload = vec![0; record.len];
    // SAFETY: the payload is mapped, and the vector has room for it.
    unsafe {
        crate::sync::copy_from_shared(record.payload, payload.as_mut_ptr(), record.len);
    }
    assert_eq!(payload, kind.payload(n));
    assert_eq!(*incoming.uuid(), kind.uuid(n));
    let handles = incoming.take_handles();
    assert_eq!(handles.len(), kind.handles());
    incoming.taken(&record);
    true
}

#[test]
fn a_dead_sender_leaves_half_a_message_or_takes_one_with_it() {
    for kind in KINDS {
        for start in STARTS {
            for asleep in [false, true] {
                let what = format!("sending {}, start {start:#x}, asleep {asleep}", kind.name);
                at_every_point(&what, |last| sender_dies(kind, start, asleep, last));
            }
        }
    }
}

fn sender_dies(kind: Kind, start: u64, asleep: bool, last: u64) -> Result<(), Abandoned> {
    let (from, mut incoming) = accepted(kind, start);
    let region = from.region.clone().unwrap();
    if asleep {
        incoming.announce_sleep();
    }
    let sent = Cell::new(0);
    let result = abandon(last, || {
        let mut from = from;
        for n in 1..=4 {
            from.send(n);
            sent.set(n);
        }
        drop(from);
    });
    // Its end is heard, also by one that sleeps: the bell goes with the sender, whether it had rung or not. What it had
    // accepted is read first.
    let (_, hangup) = sys::wait_for(incoming.side(), TIMEOUT).unwrap();
    assert!(hangup, "the end is not heard");
    let mut came = 0;
    while take(&mut incoming, kind, came + 1) {
        came += 1;
    }
    assert!(
        came == sent.get() || came == sent.get() + 1,
        "accepted {}, delivered {came}",
        sent.get()
    );
    drop(incoming);
    eventually("the dead do not count", || region.ref_count() == 1);
    result
}

#[test]
fn a_dead_receiver_takes_more_than_one_message_with_it_or_leaves_one_twice() {
    for kind in KINDS {
        for start in STARTS {
            let what = format!("receiving {}, start {start:#x}", kind.name);
            at_every_point(&what, |last| receiver_dies(kind, start, last));
        }
    }
}

fn receiver_dies(kind: Kind, start: u64, last: u64) -> Result<(), Abandoned> {
    let (mut from, handles) = link(kind, start);
    let region = from.region.clone().unwrap();
    (1..=4).for_each(|n| from.send(n));
    let taken = Cell::new(0);
    let result = abandon(last, || {
        let mut incoming = accept(handles);
        incoming.announce_sleep();
        incoming.awake();
        while take(&mut incoming, kind, taken.get() + 1) {
            taken.set(taken.get() + 1);
        }
        drop(incoming);
    });
    from.out.look_for_acceptance();
    let (untaken, lost) = from.out.untaken();
    let first = untaken.first().map(|message| number(&message.payload));
    if kind.handles() == 0 {
        assert_eq!(lost, 0);
        let first = first.unwrap_or(5);
        assert!(
            first == taken.get() + 1 || first == taken.get() + 2,
            "taken {}, the next gets those from {first} on",
            taken.get()
        );
        for (n, message) in (first..).zip(&untaken) {
            assert_eq!(message.payload, kind.payload(n));
            assert_eq!(message.uuid, kind.uuid(n));
        }
        assert_eq!(untaken.len() as u64, 5 - first);
    } else {
        assert_eq!(first, None);
        assert!(lost == 4 - taken.get() || lost + 1 == 4 - taken.get());
    }
    drop(from);
    eventually("the dead do not count", || region.ref_count() == 1);
    result
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

/// A sender that waits for space learns of what the receiver gave back before it died, or of its death.
#[test]
fn a_sender_waits_for_the_space_of_a_dead_receiver() {
    at_every_point("making space", |last| {
        let (mut from, mut incoming) = accepted(SMALL, 0);
        let mut sent = 0;
        while from.out.append(
            &SMALL.uuid(0),
            &SMALL.payload(sent),
            &[],
            Some(&from.origin),
        ) || sent == 0
        {
            if sent == 0 {
                from.send(0);
            }
            sent += 1;
        }
        let lack = from.out.lack();
        let sleep = from.out.sleep_for_space(&lack);
        assert!(matches!(sleep, Ok(Sleep::Sound | Sleep::Short)));
        let result = abandon(last, || {
            for _ in 0..3 {
                let record = incoming.next().unwrap().unwrap();
                incoming.taken(&record);
            }
            drop(incoming);
        });
        let (told, hangup) = sys::wait_for(&**from.out.side(), TIMEOUT).unwrap();
        assert!(told || hangup, "the sender sleeps for ever");
        let (untaken, lost) = from.out.untaken();
        assert!(lost == 0 && untaken.len() + 3 >= sent as usize);
        result
    });
}
