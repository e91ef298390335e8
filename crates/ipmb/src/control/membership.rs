//! One endpoint's membership as its own threads see it, and what the serving thread tells them.

use super::directory::Directory;
use crate::{
    JoinError,
    sys::{self, Channel, Peer, Received},
};
use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// What the serving thread tells an endpoint. Called on the serving thread; must not block on anything that waits for it.
pub(crate) trait Events: Send + Sync {
    /// A new directory, or one that has settled, or a change that was asked for.
    fn directory_changed(&self);
    /// The controller did not keep the introduction of this link: make it again when introductions are due.
    fn put_off(&self, link: u64);
    /// Another endpoint made a link to this one. Gives the handles back when there is no memory to accept it now.
    fn introduced(&self, from: u64, link: u64, handles: Received) -> Option<Received>;
    /// Sends the introductions that are due; `again`: to a controller who knows nothing of those that were sent before.
    fn introduce(&self, channel: &Channel, again: bool) -> io::Result<()>;
    /// The receiver of an introduction is not a member.
    fn no_such_member(&self, link: u64);
    /// The side channel of an outgoing link said something, or hung up.
    fn side_news(&self, link: u64, hangup: bool);
    /// The time that the endpoint has asked for has come.
    fn expired(&self);
    /// A leaver left a message behind.
    fn parked(&self, parked: Parked);
    /// What waits in an endpoint that leaves: a leaver may have left it more since its leave began.
    fn left_behind(&self) -> Vec<Parked>;
    /// So many messages were parked here and are lost.
    fn lost(&self, messages: u64);
    /// The membership has ended for good.
    fn ended(&self);
}

/// A message that waits for a receiver, on its way from a leaver to its heir.
#[derive(Debug)]
pub(crate) struct Parked {
    pub uuid: [u8; 16],
    pub label_op: Vec<u8>,
    pub multicast: bool,
    /// Until when; its way from one to the other takes of that time.
    pub deadline: Instant,
    pub payload: Vec<u8>,
    pub objects: Received,
    pub regions: Received,
}

impl Parked {
    /// What counts of it: the bytes of its selector and its payload.
    pub(crate) fn len(&self) -> usize {
        self.label_op.len() + self.payload.len()
    }
}

/// Where a membership stands.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Looking for a controller; for the first time, or again.
    Seeking,
    /// A member.
    Joined,
    /// Refused, for good.
    Failed(JoinError),
    /// Left in good order.
    Left,
}

/// What the endpoint's threads see.
#[derive(Debug)]
pub(crate) struct Status {
    pub phase: Phase,
    pub id: u64,
    pub directory: Option<Arc<Directory>>,
    /// The channel to the controller while there is one.
    pub channel: Option<Arc<Channel>>,
    /// The controller that was last connected to.
    pub controller: Option<Peer>,
    /// Why there is no membership yet, or no longer, if that can end by itself.
    pub trouble: Option<JoinError>,
    /// Counts what the controller has answered.
    pub done: u64,
    /// Counts all changes.
    pub news: u64,
}

/// A membership as the endpoint's threads see it.
#[derive(Debug)]
pub(crate) struct Membership {
    status: Mutex<Status>,
    changed: Condvar,
}

impl Membership {
    pub(crate) fn new() -> Self {
        Self {
            status: Mutex::new(Status {
                phase: Phase::Seeking,
                id: 0,
                directory: None,
                channel: None,
                controller: None,
                trouble: None,
                done: 0,
                news: 0,
            }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        {
            let mut status = self.status();
            change(&mut status);
            status.news += 1;
        }
        self.changed.notify_all();
    }

    /// Waits until `ready` gives something, or the deadline is over. It must not take the outbox's lock, under which others
    /// ask for the status.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut(&mut Status) -> Option<T>,
    ) -> Option<T> {
        let mut status = self.status();
        loop {
            if let Some(result) = ready(&mut status) {
                return Some(result);
            }
            status = match deadline {
                None => self
                    .changed
                    .wait(status)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.changed
                        .wait_timeout(status, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    /// The controller's process id, if it is stopped.
    pub(crate) fn stopped_controller(&self) -> Option<u32> {
        let pid = self.status().controller?.pid;
        sys::is_stopped(pid).then_some(pid)
    }

    /// What is to be said of the controller that others wait for.
    pub(crate) fn controller_in_words(&self) -> String {
        if let Some(pid) = self.stopped_controller() {
            return format!("the controller, process {pid}, is stopped");
        }
        let status = self.status();
        match (&status.channel, status.controller) {
            (Some(_), Some(peer)) => format!("the controller, process {}, is busy", peer.pid),
            _ => "there is no controller, and nobody here may become it".to_owned(),
        }
    }

    /// What a join says whose time is up.
    pub(crate) fn why_late(&self) -> JoinError {
        match self.stopped_controller() {
            Some(pid) => JoinError::ControllerStopped { pid },
            None => self.status().trouble.clone().unwrap_or(JoinError::Timeout),
        }
    }
}
