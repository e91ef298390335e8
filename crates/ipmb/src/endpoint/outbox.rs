//! What an endpoint sends with: routes, links, and messages that wait.

use super::core::Core;
use crate::{
    LabelOp, MemoryRegion, Object, SelectorMode, SendError, Stats,
    control::{
        directory::{Look, Reader},
        member::{Parked, Phase},
        protocol::{self, ToController},
    },
    link::outgoing::{Origin, Outgoing, Parcel, Refusal},
    sys::{self, AsHandle, BorrowedHandle, Channel, Handle},
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Routes that are kept until the directory changes.
const ROUTES: usize = 32;
/// Handles that a leaver hands over, see `Parked`.
const PARKED_MAX: usize = 4096;

/// Lets one thread at a time sleep for something, while others wait for what it finds.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    led: Mutex<bool>,
    changed: Condvar,
}

/// The thread that sleeps; the others look for themselves when it is done.
pub(crate) struct Leader<'g>(&'g Gate);

impl Gate {
    /// Becomes the leader, or returns `None` after another one is done or the time is over.
    pub(crate) fn lead(&self, until: Option<Instant>) -> Option<Leader<'_>> {
        let mut led = self.led.lock().unwrap_or_else(PoisonError::into_inner);
        if !*led {
            *led = true;
            return Some(Leader(self));
        }
        let _done = match until {
            None => self
                .changed
                .wait(led)
                .unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.changed
                    .wait_timeout(led, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        None
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        *self.0.led.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.changed.notify_all();
    }
}

/// Where messages of one selector go.
#[derive(Debug)]
pub(crate) struct Route {
    mode: SelectorMode,
    pub(crate) origin: Arc<Origin>,
    pub(crate) targets: Arc<[u64]>,
}

/// A link and its place in the books.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) out: Outgoing,
    pub(crate) peer: u64,
    pub(crate) number: u64,
    /// Who sleeps for space in it.
    pub(crate) gate: Arc<Gate>,
    /// The generation of the controller that has the introduction.
    introduced: bool,
}

/// A message that waits: parked, or left over from a dead receiver.
#[derive(Debug)]
struct Waiting {
    uuid: [u8; 16],
    payload: Vec<u8>,
    origin: Arc<Origin>,
    multicast: bool,
    /// Until when it may wait for somebody who matches. `None`: not at all.
    deadline: Option<Instant>,
    objects: Vec<Object>,
    regions: Vec<MemoryRegion>,
    reroute: bool,
}

/// Whether the directory can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Settled,
    Settling,
}

pub(crate) struct Outbox {
    reader: Option<Reader>,
    look: Look,
    routes: Vec<Route>,
    links: Vec<Option<Link>>,
    slots: HashMap<u64, usize>,
    next_number: u64,
    waiting: VecDeque<Waiting>,
    /// Peers whose link broke; a message to them would be lost until the directory says so, too.
    gone: HashSet<u64>,
    watching: bool,
    /// When the serving thread calls [`Outbox::expire`].
    expiry: Option<Instant>,
    closed: bool,
    pub(crate) stats: Stats,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            reader: None,
            look: Look {
                length: 0,
                valid: false,
            },
            routes: Vec::new(),
            links: Vec::new(),
            slots: HashMap::new(),
            next_number: 1,
            waiting: VecDeque::new(),
            gone: HashSet::new(),
            watching: false,
            expiry: None,
            closed: false,
            stats: Stats::default(),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            links_out: self.slots.len() as u64,
            ..self.stats
        }
    }

    /// Catches up with the directory. The hot path: two loads that have not changed.
    #[inline]
    pub(crate) fn refresh(&mut self, core: &Core) -> Result<Standing, SendError> {
        if let Some(reader) = &self.reader {
            let look = reader.directory().look();
            if look == self.look && look.valid && !self.closed {
                return Ok(Standing::Settled);
            }
        }
        self.refresh_slowly(core)
    }

    #[cold]
    fn refresh_slowly(&mut self, core: &Core) -> Result<Standing, SendError> {
        if self.closed {
            return Err(SendError::Left);
        }
        let directory = {
            let status = core.membership.status();
            match &status.phase {
                Phase::Failed(error) => return Err(error.clone().into()),
                Phase::Left => return Err(SendError::Left),
                Phase::Seeking | Phase::Joined => {}
            }
            status.directory.clone()
        };
        let Some(directory) = directory else {
            return Ok(Standing::Settling);
        };
        let same = |r: &Reader| Arc::ptr_eq(r.directory(), &directory);
        if !self.reader.as_ref().is_some_and(same) {
            if !directory.look().valid {
                return Ok(Standing::Settling);
            }
            // The old reader stays until the new directory is settled: routes that have a link go on by it.
            let mut reader = Reader::new(directory.clone());
            if let Err(e) = reader.catch_up() {
                log::warn!("{e}");
            }
            if !reader.settled {
                return Ok(Standing::Settling);
            }
            // What the last controller did not pass on is introduced again; accepting twice does no harm.
            for link in self.links.iter_mut().flatten() {
                link.introduced &= link.out.offer().is_none();
            }
            if self.links.iter().flatten().any(|l| !l.introduced) {
                core.orders.introduce();
            }
            self.reader = Some(reader);
            self.look.valid = false;
        }
        let Some(reader) = &mut self.reader else {
            return Ok(Standing::Settling);
        };
        let look = reader.directory().look();
        if !look.valid {
            return Ok(Standing::Settling);
        }
        if let Err(e) = reader.catch_up() {
            log::warn!("{e}");
        }
        self.look = Look {
            length: reader.at(),
            valid: look.valid,
        };
        self.routes.clear();
        let members = &reader.members;
        self.gone.retain(|id| members.contains_key(id));
        // Of a receiver that died before it accepted the link no hang-up tells: its end is still here.
        let dead: Vec<u64> = self
            .links
            .iter_mut()
            .flatten()
            .filter_map(|l| {
                (l.out.offer().is_some() && !members.contains_key(&l.peer)).then_some(l.peer)
            })
            .collect();
        for peer in dead {
            self.drop_link(core, peer, "the receiver is gone");
        }
        if !self.waiting.is_empty() {
            self.pump_now(core);
        }
        Ok(Standing::Settled)
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
            SelectorMode::Unicast => matching.take(1).map(|(id, _)| *id).collect(),
            SelectorMode::Multicast => matching.map(|(id, _)| *id).collect(),
        };
        self.routes.truncate(ROUTES - 1);
        let route = Route {
            mode,
            origin: Arc::new(Origin {
                label_op: label_op.clone(),
            }),
            targets,
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
        let out = Outgoing::new(core.options.link_capacity, start)?;
        let number = self.next_number;
        self.next_number += 1;
        core.orders.watch(number, out.side().clone());
        let mut link = Link {
            out,
            peer,
            number,
            gate: Arc::default(),
            introduced: false,
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
        self.watch_if_needed(core);
        introduced
    }

    /// Sends the introductions that are due to the controller; false if it has no room for all.
    pub(crate) fn introduce_all(&mut self, channel: &Channel) -> bool {
        self.links
            .iter_mut()
            .flatten()
            .all(|link| introduce(link, channel).is_ok())
    }

    /// The receiver of a link is dead, or wants no more: what it had not taken goes elsewhere.
    pub(crate) fn peer_is_gone(&mut self, core: &Core, number: u64) {
        let peer = self.links.iter().flatten().find(|l| l.number == number);
        if let Some(peer) = peer.map(|l| l.peer) {
            self.drop_link(core, peer, "the receiver is gone");
        }
    }

    pub(crate) fn drop_link(&mut self, core: &Core, peer: u64, reason: &'static str) {
        let Some(slot) = self.slots.remove(&peer) else {
            return;
        };
        let Some(mut link) = self.links.get_mut(slot).and_then(Option::take) else {
            return;
        };
        log::debug!("the link to endpoint {peer} ends: {reason}");
        link.out.break_off(reason);
        core.orders.unwatch(link.number);
        self.gone.insert(peer);
        self.routes.clear();
        let (untaken, lost) = link.out.untaken();
        self.stats.lost += lost;
        if lost > 0 {
            log::warn!("{lost} messages with handles are lost with endpoint {peer}");
        }
        // Before anything that is sent later, but after what waits already: that was sent earlier.
        for message in untaken {
            self.waiting.push_back(Waiting {
                uuid: message.uuid,
                payload: message.payload,
                origin: message.origin,
                multicast: false,
                deadline: message.deadline,
                objects: Vec::new(),
                regions: Vec::new(),
                reroute: true,
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
        }
        self.pump(core);
    }

    /// Tries to send what waits.
    pub(crate) fn pump(&mut self, core: &Core) {
        if self.waiting.is_empty() && !self.watching {
            return;
        }
        if let Ok(Standing::Settled) = self.refresh(core) {
            self.pump_now(core);
        }
    }

    fn pump_now(&mut self, core: &Core) {
        let now = Instant::now();
        // A message must not pass an earlier one to the same receiver.
        let mut full: HashSet<u64> = HashSet::new();
        for mut message in std::mem::take(&mut self.waiting) {
            if !message.reroute && message.deadline.is_some_and(|d| d <= now) {
                self.stats.expired += 1;
                continue;
            }
            let mode = if message.multicast {
                SelectorMode::Multicast
            } else {
                SelectorMode::Unicast
            };
            let origin = message.origin.clone();
            let targets = self.route(&origin.label_op, mode).targets.clone();
            if targets.is_empty() {
                match message.deadline {
                    Some(deadline) if deadline > now => self.waiting.push_back(message),
                    Some(_) => self.stats.expired += 1,
                    None => self.stats.lost += 1,
                }
                continue;
            }
            let mut kept = false;
            for target in targets.iter() {
                if full.contains(target) || !self.pass(core, *target, &mut message) {
                    full.insert(*target);
                    kept = !message.multicast;
                }
            }
            if kept {
                self.waiting.push_back(message);
            } else if message.reroute {
                self.stats.rerouted += 1;
            }
        }
        self.watch_if_needed(core);
    }

    /// Asks to be told of joins while messages wait, and of deaths while links are not accepted.
    fn watch_if_needed(&mut self, core: &Core) {
        let offered = |l: &mut Link| l.out.offer().is_some();
        let watching = !self.waiting.is_empty() || self.links.iter_mut().flatten().any(offered);
        if watching != self.watching {
            self.watching = watching;
            core.orders.watch_directory(watching);
        }
        let expiry = self.waiting.iter().filter_map(|w| w.deadline).min();
        if expiry != self.expiry {
            self.expiry = expiry;
            core.orders.expire_at(expiry);
        }
    }

    /// Lets go of what waited too long.
    pub(crate) fn expire(&mut self, core: &Core) {
        self.expiry = None;
        let now = Instant::now();
        let before = self.waiting.len();
        self.waiting.retain(|w| w.deadline.is_none_or(|d| d > now));
        self.stats.expired += (before - self.waiting.len()) as u64;
        self.watch_if_needed(core);
    }

    /// Sends one waiting message to a receiver. False: not now.
    fn pass(&mut self, core: &Core, target: u64, message: &mut Waiting) -> bool {
        let parcel = Sending {
            uuid: message.uuid,
            head: &message.payload,
            tail: &[],
            objects: &message.objects,
            regions: &message.regions,
        };
        let origin = message.origin.clone();
        match self.put(core, target, &parcel, Some(&origin), message.deadline) {
            Ok(()) => true,
            Err(Attempt::NoLink) => match self.make_link(core, target) {
                Ok(()) => self.pass(core, target, message),
                Err(_) => {
                    core.orders.introduce();
                    false
                }
            },
            Err(_) => {
                // Nobody sleeps for this link: the serving thread listens for room in it.
                let number = self.link(target).map(|link| {
                    let _ = link.out.sleep_for_space();
                    link.number
                });
                if let Some(number) = number {
                    core.orders.listen(number, true);
                }
                false
            }
        }
    }

    /// Puts a message into the link to `target`, large ones under the lock. `Attempt::Large` is for those who can copy
    /// without it.
    pub(crate) fn put(
        &mut self,
        core: &Core,
        target: u64,
        message: &Sending<'_>,
        origin: Option<&Arc<Origin>>,
        deadline: Option<Instant>,
    ) -> Result<(), Attempt> {
        let len = message.head.len() + message.tail.len();
        if target == core.membership.status().id {
            return core.inbox.push_local(message).map_err(Attempt::Error);
        }
        self.mark_regions(target, message)?;
        let link = self.link(target).ok_or(Attempt::NoLink)?;
        let handles = message.handles().map_err(|e| Attempt::Error(io_error(e)))?;
        let handles: Vec<BorrowedHandle<'_>> = message.borrowed(&handles);
        let parcel = message.parcel(&handles);
        let written = if link.out.fits_inline(len) {
            link.out.write(&parcel, origin, deadline)
        } else {
            match link.out.lease(len) {
                Ok(lease) => {
                    lease.fill(message.head, message.tail);
                    let written = link.out.write_block(&parcel, &lease, origin, deadline);
                    if written.is_err() {
                        link.out.abandon(&lease);
                    }
                    written
                }
                Err(refusal) => Err(refusal),
            }
        };
        self.count(written, len)
    }

    /// A region that goes to another user is never used again by a registry.
    pub(crate) fn mark_regions(&self, target: u64, message: &Sending<'_>) -> Result<(), Attempt> {
        let members = self.reader.as_ref().map(|r| &r.members);
        let uid = members.and_then(|m| m.get(&target)).map(|m| m.listed.uid);
        if uid == Some(sys::uid()) {
            return Ok(());
        }
        for region in message.regions {
            match region.mark_foreign() {
                Err(e) if e.kind() != io::ErrorKind::PermissionDenied => {
                    return Err(Attempt::Error(io_error(e)));
                }
                // Not of its owner's user: then it was marked when it came here.
                _ => {}
            }
        }
        Ok(())
    }

    /// Enters a success into the statistics, and says what a refusal means.
    #[inline]
    pub(crate) fn count(
        &mut self,
        written: Result<(), Refusal>,
        len: usize,
    ) -> Result<(), Attempt> {
        match written {
            Ok(()) => {
                self.stats.sent += 1;
                self.stats.sent_bytes += len as u64;
                Ok(())
            }
            Err(Refusal::Full) => Err(Attempt::Full),
            Err(Refusal::Busy(e)) => Err(Attempt::Busy(e)),
            Err(Refusal::Io(e)) => Err(Attempt::Error(io_error(e))),
            Err(Refusal::Broken(reason)) => Err(Attempt::Broken(reason)),
        }
    }

    /// Whether a message to `target` would pass one that waits for it.
    #[inline]
    pub(crate) fn must_queue(&mut self, core: &Core, target: u64) -> bool {
        !self.waiting.is_empty() && self.must_queue_slowly(core, target)
    }

    #[cold]
    fn must_queue_slowly(&mut self, core: &Core, target: u64) -> bool {
        self.pump(core);
        let origins: Vec<_> = self.waiting.iter().map(|w| w.origin.clone()).collect();
        origins.iter().any(|origin| {
            self.route(&origin.label_op, SelectorMode::Unicast)
                .targets
                .contains(&target)
        })
    }

    /// Keeps a message until somebody matches, or its time is over.
    pub(crate) fn park(
        &mut self,
        core: &Core,
        selector: &crate::Selector,
        uuid: [u8; 16],
        payload: Vec<u8>,
        objects: Vec<Object>,
        regions: Vec<MemoryRegion>,
    ) {
        let deadline = Instant::now().checked_add(selector.ttl);
        self.stats.parked += 1;
        self.waiting.push_back(Waiting {
            uuid,
            payload,
            origin: Arc::new(Origin {
                label_op: selector.label_op.clone(),
            }),
            multicast: selector.mode == SelectorMode::Multicast,
            deadline: deadline.or_else(|| Instant::now().checked_add(Duration::from_secs(1 << 30))),
            objects,
            regions,
            reroute: false,
        });
        // The controller answers with a look, so that nobody who joined meanwhile is missed.
        if self.watching {
            self.pump(core);
        }
        self.watch_if_needed(core);
    }

    /// Takes over what a leaver has parked.
    pub(crate) fn adopt(&mut self, core: &Core, parked: Parked) {
        let Ok(label_op) = LabelOp::from_bytes(&parked.label_op) else {
            log::warn!("a parked message with a malformed selector was refused");
            return;
        };
        if self.waiting.len() >= PARKED_MAX {
            self.stats.lost += 1;
            return;
        }
        let regions = parked
            .regions
            .into_iter()
            .filter_map(|r| MemoryRegion::from_fd(r, u64::MAX).ok())
            .collect();
        let selector = crate::Selector {
            label_op,
            mode: if parked.multicast {
                SelectorMode::Multicast
            } else {
                SelectorMode::Unicast
            },
            ttl: parked.remaining,
        };
        let objects = parked.objects.into_iter().map(Object::from).collect();
        self.park(
            core,
            &selector,
            parked.uuid,
            parked.payload,
            objects,
            regions,
        );
        self.pump(core);
    }

    /// No more is sent. Returns what waits and is still in time.
    pub(crate) fn close(&mut self) -> Vec<Parked> {
        self.closed = true;
        let now = Instant::now();
        let mut parked = Vec::new();
        for message in std::mem::take(&mut self.waiting) {
            let Some(deadline) = message.deadline.filter(|d| *d > now) else {
                continue;
            };
            let regions: io::Result<Vec<Handle>> = message
                .regions
                .into_iter()
                .map(MemoryRegion::into_fd)
                .collect();
            let Ok(regions) = regions else { continue };
            parked.push(Parked {
                uuid: message.uuid,
                label_op: message.origin.label_op.as_bytes().to_vec(),
                multicast: message.multicast,
                remaining: deadline - now,
                payload: message.payload,
                objects: message.objects.into_iter().map(Handle::from).collect(),
                regions,
            });
        }
        parked
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

pub(crate) fn io_error(error: io::Error) -> SendError {
    crate::Error::io("sending a message", error).into()
}

/// A message as it is sent.
pub(crate) struct Sending<'a> {
    pub uuid: [u8; 16],
    pub head: &'a [u8],
    pub tail: &'a [u8],
    pub objects: &'a [Object],
    pub regions: &'a [MemoryRegion],
}

impl<'a> Sending<'a> {
    /// A handle of its own for each region: they are counted.
    #[inline]
    pub(crate) fn handles(&self) -> io::Result<Vec<Handle>> {
        self.regions
            .iter()
            .map(MemoryRegion::try_clone_fd)
            .collect()
    }

    #[inline]
    pub(crate) fn borrowed<'b>(&'b self, regions: &'b [Handle]) -> Vec<BorrowedHandle<'b>> {
        if self.objects.is_empty() && regions.is_empty() {
            return Vec::new();
        }
        let objects = self.objects.iter().map(AsHandle::as_fd);
        objects.chain(regions.iter().map(Handle::as_fd)).collect()
    }

    #[inline]
    pub(crate) fn parcel<'b>(&'b self, handles: &'b [BorrowedHandle<'b>]) -> Parcel<'b> {
        Parcel {
            uuid: &self.uuid,
            head: self.head,
            tail: self.tail,
            objects: self.objects.len() as u8,
            regions: self.regions.len() as u8,
            handles,
        }
    }
}

/// Why a message did not go into a link.
#[derive(Debug)]
pub(crate) enum Attempt {
    Full,
    /// A shortage whose end nobody reports.
    Busy(io::Error),
    /// There is no link yet.
    NoLink,
    Broken(&'static str),
    Error(SendError),
}

/// How long to wait before a shortage whose end nobody reports is looked at again.
pub(crate) const SHORTAGE: Duration = Duration::from_millis(2);

/// The side channel of a link to sleep on.
pub(crate) fn sleep_on(side: &Arc<Channel>, timeout: Option<Duration>) -> io::Result<(bool, bool)> {
    sys::wait_for(&**side, timeout)
}
