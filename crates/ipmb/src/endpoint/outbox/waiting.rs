//! Messages that wait: for somebody who matches, or for space, after their receiver died.

use super::{Attempt, Outbox, Sending, Standing, links::Link};
use crate::{
    LabelOp, MemoryRegion, Object, SelectorMode,
    control::membership::Parked,
    endpoint::{core::Core, patience::SHORTAGE},
    link::{
        outgoing::{Lack, Sleep},
        runs::Origin,
    },
    sys::{self, Handle},
};
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// Messages, and bytes of payload, that wait here when no more are taken over from leavers.
const ADOPTED_MAX: usize = 4096;
const ADOPTED_BYTES_MAX: usize = 256 << 20;
/// Handles that wait here then.
const ADOPTED_HANDLES_MAX: usize = 256;

/// A message that waits: parked, or left over from a dead receiver.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) uuid: [u8; 16],
    pub(super) payload: Vec<u8>,
    pub(super) origin: Arc<Origin>,
    pub(super) multicast: bool,
    /// Until when it may wait for somebody who matches. `None`: not at all.
    pub(super) deadline: Option<Instant>,
    pub(super) objects: Vec<Object>,
    pub(super) regions: Vec<MemoryRegion>,
    /// Its receiver died before it took it.
    pub(super) reroute: bool,
    /// Somebody matches and has no space now; its time is over only if that one goes.
    pub(super) found: bool,
    /// Whose space that is, of a unicast.
    pub(super) waits_for: Option<u64>,
    /// Of a multicast of which some have got it: who has not.
    pub(super) bound: Option<Vec<u64>>,
}

impl Outbox {
    /// Tries to send what waits.
    pub(crate) fn pump(&mut self, core: &Core) {
        if self.waiting.is_empty() && !self.watching {
            return;
        }
        if let Ok(Standing::Settled) = self.refresh(core) {
            self.pump_now(core);
        }
    }

    pub(super) fn pump_now(&mut self, core: &Core) {
        let now = Instant::now();
        // A message must not pass an earlier one to the same receiver.
        let mut full: HashSet<u64> = HashSet::new();
        for mut message in std::mem::take(&mut self.waiting) {
            if !message.found && message.deadline.is_some_and(|d| d <= now) {
                self.stats.expired += 1;
                continue;
            }
            let targets = self.targets_of(&message);
            if targets.is_empty() {
                message.found = false;
                message.waits_for = None;
                match message.deadline {
                    _ if message.bound.is_some() => {}
                    Some(deadline) if deadline > now => self.waiting.push_back(message),
                    Some(_) => self.stats.expired += 1,
                    None => self.stats.lost += 1,
                }
                continue;
            }
            let mut left = Vec::new();
            for target in targets.iter() {
                if full.contains(target) || !self.pass(core, *target, &mut message) {
                    full.insert(*target);
                    left.push(*target);
                }
            }
            if !left.is_empty() {
                message.found = true;
                message.waits_for = left.first().filter(|_| !message.multicast).copied();
                message.bound = message.multicast.then_some(left);
                self.waiting.push_back(message);
            } else if message.reroute {
                self.stats.rerouted += 1;
            }
        }
        self.held = self.waiting.iter().filter(|w| w.found).count();
        self.watch_if_needed(core);
    }

    /// Who gets a waiting message: of a multicast that was begun, those that had no space and are still here.
    fn targets_of(&mut self, message: &Waiting) -> Arc<[u64]> {
        let mode = match message.multicast {
            true => SelectorMode::Multicast,
            false => SelectorMode::Unicast,
        };
        match &message.bound {
            Some(bound) => {
                let here = bound.iter().filter(|id| self.is_member(**id));
                here.copied().collect()
            }
            None => {
                let origin = message.origin.clone();
                self.route(&origin.label_op, mode).targets.clone()
            }
        }
    }

    /// Asks to be told of joins while messages wait, and of deaths while links are not accepted.
    pub(super) fn watch_if_needed(&mut self, core: &Core) {
        let offered = |l: &mut Link| l.out.offer().is_some();
        let watching = !self.waiting.is_empty() || self.links.iter_mut().flatten().any(offered);
        if watching != self.watching {
            self.watching = watching;
            core.orders.watch_directory(watching);
        }
        let expiry = self
            .waiting
            .iter()
            .filter(|w| !w.found)
            .filter_map(|w| w.deadline)
            .chain(self.recheck)
            .chain(self.idle_look)
            .min();
        if expiry != self.expiry {
            self.expiry = expiry;
            core.orders.expire_at(expiry);
        }
    }

    /// The time for which the serving thread was asked has come: lets go of what waited too long, looks at a
    /// shortage, and ends links that are not used.
    pub(crate) fn expire(&mut self, core: &Core) {
        self.expiry = None;
        let now = Instant::now();
        if self.recheck.is_some_and(|at| at <= now) {
            self.recheck = None;
            self.pump(core);
        }
        if self.idle_look.is_some_and(|at| at <= now) {
            self.end_idle_links(core);
        }
        let before = self.waiting.len();
        self.waiting
            .retain(|w| w.found || w.deadline.is_none_or(|d| d > now));
        self.stats.expired += (before - self.waiting.len()) as u64;
        self.watch_if_needed(core);
    }

    /// Sends one waiting message to a receiver. False: not now.
    fn pass(&mut self, core: &Core, target: u64, message: &mut Waiting) -> bool {
        // A receiver that keeps saying that there is room does not keep this thread.
        for _ in 0..16 {
            let parcel = Sending {
                uuid: message.uuid,
                head: &message.payload,
                tail: &[],
                objects: &message.objects,
                regions: &message.regions,
                gives: !message.multicast,
                may: None,
            };
            let origin = message.origin.clone();
            match self.put(core, target, &parcel, Some(&origin), message.deadline) {
                Ok(()) => return true,
                Err(Attempt::Full(lack)) => {
                    if !self.space_was_made(core, target, &lack) {
                        return false;
                    }
                }
                Err(Attempt::NoLink) => match self.make_link(core, target) {
                    Ok(()) => {}
                    Err(e) if sys::exhausted(&e).is_some() => return self.try_later(),
                    Err(_) => {
                        core.orders.introduce();
                        return false;
                    }
                },
                // Its hang-up tells the serving thread, which ends the link.
                Err(Attempt::Broken(_)) => return false,
                Err(Attempt::Error(error)) if !error.is_shortage() => {
                    log::warn!("a message that waited for endpoint {target} is lost: {error}");
                    self.stats.lost += 1;
                    return true;
                }
                Err(_) => return self.try_later(),
            }
        }
        self.try_later()
    }

    /// After a link was found full. True: there is more room now. False: its end will be reported.
    fn space_was_made(&mut self, core: &Core, target: u64, lack: &Lack) -> bool {
        match self.listen(core, target, lack) {
            Sleep::NotNow => true,
            Sleep::Sound => false,
            Sleep::Short => self.try_later(),
        }
    }

    /// Looks again after a while at a shortage whose end nobody reports.
    fn try_later(&mut self) -> bool {
        self.recheck = Some(Instant::now() + SHORTAGE);
        false
    }

    /// Why a message to `target` has to wait, if it would pass one that was sent earlier.
    #[inline]
    pub(crate) fn must_queue(&mut self, core: &Core, target: u64) -> Option<Attempt> {
        match self.held > 0 && !crate::fault::on(12) || self.holding {
            true => self.must_queue_slowly(core, target),
            false => None,
        }
    }

    #[cold]
    fn must_queue_slowly(&mut self, core: &Core, target: u64) -> Option<Attempt> {
        if self.holding && self.is_held(core, Some(target)) {
            return Some(Attempt::Held);
        }
        // Before they are tried: the ring for what comes later may be taken out of the channel by who waits with this lack.
        let lack = self.link(target).map(|link| link.out.lack());
        self.pump(core);
        let waiting = std::mem::take(&mut self.waiting);
        let mut found = waiting.iter().filter(|w| w.found);
        let queue = found.any(|w| self.targets_of(w).contains(&target));
        self.waiting = waiting;
        // Others wait before it, and it waits as they do; without a link, until the serving thread has sent them.
        queue.then(|| lack.map_or(Attempt::Held, Attempt::Full))
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
        if crate::fault::on(10) {
            return;
        }
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
            found: false,
            waits_for: None,
            bound: None,
        });
        // Who starts to watch is answered with a look, so that nobody who joined meanwhile is missed. Who watches already
        // may have had that look before this message came.
        if self.watching && self.has_receiver(core, selector) {
            self.pump(core);
        }
        self.watch_if_needed(core);
    }

    /// Whether somebody matches now.
    fn has_receiver(&mut self, core: &Core, selector: &crate::Selector) -> bool {
        matches!(self.refresh(core), Ok(Standing::Settled))
            && !self
                .route(&selector.label_op, selector.mode)
                .targets
                .is_empty()
    }

    /// Takes over what a leaver has parked.
    pub(crate) fn adopt(&mut self, core: &Core, parked: Parked) {
        let Ok(label_op) = LabelOp::from_bytes(&parked.label_op) else {
            log::warn!("a parked message with a malformed selector was refused");
            return;
        };
        let len = |w: &Waiting| w.origin.label_op.as_bytes().len() + w.payload.len();
        let bytes: usize = self.waiting.iter().map(len).sum();
        let count = |w: &Waiting| w.objects.len() + w.regions.len();
        let handles: usize = self.waiting.iter().map(count).sum();
        if self.waiting.len() >= ADOPTED_MAX
            || bytes + parked.len() > ADOPTED_BYTES_MAX
            || handles + parked.objects.len() + parked.regions.len() > ADOPTED_HANDLES_MAX
        {
            log::warn!("a parked message is lost: too much was left behind here");
            self.stats.lost += 1;
            return;
        }
        let regions = parked
            .regions
            .map(|region| MemoryRegion::from_handle(region, u64::MAX));
        let regions = match regions.collect::<Result<_, _>>() {
            Ok(regions) => regions,
            Err(e) => {
                log::warn!("a parked message is lost: {e}");
                self.stats.lost += 1;
                return;
            }
        };
        let selector = crate::Selector {
            label_op,
            mode: if parked.multicast {
                SelectorMode::Multicast
            } else {
                SelectorMode::Unicast
            },
            ttl: parked.deadline.saturating_duration_since(Instant::now()),
        };
        let objects = parked.objects.map(Object::from).collect();
        self.park(
            core,
            &selector,
            parked.uuid,
            parked.payload,
            objects,
            regions,
        );
        if self.has_receiver(core, &selector) {
            self.pump(core);
        }
    }

    /// No more is sent. Returns what waits and is still in time.
    pub(crate) fn close(&mut self) -> Vec<Parked> {
        self.closed = true;
        let now = Instant::now();
        let mut parked = Vec::new();
        self.held = 0;
        for message in std::mem::take(&mut self.waiting) {
            let deadline = match message.deadline {
                // Of a multicast that was begun another sender would not know who has it.
                Some(deadline) if deadline > now && message.bound.is_none() => deadline,
                Some(_) if !message.found => {
                    self.stats.expired += 1;
                    continue;
                }
                _ => {
                    self.stats.lost += 1;
                    continue;
                }
            };
            let regions = message.regions.into_iter();
            let regions: Result<Vec<Handle>, _> = regions.map(MemoryRegion::into_handle).collect();
            let regions = match regions {
                Ok(regions) => regions,
                Err(e) => {
                    log::warn!("a parked message is lost: {e}");
                    self.stats.lost += 1;
                    continue;
                }
            };
            let objects: Vec<Handle> = message.objects.into_iter().map(Handle::from).collect();
            parked.push(Parked {
                uuid: message.uuid,
                label_op: message.origin.label_op.as_bytes().to_vec(),
                multicast: message.multicast,
                deadline,
                payload: message.payload,
                objects: objects.into(),
                regions: regions.into(),
            });
        }
        parked
    }
}
