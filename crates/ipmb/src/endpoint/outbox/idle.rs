//! Giving back the memory and the handles of links that nobody uses.

use super::Outbox;
use crate::endpoint::core::Core;
use std::time::Instant;

impl Outbox {
    /// Watches for links that are not used, while there are links.
    pub(super) fn watch_idle(&mut self, core: &Core) {
        if self.idle_look.is_none() && !self.slots.is_empty() {
            self.idle_look = Instant::now().checked_add(core.options.idle_link);
        }
    }

    /// Ends the links over which nothing went since the last look and in which nothing lies. The receiver sees a hang-up,
    /// as of any sender that is gone; the next message makes a new link.
    pub(super) fn end_idle_links(&mut self, core: &Core) {
        self.idle_look = None;
        for link in self.links.iter_mut().flatten() {
            let quiet = link.out.quiet_at().filter(|_| !link.gate.is_led());
            link.idle = quiet.is_some() && quiet == link.seen;
            link.seen = quiet;
        }
        for slot in &mut self.links {
            if let Some(link) = slot.take_if(|link| link.idle) {
                log::debug!("the link to endpoint {} was not used", link.peer);
                self.slots.remove(&link.peer);
                core.orders.unwatch(link.number);
            }
        }
        self.watch_idle(core);
    }
}
