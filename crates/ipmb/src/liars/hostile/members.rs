//! A member lies to the controller.

use super::{
    Victim,
    link::{HandLink, memory},
    logged,
    member::{Liar, connect, is_hung_up, receive, register, welcome},
    until,
};
use crate::{
    BytesMessage, Message, Selector,
    control::{
        directory::{Listed, Writer},
        protocol::{self, ToController, ToMember},
    },
    label,
    sys::BorrowedHandle,
};
use std::{os::fd::AsFd, time::Duration};

const SEALED: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;

/// Says something and asserts that the controller ends the connection, says why, and goes on.
#[track_caller]
fn is_found_out(victim: &mut Victim, reason: &str, lie: impl FnOnce(&Liar)) {
    let liar = Liar::join(&victim.options, &label!("liar"));
    lie(&liar);
    let line = format!(
        "endpoint {}, process {}: {reason}",
        liar.id,
        std::process::id()
    );
    until(reason, || is_hung_up(&liar.channel));
    until(reason, || logged(&["WARN", &line]) > 0);
    victim.hears_its_friend();
    // New endpoints join as before.
    drop(Liar::join(&victim.options, &label!("honest")));
}

fn park(len: u64, objects: u8) -> ToController {
    ToController::Park {
        uuid: [1; 16],
        label_op_len: 0,
        multicast: false,
        remaining_ms: u64::MAX,
        len,
        objects,
        regions: 0,
    }
}

#[test]
fn a_member_lies_to_the_controller() {
    let mut victim = Victim::new("member");
    let file = std::fs::File::open("/dev/null").unwrap();
    let decode = "a packet that does not decode";
    for junk in [
        &[255; 1][..],
        &[0; 100],
        &[5, 255, 255, 255, 255],
        &[4; 20_000],
    ] {
        is_found_out(&mut victim, decode, |liar| {
            liar.channel.send(junk, &[]).unwrap()
        });
    }
    is_found_out(&mut victim, decode, |liar| {
        // Something behind a whole message.
        let mut packet = protocol::encode(&ToController::Watch(true));
        packet.push(0);
        liar.channel.send(&packet, &[]).unwrap();
    });
    is_found_out(&mut victim, "it sent a packet that is too long", |liar| {
        liar.channel.send(&[1; 40 << 10], &[]).unwrap();
    });
    for count in [0, 1, 3, 5, 65] {
        let reason = "an introduction with a wrong number of handles";
        is_found_out(&mut victim, reason, |liar| {
            let handles = vec![file.as_fd(); count];
            liar.say(&ToController::Introduce { to: 1, link: 1 }, &handles);
        });
    }
    is_found_out(
        &mut victim,
        "it sent handles that nobody asked for",
        |liar| {
            liar.say(&ToController::Watch(true), &[file.as_fd(); 253]);
        },
    );
    is_found_out(&mut victim, "it registered twice", |liar| {
        let again = ToController::Register {
            proof: [0; 32],
            secret: [0; 16],
            label: Vec::new(),
            receives: true,
            before: Some(1),
        };
        liar.say(&again, &[]);
    });
    let shape = "a parked message of a wrong shape";
    for (message, count) in [(park(1, 0), 0), (park(1, 1), 1), (park(1 << 63, 0), 1)] {
        is_found_out(&mut victim, shape, |liar| {
            liar.say(&message, &vec![file.as_fd(); count]);
        });
    }
    let payload = "a parked message without its payload";
    let small = memory(4096, 0, SEALED).unwrap();
    let unsealed = memory(4096, 0, 0).unwrap();
    let cases: [(u64, BorrowedHandle<'_>); 3] = [
        (1, file.as_fd()),
        (1, unsealed.as_fd()),
        (4097, small.as_fd()),
    ];
    for (len, handle) in cases {
        is_found_out(&mut victim, payload, |liar| {
            liar.say(&park(len, 0), &[handle])
        });
    }
    let large = memory(64 << 20, 0, SEALED).unwrap();
    is_found_out(&mut victim, "it leaves more behind than it may", |liar| {
        liar.say(&park(64 << 20, 0), &[large.as_fd()]);
        liar.say(&park(1, 0), &[small.as_fd()]);
    });
}

/// One that parks without end and never leaves: beyond a number nothing is kept of it.
#[test]
fn what_is_left_behind_piles_up_at_the_controller() {
    let mut victim = Victim::new("estates");
    let liar = Liar::join(&victim.options, &label!("liar"));
    let small = memory(4096, 0, SEALED).unwrap();
    let packet = protocol::encode(&park(1, 0));
    for _ in 0..5_000 {
        // What does not fit into the channel now, or is too much for the user's handles under way, waits.
        while liar.channel.send(&packet, &[small.as_fd()]).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    until("all over 4,096 are refused", || {
        victim.friend.stats().lost == 904
    });
    victim.hears_its_friend();
    let line = format!("endpoint {} leaves too much behind", liar.id);
    assert_eq!(logged(&["WARN", &line]), 1);
}

#[test]
fn one_who_is_not_admitted_yet_lies() {
    let mut victim = Victim::new("stranger");
    let file = std::fs::File::open("/dev/null").unwrap();
    let hung_up = |lie: &dyn Fn(&crate::sys::Channel)| {
        let channel = connect(&victim.options);
        lie(&channel);
        until("the connection ends", || is_hung_up(&channel));
    };
    hung_up(&|channel| channel.send(&[0; 100], &[]).unwrap());
    hung_up(&|channel| channel.send(&[0; 40 << 10], &[]).unwrap());
    hung_up(&|channel| {
        let hello = protocol::encode(&protocol::Hello::new([1; 32]));
        channel.send(&hello, &[file.as_fd(); 253]).unwrap();
    });
    hung_up(&|channel| {
        let hello = protocol::encode(&protocol::Hello::new([1; 32]));
        channel.send(&hello, &[]).unwrap();
        channel.send(&hello, &[]).unwrap();
    });
    // A label over the limit, with the token.
    let parts: Vec<String> = (0..65).map(|i| i.to_string()).collect();
    let label: crate::Label = parts.iter().collect();
    hung_up(&|channel| register(channel, &label, None, &[]));
    victim.hears_its_friend();
}

/// As fast as it can; and without reading what it is answered.
#[test]
fn a_flood_of_requests_stops_the_controller() {
    let mut victim = Victim::new("flood");
    let options = victim.options.clone();
    let done = crate::sync::process::AtomicBool::new(false);
    std::thread::scope(|s| {
        let _stop = super::Stop(&done);
        s.spawn(|| {
            while !done.load(crate::sync::process::Ordering::Relaxed) {
                let liar = Liar::join(&options, &label!("liar"));
                while !done.load(crate::sync::process::Ordering::Relaxed) {
                    let packet = protocol::encode(&ToController::Watch(true));
                    match liar.channel.send(&packet, &[]) {
                        Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => break,
                        _ => {}
                    }
                }
            }
        });
        for _ in 0..20 {
            victim.hears_its_friend();
            // Joins and first contacts go on.
            let mut options = options.clone();
            options.label = label!("new");
            let (sender, _receiver) =
                crate::join::<BytesMessage, ()>(options, super::SOON).unwrap();
            let payload = BytesMessage {
                format: 77,
                data: Vec::new(),
            };
            sender
                .send(Message::new(Selector::unicast("victim"), payload))
                .unwrap();
            assert_eq!(
                victim.receiver.recv(super::SOON).unwrap().payload.format,
                77
            );
        }
    });
}

/// Introductions to one who does not read, by makers who come and go: what waits is bounded.
#[test]
fn introductions_pile_up_at_the_controller() {
    // What the controller keeps at most, twice, and what other tests have open.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.current.is_some_and(|n| n < 4096) {
        println!("SKIPPED introductions_pile_up_at_the_controller: it needs 4,096 descriptors");
        return;
    }
    let mut victim = Victim::new("orphans");
    // It never reads.
    let deaf = Liar::join(&victim.options, &label!("deaf"));
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for _ in 0..100 {
        let liar = Liar::join(&victim.options, &label!("liar"));
        for number in 0..20 {
            let offer = HandLink::new().offer();
            let handles: Vec<_> = offer.iter().map(AsFd::as_fd).collect();
            let message = ToController::Introduce {
                to: deaf.id,
                link: number,
            };
            if liar
                .channel
                .send(&protocol::encode(&message), &handles)
                .is_err()
            {
                break;
            }
        }
    }
    victim.hears_its_friend();
    // 128 introductions with four handles each, and what other tests have open: not all of the 1,600.
    assert!(
        descriptors() < before + 4 * 128 + 2000,
        "{} more",
        descriptors() - before
    );
}

/// An id is given to nobody who does not show the secret that belongs to it.
#[test]
fn an_id_that_is_free_is_taken_by_another() {
    let mut victim = Victim::new("id");
    let honest = Liar::join(&victim.options, &label!("honest"));
    let free = honest.id;
    drop(honest);
    let channel = connect(&victim.options);
    register(&channel, &label!("liar"), Some(free), &[]);
    assert!(welcome(channel).id > free);
    victim.hears_its_friend();
}

/// The first to come back to a new controller brings a directory that it made up: of an endless number, of generations to
/// overflow with, of members that are none.
#[test]
fn a_directory_that_is_brought_overflows_the_controller() {
    let options = super::options("forged");
    let listed = |id| Listed {
        id,
        pid: std::process::id(),
        uid: 0,
        start_time: 0,
        secret_hash: [0; 32],
        receives: true,
        label: Vec::new(),
    };
    for (generation, next_id, id) in [
        (u64::MAX, 1, 1),
        (1, u64::MAX, 1),
        (u64::MAX, u64::MAX, u64::MAX),
        (1 << 62, 1 << 62, (1 << 62) - 1),
    ] {
        let mut options = options.clone();
        options
            .identifier
            .push_str(&format!(".{generation}.{next_id}"));
        // A controller that knows nothing and finds that there are members of before.
        let bus = crate::control::bus::Bus::new(options.clone()).unwrap();
        let mark = bus.rendezvous.mark().unwrap();
        let victim = std::thread::spawn({
            let options = options.clone();
            move || crate::join::<BytesMessage, BytesMessage>(options, super::SOON)
        });
        let channel = connect(&options);
        let mut writer = Writer::new(generation, next_id, 0).unwrap();
        // A writer notes the next id: not one of a liar's.
        if id < u64::MAX {
            writer.joined(&listed(id)).unwrap();
        }
        register(
            &channel,
            &label!("liar"),
            Some(1),
            &[writer.memory().as_fd()],
        );
        let (_sender, _receiver) = victim.join().unwrap().unwrap();
        let (answer, _) = receive(&channel).expect("an answer");
        assert!(matches!(
            protocol::decode(&answer),
            Some(ToMember::Welcome { .. })
        ));
        let (_s, _r) = crate::join::<BytesMessage, BytesMessage>(options, super::SOON).unwrap();
        drop(mark);
    }
}

/// Endpoints that read nothing, more than the controller keeps introductions for: who has sent to all of them still meets
/// others. Those who come to read get what was sent to them.
#[test]
fn receivers_that_read_nothing_keep_a_sender_from_meeting_others() {
    const DEAF: usize = 24;
    let victim = Victim::new("deaf");
    let deaf: Vec<Liar> = (0..DEAF)
        .map(|i| {
            Liar::join(
                &victim.options,
                &[format!("deaf {i}")].into_iter().collect(),
            )
        })
        .collect();
    // Each answer is a packet, and nobody takes it.
    let packet = protocol::encode(&ToController::Watch(true));
    for _ in 0..1000 {
        for liar in &deaf {
            while liar.channel.send(&packet, &[]).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    let message = |label: &str, format: u16| {
        let data = Vec::new();
        Message::new(Selector::unicast(label), BytesMessage { format, data })
    };
    let join = |label: &str| {
        let mut options = victim.options.clone();
        options.label = [label].into_iter().collect();
        crate::join::<BytesMessage, BytesMessage>(options, super::SOON).unwrap()
    };
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let senders: Vec<_> = (0..3).map(|i| join(&format!("sender {i}"))).collect();
    for (i, (sender, _)) in senders.iter().enumerate() {
        let mut full = 0;
        for to in 0..DEAF {
            // A send that waits would wait for ever.
            let label = format!("deaf {to}");
            match sender.try_send(message(&label, i as u16)) {
                Ok(()) => {}
                Err(e) if matches!(e.kind(), crate::SendError::Full(_)) => full += 1,
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!(full, DEAF - 16);
    }
    // Eight handles of each link at its maker, and four of each that is kept.
    assert!(descriptors() < before + senders.len() * (DEAF * 8 + 16 * 4 + 20) + 1000);
    for (i, (sender, _)) in senders.iter().enumerate() {
        for round in 0..3 {
            let label = format!("healthy {i} {round}");
            let (_sender, healthy) = join(&label);
            let sent = sender.send_timeout(message(&label, 7), Some(Duration::from_secs(5)));
            assert!(sent.is_ok(), "sender {i}, first contact {round}: {sent:?}");
            assert_eq!(healthy.recv(super::SOON).unwrap().payload.format, 7);
        }
    }
    // One that was kept, and one that was put off: both are introduced once there is room.
    for to in [0, DEAF - 1] {
        let liar = &deaf[to];
        let mut links = Vec::new();
        while links.len() < senders.len() {
            let handles = liar.introduced();
            links.push(super::receivers::HandReceiver::accept(handles));
        }
        let label = format!("deaf {to}");
        for (sender, _) in &senders {
            let sent = sender.send_timeout(message(&label, 9), Some(Duration::from_secs(5)));
            assert!(sent.is_ok(), "to {label}: {sent:?}");
        }
        let filled = links.iter().filter(|link| link.tail() != link.start());
        assert_eq!(filled.count(), senders.len());
    }
}

const READS_NOTHING: &str = "IPMB_TEST_READS_NOTHING";

/// In a process of its own, as a user for whom the limit on handles under way holds: for root it does not.
#[test]
fn reads_nothing() {
    if std::env::var_os(READS_NOTHING).is_none() {
        return;
    }
    // SAFETY: no pointers but an empty list; the C library changes all threads.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
            assert_eq!(libc::setresgid(61_238, 61_238, 61_238), 0);
            assert_eq!(libc::setresuid(61_238, 61_238, 61_238), 0);
        }
    }
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(limit.maximum.unwrap_or(1024).min(1024));
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut victim = Victim::new("under way");
    let liar = Liar::join(&victim.options, &label!("liar"));
    let offer = HandLink::new().offer();
    let handles: Vec<_> = offer.iter().map(AsFd::as_fd).collect();
    for link in 0..300 {
        let message = ToController::Introduce { to: liar.id, link };
        let packet = protocol::encode(&message);
        // What it has under way itself gets fewer as the controller reads.
        let said = (0..1000).any(|_| {
            let sent = liar.channel.send(&packet, &handles).is_ok();
            if !sent {
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        assert!(said, "no handles left for introduction {link}");
    }
    victim.hears_its_friend();
    let mut options = victim.options.clone();
    options.label = label!("late");
    let late = crate::join::<BytesMessage, ()>(options, Some(Duration::from_secs(10)));
    assert!(late.is_ok(), "{:?}", late.err());
}

/// Introductions to itself: they are the controller's to send, and count for its user until they are read.
#[test]
fn a_member_that_reads_nothing_uses_up_the_handles_under_way() {
    let (_, module) = module_path!().split_once("::").unwrap();
    let done = crate::sys::own_program()
        .args([&format!("{module}::reads_nothing"), "--exact"])
        .env(READS_NOTHING, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}");
}
