//! Making, introducing and ending links.

use super::{Outbox, waiting::Waiting};
use crate::{
    control::protocol::{self, ToController},
    endpoint::{core::Core, gate::Gate},
    link::outgoing::Outgoing,
    sys::Channel,
};
use std::{io, sync::Arc, time::Duration};

/// Why a link ends that did nothing wrong.
const GONE: &str = "the receiver is gone";

/// A link and its place in the books.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) out: Outgoing,
    pub(crate) peer: u64,
    pub(crate) number: u64,
    /// Who sleeps for space in it.
    pub(crate) gate: Arc<Gate>,
    /// For how long to look for space before that.
    pub(crate) spin: Duration,
    /// The generation of the controller that has the introduction.
    introduced: bool,
    /// Up to where it was used at the last look for idle links, if nothing lay in it.
    pub(super) seen: Option<u64>,
    /// It was not used since then.
    pub(super) idle: bool,
}

impl Link {
    /// Whether messages may be put into it.
    #[inline]
    pub(super) fn usable(&self) -> bool {
        self.introduced
    }
}

impl Outbox {
    /// The link to a peer, if there is one and it is introduced.
    #[inline]
    pub(crate) fn link(&mut self, peer: u64) -> Option<&mut Link> {
        let slot = *self.slots.get(&peer)?;
        self.links.get_mut(slot)?.as_mut().filter(|l| l.introduced)
    }

    /// Makes the link to a peer and introduces it. `WouldBlock`: the controller has no room for the introduction now.
    pub(crate) fn make_link(&mut self, core: &Core, peer: u64) -> io::Result<()> {
        let channel = core.membership.status().channel.clone();
        let channel = channel.ok_or(io::ErrorKind::WouldBlock)?;
        if let Some(slot) = self.slots.get(&peer)
            && let Some(Some(link)) = self.links.get_mut(*slot)
        {
            return introduce(link, &channel);
        }
        let start = u64::from_ne_bytes(crate::control::proof::random()?);
        let members = self.reader.as_ref().map(|r| &r.members);
        let process = members.and_then(|m| m.get(&peer)).map(|m| m.listed.pid);
        let out = Outgoing::new(process.unwrap_or(0), core.options.link_capacity, start)?;
        let number = self.next_number;
        self.next_number += 1;
        core.orders.watch(number, out.side().clone());
        let mut link = Link {
            out,
            peer,
            number,
            gate: Arc::default(),
            spin: core.options.spin,
            introduced: false,
            seen: None,
            idle: false,
        };
        let introduced = introduce(&mut link, &channel);
        let slot = match self.links.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                self.links.push(None);
                self.links.len() - 1
            }
        };
        self.links[slot] = Some(link);
        self.slots.insert(peer, slot);
        self.watch_idle(core);
        self.watch_if_needed(core);
        introduced
    }

    /// Sends the introductions that are due to the controller. `again`: it is a new one. What the last one did not pass on
    /// is introduced again; accepting twice does no harm.
    pub(crate) fn introduce_all(&mut self, channel: &Channel, again: bool) -> io::Result<()> {
        if again {
            for link in self.links.iter_mut().flatten() {
                link.introduced &= link.out.offer().is_none();
            }
        }
        self.links
            .iter_mut()
            .flatten()
            .try_for_each(|link| introduce(link, channel))
    }

    /// The controller says that there is no such receiver. It has no say about a link that was accepted.
    pub(crate) fn nobody_there(&mut self, core: &Core, number: u64) {
        let link = self.links.iter_mut().flatten().find(|l| l.number == number);
        if link.is_some_and(|l| l.out.offer().is_some()) {
            self.peer_is_gone(core, number);
        }
    }

    /// The receiver of a link is dead, or wants no more: what it had not taken goes elsewhere.
    pub(crate) fn peer_is_gone(&mut self, core: &Core, number: u64) {
        let peer = self.links.iter().flatten().find(|l| l.number == number);
        if let Some(peer) = peer.map(|l| l.peer) {
            self.drop_link(core, peer, GONE);
        }
    }

    pub(crate) fn drop_link(&mut self, core: &Core, peer: u64, reason: &'static str) {
        let Some(slot) = self.slots.remove(&peer) else {
            return;
        };
        let Some(mut link) = self.links.get_mut(slot).and_then(Option::take) else {
            return;
        };
        // A lie may have been found by the way, and its hang-up is noticed first.
        let reason = link.out.break_off(reason);
        let level = match reason {
            GONE => log::Level::Debug,
            _ => log::Level::Warn,
        };
        log::log!(level, "the link to endpoint {peer} ends: {reason}");
        core.orders.unwatch(link.number);
        self.tell_of_room(peer);
        self.gone.insert(peer);
        self.routes.clear();
        let (untaken, lost) = link.out.untaken();
        self.stats.lost += lost;
        if lost > 0 {
            log::warn!("{lost} messages with handles are lost with endpoint {peer}");
        }
        self.held += untaken.len();
        // Before anything that is sent later, but after what waits already: that was sent earlier.
        for message in untaken.into_iter().filter(|_| !crate::fault::on(11)) {
            self.waiting.push_back(Waiting {
                uuid: message.uuid,
                payload: message.payload,
                origin: message.origin,
                multicast: false,
                deadline: message.deadline,
                objects: Vec::new(),
                regions: Vec::new(),
                reroute: true,
                found: true,
                bound: None,
            });
        }
        self.pump(core);
    }

    /// The side channel of a link said something: it is accepted, or there is room again.
    pub(crate) fn side_news(&mut self, core: &Core, number: u64) {
        if let Some(link) = self.links.iter_mut().flatten().find(|l| l.number == number)
            && link.out.offer().is_none()
        {
            core.orders.listen(number, false);
            let peer = link.peer;
            self.tell_of_room(peer);
        }
        self.pump(core);
    }
}

/// Sends an introduction unless it was sent.
fn introduce(link: &mut Link, channel: &Channel) -> io::Result<()> {
    if link.introduced {
        return Ok(());
    }
    let Some(offer) = link.out.offer() else {
        link.introduced = true;
        return Ok(());
    };
    let packet = protocol::encode(&ToController::Introduce {
        to: link.peer,
        link: link.number,
    });
    channel.send(&packet, &offer.handles())?;
    link.introduced = true;
    Ok(())
}
