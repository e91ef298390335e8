//! A controller takes over what a leaver leaves behind, and may go at any moment.

use super::*;
use crate::{
    control::protocol::{LEFT_BYTES, LEFT_HANDLES},
    crash::abandon,
};
use std::time::Duration;

const PARKED: [[u8; 16]; 2] = [[1; 16], [2; 16]];

/// Hands a message over that has so many handles with it.
fn park(channel: &Channel, uuid: [u8; 16], objects: u8) {
    let memory = Memory::new(c"parked", 4096).unwrap();
    let park = ToController::Park {
        uuid,
        label_op_len: 0,
        multicast: false,
        remaining_ms: 1000,
        len: 4096,
        objects,
        regions: 0,
    };
    let handles = vec![memory.as_handle(); 1 + usize::from(objects)];
    channel.send(&protocol::encode(&park), &handles).unwrap();
}

/// A member that hands over two messages and says good-bye.
fn leaver(controller: &mut Controller, wiring: &mut Tokens) -> (Channel, u64) {
    let (channel, token, _) = joined(controller, wiring);
    for uuid in PARKED {
        park(&channel, uuid, 0);
    }
    say(&channel, &ToController::Leave);
    (channel, token)
}

fn is_confirmed(leaver: &Channel) -> bool {
    let mut buffer = [0; 256];
    loop {
        match leaver.recv(&mut buffer, &mut Vec::new()) {
            Ok(packet) if packet.len > 0 => {
                if protocol::decode(&buffer[..packet.len]) == Some(ToMember::Done) {
                    return true;
                }
            }
            _ => return false,
        }
    }
}

/// A leaver that was not told hands everything to the next controller.
#[test]
fn what_a_controller_passed_on_before_it_died_is_handed_over_again() {
    let (mut last, mut before, mut after) = (1, 0, 0);
    loop {
        let host = Arc::new(Host::default());
        let (mut controller, mut wiring) = successor_beside("dies", None, host.clone());
        controller.settle(&mut wiring);
        let (leaver, token) = leaver(&mut controller, &mut wiring);
        let died = abandon(last, || controller.read(token, &mut wiring));
        drop(controller);
        let told = is_confirmed(&leaver);
        match (&died, told) {
            (Ok(()), _) => assert!(told && host.passed_on() == PARKED),
            (Err(_), true) => after += 1,
            (Err(_), false) => {
                before += 1;
                assert_eq!(host.passed_on(), [[0; 16]; 0], "point {last}");
            }
        }
        if died.is_ok() {
            break;
        }
        last += 1;
    }
    println!(
        "ABANDONED taking over what a leaver leaves: {before} times before it was told, {after} after"
    );
    assert!(before > 0 && after > 0, "nothing was tried");
}

/// While the answer does not fit into its channel, the leaver may yet go to another controller.
#[test]
fn what_a_leaver_without_an_answer_leaves_behind_is_passed_on() {
    for hangs_up in [false, true] {
        let host = Arc::new(Host::default());
        let (mut controller, mut wiring) = successor_beside("full", None, host.clone());
        controller.settle(&mut wiring);
        let (leaver, token) = leaver(&mut controller, &mut wiring);
        let look = protocol::encode(&ToMember::Look);
        while controller.connections[&token]
            .channel
            .send(&look, &[])
            .is_ok()
        {}
        controller.read(token, &mut wiring);
        assert!(controller.connections[&token].left);
        assert_eq!(host.passed_on(), [[0; 16]; 0]);
        // It reads and is told; or it is gone, and nobody else gets its messages.
        if hangs_up {
            drop(leaver);
            controller.read(token, &mut wiring);
            assert!(!controller.connections.contains_key(&token));
        } else {
            assert!(!is_confirmed(&leaver));
            controller.writable(token, &mut wiring);
            assert!(is_confirmed(&leaver));
        }
        assert_eq!(host.passed_on(), PARKED);
    }
}

/// Four members that hand over as many handles as they may, and do not complete their leave; the first said nothing for longest.
fn all_the_room(controller: &mut Controller, wiring: &mut Tokens) -> Vec<(Channel, u64)> {
    let leavers = (0..4).map(|_| {
        let (channel, token, _) = joined(controller, wiring);
        park(&channel, [1; 16], LEFT_HANDLES as u8);
        controller.read(token, wiring);
        (channel, token)
    });
    leavers.collect()
}

fn estate_of(controller: &Controller, token: u64) -> Option<(usize, usize)> {
    Some(controller.connections.get(&token)?.estate_size)
}

/// It may have been stopped between two of the messages that it hands over.
#[test]
fn a_leaver_that_is_slow_is_sent_away() {
    let (mut controller, mut wiring) = successor("slow", None);
    controller.settle(&mut wiring);
    let leavers = all_the_room(&mut controller, &mut wiring);
    assert_eq!(controller.deadline(), None);
    controller.tick(Instant::now() + Duration::from_secs(3600), &mut wiring);
    for (channel, token) in leavers {
        assert_eq!(estate_of(&controller, token), Some((LEFT_HANDLES, 4096)));
        say(&channel, &ToController::Leave);
        controller.read(token, &mut wiring);
        assert!(is_confirmed(&channel));
        assert_eq!(estate_of(&controller, token), Some((0, 0)));
    }
}

/// The messages of others who leave would be lost, or the handles used up.
#[test]
fn who_does_not_leave_keeps_the_room_for_what_leavers_leave_behind() {
    let (mut controller, mut wiring) = successor("estates", None);
    controller.settle(&mut wiring);
    let leavers = all_the_room(&mut controller, &mut wiring);
    let (channel, token, _) = joined(&mut controller, &mut wiring);
    let hand_over = |controller: &mut Controller, wiring: &mut Tokens, objects: u8| {
        park(&channel, [2; 16], objects);
        controller.read(token, wiring);
        let left = leavers.iter().map(|l| estate_of(controller, l.1).is_some());
        (left.collect::<Vec<_>>(), estate_of(controller, token))
    };
    // Another gives way, and keeps what it has.
    let result = hand_over(&mut controller, &mut wiring, 1);
    assert_eq!(result, (vec![false, true, true, true], Some((1, 4096))));
    let result = hand_over(&mut controller, &mut wiring, 2);
    assert_eq!(result, (vec![false, true, true, true], Some((3, 2 * 4096))));
    // The same for bytes, of which there is room for as many times.
    for (_, token) in &leavers[1..] {
        let connection = controller.connections.get_mut(token).unwrap();
        connection.estate_size = (1, 2 * LEFT_BYTES);
    }
    let result = hand_over(&mut controller, &mut wiring, 0);
    assert_eq!(
        result,
        (vec![false, false, true, true], Some((3, 3 * 4096)))
    );
    assert!(!is_confirmed(&leavers[0].0) && !is_confirmed(&leavers[1].0));
    // Who has left has nothing more to hand over.
    say(&channel, &ToController::Leave);
    controller.read(token, &mut wiring);
    assert_eq!(estate_of(&controller, token), Some((0, 0)));
    let (left, mine) = hand_over(&mut controller, &mut wiring, 0);
    assert_eq!((left, mine), (vec![false, false, true, true], None));
}
