//! A member hands over what waits when it is closed: whoever lets go of it last waits, and that must be nobody who has
//! something else to do.

use super::{
    SOON, Victim,
    link::{
        AT_ACCEPTED, BLOCK, HAS_HANDLES, HAS_UUID, HandLink, INLINE, half as half_word, head,
        memory,
    },
    member::{Liar, connect, packet, register},
    silent_file::SilentFile,
    until,
};
use crate::{
    BytesMessage, Message, Options, Selector, TypeUuid,
    control::protocol::{self, Hello, ToController},
    label,
    sync::process::Ordering,
    sys::{self, Channel, Handle},
};
use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

/// How long the close of a socket here waits for its other end.
const LINGER: Duration = Duration::from_secs(30);
/// Far less than that, and far more than anything takes that waits for nothing.
const PROMPT: Duration = Duration::from_secs(8);

/// Runs a test in a process of its own: each has one closing thread, and while that waits, what other tests throw away would
/// stay open. True in that process.
fn alone(test: &str) -> bool {
    const MARK: &str = "IPMB_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let status = sys::own_program()
        .args([&format!("{module}::{test}"), "--exact", "--nocapture"])
        .env(MARK, "1")
        .status()
        .unwrap();
    assert!(status.success());
    false
}

/// Other ends of sockets, which read nothing. Letting go of them ends all waiting.
#[derive(Default)]
struct Ends(Vec<TcpStream>);

impl Ends {
    /// A socket with bytes that nobody takes: its last close waits for that.
    fn lingering(&mut self) -> Handle {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        self.0.push(listener.accept().unwrap().0);
        socket.set_nonblocking(true).unwrap();
        while socket.write(&[0; 64 << 10]).is_ok() {}
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: LINGER.as_secs() as i32,
        };
        // SAFETY: the option is a `linger`, of this size.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of_val(&linger) as libc::socklen_t,
            )
        };
        assert_eq!(set, 0);
        socket.into()
    }

    /// Ends the waiting, so that not all of a test need places in the table of descriptors at once.
    fn let_go(&mut self) {
        self.0.clear();
    }

    fn some(&mut self, count: usize) -> Vec<Handle> {
        (0..count).map(|_| self.lingering()).collect()
    }

    /// An end of a channel in whose queue such a socket lies: closing the one closes the other.
    fn nested(&mut self) -> Handle {
        let (a, b) = Channel::pair(0).unwrap();
        // An empty packet looks like the end of the channel.
        assert_eq!(rustix::io::write(&a, &[]).unwrap(), 0);
        a.send(&[1], &[self.lingering().as_fd()]).unwrap();
        // The other end is left open for good: its close would say that nothing more comes.
        std::mem::forget(a);
        b.into_handle().unwrap()
    }
}

/// Says something with handles and lets go of them. On a thread of its own: should the victim be faster, it is the liar
/// that waits.
fn say_and_let_go(handles: Vec<Handle>, say: impl FnOnce(&[Handle]) + Send + 'static) {
    std::thread::spawn(move || {
        say(&handles);
        drop(handles);
    });
}

/// The victim hears its friend, and the bus admits others who make links, in a time that nobody's close can have taken.
#[track_caller]
fn nobody_waits(victim: &mut Victim, what: &str) {
    let start = Instant::now();
    for _ in 0..10 {
        victim.hears_its_friend();
        let mut options = victim.options.clone();
        options.label = label!("new");
        let (sender, _receiver) = crate::join::<BytesMessage, ()>(options, SOON).unwrap();
        let payload = BytesMessage {
            format: 77,
            data: Vec::new(),
        };
        let message = Message::new(Selector::unicast("victim"), payload);
        sender.send_timeout(message, SOON).unwrap();
        let heard = victim.receiver.recv(SOON).unwrap();
        assert_eq!(heard.payload.format, 77);
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = start.elapsed();
    assert!(took < PROMPT, "{what}: the others waited for {took:?}");
}

fn member(options: &Options) -> Liar {
    Liar::join(options, &label!("liar"))
}

#[test]
fn what_waits_when_it_is_closed_stops_the_controller() {
    if !alone("what_waits_when_it_is_closed_stops_the_controller") {
        return;
    }
    let mut victim = Victim::new("lingering");
    let mut ends = Ends::default();
    type Lie = Box<dyn Fn(&Liar, &[Handle]) + Send>;
    let introduce = |to: u64| -> Lie {
        Box::new(move |liar, handles| {
            let handles: Vec<_> = handles.iter().map(AsFd::as_fd).collect();
            liar.say(&ToController::Introduce { to, link: 1 }, &handles);
        })
    };
    let unknown = u64::MAX;
    let to_victim = member(&victim.options).find("victim");
    let cases: Vec<(&str, usize, Lie)> = vec![
        (
            "what needs no handles",
            3,
            Box::new(|liar, handles| {
                let handles: Vec<_> = handles.iter().map(AsFd::as_fd).collect();
                liar.say(&ToController::Watch(true), &handles);
            }),
        ),
        (
            "more handles than anybody asked for",
            2,
            Box::new(|liar, handles| {
                let handles: Vec<_> = handles.iter().map(AsFd::as_fd).cycle().take(253).collect();
                liar.say(&ToController::Watch(true), &handles);
            }),
        ),
        (
            "more handles than there is room for",
            200,
            Box::new(|liar, handles| {
                let handles: Vec<_> = handles.iter().map(AsFd::as_fd).collect();
                liar.say(&ToController::Watch(true), &handles);
            }),
        ),
        ("a wrong number of handles", 3, introduce(unknown)),
        ("a link to nobody", 4, introduce(unknown)),
        ("a link of sockets", 4, introduce(to_victim)),
        (
            "packets after a lie",
            3,
            Box::new(|liar, handles| {
                let _ = liar.channel.send(&[255], &[]);
                for handle in handles {
                    liar.say(&ToController::Watch(true), &[handle.as_fd()]);
                }
            }),
        ),
        (
            "a parked message of sockets",
            2,
            Box::new(|liar, handles| {
                let park = ToController::Park {
                    uuid: [1; 16],
                    label_op_len: 0,
                    multicast: false,
                    remaining_ms: 60_000,
                    len: 1,
                    objects: 1,
                    regions: 0,
                };
                let handles: Vec<_> = handles.iter().map(AsFd::as_fd).collect();
                liar.say(&park, &handles);
            }),
        ),
        (
            "a parked message that its leaver did not confirm",
            2,
            Box::new(|liar, handles| {
                let small = memory(4096, 0, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW).unwrap();
                let park = ToController::Park {
                    uuid: [1; 16],
                    label_op_len: 0,
                    multicast: false,
                    remaining_ms: 60_000,
                    len: 1,
                    objects: handles.len() as u8,
                    regions: 0,
                };
                let mut all = vec![small.as_fd()];
                all.extend(handles.iter().map(AsFd::as_fd));
                liar.say(&park, &all);
            }),
        ),
    ];
    for (what, count, lie) in cases {
        let liar = member(&victim.options);
        say_and_let_go(ends.some(count), move |handles| lie(&liar, handles));
        nobody_waits(&mut victim, what);
        ends.let_go();
    }
    // One that is not admitted yet.
    let channel = connect(&victim.options);
    say_and_let_go(ends.some(2), move |handles| {
        let handles: Vec<_> = handles.iter().map(AsFd::as_fd).collect();
        register(&channel, &label!("liar"), Some(1), &handles);
    });
    nobody_waits(&mut victim, "what comes with a registration");
    ends.let_go();
    let channel = connect(&victim.options);
    say_and_let_go(ends.some(2), move |handles| {
        let _: Hello = packet(&channel);
        let handles: Vec<_> = handles.iter().map(AsFd::as_fd).collect();
        let _ = channel.send(&protocol::encode(&Hello::new([1; 32])), &handles);
    });
    nobody_waits(&mut victim, "what comes with a greeting");
    ends.let_go();
}

#[test]
fn what_waits_when_it_is_closed_stops_a_receiver() {
    if !alone("what_waits_when_it_is_closed_stops_a_receiver") {
        return;
    }
    let mut victim = Victim::new("lingering_to");
    let mut ends = Ends::default();
    let to = member(&victim.options).find("victim");
    let half = |at: usize| {
        let uuid = BytesMessage::UUID;
        u64::from_ne_bytes(uuid[at..at + 8].try_into().unwrap())
    };
    let another_type = [1, 2];
    let ours = [half(0), half(8)];
    // Words of a record, and with which number the handles come.
    let record = |flags: u64, uuid: [u64; 2], objects: u64, regions: u64| {
        let mut words = vec![head(INLINE, 2, flags | HAS_UUID, objects, regions)];
        words.extend(uuid);
        words.extend([5, 0]);
        words
    };
    let block = [
        head(BLOCK, 16, HAS_UUID | HAS_HANDLES, 0, 0),
        ours[0],
        ours[1],
        5,
        1 << 32,
        1,
    ];
    let with = HAS_HANDLES;
    // What it is, the record, and with which number how many sockets come.
    let cases = [
        (
            "objects of a type that is not taken",
            record(with, another_type, 3, 0),
            5,
            3,
        ),
        (
            "handles of a record that was given up",
            record(with, ours, 1, 0),
            4,
            3,
        ),
        ("handles of a later record", record(with, ours, 3, 0), 6, 3),
        (
            "more handles than the record has",
            record(with, ours, 1, 0),
            5,
            3,
        ),
        ("regions that are none", record(with, ours, 1, 2), 5, 3),
        ("a block that is none", block.to_vec(), 5, 1),
        ("handles without a record", Vec::new(), 5, 3),
    ];
    let file = std::fs::File::open("/dev/null").unwrap();
    for (what, words, attachment, count) in cases {
        let mut link = HandLink::new();
        let liar = member(&victim.options);
        liar.introduce(to, 1, &link.offer());
        until("the link is accepted", || {
            half_word(&link.returns, AT_ACCEPTED).load(Ordering::Acquire) != 0
        });
        let handles = ends.some(count);
        let borrowed: Vec<_> = handles.iter().map(AsFd::as_fd).collect();
        link.attach(attachment, &borrowed);
        if attachment == 4 {
            link.attach(5, &[file.as_fd()]);
        }
        // Nobody looks at the channel yet: the victim closes them last.
        drop(handles);
        let end = words.len() as u64 * 8;
        link.put(0, &words);
        link.publish(end);
        let start = Instant::now();
        // What is wrong with the message is said to who receives; the friend is heard all the same.
        while !link.is_dropped() && link.read() != end {
            assert!(
                start.elapsed() < PROMPT,
                "{what}: the receiver does not get on"
            );
            victim.tell();
            loop {
                match victim.receiver.recv(SOON) {
                    Ok(message) if message.payload.format == victim.sent => break,
                    Err(crate::RecvError::Timeout) => panic!("{what}: nothing is heard"),
                    _ => {}
                }
            }
        }
        let took = start.elapsed();
        assert!(took < PROMPT, "{what}: the receiver waited for {took:?}");
        drop((link, liar));
        nobody_waits(&mut victim, what);
        ends.let_go();
    }
}

/// The handles of a link are of the right kind, and what waits lies in the queue of one of them.
#[test]
fn what_waits_in_a_queue_stops_whoever_ends_the_link() {
    if !alone("what_waits_in_a_queue_stops_whoever_ends_the_link") {
        return;
    }
    let mut victim = Victim::new("nested");
    let mut ends = Ends::default();
    for place in 0..4 {
        let liar = member(&victim.options);
        let to = liar.find("victim");
        let mut offer = HandLink::new().offer();
        offer[place] = ends.nested();
        say_and_let_go(offer, move |offer| {
            let handles: Vec<_> = offer.iter().map(AsFd::as_fd).collect();
            liar.say(&ToController::Introduce { to, link: 1 }, &handles);
        });
        nobody_waits(&mut victim, "a socket with something in its queue");
        ends.let_go();
    }
}

#[test]
fn what_waits_when_it_is_closed_stops_a_sender() {
    if !alone("what_waits_when_it_is_closed_stops_a_sender") {
        return;
    }
    let mut victim = Victim::new("lingering_from");
    let mut ends = Ends::default();
    let liar = member(&victim.options);
    let message =
        |data: Vec<u8>| Message::new(Selector::unicast("liar"), BytesMessage { format: 1, data });
    victim.sender.send(message(Vec::new())).unwrap();
    let offer = liar.introduced();
    let side = Channel::from_peer(offer.into_iter().nth(3).unwrap()).unwrap();
    let handles = ends.some(3);
    for handle in &handles {
        side.send(&[1], &[handle.as_fd()]).unwrap();
    }
    drop(handles);
    let start = Instant::now();
    // Until the ring is full; then it looks for news of room, and finds that they are none.
    while victim.sender.stats().links_out > 0 && start.elapsed() < PROMPT {
        let _ = victim
            .sender
            .send_timeout(message(vec![0; 1 << 10]), Some(Duration::from_millis(50)));
    }
    let took = start.elapsed();
    assert!(took < PROMPT, "the sender waited for {took:?}");
    nobody_waits(&mut victim, "what comes with news");
}

#[test]
fn what_waits_when_it_is_closed_keeps_others_from_joining() {
    if !alone("what_waits_when_it_is_closed_keeps_others_from_joining") {
        return;
    }
    let mut victim = Victim::new("lingering_alone");
    let mut ends = Ends::default();
    let liar = member(&victim.options);
    say_and_let_go(ends.some(2), move |handles| {
        let handles: Vec<_> = handles.iter().map(AsFd::as_fd).collect();
        liar.say(&ToController::Watch(true), &handles);
    });
    victim.hears_its_friend();
    // Room for what a few members need, and not for what is left of many.
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let room = rustix::process::Rlimit {
        current: Some(open + 60),
        maximum: Some(open + 60),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, room).unwrap();
    for round in 0..300 {
        let mut options = victim.options.clone();
        options.label = label!("new");
        if let Err(error) = crate::join::<BytesMessage, ()>(options, SOON) {
            panic!("after {round} joins and leaves: {error}");
        }
    }
}

/// Nothing ends such a wait but the file's server, so it is the closing thread's, and the last endpoint leaves it behind.
#[test]
fn a_file_that_does_not_answer_stops_others_than_the_closing_thread() {
    if !alone("a_file_that_does_not_answer_stops_others_than_the_closing_thread") {
        return;
    }
    let file = match SilentFile::new() {
        Ok(file) => file,
        Err(error) => {
            println!(
                "SKIPPED a_file_that_does_not_answer: a file system in user space needs /dev/fuse and root: {error}"
            );
            return;
        }
    };
    // The library's; who waits for the file besides is the liar.
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks
            .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
        let ours = ["ipmb\n", "ipmb-close\n", "ipmb-leave\n"];
        names.filter(|name| ours.contains(&name.as_str())).count()
    };
    let mut victim = Victim::new("silent");
    let liar = member(&victim.options);
    let handle = Handle::from(file.open().unwrap());
    say_and_let_go(vec![handle], move |handles| {
        liar.say(&ToController::Watch(true), &[handles[0].as_fd()]);
    });
    // The liar's own close, and that of the victim.
    until("both wait", || file.waiting() == 2);
    nobody_waits(&mut victim, "a file that does not answer");
    until("two threads remain", || threads() == 2);
    let start = Instant::now();
    drop(victim);
    let took = start.elapsed();
    assert!(took < PROMPT, "the end of the last endpoint took {took:?}");
    assert_eq!(threads(), 1);
    file.answer();
    until("the thread ends", || threads() == 0);
}
