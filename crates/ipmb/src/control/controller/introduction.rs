//! Passing on the handles of new links. An introduction whose receiver has no room waits with its maker's connection, so
//! that nothing grows with a member that does not read.

use super::{Controller, PENDING, Wiring};
use crate::{
    control::protocol::{self, ToMember},
    sys::{self, AsHandle, BorrowedHandle, Received},
};
use std::io;

/// The handles of a new link on their way.
#[derive(Debug)]
pub(super) struct Introduction {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) link: u64,
    pub(super) handles: Received,
}

impl Controller {
    /// Passes an introduction on. Gives it back if its receiver has no room now.
    pub(super) fn introduce(
        &mut self,
        introduction: Introduction,
        wiring: &mut dyn Wiring,
    ) -> Option<Introduction> {
        let Introduction { from, to, link, .. } = introduction;
        let Some(token) = self.ids.get(&to) else {
            // Its receiver may yet come back.
            if self.absent.contains_key(&to) || self.settle_by.is_some() {
                return Some(introduction);
            }
            if let Some(maker) = self.ids.get(&from).and_then(|t| self.connections.get(t)) {
                let packet = protocol::encode(&ToMember::NoSuchMember { link });
                let _ = maker.channel.send(&packet, &[]);
            }
            return None;
        };
        let connection = self.connections.get_mut(token)?;
        let handles: Vec<BorrowedHandle<'_>> = introduction
            .handles
            .iter()
            .map(AsHandle::as_handle)
            .collect();
        let packet = protocol::encode(&ToMember::Introduced { from, link });
        match connection.channel.send(&packet, &handles) {
            Ok(()) => None,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                connection.want_writable(*token, wiring);
                Some(introduction)
            }
            Err(e) if sys::exhausted(&e).is_some() => {
                self.look_again_soon();
                Some(introduction)
            }
            // Its end will be read, and then there is no such member.
            Err(_) => Some(introduction),
        }
    }

    /// Tries the introductions that wait, in each member's order.
    pub(super) fn pass_on(&mut self, wiring: &mut dyn Wiring) {
        for introduction in std::mem::take(&mut self.orphans) {
            if let Some(waiting) = self.introduce(introduction, wiring) {
                self.orphans.push_back(waiting);
            }
        }
        let tokens: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| !c.pending.is_empty())
            .map(|(token, _)| *token)
            .collect();
        for token in tokens {
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            let was_full = connection.pending.len() >= PENDING;
            for introduction in std::mem::take(&mut connection.pending) {
                if let Some(waiting) = self.introduce(introduction, wiring)
                    && let Some(connection) = self.connections.get_mut(&token)
                {
                    connection.pending.push_back(waiting);
                }
            }
            if let Some(connection) = self.connections.get_mut(&token)
                && was_full
                && connection.pending.len() < PENDING
            {
                connection.restore_interest(token, wiring);
            }
        }
    }
}
