//! What a dead receiver left in its link.

use super::Outgoing;
use crate::link::{
    layout::{BlockRef, Kind},
    runs::Origin,
};
use std::{sync::Arc, time::Instant};

/// A message that the receiver had not taken when it died.
#[derive(Debug)]
pub(crate) struct Untaken {
    pub uuid: [u8; 16],
    pub payload: Vec<u8>,
    pub origin: Arc<Origin>,
    pub deadline: Option<Instant>,
}

impl Outgoing {
    /// Where the unicast messages that the receiver has not taken may go when it dies.
    pub(crate) fn untaken_origins(&mut self) -> impl Iterator<Item = &Arc<Origin>> {
        let _ = self.refresh();
        self.runs.origins(self.write.head())
    }

    /// What a dead receiver had not taken, in its order, and how many messages of it are lost. Take it once.
    pub(crate) fn untaken(&mut self) -> (Vec<Untaken>, u64) {
        let (mut untaken, mut lost) = (Vec::new(), 0);
        if self.look_at_head().is_err() {
            log::warn!("a dead receiver's books are wrong; using what it said last");
        }
        self.runs.end();
        let (mut at, end) = (self.write.head(), self.write.tail());
        let mut uuid = None;
        while at != end && end.wrapping_sub(at) as i64 > 0 {
            let offset = self.write.offset(at);
            let Some(head) = self.head_at(at) else {
                break;
            };
            let next = at.wrapping_add(head.size());
            if head.kind == Kind::Pad {
                at = next;
                continue;
            }
            self.runs.passed(at);
            let run = self.runs.first();
            uuid = run.map(|r| r.uuid).or(uuid);
            let body = self.bytes(offset + head.body_at(), head.len as usize);
            let payload = match head.kind {
                Kind::Block => body
                    .try_into()
                    .ok()
                    .and_then(|b| self.pool.payload(BlockRef::from_bytes(b))),
                _ => Some(body),
            };
            match (run, payload, uuid) {
                (Some(run), Some(payload), Some(uuid))
                    if head.objects == 0 && head.regions == 0 && run.origin.is_some() =>
                {
                    if let Some(origin) = &run.origin {
                        untaken.push(Untaken {
                            uuid,
                            payload: payload.to_vec(),
                            origin: origin.clone(),
                            deadline: run.deadline,
                        });
                    }
                }
                // A multicast reached everybody else on their own links.
                (Some(run), ..) if run.origin.is_none() => {}
                _ => lost += 1,
            }
            at = next;
        }
        (untaken, lost)
    }

    fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        let len = len.min(self.capacity.saturating_sub(offset));
        // SAFETY: inside the ring; only this side writes, and not while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.records.ring().add(offset).as_ptr(), len) }
    }
}
