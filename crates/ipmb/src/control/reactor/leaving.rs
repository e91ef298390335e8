//! Leaving in good order.

use super::Reactor;
use crate::{
    control::{
        controller::Controller,
        member::Member,
        membership::{Parked, Phase},
        protocol::{self, LEFT_BYTES, LEFT_HANDLES, ToController},
    },
    sys::{self, AsHandle, Memory, Protection},
};
use std::{collections::VecDeque, io, time::Instant};

impl Reactor {
    pub(super) fn leave(&mut self, key: u64, parked: Vec<Parked>) {
        if let Some(member) = self.members.get_mut(&key) {
            leave_behind(member, parked);
            self.leave_if_joined(key);
        }
    }

    /// The leaver hosts the controller: others take over. What it has parked goes to whoever does.
    pub(super) fn leave_the_seat(&mut self, key: u64, seat: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        let id = member.membership.status().id;
        member.hosts = None;
        member.gave_up = true;
        let alone = !self
            .controllers
            .get(&seat)
            .is_some_and(|c| c.has_others(id));
        self.give_up(seat, Some(id));
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        let left_here = member.events.left_behind();
        leave_behind(member, left_here);
        let nothing_parked = member.leaving.as_ref().is_none_or(VecDeque::is_empty);
        if nothing_parked || alone {
            self.left(key);
        } else {
            self.disconnect(key);
        }
    }

    /// A leave is complete.
    pub(super) fn left(&mut self, key: u64) {
        if let Some(member) = self.members.get_mut(&key) {
            let lost = member.leaving.take().map_or(0, |p| p.len());
            if lost > 0 {
                log::warn!("{lost} parked messages are lost: nobody took them over");
                member.events.lost(lost as u64);
            }
            // Those who wait for the phase are told by `ended`, after the receiver was.
            member.membership.status().phase = Phase::Left;
            member.events.ended();
        }
        self.end(key);
    }

    /// Sends what a leaver leaves behind, and its farewell.
    pub(super) fn leave_if_joined(&mut self, key: u64) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        if !member.is_member() || member.leaving.is_none() || member.said_good_bye {
            return;
        }
        if let Some(seat) = member.hosts {
            // Who is not back yet would bring an earlier directory to the next controller, and this member is in that one. Looked at
            // again when the controller has settled, since its members are told then.
            if self.controllers.get(&seat).is_none_or(Controller::settled) {
                self.leave_the_seat(key, seat);
            }
            return;
        }
        if self.hand_over(key)
            && let Some(member) = self.members.get_mut(&key)
        {
            match member.send(&ToController::Leave, &[]) {
                Ok(()) => member.said_good_bye = true,
                Err(e) => member.owes_because(&e),
            }
        }
        self.watch_control(key);
    }

    /// Sends the controller what a leaver leaves behind, as far as there is room. True: that was all.
    fn hand_over(&mut self, key: u64) -> bool {
        let Some(member) = self.members.get_mut(&key) else {
            return false;
        };
        while let Some(message) = member.leaving.as_ref().and_then(|l| l.get(member.handed)) {
            let sent = park(member, message);
            match sent {
                // A hang-up: then there is no controller any more, and the next one gets it.
                Err(e)
                    if e.kind() == io::ErrorKind::WouldBlock
                        || sys::exhausted(&e).is_some()
                        || sys::is_hangup(&e) =>
                {
                    log::debug!("a parked message cannot be handed over yet: {e}");
                    member.owes_because(&e);
                    return false;
                }
                Err(e) => {
                    log::warn!("a parked message is lost: {e}");
                    member.events.lost(1);
                    if let Some(left) = &mut member.leaving {
                        left.remove(member.handed);
                    }
                }
                Ok(()) => member.handed += 1,
            }
        }
        true
    }

    pub(super) fn give_up(&mut self, seat: u64, leaver: Option<u64>) {
        if let Some(controller) = self.controllers.remove(&seat) {
            controller.give_up(leaver, &mut self.wires);
        }
    }
}

/// Adds to what a leaver has to hand over, which may be begun: a leave can be asked for again when its time was up.
fn leave_behind(member: &mut Member, parked: Vec<Parked>) {
    let before = member.leaving.take().unwrap_or_default();
    // A second leave adds nothing, since nothing is sent after the first one: then the order and the place in it stay.
    let count = before.len() + parked.len();
    let left = share(before.into_iter().chain(parked));
    let lost = count - left.len();
    if lost > 0 {
        log::warn!("{lost} parked messages are lost: more than a leaver may leave behind");
        member.events.lost(lost as u64);
    }
    member.leaving = Some(left);
}

/// What of its parked messages a leaver may leave behind: the oldest. One that is too much for what is left does not keep a
/// smaller one after it from going.
fn share(parked: impl Iterator<Item = Parked>) -> VecDeque<Parked> {
    let (mut handles, mut bytes) = (LEFT_HANDLES, LEFT_BYTES);
    parked
        .filter(|message| {
            let count = message.objects.len() + message.regions.len();
            let left = (handles.checked_sub(count), bytes.checked_sub(message.len()));
            if let (Some(handles_left), Some(bytes_left)) = left {
                (handles, bytes) = (handles_left, bytes_left);
            }
            matches!(left, (Some(_), Some(_))) && !crate::fault::on(6)
        })
        .collect()
}

/// Sends one parked message to the controller.
fn park(member: &Member, message: &Parked) -> io::Result<()> {
    let channel = member.channel.as_ref().ok_or(io::ErrorKind::NotConnected)?;
    let memory = Memory::new(c"ipmb-parked", message.len().max(1))?;
    let mapping = memory.map_all(Protection::ReadWrite)?;
    // SAFETY: the mapping has room for both, one after the other, and is not shared yet.
    unsafe {
        crate::sync::copy_to_shared(&message.label_op, mapping.start());
        let payload = mapping.start().add(message.label_op.len());
        crate::sync::copy_to_shared(&message.payload, payload);
    }
    drop(mapping);
    let mut handles = vec![memory.as_handle()];
    let attached = message.objects.iter().chain(message.regions.iter());
    handles.extend(attached.map(AsHandle::as_handle));
    let remaining = message.deadline.saturating_duration_since(Instant::now());
    let packet = protocol::encode(&ToController::Park {
        uuid: message.uuid,
        label_op_len: message.label_op.len() as u32, // the selector was within its limits when it was parked
        multicast: message.multicast,
        remaining_ms: u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX),
        len: message.payload.len() as u64,
        objects: message.objects.len() as u8,
        regions: message.regions.len() as u8,
    });
    channel.send(&packet, &handles)
}
