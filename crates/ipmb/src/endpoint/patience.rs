//! What a send does while it cannot go on: waits for space, for a link, or for a controller.

use super::{
    biased::Guard,
    core::Core,
    outbox::{Attempt, Outbox, io_error},
    spin::{NAP, others_ran},
};
use crate::{
    SendError,
    control::{
        directory::Reader,
        membership::{Phase, Status},
    },
    link::outgoing::{Lack, Sleep},
    sys,
};
use std::time::{Duration, Instant};

/// After so long a blocked `send` says whom it waits for.
const COMPLAINT: Duration = Duration::from_secs(5);
/// What is not rung for, above all that the endpoint left, is noticed after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// As long as others than the one that is waited for may have room first.
const OTHERS: Duration = Duration::from_millis(10);
/// How long to wait before a shortage whose end nobody reports is looked at again.
pub(super) const SHORTAGE: Duration = Duration::from_millis(2);

/// How long a send may wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    None,
    Until(Option<Instant>),
}

/// What a send has waited so far.
#[derive(Default)]
pub(super) struct Waited {
    since: Option<Instant>,
    complained: bool,
    /// Others are waited for, too.
    pub(super) with_others: bool,
}

impl Waited {
    pub(super) fn end(&self, outbox: &mut Outbox) {
        if let Some(since) = self.since {
            let waited = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            outbox.stats.blocked_ns = outbox.stats.blocked_ns.saturating_add(waited);
        }
    }
}

/// Waits until it may be worth another try.
#[cold]
pub(super) fn wait<'c>(
    core: &'c Core,
    mut outbox: Guard<'c, Outbox>,
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
        Attempt::Lost => return Ok(()),
        Attempt::Full(_)
        | Attempt::Held
        | Attempt::Busy(_)
        | Attempt::NoLink
        | Attempt::NotChosen => {}
    }
    let Patience::Until(deadline) = patience else {
        return Err(match attempt {
            Attempt::NoLink if !outbox.awaits_acceptance(target) => SendError::Settling,
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
        waited.end(&mut outbox);
        // Without a link, or with one that its receiver may not have heard of yet, it is the controller's turn.
        let unheard_of = outbox.link(target).is_none_or(|l| l.out.offer().is_some());
        return Err(match core.membership.stopped_controller() {
            Some(pid) if unheard_of => SendError::ControllerStopped { pid },
            _ => SendError::Timeout,
        });
    }
    if !waited.complained && now - since >= COMPLAINT {
        waited.complained = true;
        let unheard_of = outbox.link(target).is_none_or(|l| l.out.offer().is_some());
        let whom = outbox.in_words(target);
        match unheard_of {
            false => log::warn!("send has waited for {COMPLAINT:?} for space at {whom}"),
            true => {
                let controller = core.membership.controller_in_words();
                log::warn!(
                    "send has waited for {COMPLAINT:?} for a first contact with {whom}: {controller}"
                );
            }
        }
    }
    let complain = (!waited.complained).then(|| since + COMPLAINT);
    let soon = now
        + if waited.with_others {
            OTHERS
        } else {
            LOOK_AGAIN
        };
    let until = deadline
        .into_iter()
        .chain(complain)
        .fold(soon, Instant::min);
    match attempt {
        Attempt::NoLink => {
            // Under the lock: a link that becomes usable from here on is news.
            let before = core.membership.status().news;
            let is_tried = outbox.awaits_acceptance(target);
            drop(outbox);
            if !is_tried {
                core.orders.introduce();
            }
            core.membership
                .wait(Some(until), |status| (status.news != before).then_some(()));
            Ok(())
        }
        Attempt::Full(lack) => wait_for_space(core, outbox, target, &lack, until),
        _ => {
            drop(outbox);
            let left = until.saturating_duration_since(now);
            std::thread::sleep(left.min(SHORTAGE));
            Ok(())
        }
    }
}

/// Waits until the link to `target` may have the room that was lacking, or breaks.
fn wait_for_space<'c>(
    core: &'c Core,
    mut outbox: Guard<'c, Outbox>,
    target: u64,
    lack: &Lack,
    until: Instant,
) -> Result<(), SendError> {
    let Some(link) = outbox.link(target) else {
        return Ok(());
    };
    let gate = link.gate.clone();
    let time = link.spin.begin(lack.wanted);
    drop(outbox);
    if let Some(time) = time
        && spin_for_space(core, target, lack, time, until)
    {
        return Ok(());
    }
    // None: no sleep, the caller tries again, and pumps before it does.
    let end_of = |sleep| match sleep {
        Sleep::NotNow => None,
        Sleep::Sound => Some(until),
        Sleep::Short => Some(until.min(Instant::now() + SHORTAGE)),
    };
    // One thread sleeps for the link; others wait until it has looked.
    let leader = match gate.lead() {
        Ok(leader) => leader,
        Err(follower) => {
            let mut outbox = core.outbox();
            let sleep = outbox.link(target).map(|link| link.out.follow(lack));
            drop(outbox);
            if let Some(end) = sleep.and_then(end_of) {
                follower.wait(Some(end));
            }
            return Ok(());
        }
    };
    let mut outbox = core.outbox();
    let sleep = outbox.sleep_for_space(target, lack);
    let (Some(end), Some(link)) = (end_of(sleep), outbox.link(target)) else {
        return Ok(());
    };
    let (side, number) = (link.out.side().clone(), link.number);
    drop(outbox);
    let start = Instant::now();
    let timeout = Some(end.saturating_duration_since(start));
    let waited = sys::wait_for(&*side, timeout);
    let mut outbox = core.outbox();
    // What was heard here is not heard by the serving thread.
    outbox.tell_of_room(target);
    let link = outbox.link_of(target, number);
    let is_there = link.is_some();
    if let Some(link) = link {
        link.out.awake();
        if let Some(time) = time
            && waited.as_ref().is_ok_and(|(readable, _)| *readable)
        {
            link.spin.slept(start.elapsed(), time);
        }
    }
    // While there was a leader nobody else listened to the receiver.
    drop(leader);
    let hung_up = waited.as_ref().is_ok_and(|(_, hung_up)| *hung_up);
    if hung_up && is_there {
        outbox.drop_link(core, target, "the receiver is gone");
    } else if outbox.held > 0 {
        outbox.pump(core);
    }
    waited.map(drop).map_err(io_error)
}

/// A receiver that is awake makes room soon: looks for it for a while, which grows if that was worth while and shrinks if
/// not. True if there may be room, or if the caller's time is over.
fn spin_for_space(core: &Core, target: u64, lack: &Lack, time: Duration, until: Instant) -> bool {
    let start = Instant::now();
    let enough = start + time;
    let (mut looks, mut before) = (0, start);
    let mut gave_way = None;
    loop {
        for _ in 0..64 {
            std::hint::spin_loop();
        }
        let now = Instant::now();
        if until <= now {
            return true;
        }
        let mut outbox = core.outbox();
        let Some(link) = outbox.link(target) else {
            return true;
        };
        if let Some(took) = gave_way.take() {
            link.spin.gave_way(took);
        } else {
            link.spin.looked_again(now - before);
        }
        if link.out.has_moved(lack) {
            link.spin.paid();
            return true;
        }
        if now >= enough {
            link.spin.was_vain();
            return false;
        }
        looks += 1;
        let (gives_way, crowded) = (link.spin.gives_way(looks), link.spin.is_crowded());
        drop(outbox);
        // To wait for the lock is neither to give way nor to lose the core.
        before = Instant::now();
        if gives_way {
            sys::yield_now();
            let took = before.elapsed();
            gave_way = Some(took);
            if crowded && others_ran(took) {
                std::thread::sleep(until.saturating_duration_since(now).min(NAP));
            }
        }
    }
}

/// Waits until it is settled who is on the bus.
#[cold]
pub(super) fn settle(core: &Core, patience: Patience) -> Result<(), SendError> {
    let Patience::Until(deadline) = patience else {
        return Err(SendError::Settling);
    };
    let mut settled = |status: &mut Status| match &status.phase {
        Phase::Failed(error) => Some(Err(error.clone().into())),
        Phase::Left => Some(Err(SendError::Left)),
        Phase::Seeking => None,
        Phase::Joined => {
            let directory = status.directory.as_ref()?;
            let mut reader = Reader::new(directory.clone());
            let sound = reader.catch_up().is_ok();
            (sound && directory.look().valid && reader.settled).then_some(Ok(()))
        }
    };
    let complain = Instant::now() + COMPLAINT;
    let first = deadline.map_or(complain, |d| d.min(complain));
    let settled = core
        .membership
        .wait(Some(first), &mut settled)
        .or_else(|| {
            if deadline != Some(first) {
                let controller = core.membership.controller_in_words();
                log::warn!(
                    "send has waited for {COMPLAINT:?} until it is settled who is on the bus: {controller}"
                );
                return core.membership.wait(deadline, settled);
            }
            None
        });
    settled.unwrap_or_else(|| {
        Err(match core.membership.stopped_controller() {
            Some(pid) => SendError::ControllerStopped { pid },
            None => SendError::Timeout,
        })
    })
}
