//! What endpoints ask of the serving thread.

use super::thread::{Lease, Shared, lease};
use crate::{
    JoinError,
    control::{
        bus::Bus,
        directory::Directory,
        member::Member,
        membership::{Events, Membership, Parked},
    },
    sys::{self, Channel},
};
use std::{sync::Arc, time::Instant};

/// An order, with the key of the member that it is about.
pub(super) enum Command {
    Join(u64, Box<Member>),
    /// A new outgoing link: watch its side channel.
    Watch(u64, u64, Arc<Channel>),
    /// Whether more than the death of a link's receiver is news.
    Listen(u64, u64, bool),
    Unwatch(u64, u64),
    /// Introductions are due.
    Introduce(u64),
    /// Tell the endpoint when the directory changes, or no longer.
    WatchDirectory(u64, bool),
    /// Tell the endpoint when this time has come.
    ExpireAt(u64, Option<Instant>),
    /// The directory makes no sense: break with the controller that wrote it.
    Distrust(u64, Arc<Directory>),
    StopReceiving(u64),
    Leave(u64, Vec<Parked>),
    /// Forget the member at once, without a word to the controller.
    Abandon(u64),
    Stop,
}

/// Gives the serving thread orders about one endpoint.
#[derive(Clone)]
pub(crate) struct Orders {
    shared: Arc<Shared>,
    member: u64,
}

impl Orders {
    fn give(&self, command: Command) {
        if !sys::forked_since(self.shared.generation) {
            self.shared.command(command);
        }
    }

    /// Watch the side channel of a new outgoing link.
    pub(crate) fn watch(&self, link: u64, side: Arc<Channel>) {
        self.give(Command::Watch(self.member, link, side));
    }

    /// The link is accepted, so that only its death is news; or `arrivals` are news for a while.
    pub(crate) fn listen(&self, link: u64, arrivals: bool) {
        self.give(Command::Listen(self.member, link, arrivals));
    }

    pub(crate) fn unwatch(&self, link: u64) {
        self.give(Command::Unwatch(self.member, link));
    }

    /// Introductions are due.
    pub(crate) fn introduce(&self) {
        self.give(Command::Introduce(self.member));
    }

    /// Tell, or no longer tell, when the directory changes.
    pub(crate) fn watch_directory(&self, on: bool) {
        self.give(Command::WatchDirectory(self.member, on));
    }

    /// Tell the endpoint at this time that something it keeps has expired.
    pub(crate) fn expire_at(&self, at: Option<Instant>) {
        self.give(Command::ExpireAt(self.member, at));
    }

    /// The directory makes no sense.
    pub(crate) fn distrust(&self, directory: Arc<Directory>) {
        self.give(Command::Distrust(self.member, directory));
    }

    pub(crate) fn stop_receiving(&self) {
        self.give(Command::StopReceiving(self.member));
    }

    pub(crate) fn leave(&self, parked: Vec<Parked>) {
        self.give(Command::Leave(self.member, parked));
    }
}

/// Keeps an endpoint served. Dropping it forgets the member.
pub(crate) struct Served {
    /// Dropped after the member was abandoned; the last one waits for the thread's end.
    _lease: Arc<Lease>,
    orders: Orders,
}

impl Served {
    /// Starts a membership; `membership` tells how it goes.
    pub(crate) fn start(
        bus: Bus,
        membership: Arc<Membership>,
        make_events: impl FnOnce(Orders) -> Arc<dyn Events>,
    ) -> Result<Self, JoinError> {
        let lease = lease().map_err(|e| JoinError::io("starting the serving thread", e))?;
        let orders = Orders {
            shared: lease.0.clone(),
            member: match crate::fault::on(5) {
                true => 1,
                false => lease.0.next.fetch_add(1, crate::sync::Ordering::Relaxed),
            },
        };
        let events = make_events(orders.clone());
        let member = Member::new(bus, membership, events)
            .map_err(|e| JoinError::io("drawing a random number", e))?;
        orders.give(Command::Join(orders.member, Box::new(member)));
        Ok(Self {
            _lease: lease,
            orders,
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.orders.give(Command::Abandon(self.orders.member));
    }
}
