//! What members ask for.

use super::{Controller, Wiring, introduction::Introduction};
use crate::{
    control::{
        membership::Parked,
        protocol::{LEFT_BYTES, LEFT_HANDLES, LINK_HANDLES, ToController},
    },
    sys::{Handle, Memory, Protection},
};
use std::{io, time::Duration};

impl Controller {
    pub(super) fn message(
        &mut self,
        token: u64,
        id: u64,
        message: ToController,
        handles: Vec<Handle>,
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
                    connection.pending.push_back(introduction);
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
                if let Some(listed) = self.listed.get_mut(&id) {
                    listed.receives = false;
                }
                self.publish(|w| w.stopped_receiving(id), wiring);
                self.owe(token, |c| c.owes_done += 1, wiring);
                Ok(())
            }
            ToController::Park {
                uuid,
                label_op,
                multicast,
                remaining_ms,
                len,
                objects,
                regions,
            } => {
                let (objects, regions) = (usize::from(objects), usize::from(regions));
                if handles.len() != 1 + objects + regions || len > LEFT_BYTES as u64 {
                    return Err("a parked message of a wrong shape");
                }
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.estate.0 += objects + regions;
                    connection.estate.1 += len as usize;
                    if connection.estate.0 > LEFT_HANDLES || connection.estate.1 > LEFT_BYTES {
                        return Err("it leaves more behind than it may");
                    }
                }
                let mut handles = handles.into_iter();
                let payload = handles
                    .next()
                    .and_then(|h| read_payload(h, len as usize).ok())
                    .ok_or("a parked message without its payload")?;
                let objects = handles.by_ref().take(objects).collect();
                self.host.parked(Parked {
                    uuid,
                    label_op,
                    multicast,
                    remaining: Duration::from_millis(remaining_ms),
                    payload,
                    objects,
                    regions: handles.collect(),
                });
                Ok(())
            }
            ToController::Leave => {
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.left = true;
                }
                if self.listed.remove(&id).is_some() {
                    self.publish(|w| w.left(id), wiring);
                }
                self.owe(token, |c| c.owes_done += 1, wiring);
                Ok(())
            }
        }
    }
}

/// Copies a parked payload out of the memory that it came in.
fn read_payload(handle: Handle, len: usize) -> io::Result<Vec<u8>> {
    let memory = Memory::from_peer(handle, 1, LEFT_BYTES + 4096)?;
    if len > memory.size() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mapping = memory.map_all(Protection::Read)?;
    let mut payload = Vec::new();
    payload
        .try_reserve_exact(len)
        .map_err(|_| io::ErrorKind::OutOfMemory)?;
    // SAFETY: the mapping and the vector have room for `len` bytes, which are all written.
    unsafe {
        crate::sync::copy_from_shared(mapping.start(), payload.as_mut_ptr(), len);
        payload.set_len(len);
    }
    Ok(payload)
}
