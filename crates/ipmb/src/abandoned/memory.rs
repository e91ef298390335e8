//! A holder of regions dies while it makes, shares, freezes, frees or uses them again.

use super::{at_every_point, eventually};
use crate::{MemoryRegion, MemoryRegistry, crash::abandon, sys::Channel};

#[test]
fn a_dead_holder_of_a_region_counts_or_keeps_it_from_being_frozen() {
    at_every_point("holding a region", |last| {
        let mut region = MemoryRegion::new(10_000);
        region.map(..).unwrap().fill(7);
        let theirs = region.clone().unwrap();
        let result = abandon(last, || {
            let mut theirs = theirs;
            theirs.map(..).unwrap();
            let mut clone = theirs.clone().unwrap();
            clone.map(..100).unwrap();
            let handle = clone.into_handle().unwrap();
            let mut received = MemoryRegion::from_handle(handle, 1 << 20).unwrap();
            received.map(..).unwrap();
            let (near, far) = Channel::pair(0).unwrap();
            near.send(b"x", &[received.lend().unwrap()]).unwrap();
            received.given();
            drop(received);
            let mut handles = Vec::new();
            far.recv(&mut [0; 8], &mut handles).unwrap();
            let got = MemoryRegion::from_handle(handles.pop().unwrap(), 1 << 20);
            drop((got, theirs));
        });
        eventually("the dead do not count", || region.ref_count() == 1);
        assert!(region.map(..).unwrap().iter().all(|byte| *byte == 7));
        region.freeze().expect("nobody maps it");
        result
    });
}

#[test]
fn a_dead_registry_counts_or_gives_out_what_others_hold() {
    at_every_point("using regions again", |last| {
        let mut registry = MemoryRegistry::default();
        let mut ours = registry.alloc(10_000, None);
        ours.map(..).unwrap().fill(7);
        let result = abandon(last, || {
            let mut registry = registry;
            for _ in 0..3 {
                let mut region = registry.alloc(10_000, None);
                region.map(..).unwrap().fill(0);
                drop(region.clone().unwrap());
                drop(region);
                registry.maintain();
            }
            drop(registry);
        });
        eventually("the dead do not count", || ours.ref_count() == 1);
        assert!(ours.map(..).unwrap().iter().all(|byte| *byte == 7));
        ours.freeze().expect("nobody maps it");
        result
    });
}
