//! Receivers that the directory no longer has, and whose links are still open.
//!
//! What such a receiver had not taken goes to the next match when its link hangs up, before anything that is sent later. The
//! directory can tell of the death before the hang-up does: the kernel closes a dead process's handles one by one. In
//! between, what would pass those messages is held up. The directory's word alone does not end a link: a lying controller
//! must not cut those that are established.

use super::{Attempt, Outbox};
use crate::{SelectorMode, endpoint::core::Core};
use std::time::{Duration, Instant};

/// For how long a hang-up is waited for. Longer than any kernel takes to end a process; who left in good order and does
/// not close its link is its sender's affair no longer.
const HOLD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Departed {
    peer: u64,
    since: Instant,
    /// Nothing has to wait for its link.
    over: bool,
}

impl Outbox {
    /// Notes whose links are open by mistake, according to the directory that was just read.
    pub(super) fn note_departed(&mut self, core: &Core) {
        let mut departed = std::mem::take(&mut self.departed);
        departed.retain(|d| self.slots.contains_key(&d.peer) && !self.is_member(d.peer));
        for peer in self.slots.keys() {
            if !self.is_member(*peer) && !departed.iter().any(|d| d.peer == *peer) {
                departed.push(Departed {
                    peer: *peer,
                    since: Instant::now(),
                    over: false,
                });
            }
        }
        self.departed = departed;
        self.look_at_departed(core);
    }

    /// Looks which links have hung up since, and ends them.
    fn look_at_departed(&mut self, core: &Core) {
        let mut gone = Vec::new();
        for departed in &mut self.departed {
            let slot = self.slots.get(&departed.peer);
            let link = slot.and_then(|slot| self.links.get_mut(*slot)?.as_mut());
            match link {
                Some(link) if link.out.has_hung_up() => gone.push(departed.peer),
                Some(link) => {
                    departed.over |= departed.since.elapsed() >= HOLD
                        || link.out.untaken_origins().next().is_none();
                }
                None => departed.over = true,
            }
        }
        self.holding = self.departed.iter().any(|d| !d.over);
        for peer in gone {
            self.departed.retain(|d| d.peer != peer);
            self.holding = self.departed.iter().any(|d| !d.over);
            self.drop_link(core, peer, "the receiver is gone");
        }
    }

    /// Whether a message to `target` would pass one that goes there when its receiver turns out to be dead. `None`: whether
    /// one that is parked would.
    #[cold]
    pub(super) fn is_held(&mut self, core: &Core, target: Option<u64>) -> bool {
        self.look_at_departed(core);
        let mut origins = Vec::new();
        for departed in self.departed.iter().filter(|d| !d.over) {
            let slot = self.slots.get(&departed.peer);
            if let Some(Some(link)) = slot.and_then(|slot| self.links.get_mut(*slot)) {
                origins.extend(link.out.untaken_origins().cloned());
            }
        }
        origins.iter().any(|origin| {
            let route = self.route(&origin.label_op, SelectorMode::Unicast);
            match target {
                Some(target) => route.targets.contains(&target),
                None => route.targets.is_empty(),
            }
        })
    }

    /// Whether a message that nobody matches has to wait before it is parked.
    pub(crate) fn held_before_parking(&mut self, core: &Core) -> Option<Attempt> {
        (self.holding && self.is_held(core, None)).then_some(Attempt::Held)
    }
}
