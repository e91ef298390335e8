use super::{Deaf, TOKEN, borrowed, fresh_bus, odd_handles, odd_number, some_bytes, step};
use crate::{
    control::{
        directory::Writer,
        member::{Member, Next},
        membership::{Membership, Phase},
        proof::{Role, prove},
        protocol::{self, Hello, Nonce, PACKET_MAX, Refused, ToController, ToMember},
    },
    sys::{self, AsHandle, Channel, Handle},
};
use arbitrary::Unstructured;
use std::sync::Arc;

const NONCE: Nonce = [9; 32];

/// A controller by hand.
struct Liar {
    channel: Channel,
    theirs: Option<Nonce>,
    directory: Writer,
}

impl Liar {
    fn say(&self, message: &impl serde::Serialize, handles: &[Handle]) {
        let _ = self
            .channel
            .send(&protocol::encode(message), &borrowed(handles));
    }

    /// Hears the greeting of the member.
    fn hear(&mut self) {
        let (mut buffer, mut handles) = (vec![0; PACKET_MAX], Vec::new());
        while let Ok(packet) = self.channel.recv_with(&mut buffer, &mut handles, 4)
            && packet.len > 0
        {
            let bytes = &buffer[..packet.len];
            match protocol::decode::<Hello>(bytes).filter(Hello::is_ours) {
                Some(hello) => self.theirs = Some(hello.nonce),
                None => assert!(protocol::decode::<ToController>(bytes).is_some()),
            }
        }
    }

    fn directory(&self) -> Handle {
        sys::duplicate(self.directory.memory().as_handle()).unwrap()
    }
}

/// A controller says anything to a member. It is a member only once the token was proved to it, has the directory that it was
/// given then or later, and once it was one, no lie ends that for good.
pub fn members(bytes: &[u8]) {
    let input = &mut Unstructured::new(bytes);
    let membership = Arc::new(Membership::new());
    let mut member = Member::new(fresh_bus(), membership.clone(), Arc::new(Deaf)).unwrap();
    let Ok(directory) = Writer::new(1, 1, 0) else {
        return;
    };
    let mut liar = greet(&mut member, directory);
    let (mut proved, mut said_all) = (false, false);
    while !input.is_empty() {
        match step(input, 10) {
            0 | 1 => {
                // As an honest one does.
                liar.say(&Hello::new(NONCE), &[]);
                liar.hear();
                let proof = prove(TOKEN, Role::Controller, &liar.theirs.unwrap(), &NONCE);
                said_all = true;
                liar.say(&ToMember::Welcome { proof, id: 5 }, &[liar.directory()]);
            }
            2 => liar.say(&Hello::new(NONCE), &[]),
            3 => {
                let proof = std::array::from_fn(|_| input.arbitrary().unwrap_or(0));
                let id = odd_number(input, 5);
                liar.say(&ToMember::Welcome { proof, id }, &[liar.directory()]);
            }
            4 => {
                let bytes = some_bytes(input, 100);
                let handles = odd_handles(input, 5);
                if !bytes.is_empty() {
                    let _ = liar.channel.send(bytes, &borrowed(&handles));
                }
            }
            5 => {
                let handles = match step(input, 2) {
                    0 => vec![liar.directory()],
                    _ => odd_handles(input, 2),
                };
                liar.say(&ToMember::Directory, &handles);
            }
            6 => {
                let (from, link) = (odd_number(input, 5), odd_number(input, 1));
                let handles = odd_handles(input, 5);
                liar.say(&ToMember::Introduced { from, link }, &handles);
            }
            7 => {
                let why = [Refused::Token, Refused::Permission, Refused::Full];
                liar.say(&ToMember::Refused(why[usize::from(step(input, 3))]), &[]);
            }
            8 => {
                let link = odd_number(input, 1);
                let all = [
                    ToMember::Look,
                    ToMember::Done,
                    ToMember::NoSuchMember { link },
                ];
                liar.say(&all[usize::from(step(input, 3))], &[]);
            }
            _ => liar.channel.close(),
        }
        let next = member.read();
        let phase = membership.status().phase.clone();
        if matches!(phase, Phase::Joined) {
            assert!(proved || said_all, "nobody has proved the token to it");
            proved = true;
            assert!(membership.status().directory.is_some() && member.is_known());
        }
        match next {
            Next::Nothing | Next::Pause => {}
            Next::Seek | Next::Shun => {
                member.disconnected();
                assert!(!matches!(membership.status().phase, Phase::Joined));
                liar = greet(&mut member, liar.directory);
                said_all = false;
            }
            Next::End => {
                assert!(!proved, "a lie ends a membership: {phase:?}");
                return;
            }
        }
        let _ = member.pay();
    }
}

/// The member talks to a new controller.
fn greet(member: &mut Member, directory: Writer) -> Liar {
    let (ours, theirs) = Channel::pair(0).unwrap();
    member.greet(theirs).expect("a controller of the same user");
    let mut liar = Liar {
        channel: ours,
        theirs: None,
        directory,
    };
    liar.hear();
    liar
}
