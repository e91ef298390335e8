//! What an endpoint sends with: routes, links, and messages that wait. All of it is under the endpoint's one lock.
//!
//! | file | job |
//! |---|---|
//! | here | catching up with the directory |
//! | `room.rs` | who is told of room in a link that was full |
//! | `routes.rs` | who gets the messages of a selector |
//! | `departed.rs` | open links to receivers that are no longer members |
//! | `links.rs` | making, introducing and ending links |
//! | `idle.rs` | ending links that are not used |
//! | `waiting.rs` | what is parked, or left over from a dead receiver |
//! | `sending.rs` | a message as it is sent, and why it was not |

mod departed;
mod idle;
mod links;
mod room;
mod routes;
mod sending;
mod waiting;

pub(super) use links::Link;
pub(super) use routes::Route;
pub(super) use sending::{Attempt, Sending, io_error};

use super::core::Core;
use crate::{
    SendError, Stats,
    control::{
        directory::{Look, Reader},
        membership::Phase,
    },
};
use departed::Departed;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};
use waiting::Waiting;

/// Whether the directory can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Settled,
    Settling,
}

pub(crate) struct Outbox {
    reader: Option<Reader>,
    look: Look,
    routes: Vec<Route>,
    links: Vec<Option<Link>>,
    slots: HashMap<u64, usize>,
    next_number: u64,
    waiting: VecDeque<Waiting>,
    /// How many of them wait for space only.
    pub(super) held: usize,
    /// When to look again at a shortage that keeps messages waiting.
    recheck: Option<Instant>,
    /// When to look for links that are not used.
    idle_look: Option<Instant>,
    /// Peers whose link broke; a message to them would be lost until the directory says so, too.
    gone: HashSet<u64>,
    departed: Vec<Departed>,
    /// A link among those may hang up yet, and its messages go before others.
    holding: bool,
    watching: bool,
    /// When the serving thread calls [`Outbox::expire`].
    expiry: Option<Instant>,
    closed: bool,
    rooms: room::Rooms,
    pub(crate) stats: Stats,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            reader: None,
            look: Look {
                length: 0,
                valid: false,
            },
            routes: Vec::new(),
            links: Vec::new(),
            slots: HashMap::new(),
            next_number: 1,
            waiting: VecDeque::new(),
            held: 0,
            recheck: None,
            idle_look: None,
            gone: HashSet::new(),
            departed: Vec::new(),
            holding: false,
            watching: false,
            expiry: None,
            closed: false,
            rooms: room::Rooms::default(),
            stats: Stats::default(),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            links_out: self.slots.len() as u64,
            ..self.stats
        }
    }

    /// Catches up with the directory. The hot path: two loads that have not changed.
    #[inline]
    pub(crate) fn refresh(&mut self, core: &Core) -> Result<Standing, SendError> {
        if let Some(reader) = &self.reader {
            let look = reader.directory().look();
            if crate::fault::on(1) || look == self.look && look.valid && !self.closed {
                return Ok(Standing::Settled);
            }
        }
        self.refresh_slowly(core)
    }

    /// The next send is to ask which directory holds, and not only whether the last one has changed: where the kernel marks
    /// no owner words, nothing in the directory of a dead controller says so.
    pub(crate) fn look_anew(&mut self) {
        self.look.valid = false;
    }

    #[cold]
    fn refresh_slowly(&mut self, core: &Core) -> Result<Standing, SendError> {
        if self.closed {
            return Err(SendError::Left);
        }
        let directory = {
            let status = core.membership.status();
            match &status.phase {
                Phase::Failed(error) => return Err(error.clone().into()),
                Phase::Left => return Err(SendError::Left),
                // It is the directory of a controller that is gone, or was left.
                Phase::Seeking => return Ok(Standing::Settling),
                Phase::Joined => {}
            }
            status.directory.clone()
        };
        let Some(directory) = directory else {
            return Ok(Standing::Settling);
        };
        let same = |r: &Reader| Arc::ptr_eq(r.directory(), &directory);
        if !self.reader.as_ref().is_some_and(same) {
            if !directory.look().valid {
                return Ok(Standing::Settling);
            }
            // The old reader stays until the new directory is settled: routes that have a link go on by it.
            let mut reader = Reader::new(directory.clone());
            if reader.catch_up().is_err() {
                core.orders.distrust(directory);
                return Ok(Standing::Settling);
            }
            if !reader.settled {
                return Ok(Standing::Settling);
            }
            self.reader = Some(reader);
            self.look.valid = false;
        }
        let Some(reader) = &mut self.reader else {
            return Ok(Standing::Settling);
        };
        let look = reader.directory().look();
        if !look.valid {
            return Ok(Standing::Settling);
        }
        if reader.catch_up().is_err() {
            // Links in use go on by what was read before; the rest waits for another directory.
            core.orders.distrust(directory);
            self.look.valid = false;
            return Ok(Standing::Settling);
        }
        self.look = Look {
            length: reader.at(),
            valid: look.valid,
        };
        self.routes.clear();
        let members = &reader.members;
        self.gone.retain(|id| members.contains_key(id));
        // Of a receiver that died before it accepted the link no hang-up tells: its end is still here.
        let dead: Vec<u64> = self
            .links
            .iter_mut()
            .flatten()
            .filter_map(|l| {
                (l.out.offer().is_some() && !members.contains_key(&l.peer)).then_some(l.peer)
            })
            .collect();
        for peer in dead {
            self.drop_link(core, peer, "the receiver is gone");
        }
        self.note_departed(core);
        if !self.waiting.is_empty() {
            self.pump_now(core);
        }
        Ok(Standing::Settled)
    }
}
