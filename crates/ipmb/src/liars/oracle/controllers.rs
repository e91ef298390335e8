use super::{
    Deaf, TOKEN, borrowed, fresh_bus, odd_handle, odd_handles, odd_number, some_bytes, step, up_to,
};
use crate::{
    control::{
        bus::Bus,
        controller::{Controller, Wiring},
        directory::{Directory, Reader},
        proof::{Role, prove},
        protocol::{self, Hello, Nonce, PACKET_MAX, ToController, ToMember},
    },
    label,
    sys::{self, Channel, Event, Handle, Interest, SourceRef},
};
use arbitrary::Unstructured;
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

const NONCE: Nonce = [7; 32];

/// Gives tokens, and remembers which are in use.
#[derive(Default)]
struct Tokens {
    next: u64,
    watched: Vec<u64>,
}

impl Wiring for Tokens {
    fn watch(&mut self, _: SourceRef<'_>, _: Interest) -> io::Result<u64> {
        self.next += 1;
        self.watched.push(self.next);
        Ok(self.next)
    }

    fn change(&mut self, _: SourceRef<'_>, _: u64, _: Interest) {}

    fn forget(&mut self, _: SourceRef<'_>, token: u64) {
        self.watched.retain(|t| *t != token);
    }
}

/// A member by hand.
struct Liar {
    channel: Channel,
    theirs: Option<Nonce>,
    secret: [u8; 16],
}

impl Liar {
    fn connect(bus: &Bus, secret: u8) -> Self {
        Self {
            channel: bus.rendezvous.connect().unwrap().expect("a controller"),
            theirs: None,
            secret: [secret; 16],
        }
    }

    /// The next packet that came.
    fn hear(&mut self) -> Option<(Vec<u8>, Vec<Handle>)> {
        let (mut buffer, mut handles) = (vec![0; PACKET_MAX], Vec::new());
        let packet = self.channel.recv_with(&mut buffer, &mut handles, 4).ok()?;
        buffer.truncate(packet.len);
        (packet.len > 0).then_some((buffer, handles))
    }

    /// Greets in return, as all do.
    fn greet(&mut self) {
        if let Some((bytes, _)) = self.hear() {
            self.theirs = protocol::decode::<Hello>(&bytes).map(|hello| hello.nonce);
        }
        self.say(&Hello::new(NONCE), &[]);
    }

    fn register(&self, label: Vec<u8>, before: Option<u64>, handles: &[Handle]) {
        let proof = prove(
            TOKEN,
            Role::Member,
            &NONCE,
            &self.theirs.unwrap_or_default(),
        );
        let register = ToController::Register {
            proof,
            secret: self.secret,
            label,
            receives: true,
            before,
        };
        self.say(&register, handles);
    }

    fn say(&self, message: &impl serde::Serialize, handles: &[Handle]) {
        let _ = self
            .channel
            .send(&protocol::encode(message), &borrowed(handles));
    }
}

fn encoded(label: &crate::Label) -> Vec<u8> {
    let mut bytes = Vec::new();
    label.encode(&mut bytes);
    bytes
}

/// Members say anything to a controller, which then still admits an honest one and shows it a directory that makes sense.
pub fn controllers(bytes: &[u8]) {
    let input = &mut Unstructured::new(bytes);
    let bus = fresh_bus();
    let seat = bus.rendezvous.win().unwrap().expect("the name is free");
    let mut wiring = Tokens::default();
    let alone = step(input, 2) == 0;
    let made = Controller::new(
        seat,
        bus.clone(),
        None,
        None,
        alone,
        Arc::new(Deaf),
        &mut wiring,
    );
    let mut controller = made.unwrap();
    let mut liars: Vec<Liar> = Vec::new();
    while !input.is_empty() {
        if liars.is_empty() || step(input, 8) == 0 && liars.len() < 4 {
            liars.push(Liar::connect(&bus, liars.len() as u8));
            serve(&mut controller, &mut wiring, false);
        }
        let which = up_to(input, liars.len() - 1);
        let liar = &mut liars[which];
        match step(input, 12) {
            0 | 1 => {
                liar.greet();
                serve(&mut controller, &mut wiring, false);
                let label = match step(input, 3) {
                    0 => some_bytes(input, 300).to_vec(),
                    _ => encoded(&label!("liar")),
                };
                let before = (step(input, 3) == 0).then(|| odd_number(input, 1 << 48));
                let handles = odd_handles(input, 2);
                liar.register(label, before, &handles);
            }
            2 => liar.say(&Hello::new(NONCE), &[]),
            3 | 4 => {
                let bytes = some_bytes(input, 200);
                let handles = odd_handles(input, 3);
                if !bytes.is_empty() {
                    let _ = liar.channel.send(bytes, &borrowed(&handles));
                }
            }
            5 | 6 => {
                let count = if step(input, 4) == 0 {
                    up_to(input, 6)
                } else {
                    4
                };
                let handles: Vec<_> = (0..count).map(|_| odd_handle(input)).collect();
                let to = odd_number(input, 2);
                let link = odd_number(input, 1);
                liar.say(&ToController::Introduce { to, link }, &handles);
            }
            7 => liar.say(&ToController::Watch(step(input, 2) == 0), &[]),
            8 => liar.say(&ToController::StopReceiving, &[]),
            9 => {
                let handles = odd_handles(input, 4);
                let park = ToController::Park {
                    uuid: [1; 16],
                    label_op_len: odd_number(input, 2) as u32,
                    multicast: step(input, 2) == 0,
                    remaining_ms: odd_number(input, 1000),
                    len: odd_number(input, 4096),
                    objects: input.arbitrary().unwrap_or(0),
                    regions: step(input, 3),
                };
                liar.say(&park, &handles);
            }
            10 => liar.say(&ToController::Leave, &[]),
            _ => drop(liars.swap_remove(which)),
        }
        if step(input, 2) == 0 {
            serve(&mut controller, &mut wiring, step(input, 2) == 0);
        }
    }
    serve(&mut controller, &mut wiring, false);
    controller.tick(Instant::now() + Duration::from_secs(2), &mut wiring);
    greets_an_honest_one(&bus, &mut controller, &mut wiring);
    controller.give_up(None, &mut wiring);
}

/// Everything that is watched has something to say, as it were.
fn serve(controller: &mut Controller, wiring: &mut Tokens, hangup: bool) {
    for token in wiring.watched.clone() {
        // As epoll says it: a hang-up comes with something to read.
        let event = Event {
            token,
            readable: true,
            writable: true,
            hangup: hangup && token == controller.seat_token(),
        };
        controller.event(event, wiring);
    }
    if let Some(deadline) = controller.deadline() {
        let _ = deadline;
        controller.tick(Instant::now(), wiring);
    }
}

fn greets_an_honest_one(bus: &Bus, controller: &mut Controller, wiring: &mut Tokens) {
    let mut honest = Liar::connect(bus, 200);
    serve(controller, wiring, false);
    honest.greet();
    honest.register(encoded(&label!("honest")), None, &[]);
    serve(controller, wiring, false);
    let (bytes, handles) = honest.hear().expect("an answer");
    let Some(ToMember::Welcome { proof, id }) = protocol::decode(&bytes) else {
        panic!("an honest member is not welcome: {bytes:?}");
    };
    let expected = prove(
        TOKEN,
        Role::Controller,
        &NONCE,
        &honest.theirs.expect("a greeting"),
    );
    assert_eq!(proof, expected);
    let memory = Directory::memory_from_peer(handles.into_iter().next().expect("a directory"));
    let mut reader = Reader::new(Directory::open(memory.unwrap()).unwrap());
    reader.catch_up().expect("a directory that makes sense");
    assert!(reader.settled && reader.directory().look().valid);
    assert!(reader.directory().next_id() > id);
    assert!(reader.members[&id].label.all(["honest"]));
    for member in reader.members.values() {
        member.label.check().expect("within the limits");
        assert_eq!(
            (member.listed.pid, member.listed.uid),
            (sys::pid(), sys::uid())
        );
    }
    // It can meet itself by way of the controller.
    honest.say(&ToController::Introduce { to: id, link: 5 }, &{
        let mut link = crate::liars::by_hand::HandLink::new();
        link.offer()
    });
    serve(controller, wiring, false);
    let met = std::iter::from_fn(|| honest.hear()).any(|(bytes, handles)| {
        let met = ToMember::Introduced { from: id, link: 5 };
        protocol::decode(&bytes) == Some(met) && handles.len() == 4
    });
    assert!(met, "an honest member meets nobody");
}
