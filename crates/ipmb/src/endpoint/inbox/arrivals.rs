//! What other threads put in: new links, messages of the endpoint to itself, and the end of the membership. They never
//! wait for a thread that receives.

use super::{Inbox, State};
use crate::{
    Error, MemoryRegion, Object, RecvError, SendError,
    endpoint::outbox::{Sending, io_error},
    link::incoming::{Incoming, Unaccepted},
    sync::{MutexGuard, Ordering},
    sys::{self, Interest, Received},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::PoisonError,
};

/// Links from one sender: it may have made a new one before the old one was read to its end.
const LINKS_PER_PEER: usize = 4;

/// Senders whose links are remembered, so that none is accepted twice.
const SEEN: usize = 1 << 16;

#[derive(Default)]
pub(super) struct Arrivals {
    pub(super) links: Vec<Incoming>,
    /// The last link of each sender, of so many as [`SEEN`] says.
    pub(super) seen: BTreeMap<u64, u64>,
    pub(super) local: VecDeque<Local>,
    /// What messages to oneself cost that nobody has received: those here, and those that a receiver has beside the links.
    pub(super) local_bytes: usize,
    pub(super) ended: Option<RecvError>,
    pub(super) closed: bool,
}

/// A message of this endpoint to itself.
pub(super) struct Local {
    pub(super) uuid: [u8; 16],
    pub(super) payload: Vec<u8>,
    pub(super) objects: Vec<Object>,
    pub(super) regions: Vec<MemoryRegion>,
}

impl Local {
    /// What it counts for, with a fixed part, so that empty messages are bounded, too.
    pub(super) fn cost(&self) -> usize {
        self.payload.len().saturating_add(64)
    }
}

impl Arrivals {
    /// Notes that a link of a sender came: neither it nor an earlier one is accepted again.
    fn note(&mut self, peer: u64, link: u64) {
        self.seen.insert(peer, link);
        if self.seen.len() > SEEN {
            // The endpoint that joined first is most likely the one that has left.
            self.seen.pop_first();
        }
    }

    /// Accepts no more links of a sender that does not keep to the protocol.
    pub(super) fn ban(&mut self, peer: u64) {
        self.note(peer, u64::MAX);
    }
}

impl Inbox {
    pub(super) fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another endpoint made a link. Called on the serving thread, which must not wait for a receiving one. After a change
    /// of the controller an introduction may come a second time; a sender numbers its links upwards. Gives the handles
    /// back when there is no memory to accept the link now.
    pub(crate) fn introduced(&self, from: u64, number: u64, handles: Received) -> Option<Received> {
        let seen = self.arrivals().seen.get(&from).copied();
        if seen.is_some_and(|seen| seen >= number) {
            return None;
        }
        let link = match Incoming::accept(from, handles, self.payload_max, &self.local) {
            Ok(link) => link,
            Err(Unaccepted { error, handles }) => {
                let what = match handles.is_empty() {
                    true => "is refused",
                    false => "has to wait",
                };
                log::warn!("a link from endpoint {from} {what}: {error}");
                return (!handles.is_empty()).then_some(handles);
            }
        };
        let mut arrivals = self.arrivals();
        let theirs = arrivals.links.iter().filter(|l| l.peer == from).count();
        if arrivals.closed || theirs >= LINKS_PER_PEER {
            link.side().close();
            return None;
        }
        arrivals.note(from, number);
        arrivals.links.push(link);
        drop(arrivals);
        self.arrive();
        None
    }

    fn arrive(&self) {
        self.arrived.store(true, Ordering::Release);
        self.local.ring();
    }

    /// A message of the endpoint to itself.
    pub(crate) fn push_local(&self, message: &Sending<'_>) -> Result<(), SendError> {
        let len = message.head.len() + message.tail.len();
        let copy = || -> io::Result<Local> {
            let mut payload = Vec::new();
            payload
                .try_reserve_exact(len)
                .map_err(|_| io::ErrorKind::OutOfMemory)?;
            payload.extend_from_slice(message.head);
            payload.extend_from_slice(message.tail);
            let objects = message.objects.iter().map(Object::clone);
            let regions = message.regions.iter().map(MemoryRegion::clone);
            Ok(Local {
                uuid: message.uuid,
                payload,
                objects: objects.collect::<io::Result<_>>()?,
                regions: regions.collect::<io::Result<_>>()?,
            })
        };
        let local = copy().map_err(io_error)?;
        let mut arrivals = self.arrivals();
        if arrivals.closed {
            return Ok(());
        }
        let cost = local.cost();
        if arrivals.local_bytes.saturating_add(cost) > self.local_max {
            return Err(SendError::SelfQueueFull {
                limit: self.local_max,
            });
        }
        arrivals.local_bytes += cost;
        arrivals.local.push_back(local);
        drop(arrivals);
        self.arrive();
        Ok(())
    }

    /// The membership has ended: when nothing is left to receive, that is the answer.
    pub(crate) fn end(&self, error: RecvError) {
        self.arrivals().ended = Some(error);
        self.arrive();
    }

    #[cold]
    pub(super) fn take_arrivals(&self, state: &mut State) {
        // Local messages are looked for between turns.
        state.turn = 0;
        let mut arrivals = self.arrivals();
        state.local.append(&mut arrivals.local);
        let mut shortage = None;
        let mut links = std::mem::take(&mut arrivals.links).into_iter();
        while let Some(link) = links.next() {
            let theirs = state.links.iter().flatten().filter(|l| l.peer == link.peer);
            if theirs.count() >= LINKS_PER_PEER {
                log::warn!("endpoint {} makes too many links", link.peer);
                link.side().close();
                continue;
            }
            let slot = match state.links.iter().position(Option::is_none) {
                Some(slot) => slot,
                None => {
                    state.links.push(None);
                    state.links.len() - 1
                }
            };
            let bell = self
                .set
                .add(link.bell(), slot as u64 * 2, Interest::Arrivals);
            let side = self
                .set
                .add(link.side(), slot as u64 * 2 + 1, Interest::Hangup);
            if let Err(e) = bell.and(side) {
                self.set.remove(link.bell());
                if sys::exhausted(&e).is_none() {
                    // A bell that cannot be watched, such as one that is nested too deeply.
                    log::warn!("the link from endpoint {} is dropped: {e}", link.peer);
                    link.side().close();
                    arrivals.ban(link.peer);
                    continue;
                }
                // Out of memory, or of what a user may watch: the link waits for the next call.
                arrivals.links.push(link);
                arrivals.links.extend(links);
                shortage = Some(Error::io("watching a link", e).into());
                break;
            }
            state.links[slot] = Some(link);
            state.active.push_back(slot);
        }
        // What `recv` says when it finds nothing. An end stays, and so does a shortage until it is over: with the flag up,
        // so that nobody sleeps. Under the lock: what comes later sets the flag again.
        state.verdict = arrivals.ended.clone().or(shortage);
        let undone = state.verdict.is_some();
        self.arrived.store(undone, Ordering::Release);
    }
}
