//! How long a bus is without service: a newcomer joins and exchanges messages with every survivor.

use crate::{
    board::{Kind, SURVIVORS, now},
    note::{self, Head, Load},
};
use ipmb::{BytesMessage, MemoryRegistry, Options, Selector, label};
use std::time::Duration;

/// A newcomer waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// Probes a bus.
pub struct Prober {
    bus: String,
    next: u64,
    /// From the kill until a newcomer had joined, in nanoseconds.
    pub joined: Vec<u64>,
    /// From the kill until it had an answer from every survivor.
    pub served: Vec<u64>,
    /// The same two without a kill, from the call of `join`.
    pub calm_joined: Vec<u64>,
    pub calm_served: Vec<u64>,
}

impl Prober {
    /// Of one bus.
    pub fn new(bus: &str) -> Self {
        Self {
            bus: bus.into(),
            next: 0,
            joined: Vec::new(),
            served: Vec::new(),
            calm_joined: Vec::new(),
            calm_served: Vec::new(),
        }
    }

    /// Measures from `since`, when the controller was killed.
    pub fn probe(&mut self, since: u64) -> Result<(), String> {
        let (joined, served) = self.exchange()?;
        self.joined.push(joined - since);
        self.served.push(served - since);
        Ok(())
    }

    /// Measures when nobody was killed: what a newcomer takes under this load, whatever becomes of the controller.
    pub fn probe_calm(&mut self) -> Result<(), String> {
        let since = now();
        let (joined, served) = self.exchange()?;
        self.calm_joined.push(joined - since);
        self.calm_served.push(served - since);
        Ok(())
    }

    fn exchange(&mut self) -> Result<(u64, u64), String> {
        self.next += 1;
        let label = label!(format!("probe.{}", self.next));
        let mut options = Options::new(&self.bus, label, "storm");
        options.controller_affinity = false;
        let (sender, receiver) = ipmb::join::<BytesMessage, BytesMessage>(options, Some(PATIENCE))
            .map_err(|e| format!("a newcomer could not join: {e}"))?;
        let joined = now();
        let head = Head {
            from: crate::board::SLOTS,
            incarnation: 0,
            kind: Kind::Probe,
            time: joined,
            nonce: self.next,
            numbers: vec![],
            objects: 0,
            regions: 0,
        };
        let mut none = MemoryRegistry::default();
        let message = note::write(Selector::multicast("s"), &head, Load::default(), &mut none);
        sender
            .send_timeout(message, Some(PATIENCE))
            .map_err(|e| format!("a newcomer could not send: {e}"))?;
        let mut missing: Vec<usize> = (0..SURVIVORS).collect();
        while !missing.is_empty() {
            let message = receiver
                .recv(Some(PATIENCE))
                .map_err(|e| format!("a newcomer had no answer from {missing:?}: {e}"))?;
            let (head, _) = note::read(message)?;
            if head.kind != Kind::Probe || head.nonce != self.next {
                return Err(format!("a newcomer received {head:?}"));
            }
            match missing.iter().position(|s| *s == head.from) {
                Some(at) => drop(missing.swap_remove(at)),
                None => return Err(format!("a newcomer received twice: {head:?}")),
            }
        }
        Ok((joined, now()))
    }
}
