//! Members and controllers by hand: what happens when the other side speaks another version, knows another token, or does
//! not finish what it began.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{
    bus::Bus,
    proof::{self, Role, prove},
    protocol::{self, Hello, PACKET_MAX, PROTOCOL, Refused, ToController, ToMember},
};
use crate::{
    Access, EndpointReceiver, EndpointSender, JoinError, Message, Options, Selector, Version,
    label,
    sync::process::{AtomicU32, Ordering},
    sys::{self, BorrowedHandle, Channel, Handle, Peer, Seat},
};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

const SOON: Option<Duration> = Some(Duration::from_secs(10));
const TOKEN: &str = "a token that is easy to find";

fn options() -> Options {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("test.control.{}.{number}", std::process::id());
    Options::new(name, label!("test"), TOKEN)
}

fn join(options: &Options) -> (EndpointSender<u64>, EndpointReceiver<u64>) {
    crate::join(options.clone(), SOON).unwrap()
}

/// The next packet, or `None` at a hang-up.
fn receive(channel: &Channel) -> Option<(Vec<u8>, Vec<Handle>)> {
    let start = Instant::now();
    let (mut buffer, mut handles) = (vec![0; PACKET_MAX], Vec::new());
    loop {
        match channel.recv(&mut buffer, &mut handles) {
            Ok(packet) if packet.len == 0 => return None,
            Ok(packet) => return Some((buffer[..packet.len].to_vec(), handles)),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(start.elapsed() < Duration::from_secs(10), "no answer");
                let _ = sys::wait_for(channel, Some(Duration::from_millis(100)));
            }
            Err(e) if sys::is_hangup(&e) => return None,
            Err(e) => panic!("{e}"),
        }
    }
}

fn packet<T: serde::de::DeserializeOwned>(channel: &Channel) -> T {
    let (bytes, _) = receive(channel).expect("a packet");
    protocol::decode(&bytes).expect("of this kind")
}

fn send<T: serde::Serialize>(channel: &Channel, message: &T, handles: &[BorrowedHandle<'_>]) {
    channel.send(&protocol::encode(message), handles).unwrap();
}

/// Connects to a bus as a member would. Where a controller listens at a few ends, all may be taken at a moment.
fn connect(options: &Options) -> Channel {
    let bus = Bus::new(options.clone()).unwrap();
    let start = Instant::now();
    loop {
        if let Some(channel) = bus.rendezvous.connect().unwrap() {
            return channel;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "no controller");
        std::thread::yield_now();
    }
}

/// Takes the name of a bus as a controller would.
fn host(options: &Options) -> Seat {
    let bus = Bus::new(options.clone()).unwrap();
    bus.rendezvous.win().unwrap().expect("a free name")
}

fn accept(seat: &Seat) -> Channel {
    let start = Instant::now();
    loop {
        match seat.accept() {
            Ok((channel, _)) => return channel,
            Err(_) => assert!(start.elapsed() < Duration::from_secs(10), "nobody comes"),
        }
        let _ = sys::wait_for(seat, Some(Duration::from_millis(100)));
    }
}

/// A registration that proves `token`, after the greeting of one with this minor version.
fn register(channel: &Channel, token: &str, minor: u8, before: Option<u64>) {
    let theirs: Hello = packet(channel);
    let mut ours = Hello::new([7; 32]);
    ours.minor = minor;
    send(channel, &ours, &[]);
    let mut label = Vec::new();
    label!("by hand").encode(&mut label);
    let register = ToController::Register {
        proof: prove(token, Role::Member, &ours.nonce, &theirs.nonce),
        secret: proof::random().unwrap(),
        label,
        receives: true,
        before,
    };
    send(channel, &register, &[]);
}

#[test]
fn a_peer_of_another_major_version_is_let_in_or_not_told() {
    let options = options();
    let (sender, receiver) = join(&options);
    let channel = connect(&options);
    let theirs: Hello = packet(&channel);
    assert_eq!(theirs.version(), PROTOCOL);
    let mut ours = Hello::new([7; 32]);
    ours.major = PROTOCOL.0 + 1;
    send(&channel, &ours, &[]);
    // All else would do. It may have hung up already.
    let register = ToController::Register {
        proof: prove(TOKEN, Role::Member, &ours.nonce, &theirs.nonce),
        secret: [1; 16],
        label: vec![0],
        receives: true,
        before: None,
    };
    let _ = channel.send(&protocol::encode(&register), &[]);
    assert!(receive(&channel).is_none(), "it is let in");
    let message = Message::new(Selector::unicast("test"), 1);
    sender.send(message).unwrap();
    assert_eq!(receiver.recv(SOON).unwrap().payload, 1);
}

#[test]
fn a_bus_of_another_major_version_is_not_named() {
    let options = options();
    let seat = host(&options);
    std::thread::scope(|s| {
        let joiner = s.spawn(|| crate::join::<u64, u64>(options.clone(), SOON));
        let channel = accept(&seat);
        let mut ours = Hello::new([7; 32]);
        (ours.major, ours.minor) = (9, 4);
        send(&channel, &ours, &[]);
        match joiner.join().unwrap() {
            Err(JoinError::VersionMismatch(theirs)) => assert_eq!(theirs, Version(9, 4, 0)),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn something_that_is_no_bus_is_taken_for_one() {
    let options = options();
    let seat = host(&options);
    std::thread::scope(|s| {
        let joiner = s.spawn(|| crate::join::<u64, u64>(options.clone(), SOON));
        let channel = accept(&seat);
        channel.send(b"220 mail ESMTP", &[]).unwrap();
        let joined = joiner.join().unwrap();
        assert!(matches!(joined, Err(JoinError::VersionMismatch(_))));
    });
}

#[test]
fn another_minor_version_is_refused() {
    let options = options();
    let _endpoint = join(&options);
    for minor in [0, 1, 255] {
        let channel = connect(&options);
        register(&channel, TOKEN, minor, None);
        assert!(matches!(packet(&channel), ToMember::Welcome { .. }));
    }
    // And a member takes a controller of another one.
    let options = self::options();
    let seat = host(&options);
    std::thread::scope(|s| {
        s.spawn(|| crate::join::<u64, u64>(options.clone(), Some(Duration::from_millis(200))));
        let channel = accept(&seat);
        let mut ours = Hello::new([7; 32]);
        ours.minor = 255;
        send(&channel, &ours, &[]);
        packet::<Hello>(&channel);
        assert!(matches!(packet(&channel), ToController::Register { .. }));
    });
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn the_token_is_sent_or_a_controller_without_it_is_believed() {
    let options = options();
    let seat = host(&options);
    let hash: [u8; 32] = Sha256::digest(TOKEN).into();
    std::thread::scope(|s| {
        let joiner = s.spawn(|| crate::join::<u64, u64>(options.clone(), SOON));
        let channel = accept(&seat);
        let ours = Hello::new([7; 32]);
        send(&channel, &ours, &[]);
        let (hello, _) = receive(&channel).unwrap();
        let (register, _) = receive(&channel).unwrap();
        for sent in [&hello, &register] {
            assert!(!contains(sent, TOKEN.as_bytes()) && !contains(sent, &hash));
        }
        // Without the token, the best that it can do is to send the member's proof back.
        let Some(ToController::Register { proof, .. }) = protocol::decode(&register) else {
            panic!("no registration");
        };
        let memory = crate::sys::Memory::new(c"no directory", 4096).unwrap();
        use crate::sys::AsHandle;
        send(
            &channel,
            &ToMember::Welcome { proof, id: 1 },
            &[memory.as_handle()],
        );
        let joined = joiner.join().unwrap();
        assert!(matches!(joined, Err(JoinError::TokenMismatch)));
    });
}

#[test]
fn a_member_without_the_token_learns_more_than_that_it_is_wrong() {
    let options = options();
    let _endpoint = join(&options);
    let channel = connect(&options);
    register(&channel, "guessed", PROTOCOL.1, None);
    assert_eq!(
        packet::<ToMember>(&channel),
        ToMember::Refused(Refused::Token)
    );
    assert!(receive(&channel).is_none());
}

#[test]
fn a_proof_serves_a_second_time() {
    let options = options();
    let _endpoint = join(&options);
    let first = connect(&options);
    let theirs: Hello = packet(&first);
    let ours = Hello::new([7; 32]);
    send(&first, &ours, &[]);
    let register = ToController::Register {
        proof: prove(TOKEN, Role::Member, &ours.nonce, &theirs.nonce),
        secret: [1; 16],
        label: Vec::new(),
        receives: false,
        before: None,
    };
    let second = connect(&options);
    packet::<Hello>(&second);
    send(&second, &ours, &[]);
    send(&second, &register, &[]);
    assert_eq!(
        packet::<ToMember>(&second),
        ToMember::Refused(Refused::Token)
    );
}

#[test]
fn somebody_comes_back_under_anothers_id() {
    let options = options();
    let (sender, receiver) = join(&options);
    let channel = connect(&options);
    // The victim is the first, and so has this id.
    register(&channel, TOKEN, PROTOCOL.1, Some(1));
    match packet(&channel) {
        ToMember::Welcome { id, .. } => assert_ne!(id, 1),
        other => panic!("{other:?}"),
    }
    let message = Message::new(Selector::unicast("test"), 1);
    sender.send(message).unwrap();
    assert_eq!(receiver.recv(SOON).unwrap().payload, 1);
}

#[test]
fn connections_that_prove_nothing_keep_others_out_or_are_kept() {
    let options = options();
    let _host = join(&options);
    let idle: Vec<Channel> = (0..300).map(|_| connect(&options)).collect();
    let start = Instant::now();
    let _joined = join(&options);
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "it waited for the flood to time out"
    );
    // Each was greeted; most were dropped since.
    let open = idle
        .iter()
        .filter(|channel| {
            packet::<Hello>(channel);
            matches!(channel.peek(&mut [0; 1]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
        })
        .count();
    assert!(open <= 64, "{open} are still open");
}

/// A controller that breaks the protocol after the welcome must not be asked again and again without a pause.
#[test]
fn a_controller_that_hangs_up_is_pestered() {
    let options = options();
    let seat = host(&options);
    let timeout = Some(Duration::from_millis(400));
    std::thread::scope(|s| {
        let joiner = s.spawn(|| crate::join::<u64, u64>(options.clone(), timeout));
        let mut calls = 0;
        while !joiner.is_finished() {
            if seat.accept().is_ok() {
                calls += 1;
            }
            let _ = sys::wait_for(&seat, Some(Duration::from_millis(10)));
        }
        let joined = joiner.join().unwrap();
        assert!(matches!(joined, Err(JoinError::Timeout)));
        assert!((1..=450).contains(&calls), "{calls} in 0.4 s");
    });
}

/// Without another user at hand: what the kernel would say of one.
#[test]
fn a_user_who_is_not_named_is_let_in() {
    let (channel, _other) = Channel::pair(0).unwrap();
    let peer = |uid, gid| Peer { pid: 1, uid, gid };
    let bus = |access| Bus::new(options().owner(1000).access(access));
    if let Err(JoinError::Io(_, error)) = bus(Access::owner())
        && error.kind() == std::io::ErrorKind::Unsupported
    {
        println!("SKIPPED a_user_who_is_not_named_is_let_in: {error}");
        return;
    }
    let bus = |access| bus(access).unwrap();
    let owners = bus(Access::owner());
    assert!(owners.admits(&peer(1000, 1), &channel) && owners.admits(&peer(0, 1), &channel));
    assert!(!owners.admits(&peer(1001, 1000), &channel));
    let named = bus(Access::owner().allow_uid(1001).allow_gid(4_000_000_000));
    assert!(named.admits(&peer(1001, 1), &channel));
    assert!(named.admits(&peer(1002, 4_000_000_000), &channel));
    assert!(!named.admits(&peer(1002, 1001), &channel));
    // Who may join may not host.
    assert!(named.may_be_hosted_by(1000) && named.may_be_hosted_by(0));
    assert!(!named.may_be_hosted_by(1001));
}
