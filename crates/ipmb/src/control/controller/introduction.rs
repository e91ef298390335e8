//! Passing on the handles of new links. An introduction whose receiver has no room waits with its maker's connection, so
//! that nothing grows with a member that does not read. Of a maker that has too many of them waiting no more are kept; it is told to
//! make the introduction again when its receiver may have room.

use super::{Controller, Wiring};
use crate::{
    control::protocol::{self, ToMember},
    sys::{self, AsHandle, BorrowedHandle, Received},
};
use std::{collections::BTreeMap, io};

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
        // Its welcome comes first.
        if connection.owes_welcome.is_some() {
            return Some(introduction);
        }
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
            for introduction in std::mem::take(&mut connection.pending) {
                if let Some(waiting) = self.introduce(introduction, wiring)
                    && let Some(connection) = self.connections.get_mut(&token)
                {
                    connection.pending.push_back(waiting);
                }
            }
        }
        self.ask_again(wiring);
    }

    /// Whether there is no point in trying to pass an introduction on to this receiver now.
    fn has_no_room(&self, to: u64) -> bool {
        match self.ids.get(&to).and_then(|t| self.connections.get(t)) {
            Some(receiver) => receiver.writable_wanted || self.retry.is_some(),
            None => self.absent.contains_key(&to) || self.settle_by.is_some(),
        }
    }

    /// Has the makers of introductions that were not kept make them again, where that may help by now. Also where the
    /// receiver is gone: then they are told that.
    fn ask_again(&mut self, wiring: &mut dyn Wiring) {
        let waiting = self
            .connections
            .iter()
            .filter(|(_, c)| !c.put_off.is_empty());
        let tokens: Vec<u64> = waiting.map(|(token, _)| *token).collect();
        for token in tokens {
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            let put_off = std::mem::take(&mut connection.put_off);
            let (stay, again) = put_off
                .into_iter()
                .partition(|(to, _)| self.has_no_room(*to));
            if let Some(connection) = self.connections.get_mut(&token) {
                connection.put_off = stay;
                self.owe(
                    token,
                    |c| c.owes_again.extend::<BTreeMap<_, _>>(again),
                    wiring,
                );
            }
        }
    }
}
