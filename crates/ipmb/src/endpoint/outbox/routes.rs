//! Who gets the messages of a selector.

use super::{Outbox, Sending};
use crate::{LabelOp, SelectorMode, control::directory::Reader, link::outgoing::Origin};
use std::sync::Arc;

/// Routes that are kept until the directory changes.
const ROUTES: usize = 32;

/// Where messages of one selector go.
#[derive(Debug)]
pub(crate) struct Route {
    mode: SelectorMode,
    pub(crate) origin: Arc<Origin>,
    pub(crate) targets: Arc<[u64]>,
    /// Where the link to the only target was last found; [`NOWHERE`] at first.
    slot: usize,
}

/// No link is there.
const NOWHERE: usize = usize::MAX;

impl Outbox {
    /// The usual case: a small unicast message without handles or ttl, for the same receivers as the one before, and
    /// nothing has happened since. False if it is any other case, or there is no room: then nothing was sent.
    #[inline]
    pub(crate) fn send_like_the_last(&mut self, label_op: &LabelOp, message: &Sending<'_>) -> bool {
        let (Some(reader), Some(route)) = (&self.reader, self.routes.first()) else {
            return false;
        };
        if reader.directory().look() != self.look
            || !self.look.valid
            || self.closed
            || !self.waiting.is_empty()
            || route.mode != SelectorMode::Unicast
            || route.origin.label_op != *label_op
        {
            return false;
        }
        let Some(Some(link)) = self.links.get_mut(route.slot) else {
            return false;
        };
        // Another link may have come into the place.
        let sent = route.targets.first() == Some(&link.peer)
            && link.usable()
            && message.may.is_none_or(|may| may(link.peer))
            && link
                .out
                .append(&message.uuid, message.head, message.tail, &route.origin);
        if sent {
            self.stats.sent += 1;
            self.stats.sent_bytes += (message.head.len() + message.tail.len()) as u64;
        }
        sent
    }

    /// Remembers where the link of the route that was used last is.
    pub(crate) fn remember_slot(&mut self, peer: u64) {
        if let Some(route) = self.routes.first_mut()
            && let Some(slot) = self.slots.get(&peer)
        {
            route.slot = *slot;
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
        self.routes.truncate(ROUTES - 1);
        let route = Route {
            mode,
            origin: Arc::new(Origin {
                label_op: label_op.clone(),
            }),
            targets,
            slot: NOWHERE,
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
}
