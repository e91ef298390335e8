//! The sending half.

use super::{
    Endpoint,
    core::Core,
    outbox::{Attempt, Outbox, SHORTAGE, Sending, Standing, io_error, sleep_on},
};
use crate::{
    Encoder, Message, MessageBox, SelectorMode, SendError, Stats, TrySendError,
    control::{directory::Reader, member::Phase},
    link::outgoing::{Origin, Refusal, Sleep},
    sys,
};
use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, MutexGuard},
    time::{Duration, Instant},
};

/// Most objects, and most regions, of one message.
const ATTACHMENTS: usize = 253;
/// After so long a blocked `send` says whom it waits for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The sending half of an endpoint. Clones share the endpoint, and its order of messages.
///
/// All calls may be made from any thread at the same time.
pub struct EndpointSender<T> {
    endpoint: Arc<Endpoint>,
    sends: PhantomData<fn(T)>,
}

impl<T> Clone for EndpointSender<T> {
    fn clone(&self) -> Self {
        Self {
            endpoint: self.endpoint.clone(),
            sends: PhantomData,
        }
    }
}

impl<T> fmt::Debug for EndpointSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointSender").finish_non_exhaustive()
    }
}

/// How long a send may wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    None,
    Until(Option<Instant>),
}

impl<T> EndpointSender<T> {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            sends: PhantomData,
        }
    }

    /// Leaves the bus in good order: parked messages and, if it is here, the controller's role are handed over. Afterwards
    /// both halves' calls fail with `Left`. Blocks at most for `timeout` (`None`: for ever).
    ///
    /// # Errors
    /// [`SendError::Timeout`] if nobody took over in time; the endpoint is off the bus all the same once it is dropped.
    pub fn leave(&self, timeout: Option<Duration>) -> Result<(), SendError> {
        self.endpoint.leave(timeout)
    }

    /// What this endpoint has done so far.
    pub fn stats(&self) -> Stats {
        self.endpoint.stats()
    }
}

impl<T: MessageBox> EndpointSender<T> {
    /// Sends a message, and waits for space as long as it takes. Of an error the message is dropped; use
    /// [`send_timeout`](Self::send_timeout) to get it back.
    ///
    /// `Ok` means that the message is in the links of its receivers, or parked, or that nobody matched a selector without
    /// `ttl`. Two endpoints that each wait here for space at the other, and receive on the same thread, wait for ever:
    /// use [`try_send`](Self::try_send) there.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&self, message: Message<T>) -> Result<(), SendError> {
        self.dispatch(message, Patience::Until(None))
            .map_err(SendError::from)
    }

    /// Sends a message if that is possible at once.
    ///
    /// # Errors
    /// [`SendError::Full`], [`SendError::Settling`] and what [`send`](Self::send) returns, with the message.
    pub fn try_send(&self, message: Message<T>) -> Result<(), TrySendError<T>> {
        self.dispatch(message, Patience::None)
    }

    /// Sends a message, and waits for space at most for `timeout` (`None`: for ever).
    ///
    /// # Errors
    /// [`SendError::Timeout`], [`SendError::ControllerStopped`] and what [`send`](Self::send) returns, with the message.
    pub fn send_timeout(
        &self,
        message: Message<T>,
        timeout: Option<Duration>,
    ) -> Result<(), TrySendError<T>> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        self.dispatch(message, Patience::Until(deadline))
    }

    #[inline]
    fn dispatch(&self, mut message: Message<T>, patience: Patience) -> Result<(), TrySendError<T>> {
        match self.send_now(&mut message, patience) {
            Ok(()) => Ok(()),
            Err(kind) => Err(TrySendError {
                kind,
                message: Box::new(message),
            }),
        }
    }

    #[inline]
    fn send_now(&self, message: &mut Message<T>, patience: Patience) -> Result<(), SendError> {
        let core = &*self.endpoint.core;
        if core.forked() {
            return Err(SendError::Forked);
        }
        message.selector.label_op.check()?;
        for count in [message.objects.len(), message.memory_regions.len()] {
            if count > ATTACHMENTS {
                return Err(SendError::TooManyAttachments { count });
            }
        }
        let Message {
            selector,
            bound,
            payload,
            objects,
            memory_regions,
        } = message;
        let mut encoder = Encoder::new();
        payload.encode(&mut encoder)?;
        if encoder.len() > core.options.max_payload {
            return Err(SendError::TooLarge {
                size: encoder.len(),
                limit: core.options.max_payload,
            });
        }
        let sending = Sending {
            uuid: payload.uuid(),
            head: encoder.head(),
            tail: encoder.tail(),
            objects,
            regions: memory_regions,
        };
        let parked = match selector.mode {
            SelectorMode::Unicast => unicast(core, selector, &sending, patience)?,
            SelectorMode::Multicast => multicast(core, selector, &sending, patience, bound)?,
        };
        if parked {
            let mut whole = Vec::with_capacity(encoder.len());
            whole.extend_from_slice(encoder.head());
            whole.extend_from_slice(encoder.tail());
            let uuid = payload.uuid();
            let (objects, regions) = (std::mem::take(objects), std::mem::take(memory_regions));
            core.outbox()
                .park(core, selector, uuid, whole, objects, regions);
        }
        Ok(())
    }
}

/// Sends to the first that matches. True: nobody matches, and it is to be parked.
#[inline]
fn unicast(
    core: &Core,
    selector: &crate::Selector,
    sending: &Sending<'_>,
    patience: Patience,
) -> Result<bool, SendError> {
    let deadline = if selector.ttl.is_zero() {
        None
    } else {
        Instant::now().checked_add(selector.ttl)
    };
    let mut waited = Waited::default();
    loop {
        let mut outbox = core.outbox();
        let standing = outbox.refresh(core)?;
        let route = outbox.route(&selector.label_op, SelectorMode::Unicast);
        let (target, origin) = (route.targets.first().copied(), route.origin.clone());
        let target = target.filter(|t| standing == Standing::Settled || outbox.link(*t).is_some());
        let Some(target) = target else {
            if standing == Standing::Settling {
                drop(outbox);
                settle(core, patience)?;
                continue;
            }
            if selector.ttl.is_zero() {
                outbox.stats.dropped += 1;
            }
            return Ok(!selector.ttl.is_zero());
        };
        let (mut outbox, result) = attempt(core, outbox, target, sending, Some(&origin), deadline);
        match result {
            Ok(()) => {
                waited.end(&mut outbox);
                return Ok(false);
            }
            Err(attempt) => wait(core, outbox, target, attempt, patience, &mut waited)?,
        }
    }
}

/// Sends to all that match. True: nobody matches, and it is to be parked.
fn multicast(
    core: &Core,
    selector: &crate::Selector,
    sending: &Sending<'_>,
    patience: Patience,
    bound: &mut Option<Box<[u64]>>,
) -> Result<bool, SendError> {
    let mut waited = Waited::default();
    let mut left: Vec<u64> = loop {
        let mut outbox = core.outbox();
        if outbox.refresh(core)? == Standing::Settling {
            drop(outbox);
            settle(core, patience)?;
            continue;
        }
        break match bound {
            Some(bound) => bound.to_vec(),
            None => {
                let route = outbox.route(&selector.label_op, SelectorMode::Multicast);
                route.targets.to_vec()
            }
        };
    };
    if left.is_empty() {
        if selector.ttl.is_zero() {
            core.outbox().stats.dropped += 1;
        }
        return Ok(!selector.ttl.is_zero() && bound.is_none());
    }
    loop {
        // Everybody who has space first.
        let mut blocked = None;
        let mut failed = None;
        let mut outbox = core.outbox();
        for target in std::mem::take(&mut left) {
            if failed.is_some() {
                left.push(target);
                continue;
            }
            if !outbox.is_member(target) && outbox.link(target).is_none() {
                continue;
            }
            let result;
            (outbox, result) = attempt(core, outbox, target, sending, None, None);
            match result {
                Ok(()) => {}
                Err(Attempt::Broken(reason)) => outbox.drop_link(core, target, reason),
                Err(Attempt::Error(error)) => {
                    failed = Some(error);
                    left.push(target);
                }
                Err(attempt) => {
                    blocked.get_or_insert((target, attempt));
                    left.push(target);
                }
            }
        }
        let result = match (failed, blocked) {
            (Some(error), _) => Err(error),
            (None, Some((target, attempt))) => {
                wait(core, outbox, target, attempt, patience, &mut waited)
            }
            (None, None) => {
                waited.end(&mut outbox);
                return Ok(false);
            }
        };
        if let Err(error) = result {
            *bound = Some(left.into());
            return Err(error);
        }
    }
}

/// Tries to put a message into the link to `target`; makes the link if there is none. A large payload is copied without
/// the lock, which is why the guard goes in and comes out.
#[inline]
fn attempt<'c>(
    core: &'c Core,
    mut outbox: MutexGuard<'c, Outbox>,
    target: u64,
    sending: &Sending<'_>,
    origin: Option<&Arc<Origin>>,
    deadline: Option<Instant>,
) -> (MutexGuard<'c, Outbox>, Result<(), Attempt>) {
    if outbox.must_queue(core, target) {
        return (outbox, Err(Attempt::Full));
    }
    let len = sending.head.len() + sending.tail.len();
    let Some(link) = outbox.link(target) else {
        return first_contact(core, outbox, target, sending, origin, deadline);
    };
    if link.out.fits_inline(len) {
        let result = if sending.objects.is_empty() && sending.regions.is_empty() {
            let written = link.out.write(&sending.parcel(&[]), origin, deadline);
            outbox.count(written, len)
        } else {
            outbox.put(core, target, sending, origin, deadline)
        };
        return (outbox, result);
    }
    let number = link.number;
    if let Err(attempt) = outbox.mark_regions(target, sending) {
        return (outbox, Err(attempt));
    }
    let Some(link) = outbox.link(target) else {
        return (outbox, Err(Attempt::NoLink));
    };
    let lease = match link.out.lease(len) {
        Ok(lease) => lease,
        Err(refusal) => {
            let result = outbox.count(Err(refusal), len);
            return (outbox, result);
        }
    };
    drop(outbox);
    lease.fill(sending.head, sending.tail);
    let handles = sending.handles();
    let mut outbox = core.outbox();
    let Some(link) = outbox.link(target).filter(|l| l.number == number) else {
        return (outbox, Err(Attempt::Broken("the link was lost")));
    };
    let written = match handles {
        Ok(handles) => {
            let handles = sending.borrowed(&handles);
            link.out
                .write_block(&sending.parcel(&handles), &lease, origin, deadline)
        }
        Err(e) => Err(Refusal::Io(e)),
    };
    if written.is_err() {
        link.out.abandon(&lease);
    }
    let result = outbox.count(written, len);
    (outbox, result)
}

#[cold]
fn first_contact<'c>(
    core: &'c Core,
    mut outbox: MutexGuard<'c, Outbox>,
    target: u64,
    sending: &Sending<'_>,
    origin: Option<&Arc<Origin>>,
    deadline: Option<Instant>,
) -> (MutexGuard<'c, Outbox>, Result<(), Attempt>) {
    if target == core.membership.status().id {
        let pushed = core.inbox.push_local(sending).map_err(Attempt::Error);
        return (outbox, pushed);
    }
    match outbox.make_link(core, target) {
        Ok(()) => attempt(core, outbox, target, sending, origin, deadline),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock || sys::is_hangup(&e) => {
            (outbox, Err(Attempt::NoLink))
        }
        Err(e) if sys::exhausted(&e) == Some(crate::Resource::HandlesInFlight) => {
            (outbox, Err(Attempt::Busy(e)))
        }
        Err(e) => (outbox, Err(Attempt::Error(io_error(e)))),
    }
}

/// What a send has waited so far.
#[derive(Default)]
struct Waited {
    since: Option<Instant>,
    complained: bool,
}

impl Waited {
    fn end(&self, outbox: &mut Outbox) {
        if let Some(since) = self.since {
            let waited = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            outbox.stats.blocked_ns = outbox.stats.blocked_ns.saturating_add(waited);
        }
    }
}

/// Waits until it may be worth another try.
#[cold]
fn wait<'c>(
    core: &'c Core,
    mut outbox: MutexGuard<'c, Outbox>,
    target: u64,
    attempt: Attempt,
    patience: Patience,
    waited: &mut Waited,
) -> Result<(), SendError> {
    match attempt {
        Attempt::Error(error) => return Err(error),
        Attempt::Broken(reason) => {
            outbox.drop_link(core, target, reason);
            return Ok(());
        }
        Attempt::Full | Attempt::Busy(_) | Attempt::NoLink => {}
    }
    let Patience::Until(deadline) = patience else {
        return Err(match attempt {
            Attempt::NoLink => SendError::Settling,
            Attempt::Busy(e) => io_error(e),
            _ => SendError::Full(target),
        });
    };
    let now = Instant::now();
    if waited.since.is_none() {
        outbox.stats.blocked += 1;
    }
    let since = *waited.since.get_or_insert(now);
    if deadline.is_some_and(|d| d <= now) {
        return Err(match (&attempt, core.membership.stopped_controller()) {
            (Attempt::NoLink, Some(pid)) => SendError::ControllerStopped { pid },
            _ => SendError::Timeout,
        });
    }
    if !waited.complained && now - since >= PATIENCE {
        waited.complained = true;
        log::warn!("send has waited for {PATIENCE:?} for space at endpoint {target}");
    }
    let complain = (!waited.complained).then(|| since + PATIENCE);
    let until = deadline.into_iter().chain(complain).min();
    match attempt {
        Attempt::NoLink => {
            drop(outbox);
            let before = core.membership.status().news;
            core.orders.introduce();
            let deadline = Some(until.unwrap_or(now + PATIENCE));
            core.membership
                .wait(deadline, |status| (status.news != before).then_some(()));
            Ok(())
        }
        Attempt::Busy(_) => {
            drop(outbox);
            let left = until.map_or(SHORTAGE, |u| u.saturating_duration_since(now));
            std::thread::sleep(left.min(SHORTAGE));
            Ok(())
        }
        _ => wait_for_space(core, outbox, target, until),
    }
}

/// Waits until the link to `target` has more room, or breaks.
fn wait_for_space<'c>(
    core: &'c Core,
    mut outbox: MutexGuard<'c, Outbox>,
    target: u64,
    until: Option<Instant>,
) -> Result<(), SendError> {
    let spin_until = Instant::now() + core.options.spin;
    let Some(link) = outbox.link(target) else {
        // What waits for a first contact is sent by the serving thread.
        drop(outbox);
        std::thread::sleep(SHORTAGE);
        return Ok(());
    };
    let gate = link.gate.clone();
    drop(outbox);
    // A receiver that is awake makes room soon.
    if core.inbox.may_spin() {
        let mut rounds = 0u32;
        while Instant::now() < spin_until {
            for _ in 0..64 {
                std::hint::spin_loop();
            }
            match core.outbox().link(target) {
                Some(link) if !link.out.has_moved() => {}
                _ => return Ok(()),
            }
            rounds += 1;
            if rounds % 16 == 0 {
                sys::yield_now();
            }
        }
    }
    // One thread sleeps for the link; others wait until it has looked.
    let Some(_leader) = gate.lead(until) else {
        return Ok(());
    };
    let (side, sleep) = {
        let mut outbox = core.outbox();
        let Some(link) = outbox.link(target) else {
            return Ok(());
        };
        let sleep = match link.out.sleep_for_space() {
            Ok(sleep) => sleep,
            Err(_) => return Ok(()),
        };
        (link.out.side().clone(), sleep)
    };
    let left = until.map(|u| u.saturating_duration_since(Instant::now()));
    let (timeout, sound) = match sleep {
        Sleep::NotNow => return Ok(()),
        Sleep::Sound => (left, true),
        Sleep::Short => (Some(left.map_or(SHORTAGE, |l| l.min(SHORTAGE))), false),
    };
    let (_, hangup) = sleep_on(&side, timeout).map_err(io_error)?;
    let mut outbox = core.outbox();
    if hangup && sound {
        outbox.drop_link(core, target, "the receiver is gone");
    } else if let Some(link) = outbox.link(target) {
        link.out.awake();
    }
    Ok(())
}

/// Waits until it is settled who is on the bus.
#[cold]
fn settle(core: &Core, patience: Patience) -> Result<(), SendError> {
    let Patience::Until(deadline) = patience else {
        return Err(SendError::Settling);
    };
    let settled = core
        .membership
        .wait(deadline, |status| match &status.phase {
            Phase::Failed(error) => Some(Err(error.clone().into())),
            Phase::Left => Some(Err(SendError::Left)),
            Phase::Seeking | Phase::Joined => {
                let directory = status.directory.as_ref()?;
                let mut reader = Reader::new(directory.clone());
                let _ = reader.catch_up();
                (directory.look().valid && reader.settled).then_some(Ok(()))
            }
        });
    settled.unwrap_or_else(|| {
        Err(match core.membership.stopped_controller() {
            Some(pid) => SendError::ControllerStopped { pid },
            None => SendError::Timeout,
        })
    })
}
