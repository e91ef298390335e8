//! An endpoint's state, and what the serving thread tells it.

use super::{
    biased::{BiasedLock, Guard},
    inbox::Inbox,
    outbox::Outbox,
};
use crate::{
    JoinError, Options, RecvError, Stats,
    control::{
        membership::{Events, Membership, Parked, Phase},
        reactor::Orders,
    },
    sys::{self, Channel, Received},
};
use std::{io, sync::Arc};

pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) membership: Arc<Membership>,
    pub(crate) orders: Orders,
    pub(crate) inbox: Inbox,
    outbox: BiasedLock<Outbox>,
    generation: u32,
}

impl Core {
    pub(crate) fn new(
        options: Options,
        membership: Arc<Membership>,
        orders: Orders,
    ) -> Result<Self, JoinError> {
        let inbox = Inbox::new(&options).map_err(|e| JoinError::io("making the inbox", e))?;
        Ok(Self {
            options,
            membership,
            orders,
            inbox,
            outbox: BiasedLock::new(Outbox::new()),
            generation: sys::generation(),
        })
    }

    /// Whether this process is a forked child of the one that joined.
    #[inline]
    pub(crate) fn forked(&self) -> bool {
        sys::forked_since(self.generation)
    }

    #[inline]
    pub(crate) fn outbox(&self) -> Guard<'_, Outbox> {
        self.outbox.lock()
    }

    /// Nothing is sent any more. Returns what was parked.
    pub(crate) fn close(&self) -> Vec<Parked> {
        self.outbox().close()
    }

    pub(crate) fn stats(&self) -> Stats {
        if self.forked() {
            // Another thread of the parent may have held a lock when it forked.
            return Stats::default();
        }
        let mut stats = self.outbox().stats();
        self.inbox.add_to(&mut stats);
        stats
    }
}

impl Events for Core {
    fn directory_changed(&self) {
        let mut outbox = self.outbox();
        outbox.look_anew();
        outbox.pump(self);
    }

    fn put_off(&self, link: u64) {
        self.outbox().put_off(link);
    }

    fn introduced(&self, from: u64, link: u64, handles: Received) -> Option<Received> {
        self.inbox.introduced(from, link, handles)
    }

    fn introduce(&self, channel: &Channel, again: bool) -> io::Result<()> {
        let done = self.outbox().introduce_all(channel, again);
        // Senders may wait for it.
        self.membership.change(|_| {});
        done
    }

    fn no_such_member(&self, link: u64) {
        self.outbox().nobody_there(self, link);
    }

    fn side_news(&self, link: u64, hangup: bool) {
        let mut outbox = self.outbox();
        if hangup {
            outbox.peer_is_gone(self, link);
        } else {
            outbox.side_news(self, link);
        }
    }

    fn expired(&self) {
        self.outbox().expire(self);
    }

    fn parked(&self, parked: Parked) {
        self.outbox().adopt(self, parked);
    }

    fn left_behind(&self) -> Vec<Parked> {
        self.close()
    }

    fn lost(&self, messages: u64) {
        self.outbox().stats.lost += messages;
    }

    fn ended(&self) {
        let phase = self.membership.status().phase.clone();
        match phase {
            Phase::Failed(error) => self.inbox.end(error.into()),
            Phase::Left => self.inbox.end(RecvError::Left),
            Phase::Seeking | Phase::Joined => {}
        }
        // Senders that wait find that out for themselves.
        self.membership.change(|_| {});
    }
}

/// Stands in for an endpoint that could not be made.
pub(crate) struct Nobody;

impl Events for Nobody {
    fn put_off(&self, _: u64) {}
    fn directory_changed(&self) {}
    fn introduced(&self, _: u64, _: u64, _: Received) -> Option<Received> {
        None
    }
    fn introduce(&self, _: &Channel, _: bool) -> io::Result<()> {
        Ok(())
    }
    fn no_such_member(&self, _: u64) {}
    fn side_news(&self, _: u64, _: bool) {}
    fn expired(&self) {}
    fn parked(&self, _: Parked) {}
    fn left_behind(&self) -> Vec<Parked> {
        Vec::new()
    }
    fn lost(&self, _: u64) {}
    fn ended(&self) {}
}
