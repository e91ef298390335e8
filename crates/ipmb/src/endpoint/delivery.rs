//! From a selector to the links of those that it matches.

use super::{
    biased::Guard,
    core::Core,
    outbox::{Attempt, Outbox, Sending, Standing, io_error},
    patience::{Patience, Waited, settle, wait},
};
use crate::{
    MemoryRegion, Object, Selector, SelectorMode, SendError,
    link::{outgoing::Refusal, runs::Origin},
    message::Bound,
    sys,
};
use std::{sync::Arc, time::Instant};

/// Most objects, and most regions, of one message.
const ATTACHMENTS: usize = 253;

/// Sends an encoded message. True: nobody matches, and it is to be parked.
#[inline]
pub(super) fn deliver(
    core: &Core,
    selector: &Selector,
    sending: &Sending<'_>,
    patience: Patience,
    bound: &mut Bound,
) -> Result<bool, SendError> {
    // A route was made for an expression that was checked.
    if selector.mode == SelectorMode::Unicast
        && selector.ttl.is_zero()
        && sending.is_plain()
        && sending.len() <= core.options.max_payload
        && core
            .outbox()
            .send_like_the_last(&selector.label_op, sending)
    {
        return Ok(false);
    }
    deliver_slowly(core, selector, sending, patience, bound)
}

/// The same in all other cases.
#[inline(never)]
fn deliver_slowly(
    core: &Core,
    selector: &Selector,
    sending: &Sending<'_>,
    patience: Patience,
    bound: &mut Bound,
) -> Result<bool, SendError> {
    selector.label_op.check()?;
    check_size(core, sending.len())?;
    for count in [sending.objects.len(), sending.regions.len()] {
        if count > ATTACHMENTS {
            return Err(SendError::TooManyAttachments { count });
        }
    }
    match selector.mode {
        SelectorMode::Unicast => unicast(core, selector, sending, patience),
        SelectorMode::Multicast => multicast(core, selector, sending, patience, bound),
    }
}

/// Whether a payload of so many bytes may be sent.
pub(super) fn check_size(core: &Core, size: usize) -> Result<(), SendError> {
    let limit = core.options.max_payload;
    match size > limit {
        true => Err(SendError::TooLarge { size, limit }),
        false => Ok(()),
    }
}

/// Until when somebody may get a message of now who does not match yet.
pub(super) fn deadline_of(selector: &Selector) -> Option<Instant> {
    match selector.ttl.is_zero() {
        true => None,
        false => Instant::now().checked_add(selector.ttl),
    }
}

/// Parks a message that nobody matches.
pub(super) fn park(
    core: &Core,
    selector: &Selector,
    sending: &Sending<'_>,
    objects: Vec<Object>,
    regions: Vec<MemoryRegion>,
) {
    let mut whole = Vec::with_capacity(sending.len());
    whole.extend_from_slice(sending.head);
    whole.extend_from_slice(sending.tail);
    core.outbox()
        .park(core, selector, sending.uuid, whole, objects, regions);
}

/// Sends to the first that matches. True: nobody matches, and it is to be parked.
fn unicast(
    core: &Core,
    selector: &Selector,
    sending: &Sending<'_>,
    patience: Patience,
) -> Result<bool, SendError> {
    let deadline = deadline_of(selector);
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
                return Ok(false);
            }
            if let Some(held) = outbox.held_before_parking(core) {
                wait(core, outbox, 0, held, patience, &mut waited)?;
                continue;
            }
            return Ok(true);
        };
        let (mut outbox, result) = attempt(core, outbox, target, sending, Some(&origin), deadline);
        match result {
            Ok(()) => {
                // The route may be another by now; then the place is not used.
                outbox.remember_slot(target);
                waited.end(&mut outbox);
                return Ok(false);
            }
            Err(attempt) => {
                let attempt = outbox.refused(sending, target, attempt);
                wait(core, outbox, target, attempt, patience, &mut waited)?;
            }
        }
    }
}

/// Sends to all that match. True: nobody matches, and it is to be parked.
fn multicast(
    core: &Core,
    selector: &Selector,
    sending: &Sending<'_>,
    patience: Patience,
    bound: &mut Bound,
) -> Result<bool, SendError> {
    let mut waited = Waited::default();
    let mut left: Vec<u64> = loop {
        let mut outbox = core.outbox();
        if outbox.refresh(core)? == Standing::Settling {
            drop(outbox);
            settle(core, patience)?;
            continue;
        }
        if let Some(bound) = bound {
            break bound.to_vec();
        }
        let route = outbox.route(&selector.label_op, SelectorMode::Multicast);
        if route.targets.is_empty() {
            outbox.stats.dropped += u64::from(selector.ttl.is_zero());
            return Ok(!selector.ttl.is_zero());
        }
        let unreached = outbox.send_to_all_like_the_last(sending);
        if unreached.is_empty() {
            return Ok(false);
        }
        break unreached;
    };
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
                    let attempt = outbox.refused(sending, target, attempt);
                    blocked.get_or_insert((target, attempt));
                    left.push(target);
                }
            }
        }
        waited.with_others = left.len() > 1;
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
            *bound = (!crate::fault::on(18)).then(|| Box::new(left));
            return Err(error);
        }
    }
}

/// Tries to put a message into the link to `target`; makes the link if there is none. A large payload is copied without
/// the lock, which is why the guard goes in and comes out.
#[inline]
fn attempt<'c>(
    core: &'c Core,
    mut outbox: Guard<'c, Outbox>,
    target: u64,
    sending: &Sending<'_>,
    origin: Option<&Arc<Origin>>,
    deadline: Option<Instant>,
) -> (Guard<'c, Outbox>, Result<(), Attempt>) {
    if sending.may.is_some_and(|may| !may(target)) {
        return (outbox, Err(Attempt::NotChosen));
    }
    if let Some(attempt) = outbox.must_queue(core, target) {
        return (outbox, Err(attempt));
    }
    let len = sending.len();
    let Some(link) = outbox.link(target) else {
        return first_contact(core, outbox, target, sending, origin, deadline);
    };
    if link.out.fits_inline(len) {
        let result = if sending.is_plain() {
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
    let handles = sending.objects.len() + sending.regions.len();
    let lease = match link.out.lease_to_send(len, sending.head.len(), handles) {
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
    let refused = match outbox.link_of(target, number) {
        None => Some(Attempt::Lost),
        Some(link) if !link.usable() => Some(Attempt::NoLink),
        // What was sent before it may have begun to wait meanwhile.
        Some(_) => outbox.must_queue(core, target),
    };
    let Some(link) = outbox.link_of(target, number) else {
        return (outbox, Err(Attempt::Lost));
    };
    if let Some(attempt) = refused {
        link.out.abandon(&lease);
        outbox.tell_of_room(target);
        return (outbox, Err(attempt));
    }
    let written = match handles {
        Ok(handles) => {
            let borrowed = sending.borrowed(&handles);
            let parcel = sending.parcel(&borrowed);
            let written = link.out.write_block(&parcel, &lease, origin, deadline);
            if written.is_ok() {
                sending.sent(&handles);
            }
            written
        }
        Err(e) => Err(Refusal::Io(e)),
    };
    let is_written = written.is_ok();
    if !is_written {
        link.out.abandon(&lease);
    }
    let result = outbox.count(written, len);
    if !is_written {
        outbox.tell_of_room(target);
    }
    (outbox, result)
}

#[cold]
fn first_contact<'c>(
    core: &'c Core,
    mut outbox: Guard<'c, Outbox>,
    target: u64,
    sending: &Sending<'_>,
    origin: Option<&Arc<Origin>>,
    deadline: Option<Instant>,
) -> (Guard<'c, Outbox>, Result<(), Attempt>) {
    if target == core.membership.status().id {
        let pushed = outbox.put(core, target, sending, None, None);
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
