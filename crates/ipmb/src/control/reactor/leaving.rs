//! Leaving in good order.

use super::Reactor;
use crate::{
    control::{
        member::Member,
        membership::{Parked, Phase},
        protocol::{self, LEFT_BYTES, LEFT_HANDLES, ToController},
    },
    sys::{self, AsHandle, Memory, Protection},
};
use std::{collections::VecDeque, io};

impl Reactor {
    pub(super) fn leave(&mut self, key: u64, parked: Vec<Parked>) {
        if let Some(member) = self.members.get_mut(&key) {
            let count = parked.len();
            let left = share(parked);
            let lost = count - left.len();
            if lost > 0 {
                log::warn!("{lost} parked messages are lost: more than a leaver may leave behind");
                member.events.lost(lost as u64);
            }
            member.leaving = Some(left);
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
        let nothing_parked = member.leaving.as_ref().is_none_or(VecDeque::is_empty);
        let alone = !self
            .controllers
            .get(&seat)
            .is_some_and(|c| c.has_others(id));
        self.give_up(seat, Some(id));
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
            self.leave_the_seat(key, seat);
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
        while let Some(message) = member.leaving.as_ref().and_then(VecDeque::front) {
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
                }
                Ok(()) => {}
            }
            if let Some(left) = &mut member.leaving {
                left.pop_front();
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

/// What of its parked messages a leaver may leave behind: the oldest.
fn share(parked: Vec<Parked>) -> VecDeque<Parked> {
    let (mut handles, mut bytes) = (0, 0);
    parked
        .into_iter()
        .filter(|message| {
            handles += message.objects.len() + message.regions.len();
            bytes += message.payload.len();
            handles <= LEFT_HANDLES && bytes <= LEFT_BYTES && !crate::fault::on(6)
        })
        .collect()
}

/// Sends one parked message to the controller.
fn park(member: &Member, message: &Parked) -> io::Result<()> {
    let channel = member.channel.as_ref().ok_or(io::ErrorKind::NotConnected)?;
    let memory = Memory::new(c"ipmb-parked", message.payload.len().max(1))?;
    let mapping = memory.map_all(Protection::ReadWrite)?;
    // SAFETY: the mapping has room for the payload and is not shared yet.
    unsafe { crate::sync::copy_to_shared(&message.payload, mapping.start()) };
    drop(mapping);
    let mut handles = vec![memory.as_handle()];
    let attached = message.objects.iter().chain(&message.regions);
    handles.extend(attached.map(AsHandle::as_handle));
    let packet = protocol::encode(&ToController::Park {
        uuid: message.uuid,
        label_op: message.label_op.clone(),
        multicast: message.multicast,
        remaining_ms: u64::try_from(message.remaining.as_millis()).unwrap_or(u64::MAX),
        len: message.payload.len() as u64,
        objects: message.objects.len() as u8,
        regions: message.regions.len() as u8,
    });
    channel.send(&packet, &handles)
}
