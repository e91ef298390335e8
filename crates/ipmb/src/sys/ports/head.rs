//! What a packet says of itself, in front of its bytes.

use super::{MOST, Token};

/// Bytes of a head: length, number of handles, token, a bit for each handle that is a port.
pub(in crate::sys) const HEAD: usize = 4 * WORDS;
const WORDS: usize = 6 + MARKS;
const MARKS: usize = MOST.div_ceil(32);

/// What a packet says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) struct Head {
    /// Bytes of the packet.
    pub len: usize,
    /// Its handles, ports among them.
    pub handles: usize,
    /// Of the message with its ports, if there are any.
    pub token: Token,
    ports: [u32; MARKS],
}

impl Head {
    /// Of a packet of `len` bytes; for each handle, whether it is a port.
    pub(in crate::sys) fn new(len: usize, handles: impl Iterator<Item = bool>) -> Self {
        let mut head = Self {
            len,
            handles: 0,
            token: Token::default(),
            ports: [0; MARKS],
        };
        for is_port in handles {
            if let Some(word) = head.ports.get_mut(head.handles / 32) {
                *word |= u32::from(is_port) << (head.handles % 32);
            }
            head.handles += 1;
        }
        head
    }

    /// Whether the handle of this number is a port.
    fn is_port(&self, number: usize) -> bool {
        let word = self.ports.get(number / 32);
        word.is_some_and(|word| word >> (number % 32) & 1 == 1)
    }

    /// How many handles are ports.
    pub(in crate::sys) fn ports(&self) -> usize {
        self.ports.iter().map(|word| word.count_ones()).sum::<u32>() as usize
    }

    /// How many handles are none.
    pub(in crate::sys) fn descriptors(&self) -> usize {
        self.handles.saturating_sub(self.ports())
    }

    /// The descriptors and the ports of the packet in their order. `None` if they are not as many as it says.
    pub(in crate::sys) fn arrange<H>(
        &self,
        descriptors: impl ExactSizeIterator<Item = H>,
        ports: impl ExactSizeIterator<Item = H>,
    ) -> Option<Vec<H>> {
        if (descriptors.len(), ports.len()) != (self.descriptors(), self.ports()) {
            return None;
        }
        let (mut descriptors, mut ports) = (descriptors, ports);
        let next = |number| match self.is_port(number) {
            true => ports.next(),
            false => descriptors.next(),
        };
        (0..self.handles).map(next).collect()
    }

    pub(in crate::sys) fn to_bytes(self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        let counts = [self.len as u32, self.handles as u32];
        let words = counts.iter().chain(&self.token).chain(&self.ports);
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// `None`: no head. One that says more handles than there may be is one.
    pub(in crate::sys) fn from_bytes(bytes: &[u8; HEAD]) -> Option<Self> {
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().ok()?);
        }
        let [len, handles, a, b, c, d, ports @ ..] = words;
        let head = Self {
            len: len as usize,
            handles: handles as usize,
            token: [a, b, c, d],
            ports,
        };
        let beyond = |number| number >= head.handles && head.is_port(number);
        let is_odd = head.len == 0 || (0..32 * MARKS).any(beyond);
        (!is_odd).then_some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_change_places_on_their_way() {
        for handles in [0, 1, 31, 32, 33, MOST] {
            let is_port = |number: usize| number % 3 == 1 || number == MOST - 1;
            let mut head = Head::new(7, (0..handles).map(is_port));
            head.token = [1, 2, 3, u32::MAX];
            let read = Head::from_bytes(&head.to_bytes()).unwrap();
            assert_eq!(read, head);
            let (ports, descriptors): (Vec<_>, Vec<_>) = (0..handles).partition(|n| is_port(*n));
            assert_eq!(
                (read.ports(), read.descriptors()),
                (ports.len(), descriptors.len())
            );
            let all = read.arrange(descriptors.clone().into_iter(), ports.clone().into_iter());
            assert!(all.unwrap().into_iter().eq(0..handles));
            let with_more = ports.iter().copied().chain([0]).collect::<Vec<_>>();
            let wrong = read.arrange(descriptors.into_iter(), with_more.into_iter());
            assert!(wrong.is_none(), "one port too many");
        }
    }

    #[test]
    fn a_head_marks_ports_that_it_does_not_have() {
        let mut bytes = Head::new(1, [false, true].into_iter()).to_bytes();
        assert!(Head::from_bytes(&bytes).is_some());
        bytes[24] = 0b100;
        assert!(Head::from_bytes(&bytes).is_none(), "the third of two");
        let mut bytes = Head::new(1, [true; MOST].into_iter()).to_bytes();
        bytes[HEAD - 1] |= 0x80;
        assert!(Head::from_bytes(&bytes).is_none(), "the last bit of all");
        let mut many = Head::new(1, [true].into_iter());
        many.handles = u32::MAX as usize;
        let many = Head::from_bytes(&many.to_bytes()).unwrap();
        assert!(
            many.handles > MOST && many.ports() == 1,
            "left to who asks for some"
        );
        assert!(Head::from_bytes(&[0; HEAD]).is_none(), "an empty packet");
    }
}
