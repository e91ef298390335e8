//! Ports that have come and wait for their packet.
//!
//! Who sends letters without packets fills the shelf. So a process has a share of it, and loses the oldest of its own beyond; where
//! there are too many processes, the one that has most does.

use super::Token;
use std::collections::{HashMap, VecDeque};

/// Ports on the shelf from one process, and from all.
const OF_SENDER: usize = 4096;
const OF_ALL: usize = 4 * OF_SENDER;

/// Ports that wait for their packet.
#[derive(Debug)]
pub(in crate::sys) struct Shelf<P> {
    parcels: VecDeque<Parcel<P>>,
    /// How many ports each process has here, and all of them.
    counts: HashMap<u32, usize>,
    count: usize,
}

#[derive(Debug)]
struct Parcel<P> {
    token: Token,
    sender: u32,
    ports: Vec<P>,
}

impl<P> Default for Shelf<P> {
    fn default() -> Self {
        Self {
            parcels: VecDeque::new(),
            counts: HashMap::new(),
            count: 0,
        }
    }
}

impl<P> Shelf<P> {
    pub(in crate::sys) fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// Puts the ports of a letter here. Returns what had to give way.
    pub(in crate::sys) fn put(&mut self, token: Token, sender: u32, ports: Vec<P>) -> Vec<P> {
        *self.counts.entry(sender).or_default() += ports.len();
        self.count += ports.len();
        self.parcels.push_back(Parcel {
            token,
            sender,
            ports,
        });
        let mut gone = Vec::new();
        while self
            .counts
            .get(&sender)
            .is_some_and(|count| *count > OF_SENDER)
        {
            gone.extend(self.take_oldest(sender));
        }
        while self.count > OF_ALL {
            let most = self.counts.iter().max_by_key(|(_, count)| **count);
            let Some((&sender, _)) = most else { break };
            gone.extend(self.take_oldest(sender));
        }
        gone
    }

    /// The ports of the packet with this token.
    pub(in crate::sys) fn take(&mut self, token: &Token) -> Option<Vec<P>> {
        let at = self.parcels.iter().position(|p| p.token == *token)?;
        self.remove(at)
    }

    fn take_oldest(&mut self, sender: u32) -> Vec<P> {
        let at = self.parcels.iter().position(|p| p.sender == sender);
        at.and_then(|at| self.remove(at)).unwrap_or_default()
    }

    fn remove(&mut self, at: usize) -> Option<Vec<P>> {
        let parcel = self.parcels.remove(at)?;
        self.count -= parcel.ports.len();
        if let Some(count) = self.counts.get_mut(&parcel.sender) {
            *count -= parcel.ports.len();
            if *count == 0 {
                self.counts.remove(&parcel.sender);
            }
        }
        Some(parcel.ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: usize) -> Token {
        [number as u32, 1, 2, 3]
    }

    #[test]
    fn a_packet_gets_the_ports_of_another_one_or_the_same_twice() {
        let mut shelf = Shelf::default();
        assert!(shelf.is_empty());
        for number in 0..3 {
            assert!(shelf.put(token(number), 7, vec![number]).is_empty());
        }
        assert_eq!(shelf.take(&token(1)), Some(vec![1]));
        assert_eq!(shelf.take(&token(1)), None);
        assert_eq!(shelf.take(&[0, 1, 2, 4]), None);
        assert_eq!(shelf.take(&token(2)), Some(vec![2]));
        assert_eq!(shelf.take(&token(0)), Some(vec![0]));
        assert!(shelf.is_empty() && shelf.counts.is_empty() && shelf.count == 0);
    }

    #[test]
    fn who_sends_letters_without_packets_takes_more_than_its_share() {
        let mut shelf = Shelf::default();
        assert!(shelf.put(token(0), 1, vec![0]).is_empty());
        for number in 1..2 * OF_SENDER {
            let gone = shelf.put(token(number), 2, vec![number]);
            let expected = number.checked_sub(OF_SENDER).filter(|n| *n > 0);
            assert!(gone.into_iter().eq(expected), "the oldest of its own");
            assert_eq!(shelf.count, 1 + number.min(OF_SENDER));
        }
        assert_eq!(shelf.take(&token(0)), Some(vec![0]), "of the other one");
    }

    #[test]
    fn many_senders_fill_the_shelf() {
        let mut shelf = Shelf::default();
        shelf.put(token(0), 1, vec![0; 8]);
        for number in 1..3 * OF_ALL / 16 {
            shelf.put(token(number), number as u32 % 97 + 2, vec![number; 16]);
            assert!(shelf.count <= OF_ALL);
        }
        assert!(shelf.take(&token(0)).is_some(), "of who has little");
    }
}
