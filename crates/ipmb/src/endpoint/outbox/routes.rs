//! Who gets the messages of a selector.

use super::{Link, Outbox, Sending};
use crate::{LabelOp, SelectorMode, control::directory::Reader, link::runs::Origin};
use std::sync::Arc;

/// Routes that are kept until the directory changes.
const ROUTES: usize = 32;

/// Where messages of one selector go.
#[derive(Debug)]
pub(crate) struct Route {
    mode: SelectorMode,
    pub(crate) origin: Arc<Origin>,
    pub(crate) targets: Arc<[u64]>,
    /// Where the link to each of them was last found; [`NOWHERE`] at first.
    slots: Box<[usize]>,
}

/// No link is there.
const NOWHERE: usize = usize::MAX;

impl Outbox {
    /// Whether nothing has happened since the last message, and nothing waits that a message could pass.
    #[inline]
    fn is_as_before(&self) -> bool {
        let Some(reader) = &self.reader else {
            return false;
        };
        reader.directory().look() == self.look
            && self.look.valid
            && !self.closed
            && !self.holding
            && self.waiting.is_empty()
    }

    /// The usual case: a small unicast message without handles or ttl, for the same receiver as the one before, and
    /// nothing has happened since. False if it is any other case, or there is no room: then nothing was sent.
    #[inline]
    pub(crate) fn send_like_the_last(&mut self, label_op: &LabelOp, message: &Sending<'_>) -> bool {
        if !self.is_as_before() {
            return false;
        }
        let Self {
            routes,
            links,
            stats,
            ..
        } = self;
        let Some(route) = routes.first() else {
            return false;
        };
        let (Some(target), Some(slot)) = (route.targets.first(), route.slots.first()) else {
            return false;
        };
        if route.mode != SelectorMode::Unicast || route.origin.label_op != *label_op {
            return false;
        }
        let sent = append(links, *slot, *target, message, Some(&route.origin));
        if sent {
            stats.sent += 1;
            stats.sent_bytes += message.len() as u64;
        }
        sent
    }

    /// The same for a multicast, for the route that was used last. Returns those that it did not reach.
    pub(crate) fn send_to_all_like_the_last(&mut self, message: &Sending<'_>) -> Vec<u64> {
        let as_before = self.is_as_before();
        let Self {
            routes,
            links,
            slots,
            stats,
            ..
        } = self;
        let Some(route) = routes.first_mut() else {
            return Vec::new();
        };
        if !as_before || !message.is_plain() {
            return route.targets.to_vec();
        }
        let mut unreached = Vec::new();
        for (target, slot) in route.targets.iter().zip(&mut route.slots) {
            if append(links, *slot, *target, message, None) {
                stats.sent += 1;
                stats.sent_bytes += message.len() as u64;
            } else {
                // Found by the next message, if the link is there now.
                *slot = slots.get(target).copied().unwrap_or(NOWHERE);
                unreached.push(*target);
            }
        }
        unreached
    }

    /// Remembers where the link of the route that was used last is.
    pub(crate) fn remember_slot(&mut self, peer: u64) {
        if let Some(route) = self.routes.first_mut()
            && let Some(place) = route.slots.first_mut()
            && let Some(slot) = self.slots.get(&peer)
        {
            *place = *slot;
        }
    }

    /// The route of a selector by the directory that was read last. The first route is the one used last.
    #[inline]
    pub(crate) fn route(&mut self, label_op: &LabelOp, mode: SelectorMode) -> &Route {
        let found = self
            .routes
            .iter()
            .position(|r| r.mode == mode && r.origin.label_op == *label_op);
        match found {
            Some(0) => {}
            Some(at) => self.routes.swap(0, at),
            None => self.make_route(label_op, mode),
        }
        &self.routes[0]
    }

    #[cold]
    fn make_route(&mut self, label_op: &LabelOp, mode: SelectorMode) {
        let matching = self
            .reader
            .iter()
            .flat_map(|r| &r.members)
            .filter(|(id, m)| m.receives && !self.gone.contains(id) && label_op.validate(&m.label));
        let targets: Arc<[u64]> = match mode {
            SelectorMode::Unicast => matching
                .skip(usize::from(crate::fault::on(7)))
                .take(1)
                .map(|(id, _)| *id)
                .collect(),
            SelectorMode::Multicast => matching.map(|(id, _)| *id).collect(),
        };
        let slots = vec![NOWHERE; targets.len()].into();
        self.routes.truncate(ROUTES - 1);
        let route = Route {
            mode,
            origin: Arc::new(Origin {
                label_op: label_op.clone(),
            }),
            targets,
            slots,
        };
        self.routes.push(route);
        let last = self.routes.len() - 1;
        self.routes.swap(0, last);
    }

    /// Whether a member (still) receives.
    pub(crate) fn is_member(&self, id: u64) -> bool {
        let listed = |r: &Reader| r.members.get(&id).is_some_and(|m| m.receives);
        !self.gone.contains(&id) && self.reader.as_ref().is_some_and(listed)
    }

    /// An endpoint as a message to humans names it.
    pub(crate) fn in_words(&self, id: u64) -> String {
        let member = self.reader.as_ref().and_then(|r| r.members.get(&id));
        match member {
            Some(member) => format!(
                "endpoint {id} (process {}, {:?})",
                member.listed.pid, member.label
            ),
            None => format!("endpoint {id}"),
        }
    }
}

/// Puts a plain message into the link to `target` if that is in the slot, usable, and has room.
#[inline]
fn append(
    links: &mut [Option<Link>],
    slot: usize,
    target: u64,
    message: &Sending<'_>,
    origin: Option<&Arc<Origin>>,
) -> bool {
    let Some(Some(link)) = links.get_mut(slot) else {
        return false;
    };
    // Another link may have come into the place.
    link.peer == target
        && link.usable()
        && message.may.is_none_or(|may| may(target))
        && link
            .out
            .append(&message.uuid, message.head, message.tail, origin)
}
