//! What users hold: the two halves of an endpoint.
//!
//! Sending and receiving share nothing but the membership. The *outbox* (routes, links, what waits to be sent) is under
//! one lock per endpoint, held for the copy of a small payload at most: one lock and unlock per message is less than the
//! two that a lock per link and one for the routes would cost. The *inbox* is under another. User code (serialising)
//! never runs under the outbox's lock.

mod biased;
mod core;
mod delivery;
mod gate;
mod inbox;
mod loan;
#[cfg(all(test, not(loom)))]
mod meanwhile;
#[cfg(all(test, loom))]
mod model;
mod outbox;
mod patience;
mod receiver;
mod sender;
mod spin;

pub use loan::Loan;
pub use receiver::{EndpointReceiver, Iter};
pub use sender::EndpointSender;

use crate::{
    JoinError, MessageBox, Options, SendError, Stats,
    control::{
        bus::Bus,
        membership::{Membership, Phase},
        reactor::Served,
    },
};
use core::Core;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a dropped endpoint waits for its orderly leave.
const LEAVE_ON_DROP: Duration = Duration::from_secs(1);

/// A member of a bus, shared by its halves.
pub(crate) struct Endpoint {
    pub(crate) core: Arc<Core>,
    served: Option<Served>,
}

impl Endpoint {
    /// Leaves in good order: what is parked is handed over, and so is the controller if it is here.
    fn leave(&self, timeout: Option<Duration>) -> Result<(), SendError> {
        if self.core.forked() {
            return Err(SendError::Forked);
        }
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let membership = &self.core.membership;
        if matches!(membership.status().phase, Phase::Left) {
            return Ok(());
        }
        self.core.orders.leave(self.core.close());
        membership
            .wait(deadline, |status| match status.phase {
                Phase::Left | Phase::Failed(_) => Some(()),
                _ => None,
            })
            .ok_or_else(|| match membership.stopped_controller() {
                Some(pid) => SendError::ControllerStopped { pid },
                None => SendError::Timeout,
            })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if self.core.forked() {
            return;
        }
        if let Err(e) = self.leave(Some(LEAVE_ON_DROP)) {
            log::warn!("left the bus without good-bye: {e}");
        }
        // Ends the serving thread if this was the last endpoint.
        self.served = None;
    }
}

/// Joins a bus, or starts it: the first endpoint becomes its controller.
///
/// `T` is what this endpoint sends, `R` what it receives. Returns once the endpoint is a member: every `send` anywhere on
/// the bus that starts after this returned can reach it.
///
/// Blocks until then, at most for `timeout` (`None`: for ever). Any number of endpoints, on the same or other buses, can
/// live in one process; the same few threads serve them all.
///
/// # Errors
/// See [`JoinError`]; bad options are refused at once, all else within the timeout.
///
/// ```
/// use ipmb::{Message, Options, Selector, label};
///
/// let name = format!("doc.join.{}", std::process::id());
/// let options = Options::new(name, label!("earth"), "");
/// let (sender, receiver) = ipmb::join::<String, String>(options, None)?;
/// sender.send(Message::new(Selector::unicast("earth"), "hello".to_string()))?;
/// assert_eq!(receiver.recv(None)?.payload, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn join<T: MessageBox, R: MessageBox>(
    options: Options,
    timeout: Option<Duration>,
) -> Result<(EndpointSender<T>, EndpointReceiver<R>), JoinError> {
    options.check()?;
    crate::sys::prepare(options.app_group.as_deref()).map_err(|_| JoinError::UnsupportedSystem)?;
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    let bus = Bus::new(options.clone())?;
    let membership = Arc::new(Membership::new());
    let mut core = None;
    let mut failed = None;
    let served = Served::start(bus, membership.clone(), |orders| {
        match Core::new(options, membership.clone(), orders.clone()) {
            Ok(made) => {
                let made = Arc::new(made);
                core = Some(made.clone());
                made
            }
            Err(e) => {
                failed = Some(e);
                Arc::new(core::Nobody)
            }
        }
    })?;
    let (Some(core), None) = (core, &failed) else {
        return Err(failed.unwrap_or(JoinError::Timeout));
    };
    let joined = membership.wait(deadline, |status| match &status.phase {
        Phase::Joined => Some(Ok(())),
        Phase::Failed(error) => Some(Err(error.clone())),
        _ => None,
    });
    match joined {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(error),
        None => return Err(membership.why_late()),
    }
    let endpoint = Arc::new(Endpoint {
        core,
        served: Some(served),
    });
    Ok((
        EndpointSender::new(endpoint.clone()),
        EndpointReceiver::new(endpoint),
    ))
}

impl Endpoint {
    fn stats(&self) -> Stats {
        self.core.stats()
    }
}
