//! What a successor knows, and what its directory says before it is settled.

#![allow(clippy::unwrap_used)]

use super::{
    super::{DIRECTORY_MAX, ENTRY, SHORTAGE, introduction::Introduction},
    Controller, Wiring,
};
use crate::{
    Options,
    control::{
        bus::Bus,
        directory::{Directory, Full, Listed, Reader, Writer},
        membership::{Events, Parked},
        proof::{self, Role, prove},
        protocol::{self, Hello, ToController, ToMember},
    },
    label,
    sys::{self, AsHandle, Channel, Interest, Memory, Received, SourceRef},
};
use std::{
    io::{self, Read as _},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Instant,
};

mod handover;

/// The last token, and what the watches were changed to.
struct Tokens(u64, Vec<(u64, Interest)>);

impl Wiring for Tokens {
    fn watch(&mut self, _: SourceRef<'_>, _: Interest) -> io::Result<u64> {
        self.0 += 1;
        Ok(self.0)
    }
    fn change(&mut self, _: SourceRef<'_>, token: u64, interest: Interest) {
        self.1.push((token, interest));
    }
    fn forget(&mut self, _: SourceRef<'_>, _: u64) {}
}

/// The endpoint beside a controller; notes what it passes on of leavers.
#[derive(Default)]
struct Host(Mutex<Vec<[u8; 16]>>);

impl Host {
    fn passed_on(&self) -> Vec<[u8; 16]> {
        self.0.lock().unwrap().clone()
    }
}

impl Events for Host {
    fn directory_changed(&self) {}
    fn put_off(&self, _: u64) {}
    fn introduced(&self, _: u64, _: u64, _: Received) -> Option<Received> {
        None
    }
    fn introduce(&self, _: &Channel, _: bool) -> io::Result<()> {
        Ok(())
    }
    fn no_such_member(&self, _: u64) {}
    fn side_news(&self, _: u64, _: bool) {}
    fn expired(&self) {}
    fn parked(&self, parked: Parked) {
        self.0.lock().unwrap().push(parked.uuid);
        crate::crash::point();
    }
    fn left_behind(&self) -> Vec<Parked> {
        Vec::new()
    }
    fn lost(&self, _: u64) {}
    fn ended(&self) {}
}

fn listed(id: u64) -> Listed {
    let mut label = Vec::new();
    label!("a").encode(&mut label);
    Listed {
        id,
        pid: sys::pid(),
        uid: sys::uid(),
        start_time: sys::start_time(sys::pid()),
        secret_hash: [id as u8; 32],
        receives: true,
        label,
    }
}

/// The directory of a controller that had these members, as they see it.
fn directory_of(generation: u64, next_id: u64, members: &[u64]) -> (Writer, Arc<Directory>) {
    let room = members.len() * 2 * ENTRY;
    let mut writer = Writer::new(generation, next_id, room).unwrap();
    for id in members {
        writer.joined(&listed(*id)).unwrap();
    }
    writer.settled().unwrap();
    let directory = opened(writer.memory());
    (writer, directory)
}

fn opened(memory: &Memory) -> Arc<Directory> {
    let handle = sys::duplicate(memory.as_handle()).unwrap();
    Directory::open(Directory::memory_from_peer(handle).unwrap()).unwrap()
}

fn successor(test: &str, before: Option<Arc<Directory>>) -> (Controller, Tokens) {
    successor_beside(test, before, Arc::default())
}

fn successor_beside(
    test: &str,
    before: Option<Arc<Directory>>,
    host: Arc<Host>,
) -> (Controller, Tokens) {
    let name = format!("succession.{test}.{}", std::process::id());
    let bus = Bus::new(Options::new(name, label!(), "")).unwrap();
    let seat = bus.rendezvous.win().unwrap().unwrap();
    let mut wiring = Tokens(0, Vec::new());
    let controller = Controller::new(seat, bus, before, None, false, host, &mut wiring);
    (controller.unwrap(), wiring)
}

/// A member that joins by hand, the token of its connection, and its id.
fn joined(controller: &mut Controller, wiring: &mut Tokens) -> (Channel, u64, u64) {
    let (channel, token, id) = came(controller, wiring, [wiring.0 as u8 + 1; 16], None);
    (channel, token, id.unwrap())
}

/// The same for one that may have been a member before and is not admitted yet perhaps.
fn came(
    controller: &mut Controller,
    wiring: &mut Tokens,
    secret: [u8; 16],
    before: Option<u64>,
) -> (Channel, u64, Option<u64>) {
    let channel = controller.bus.rendezvous.connect().unwrap().unwrap();
    controller.accept(wiring);
    let token = wiring.0;
    let packet = || {
        let mut buffer = [0; 256];
        let packet = channel.recv(&mut buffer, &mut Vec::new()).ok()?;
        Some(buffer[..packet.len].to_vec())
    };
    let theirs: Hello = protocol::decode(&packet().unwrap()).unwrap();
    let ours = Hello::new([7; 32]);
    channel.send(&protocol::encode(&ours), &[]).unwrap();
    let register = ToController::Register {
        proof: prove("", Role::Member, &ours.nonce, &theirs.nonce),
        secret,
        label: listed(1).label,
        receives: true,
        before,
    };
    channel.send(&protocol::encode(&register), &[]).unwrap();
    controller.read(token, wiring);
    let id = packet().map(|packet| match protocol::decode(&packet) {
        Some(ToMember::Welcome { id, .. }) => id,
        _ => panic!("not admitted"),
    });
    (channel, token, id)
}

fn say(channel: &Channel, message: &ToController) {
    channel.send(&protocol::encode(message), &[]).unwrap();
}

fn members_of(controller: &Controller) -> Vec<u64> {
    let mut reader = Reader::new(opened(controller.writer.memory()));
    reader.catch_up().unwrap();
    reader.members.keys().copied().collect()
}

/// Its directory is the last one if it is killed now: who wins next expects those that are in it.
#[test]
fn members_are_missing_from_the_directory_of_a_controller_that_is_not_settled() {
    let (_writer, before) = directory_of(7, 30, &[3, 5]);
    let (controller, _wiring) = successor("missing", Some(before));
    assert!(!controller.settled());
    assert_eq!(members_of(&controller), [3, 5]);
}

#[test]
fn a_stranger_as_controller_starts_counting_again() {
    let (_writer, before) = directory_of(7, 30, &[3, 5]);
    let (mut controller, mut wiring) = successor("stranger", None);
    let brought = sys::duplicate(before.memory().as_handle()).unwrap();
    controller.learn_from(Some(3), vec![brought].into(), &mut wiring);
    let directory = opened(controller.writer.memory());
    assert_eq!((directory.generation(), directory.next_id()), (8, 30));
    assert_eq!(members_of(&controller), [3, 5]);
}

/// The winner was stopped while another was the controller, and somebody left.
#[test]
fn who_left_a_later_controller_is_expected_for_ever() {
    let (_writer, before) = directory_of(7, 30, &[3, 5]);
    let (_later, after) = directory_of(8, 31, &[3, 30]);
    let (mut controller, mut wiring) = successor("left", Some(before));
    let brought = sys::duplicate(after.memory().as_handle()).unwrap();
    controller.learn_from(Some(3), vec![brought].into(), &mut wiring);
    assert_eq!(members_of(&controller), [3, 30]);
    assert!(!controller.absent.contains_key(&5));
}

const WAITS: &str = "IPMB_TEST_WAITS";

/// In a process of its own: lives until its input ends.
#[test]
fn waits() {
    if std::env::var_os(WAITS).is_some() {
        let _ = io::stdin().read(&mut [0]);
    }
}

/// The last one leaves before its thread has slept once more: it would leave its files behind, and what it parked waits.
#[test]
fn one_whose_end_is_not_yet_reported_passes_for_a_member() {
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut other = sys::own_program()
        .args([&format!("{module}::waits"), "--exact"])
        .env(WAITS, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut writer = Writer::new(7, 30, 0).unwrap();
    let pid = other.id();
    let start_time = sys::start_time(pid);
    let other_process = Listed {
        pid,
        start_time,
        ..listed(3)
    };
    writer.joined(&other_process).unwrap();
    writer.settled().unwrap();
    let (controller, _wiring) = successor("unreported", Some(opened(writer.memory())));
    assert!(controller.has_others(0));
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(!controller.has_others(0));
}

/// It would take the controller for a liar and let go of it, and its messages would find no match.
#[test]
fn a_member_that_is_late_is_told_to_look_before_it_is_welcomed() {
    let (_writer, before) = directory_of(7, 30, &[3]);
    let (mut controller, mut wiring) = successor("late", Some(before));
    let late = controller.bus.rendezvous.connect().unwrap().unwrap();
    controller.accept(&mut wiring);
    controller.settle(&mut wiring);
    let mut buffer = [0; 256];
    let hello = late.recv(&mut buffer, &mut Vec::new()).unwrap();
    assert!(protocol::decode::<Hello>(&buffer[..hello.len]).is_some());
    let more = late.recv(&mut buffer, &mut Vec::new());
    assert_eq!(more.unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

/// Members would wait for another one for ever, though it could be made a moment later.
#[test]
fn a_directory_that_cannot_be_replaced_at_once_ends_the_bus() {
    let (mut controller, mut wiring) = successor("replaced", None);
    controller.settle(&mut wiring);
    controller.listed.insert(3, listed(3));
    // As if there were no memory: more than any directory holds.
    for id in 4..7 + 2 * (DIRECTORY_MAX as u64 >> 15) {
        let label = vec![0; 32 << 10];
        let listed = Listed {
            label,
            ..listed(id)
        };
        controller.listed.insert(id, listed);
    }
    controller.publish(|_| Err(Full), &mut wiring);
    assert!(!opened(controller.writer.memory()).look().valid);
    assert!(controller.deadline().is_some(), "nobody looks again");
    controller.listed.retain(|id, _| *id == 3);
    controller.tick(Instant::now() + SHORTAGE, &mut wiring);
    assert!(opened(controller.writer.memory()).look().valid);
    assert_eq!(members_of(&controller), [3]);
}

/// The queue of connections stays readable, whatever keeps them from being accepted.
#[cfg(unix)]
#[test]
fn an_unexpected_error_of_an_accept_keeps_the_thread_busy() {
    use std::os::fd::{AsFd, AsRawFd};
    let (mut controller, mut wiring) = successor("accept", None);
    let file = std::fs::File::open("/dev/null").unwrap();
    let listener = controller.seat.as_fd().as_raw_fd();
    // SAFETY: the descriptor stays the seat's; it stands for something else from now on, which cannot accept.
    assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), listener) }, listener);
    controller.accept(&mut wiring);
    let leaves_alone = (controller.seat_token, Interest::Hangup);
    assert_eq!(wiring.1.last(), Some(&leaves_alone));
    assert!(controller.deadline().is_some(), "nobody looks again");
}

/// All members would read them, and do their routes anew.
#[test]
fn an_endpoint_that_stops_again_and_again_fills_the_directory() {
    let (mut controller, mut wiring) = successor("stops", None);
    controller.settle(&mut wiring);
    let (channel, token, _) = joined(&mut controller, &mut wiring);
    let directory = opened(controller.writer.memory());
    let mut lengths = Vec::new();
    for _ in 0..3 {
        say(&channel, &ToController::StopReceiving);
        controller.read(token, &mut wiring);
        lengths.push(directory.look().length);
        // Each is answered.
        let packet = channel.recv(&mut [0; 256], &mut Vec::new());
        assert!(packet.unwrap().len > 0);
    }
    assert_eq!(lengths, [lengths[0]; 3]);
}

/// Each would take the other for one who stays, and the bus's files would be left behind.
#[test]
fn who_has_left_and_not_yet_hung_up_passes_for_a_member() {
    let (mut controller, mut wiring) = successor("leavers", None);
    controller.settle(&mut wiring);
    let (channel, token, id) = joined(&mut controller, &mut wiring);
    assert!(controller.has_others(0) && !controller.has_others(id));
    say(&channel, &ToController::Leave);
    controller.read(token, &mut wiring);
    assert!(controller.connections.contains_key(&token));
    assert!(!controller.has_others(0));
}

/// It would go by its old books: a member that came back would take what is said for that of a stranger, and let go.
#[test]
fn one_who_is_not_welcomed_yet_is_told_something_else() {
    let (mut controller, mut wiring) = successor("welcome", None);
    controller.settle(&mut wiring);
    let (channel, token, id) = joined(&mut controller, &mut wiring);
    let connection = controller.connections.get_mut(&token).unwrap();
    (connection.owes_welcome, connection.owes_look) = (Some([1; 32]), true);
    let introduction = Introduction {
        from: id,
        to: id,
        link: 1,
        handles: Received::default(),
    };
    let waiting = controller.introduce(introduction, &mut wiring);
    assert!(waiting.is_some());
    controller.tick(Instant::now(), &mut wiring);
    controller.pay_all(&mut wiring);
    let next = || {
        let mut buffer = [0; 256];
        let packet = channel.recv(&mut buffer, &mut Vec::new()).unwrap();
        protocol::decode::<ToMember>(&buffer[..packet.len]).unwrap()
    };
    let proof = [1; 32];
    assert_eq!(next(), ToMember::Welcome { proof, id });
    assert_eq!(next(), ToMember::Look);
    assert!(
        controller
            .introduce(waiting.unwrap(), &mut wiring)
            .is_none()
    );
    assert!(matches!(next(), ToMember::Introduced { .. }));
}

/// Each would take a handle of the process that is watched, and that of a process which never ends for ever.
#[test]
fn members_that_somebody_made_up_take_a_watch_each() {
    let ids: Vec<u64> = (3..1000).collect();
    let (_writer, before) = directory_of(7, 1000, &ids);
    let (controller, wiring) = successor("made up", Some(before));
    assert_eq!(controller.absent.len(), ids.len());
    // The seat's, and one for the process.
    assert_eq!(wiring.0, 2);
}

/// Who could be told by its start time is not watched for one who does not say it.
#[test]
fn a_member_without_a_start_time_is_expected_for_ever() {
    let mut writer = Writer::new(7, 30, 0).unwrap();
    let start_time = 0;
    writer
        .joined(&Listed {
            start_time,
            ..listed(3)
        })
        .unwrap();
    let (mut controller, mut wiring) = successor("no start", Some(opened(writer.memory())));
    assert_eq!(members_of(&controller), [3]);
    controller.settle(&mut wiring);
    if sys::start_time(sys::pid()) != 0 {
        assert_eq!(members_of(&controller), []);
    }
}

/// After a few of them there would be no ids left.
#[test]
fn a_directory_that_is_brought_uses_up_the_ids() {
    let (_writer, before) = directory_of(7, 30, &[3]);
    let (mut controller, mut wiring) = successor("ids", Some(before));
    let (_theirs, forged) = directory_of(9, 1 << 47, &[3, 5, 1 << 46]);
    let brought = sys::duplicate(forged.memory().as_handle()).unwrap();
    controller.learn_from(Some(3), vec![brought].into(), &mut wiring);
    assert_eq!(members_of(&controller), [3, 5]);
    assert_eq!(controller.next_id, 30);
    let (_theirs, forged) = directory_of(1 << 47, 31, &[3, 30]);
    let brought = sys::duplicate(forged.memory().as_handle()).unwrap();
    controller.learn_from(Some(3), vec![brought].into(), &mut wiring);
    assert_eq!((controller.generation, controller.next_id), (10, 30));
}

#[test]
fn an_id_that_a_directory_lacked_is_anothers_in_the_next() {
    let (_writer, before) = directory_of(7, 30, &[3, 5]);
    let (mut controller, mut wiring) = successor("taken", Some(before));
    let mut bring = |memory: &Memory| {
        let brought = sys::duplicate(memory.as_handle()).unwrap();
        controller.learn_from(Some(3), vec![brought].into(), &mut wiring);
        members_of(&controller)
    };
    let (_theirs, without) = directory_of(8, 30, &[3]);
    assert_eq!(bring(without.memory()), [3]);
    let mut theirs = Writer::new(9, 30, 0).unwrap();
    theirs.joined(&listed(3)).unwrap();
    let mut taken = listed(5);
    taken.secret_hash = [99; 32];
    theirs.joined(&taken).unwrap();
    theirs.settled().unwrap();
    assert_eq!(bring(theirs.memory()), [3]);
    // Who has the secret may still come back.
    let (_theirs, with) = directory_of(11, 30, &[3, 5]);
    assert_eq!(bring(with.memory()), [3, 5]);
}

/// A lying member brings it before the others are back.
#[test]
fn who_is_missing_from_a_forged_directory_loses_its_id() {
    let secrets = [[41; 16], [42; 16]];
    for in_time in [true, false] {
        let mut before = Writer::new(7, 30, 0).unwrap();
        for (id, secret) in [3, 5].into_iter().zip(&secrets) {
            let mut member = listed(id);
            member.secret_hash = proof::hash(secret);
            before.joined(&member).unwrap();
        }
        let (mut controller, mut wiring) = successor("lacks", Some(opened(before.memory())));
        let (_theirs, forged) = directory_of(8, 30, &[3]);
        let brought = sys::duplicate(forged.memory().as_handle()).unwrap();
        controller.learn_from(Some(3), vec![brought].into(), &mut wiring);
        assert_eq!(members_of(&controller), [3]);
        let (_liar, _, id) = came(&mut controller, &mut wiring, secrets[0], Some(3));
        assert_eq!((id, controller.settled()), (Some(3), false));
        if !in_time {
            controller.settle(&mut wiring);
        }
        let (_other, _, others) = came(&mut controller, &mut wiring, [43; 16], Some(5));
        assert_eq!(others, (!in_time).then_some(30));
        let (_late, _, id) = came(&mut controller, &mut wiring, secrets[1], Some(5));
        assert_eq!((id, controller.settled()), (Some(5), true));
        assert!(members_of(&controller).starts_with(&[3, 5]));
    }
}
