//! What members ask for.

use super::{Controller, Wiring, connection::Connection, introduction::Introduction};
use crate::{
    control::{
        membership::Parked,
        protocol::{LEFT_BYTES, LEFT_HANDLES, LINK_HANDLES, PENDING, ToController},
    },
    error::Resource,
    label::CODE_MAX,
    sys::{Handle, Memory, Protection, Received},
};
use std::{
    io,
    time::{Duration, Instant},
};

/// Messages that a leaver may leave behind.
const ESTATE_MESSAGES: usize = 4096;
/// Bytes of those, with what is around them; and how many leavers have room for as much at the same time, before their leaves are
/// complete.
const ESTATE: usize = LEFT_BYTES + ESTATE_MESSAGES * size_of::<Parked>();
const ESTATES: usize = 4;

/// A time that no clock of a running system gets to, and that can be added to it.
const EVER: Duration = Duration::from_secs(1 << 30);

impl Controller {
    pub(super) fn message(
        &mut self,
        token: u64,
        id: u64,
        message: ToController,
        mut handles: Received,
        wiring: &mut dyn Wiring,
    ) -> Result<(), &'static str> {
        match message {
            ToController::Register { .. } => Err("it registered twice"),
            ToController::Introduce { to, link } => {
                if handles.len() != LINK_HANDLES {
                    return Err("an introduction with a wrong number of handles");
                }
                let introduction = Introduction {
                    from: id,
                    to,
                    link,
                    handles,
                };
                if let Some(introduction) = self.introduce(introduction, wiring)
                    && let Some(connection) = self.connections.get_mut(&token)
                {
                    // While sixteen receivers do not read, others are met all the same: only its number is kept.
                    if connection.pending.len() < PENDING {
                        connection.pending.push_back(introduction);
                    } else {
                        connection.put_off.insert(to, link);
                    }
                }
                Ok(())
            }
            ToController::Watch(on) => {
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.watches = on;
                }
                // What changed before this arrived.
                self.owe(token, |c| c.owes_look |= on, wiring);
                Ok(())
            }
            ToController::StopReceiving => {
                // Once: an entry for each time that it is asked would be an endless directory for all members to read.
                let listed = self.listed.get_mut(&id);
                if listed.is_some_and(|listed| std::mem::take(&mut listed.receives)) {
                    self.publish(|w| w.stopped_receiving(id), wiring);
                }
                self.owe(token, Connection::owe_done, wiring);
                Ok(())
            }
            ToController::Park {
                uuid,
                label_op_len,
                multicast,
                remaining_ms,
                len,
                objects,
                regions,
            } => {
                let (objects, regions) = (usize::from(objects), usize::from(regions));
                let label_op_len = label_op_len as usize;
                let handles_fit = handles.len() == 1 + objects + regions;
                if !handles_fit || len > LEFT_BYTES as u64 || label_op_len > CODE_MAX {
                    return Err("a parked message of a wrong shape");
                }
                let len = len as usize;
                if let Some(connection) = self.connections.get_mut(&token) {
                    if connection.left {
                        return Err("it leaves more behind after it has left");
                    }
                    connection.parked_at = Some(Instant::now());
                    let (handles, bytes) = &mut connection.estate_size;
                    *handles += objects + regions;
                    *bytes += label_op_len + len;
                    if *handles > LEFT_HANDLES || *bytes > LEFT_BYTES {
                        return Err("it leaves more behind than it may");
                    }
                }
                self.make_room_for_estates(token, wiring);
                // What is adopted is bounded again, by the endpoint that does.
                if let Some(connection) = self.connections.get_mut(&token)
                    && connection.estate.len() >= ESTATE_MESSAGES
                {
                    // Once: it may go on for long.
                    if !std::mem::replace(&mut connection.left_too_much, true) {
                        log::warn!("endpoint {id} leaves too much behind: the rest is lost");
                    }
                    self.host.lost(1);
                    return Ok(());
                }
                let memory = handles
                    .next()
                    .ok_or("a parked message without its payload")?;
                let (label_op, payload) = match read_parked(memory, label_op_len, len) {
                    Ok(parts) => parts,
                    // Not the leaver's fault.
                    Err(e) if is_shortage(&e) => {
                        log::warn!("a parked message is lost: {e}");
                        self.host.lost(1);
                        return Ok(());
                    }
                    Err(_) => return Err("a parked message without its payload"),
                };
                let objects = objects.min(handles.len());
                let regions = Received::from(handles.split_off(objects));
                let (now, remaining) = (Instant::now(), Duration::from_millis(remaining_ms));
                let parked = Parked {
                    uuid,
                    label_op,
                    multicast,
                    deadline: now.checked_add(remaining).unwrap_or(now + EVER),
                    payload,
                    objects: handles,
                    regions,
                };
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.estate.push(parked);
                }
                Ok(())
            }
            ToController::Leave => {
                if let Some(connection) = self.connections.get_mut(&token)
                    && std::mem::replace(&mut connection.left, true)
                {
                    return Err("it left twice");
                }
                if self.listed.remove(&id).is_some() {
                    self.publish(|w| w.left(id), wiring);
                }
                self.owe(token, Connection::owe_done, wiring);
                Ok(())
            }
        }
    }

    /// Where there is no room for what one more leaves behind, another gives way: of those who have not completed their leave, the
    /// one that said nothing for longest. It has kept all and comes again.
    fn make_room_for_estates(&mut self, token: u64, wiring: &mut dyn Wiring) {
        loop {
            let (mut handles, mut bytes) = (0, 0);
            for connection in self.connections.values() {
                handles += connection.estate_size.0;
                bytes += connection.estate_size.1 + connection.estate.len() * size_of::<Parked>();
            }
            if handles <= ESTATES * LEFT_HANDLES && bytes <= ESTATES * ESTATE {
                return;
            }
            let others = self
                .connections
                .iter()
                .filter(|(other, _)| **other != token);
            let others = others.filter_map(|(other, c)| Some((c.parked_at?, *other)));
            let Some((_, other)) = others.min() else {
                return;
            };
            let why = "others need the room for what it leaves behind";
            self.drop_connection(other, why, wiring);
        }
    }
}

fn is_shortage(error: &io::Error) -> bool {
    Resource::of(error).is_some()
}

/// Copies a parked message's selector and payload out of the memory that they came in, one after the other.
fn read_parked(handle: Handle, label_op: usize, payload: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let memory = Memory::from_peer(handle, 1, CODE_MAX + LEFT_BYTES + 4096)?;
    if label_op + payload > memory.size() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mapping = memory.map_all(Protection::Read)?;
    let copy = |from: usize, len: usize| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: `from + len` is not beyond the mapping, and the vector has room for `len` bytes, which are all written.
        unsafe {
            crate::sync::copy_from_shared(mapping.start().add(from), bytes.as_mut_ptr(), len);
            bytes.set_len(len);
        }
        Ok(bytes)
    };
    Ok((copy(0, label_op)?, copy(label_op, payload)?))
}
