//! A controller takes over what a leaver leaves behind, and may go at any moment.

use super::*;
use crate::crash::abandon;

const PARKED: [[u8; 16]; 2] = [[1; 16], [2; 16]];

/// A member that hands over two messages and says good-bye.
fn leaver(controller: &mut Controller, wiring: &mut Tokens) -> (Channel, u64) {
    let (channel, token, _) = joined(controller, wiring);
    let memory = Memory::new(c"parked", 4096).unwrap();
    for uuid in PARKED {
        let park = ToController::Park {
            uuid,
            label_op_len: 0,
            multicast: false,
            remaining_ms: 1000,
            len: 1,
            objects: 0,
            regions: 0,
        };
        let packet = protocol::encode(&park);
        channel.send(&packet, &[memory.as_handle()]).unwrap();
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
