//! A controller dies while it writes its directory.

use super::at_every_point;
use crate::{
    control::directory::{Directory, Listed, Reader, Writer},
    crash::abandon,
    sys::{AsHandle, Memory},
};
use std::cell::Cell;

fn listed(id: u64) -> Listed {
    let mut label = Vec::new();
    crate::label!("a", "b").encode(&mut label);
    Listed {
        id,
        pid: 1,
        uid: 2,
        start_time: 3,
        secret_hash: [id as u8; 32],
        receives: true,
        label,
    }
}

#[test]
fn a_directory_is_half_written_when_its_controller_dies() {
    at_every_point("writing a directory", |last| {
        let mut writer = Writer::new(7, 1, 0).unwrap();
        let memory = crate::sys::duplicate(writer.memory().as_handle()).unwrap();
        let memory = Memory::from_peer(memory, 1, 1 << 30).unwrap();
        let mut reader = Reader::new(Directory::open(memory).unwrap());
        let written = Cell::new(0);
        let result = abandon(last, || {
            for id in 1..=3 {
                writer.joined(&listed(id)).unwrap();
                written.set(id);
            }
            writer.stopped_receiving(2).unwrap();
            writer.left(1).unwrap();
            written.set(4);
            writer.settled().unwrap();
            writer.give_up();
            drop(writer);
        });
        reader.catch_up().expect("what is published makes sense");
        assert!(!reader.directory().look().valid);
        let ids: Vec<u64> = reader.members.keys().copied().collect();
        match written.get() {
            n @ 0..=2 => {
                // The one that it was about to list may be there.
                assert!(ids.iter().copied().eq(1..=ids.len() as u64));
                assert!((n..=n + 1).contains(&(ids.len() as u64)), "{n} {ids:?}");
                assert!(reader.directory().next_id() > ids.len() as u64);
            }
            3 => assert!(ids == [1, 2, 3] || ids == [2, 3]),
            _ => assert_eq!(ids, [2, 3]),
        }
        for (id, member) in &reader.members {
            let mut expected = listed(*id);
            expected.receives = member.receives;
            assert_eq!(member.listed, expected);
        }
        result
    });
}
