//! The Mach message in which the ports of a packet travel.
//!
//! It is made of words: the header (`mach_msg_header_t`), the number of ports (`mach_msg_body_t`), three words for each
//! (`mach_msg_port_descriptor_t`), and the token. The kernel puts a trailer behind it (`mach_msg_audit_trailer_t`). The kernel has
//! read header and descriptors before it hands them on; whatever else stands there is its sender's.

use super::{MOST, Token};

/// Words of header, body, and of a descriptor.
const HEADER: usize = 6;
const BASE: usize = HEADER + 1;
const PORT: usize = 3;
/// Words of a trailer, and where in it stand its type, its size and the number of the sending process.
const TRAILER: usize = 13;
const SENDER: usize = 5 + 5;
/// Words that the longest letter takes, with more than any trailer takes.
pub(in crate::sys) const LETTER_WORDS: usize = BASE + PORT * MOST + 4 + 32;

/// `MACH_MSGH_BITS_COMPLEX`: there are descriptors.
const COMPLEX: u32 = 0x8000_0000;
/// `MACH_MSG_TYPE_COPY_SEND`: what is sent is a copy of a send right, and `MACH_MSG_TYPE_PORT_SEND` is what arrives.
const COPY_SEND: u32 = 19;
const PORT_SEND: u32 = 17;
/// What a letter is known by (`msgh_id`).
const KIND: u32 = u32::from_be_bytes(*b"ipmb");

/// A letter that has come.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sys) struct Letter {
    pub token: Token,
    /// The process that sent it, by the kernel's word.
    pub sender: u32,
    /// Names in this process, which has got a right for each.
    pub ports: Vec<u32>,
}

/// Writes a letter with the ports of these names to the mailbox `to`. No more than [`MOST`].
pub(in crate::sys) fn write(to: u32, token: Token, ports: &[u32]) -> Vec<u32> {
    let words = BASE + PORT * ports.len() + token.len();
    let mut letter = vec![COMPLEX | COPY_SEND, 4 * words as u32, to, 0, 0, KIND];
    letter.push(ports.len() as u32);
    for port in ports {
        // The type of a descriptor of a port, in the highest byte, is 0.
        letter.extend([*port, 0, COPY_SEND << 16]);
    }
    letter.extend(token);
    letter
}

/// Writes a message without ports, which is no letter, to be sent to a right of the kind `right` to the port `to`.
pub(in crate::sys) fn empty(right: u32, to: u32) -> [u32; HEADER] {
    [right, 4 * HEADER as u32, to, 0, 0, KIND]
}

impl Letter {
    /// Reads a message, with the trailer behind it. `None`: it is no letter.
    pub(in crate::sys) fn read(message: &[u32]) -> Option<Self> {
        let [bits, size, remote, _, _, kind, count, ..] = *message else {
            return None;
        };
        let count = usize::try_from(count).ok().filter(|count| *count <= MOST)?;
        let words = BASE + PORT * count + size_of::<Token>() / 4;
        let plain = bits & COMPLEX != 0 && bits & 0x1f == 0 && remote == 0;
        if !plain || kind != KIND || count == 0 || size as usize != 4 * words {
            return None;
        }
        let (letter, trailer) = message.split_at_checked(words)?;
        let (ports, token) = letter.get(BASE..)?.split_at_checked(PORT * count)?;
        let is_right = |port: &[u32]| matches!(port, [_, _, kind] if kind >> 16 == PORT_SEND);
        let ports = ports.chunks_exact(PORT);
        if !ports.clone().all(is_right) {
            return None;
        }
        let trailer = trailer.get(..TRAILER)?;
        if trailer[0] != 0 || (trailer[1] as usize) < 4 * TRAILER {
            return None;
        }
        Some(Self {
            token: token.try_into().ok()?,
            sender: trailer[SENDER],
            ports: ports.map(|port| port[0]).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a letter looks like when it has come from process 77.
    fn arrived(count: usize) -> Vec<u32> {
        let ports: Vec<u32> = (1000..).take(count).collect();
        let mut message = write(5, [9, 8, 7, 6], &ports);
        message[0] = COMPLEX | PORT_SEND << 8;
        (message[2], message[3]) = (0, 5);
        for port in message[BASE..].chunks_exact_mut(PORT).take(count) {
            port[2] = PORT_SEND << 16;
        }
        message.extend([0, 4 * TRAILER as u32, 3, 501, 20]);
        message.extend([501, 501, 20, 501, 20, 77, 100_001, 4]);
        message
    }

    #[test]
    fn a_letter_arrives_with_other_ports_or_without_its_token() {
        for count in [1, 2, MOST] {
            let mut message = arrived(count);
            assert!(message.len() <= LETTER_WORDS);
            // The buffer that it is received into is longer.
            message.resize(LETTER_WORDS, 7);
            let letter = Letter::read(&message).unwrap();
            assert_eq!((letter.token, letter.sender), ([9, 8, 7, 6], 77));
            assert!(letter.ports.into_iter().eq((1000..).take(count)));
        }
    }

    #[test]
    fn a_message_that_is_no_letter_is_taken_for_one() {
        let good = arrived(2);
        let change = |at: usize, word: u32| {
            let mut message = good.clone();
            message[at] = word;
            message
        };
        let descriptor = BASE + 2;
        let trailer = BASE + 2 * PORT + 4;
        let lies = [
            ("no descriptors", change(0, PORT_SEND << 8)),
            ("a right to answer", change(0, good[0] | 18)),
            ("a port to answer to", change(2, 44)),
            ("another kind", change(5, 1)),
            ("more ports than are there", change(6, 3)),
            ("more than there can be", change(6, u32::MAX)),
            ("a short size", change(1, good[1] - 4)),
            ("a long size", change(1, u32::MAX)),
            ("memory", change(descriptor, 1 << 24 | PORT_SEND << 16)),
            ("a right to receive", change(descriptor, 16 << 16)),
            ("another trailer", change(trailer, 1)),
            ("a short trailer", change(trailer + 1, 8)),
        ];
        assert!(Letter::read(&good).is_some());
        assert!(Letter::read(&empty(21, 5)).is_none());
        for (what, lie) in lies {
            assert!(Letter::read(&lie).is_none(), "{what}");
        }
        for len in 0..good.len() {
            assert!(Letter::read(&good[..len]).is_none(), "{len} words of it");
        }
        assert!(Letter::read(&arrived(0)).is_none());
        let many = arrived(MOST + 1);
        assert!(Letter::read(&many).is_none(), "one more than there can be");
    }
}
