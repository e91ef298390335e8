//! Making, introducing and ending links.

use super::{Outbox, waiting::Waiting};
use crate::{
    control::protocol::{self, PENDING, ToController},
    endpoint::{core::Core, gate::Gate, spin::Spin},
    link::outgoing::{Lack, Outgoing},
    sys::Channel,
};
use std::{io, sync::Arc};

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
    /// How to look for space before that.
    pub(crate) spin: Spin,
    /// What was lacking when somebody was refused who keeps a queue for its receiver, and has not asked for news yet.
    pub(super) refused: Option<Lack>,
    /// The receiver has it, or the controller has its introduction for good: what is put into it arrives, though its sender dies.
    introduced: bool,
    /// Its introduction was sent while too many others waited, so that the controller may not keep it.
    tried: bool,
    /// Messages may lie in it since an introduction before: a new controller gets its introduction first.
    promised: bool,
    /// Up to where it was used at the last look for idle links, if nothing lay in it.
    pub(super) seen: Option<u64>,
    /// It was not used since then.
    pub(super) idle: bool,
}

impl Link {
    /// Whether messages may be put into it.
    #[inline]
    pub(crate) fn usable(&self) -> bool {
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

    /// The link of a number, usable or not, if it is still that to the peer.
    pub(crate) fn link_of(&mut self, peer: u64, number: u64) -> Option<&mut Link> {
        let slot = *self.slots.get(&peer)?;
        let link = self.links.get_mut(slot)?.as_mut();
        link.filter(|l| l.number == number)
    }

    /// Makes the link to a peer and introduces it. `WouldBlock`: the controller has no room for the introduction now, or is not
    /// bound to keep it, and the receiver has not accepted the link yet.
    pub(crate) fn make_link(&mut self, core: &Core, peer: u64) -> io::Result<()> {
        let channel = core.membership.status().channel.clone();
        let channel = channel.ok_or(io::ErrorKind::WouldBlock)?;
        if let Some(slot) = self.slots.get(&peer).copied()
            && let Some(Some(_)) = self.links.get(slot)
        {
            return self.introduce(slot, &channel);
        }
        let start = u64::from_ne_bytes(crate::control::proof::random()?);
        let members = self.reader.as_ref().map(|r| &r.members);
        let process = members.and_then(|m| m.get(&peer)).map(|m| m.listed.pid);
        let out = Outgoing::new(process.unwrap_or(0), core.options.link_capacity, start)?;
        let number = self.next_number;
        self.next_number += 1;
        core.orders.watch(number, out.side().clone());
        let link = Link {
            out,
            peer,
            number,
            gate: Arc::default(),
            spin: core.inbox.spin_for_space(),
            refused: None,
            introduced: false,
            tried: false,
            promised: false,
            seen: None,
            idle: false,
        };
        let slot = match self.links.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                self.links.push(None);
                self.links.len() - 1
            }
        };
        self.links[slot] = Some(link);
        self.slots.insert(peer, slot);
        let introduced = self.introduce(slot, &channel);
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
                link.tried = false;
            }
        }
        let promised = |l: &Option<Link>| l.as_ref().map(|l| l.promised);
        // Those first of which some have been told that they are usable: there is room for as many.
        for first in [true, false] {
            for slot in 0..self.links.len() {
                if self.links.get(slot).and_then(promised) != Some(first) {
                    continue;
                }
                match self.introduce(slot, channel) {
                    // It is with the controller, which may not keep it.
                    Err(_) if self.is_tried(slot) => {}
                    done => done?,
                }
            }
        }
        Ok(())
    }

    /// The controller did not keep the introduction of a link.
    pub(crate) fn put_off(&mut self, number: u64) {
        let mut links = self.links.iter_mut().flatten();
        if let Some(link) = links.find(|l| l.number == number)
            && link.out.offer().is_some()
        {
            (link.introduced, link.tried) = (false, false);
        }
    }

    /// Whether there is a link to a peer that is not usable before the peer has accepted it.
    pub(crate) fn awaits_acceptance(&self, peer: u64) -> bool {
        self.slots
            .get(&peer)
            .is_some_and(|slot| self.is_tried(*slot))
    }

    fn is_tried(&self, slot: usize) -> bool {
        let link = self.links.get(slot).and_then(Option::as_ref);
        link.is_some_and(|l| l.tried)
    }

    /// Sends the introduction of the link in this slot unless it was sent. An error says that the link is not usable yet.
    fn introduce(&mut self, slot: usize, channel: &Channel) -> io::Result<()> {
        let links = self.links.iter_mut().flatten();
        let waiting =
            links.filter_map(|l| (l.introduced || l.tried).then(|| l.out.offer().is_some()));
        let few = waiting.filter(|waits| *waits).count() < PENDING;
        match self.links.get_mut(slot) {
            Some(Some(link)) => introduce(link, channel, few),
            _ => Ok(()),
        }
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
        // Before anything that is sent later, and before what waited for this receiver: that would have come behind it. Other
        // things that wait were sent earlier.
        let behind = |w: &Waiting| w.waits_for == Some(peer);
        let at = self.waiting.iter().position(behind);
        let later = self.waiting.split_off(at.unwrap_or(self.waiting.len()));
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
                waits_for: None,
                bound: None,
            });
        }
        self.waiting.extend(later);
        self.pump(core);
    }

    /// The side channel of a link said something: it is accepted, or there is room again.
    pub(crate) fn side_news(&mut self, core: &Core, number: u64) {
        if let Some(link) = self.links.iter_mut().flatten().find(|l| l.number == number)
            && link.out.offer().is_none()
        {
            core.orders.listen(number, false);
            let peer = link.peer;
            if !std::mem::replace(&mut link.introduced, true) {
                // Senders may wait for it.
                core.membership.change(|_| {});
            }
            self.tell_of_room(peer);
        }
        self.pump(core);
    }
}

/// Sends an introduction unless it was sent. `few`: so few others wait that the controller keeps it.
fn introduce(link: &mut Link, channel: &Channel, few: bool) -> io::Result<()> {
    if link.introduced {
        return Ok(());
    }
    let Some(offer) = link.out.offer() else {
        link.introduced = true;
        return Ok(());
    };
    if link.tried {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let packet = protocol::encode(&ToController::Introduce {
        to: link.peer,
        link: link.number,
    });
    channel.send(&packet, &offer.handles())?;
    (link.introduced, link.tried) = (few, !few);
    link.promised |= few;
    match few {
        true => Ok(()),
        false => Err(io::ErrorKind::WouldBlock.into()),
    }
}
