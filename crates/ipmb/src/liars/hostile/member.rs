//! A member by hand: it joins as an honest one does, and then says what it likes.

use super::TOKEN;
pub(super) use crate::liars::by_hand::is_hung_up;
use crate::{
    Label, Options,
    control::{
        bus::Bus,
        directory::{Directory, Reader},
        proof::{self, Role, prove},
        protocol::{self, Hello, PACKET_MAX, ToController, ToMember},
    },
    sys::{self, BorrowedHandle, Channel, Handle},
};
use std::os::fd::AsFd;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) struct Liar {
    pub(super) channel: Channel,
    pub(super) id: u64,
    pub(super) directory: Arc<Directory>,
}

/// The next packet, or `None` at a hang-up.
pub(super) fn receive(channel: &Channel) -> Option<(Vec<u8>, Vec<Handle>)> {
    let start = Instant::now();
    let (mut buffer, mut handles) = (vec![0; PACKET_MAX], Vec::new());
    loop {
        match channel.recv(&mut buffer, &mut handles) {
            Ok(packet) if packet.len == 0 => return None,
            Ok(packet) => return Some((buffer[..packet.len].to_vec(), handles)),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(start.elapsed() < Duration::from_secs(20), "no answer");
                let _ = sys::wait_for(channel, Some(Duration::from_millis(100)));
            }
            Err(_) => return None,
        }
    }
}

pub(super) fn packet<T: serde::de::DeserializeOwned>(channel: &Channel) -> T {
    let (bytes, _) = receive(channel).expect("a packet");
    protocol::decode(&bytes).expect("of this kind")
}

/// Connects to a bus as a member would.
pub(super) fn connect(options: &Options) -> Channel {
    let bus = Bus::new(options.clone()).unwrap();
    let start = Instant::now();
    loop {
        if let Some(channel) = bus.rendezvous.connect().unwrap() {
            return channel;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "no controller");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A registration that proves the token.
pub(super) fn register(
    channel: &Channel,
    label: &Label,
    before: Option<u64>,
    handles: &[BorrowedHandle<'_>],
) {
    let theirs: Hello = packet(channel);
    let ours = Hello::new([7; 32]);
    channel.send(&protocol::encode(&ours), &[]).unwrap();
    let mut bytes = Vec::new();
    label.encode(&mut bytes);
    let register = ToController::Register {
        proof: prove(TOKEN, Role::Member, &ours.nonce, &theirs.nonce),
        secret: proof::random().unwrap(),
        label: bytes,
        receives: true,
        before,
    };
    channel.send(&protocol::encode(&register), handles).unwrap();
}

/// What the controller answers to a registration.
pub(super) fn welcome(channel: Channel) -> Liar {
    let (bytes, handles) = receive(&channel).expect("a welcome");
    let Some(ToMember::Welcome { id, .. }) = protocol::decode(&bytes) else {
        panic!("not admitted: {bytes:?}");
    };
    let memory = Directory::memory_from_peer(handles.into_iter().next().unwrap()).unwrap();
    Liar {
        channel,
        id,
        directory: Directory::open(memory).unwrap(),
    }
}

impl Liar {
    pub(super) fn join(options: &Options, label: &Label) -> Self {
        let channel = connect(options);
        register(&channel, label, None, &[]);
        welcome(channel)
    }

    /// The id of the member with this label.
    pub(super) fn find(&self, label: &str) -> u64 {
        let mut reader = Reader::new(self.directory.clone());
        reader.catch_up().unwrap();
        let found = reader
            .members
            .iter()
            .find(|(_, m)| m.label.contains(label.as_bytes()));
        *found.expect("a member with this label").0
    }

    pub(super) fn say(&self, message: &ToController, handles: &[BorrowedHandle<'_>]) {
        let _ = self.channel.send(&protocol::encode(message), handles);
    }

    /// Offers a link. What does not fit into the channel now waits.
    pub(super) fn introduce(&self, to: u64, link: u64, handles: &[Handle]) {
        let handles: Vec<_> = handles.iter().map(AsFd::as_fd).collect();
        let packet = protocol::encode(&ToController::Introduce { to, link });
        while let Err(e) = self.channel.send(&packet, &handles) {
            assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock, "{e}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The handles of the next link that somebody makes to it.
    pub(super) fn introduced(&self) -> Vec<Handle> {
        loop {
            let (bytes, handles) = receive(&self.channel).expect("an introduction");
            if let Some(ToMember::Introduced { .. }) = protocol::decode(&bytes) {
                return handles;
            }
        }
    }
}
