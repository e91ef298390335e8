//! [`Loan`]: a payload that is written where its receiver will read it.

use super::{
    Endpoint,
    core::Core,
    delivery::{check_size, deadline_of, deliver, park},
    outbox::{Sending, Standing},
    patience::{Patience, Waited, wait},
};
use crate::{
    BytesMessage, Encoder, MessageBox, Selector, SelectorMode, SendError, TypeUuid,
    link::{outgoing::Parcel, pool::Lease},
};
use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// Bytes of a [`BytesMessage`] before its data.
const FRONT: usize = 2;

/// Memory for a message that is to be filled in place, from [`EndpointSender::loan`](crate::EndpointSender::loan).
///
/// It derefs to its bytes. In memory of the link they begin at a multiple of 64 and may hold an earlier message of yours; a
/// private loan has no promised alignment and is zero. [`send`](Self::send) sends them as a [`BytesMessage`]; who receives a
/// [`BytesView`](crate::BytesView) reads them where they lie, so that nothing is copied. Dropped unsent, the memory is used
/// for another message. In a forked child it is empty.
pub struct Loan {
    endpoint: Arc<Endpoint>,
    selector: Selector,
    memory: Memory,
}

enum Memory {
    /// A block of the link to the receiver.
    Block(Lent),
    /// Where there is no single receiver yet: copied when it is sent.
    Private(Vec<u8>),
}

impl Loan {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        selector: &Selector,
        size: usize,
        patience: Patience,
    ) -> Result<Self, SendError> {
        let core = &endpoint.core;
        if core.forked() {
            return Err(SendError::Forked);
        }
        let memory = match lend(core, selector, FRONT.saturating_add(size), patience)? {
            Some(lent) => Memory::Block(lent),
            None => Memory::Private(private(size)?),
        };
        Ok(Self {
            selector: selector.clone(),
            memory,
            endpoint,
        })
    }

    /// Sends the bytes with this [format](BytesMessage::format), and waits for space as
    /// [`EndpointSender::send`](crate::EndpointSender::send) does. If the receiver has changed meanwhile, because it died or
    /// another one matches first, the bytes are sent as a new message would be: routed again, and copied.
    ///
    /// # Errors
    /// As for [`EndpointSender::send`](crate::EndpointSender::send). The loan is dropped then.
    pub fn send(mut self, format: u16) -> Result<(), SendError> {
        let endpoint = self.endpoint.clone();
        let core = &endpoint.core;
        if core.forked() {
            return Err(SendError::Forked);
        }
        let patience = Patience::Until(None);
        if let Memory::Block(lent) = &mut self.memory {
            lent.lease.put(0, &format.to_le_bytes());
            if lent.send(core, &self.selector, patience)? {
                return Ok(());
            }
        }
        let message = BytesMessage {
            format,
            data: match &mut self.memory {
                Memory::Private(bytes) => std::mem::take(bytes),
                Memory::Block(_) => {
                    let mut bytes = private(self.len())?;
                    bytes.copy_from_slice(&self);
                    bytes
                }
            },
        };
        let mut encoder = Encoder::new();
        message.encode(&mut encoder)?;
        let sending = Sending::plain(message.uuid(), &encoder);
        if deliver(core, &self.selector, &sending, patience, &mut None)? {
            park(core, &self.selector, &sending, Vec::new(), Vec::new());
        }
        Ok(())
    }
}

/// So many zeros.
fn private(size: usize) -> Result<Vec<u8>, SendError> {
    let mut bytes = Vec::new();
    crate::message::reserve(&mut bytes, size)?;
    bytes.resize(size, 0);
    Ok(bytes)
}

impl Deref for Loan {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Private(bytes) => bytes,
            Memory::Block(_) if self.endpoint.core.forked() => &[],
            // SAFETY: the block is leased to this loan: no other thread has it, no other process can map it writably, and
            // it stays mapped for as long as the lease lives. It has been initialised by the system.
            Memory::Block(lent) => unsafe { lent.lease.bytes(FRONT).as_ref() },
        }
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Private(bytes) => bytes,
            Memory::Block(_) if self.endpoint.core.forked() => &mut [],
            // SAFETY: as above. The receiver may look at it too early, against the rules; what it sees is its affair.
            Memory::Block(lent) => unsafe { lent.lease.bytes(FRONT).as_mut() },
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Memory::Block(lent) = &self.memory
            && !self.endpoint.core.forked()
        {
            lent.give_back(&self.endpoint.core);
        }
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan")
            .field("len", &self.len())
            .field("selector", &self.selector)
            .finish_non_exhaustive()
    }
}

/// A block of the link to a receiver, leased until it is sent or given back.
struct Lent {
    lease: Lease,
    target: u64,
    /// The link's number.
    link: u64,
    sent: bool,
}

/// Leases a block for `len` bytes. `None` while there is no single receiver, or no link to it yet.
fn lend(
    core: &Core,
    selector: &Selector,
    len: usize,
    patience: Patience,
) -> Result<Option<Lent>, SendError> {
    selector.label_op.check()?;
    check_size(core, len)?;
    if selector.mode == SelectorMode::Multicast {
        return Ok(None);
    }
    let mut waited = Waited::default();
    loop {
        let mut outbox = core.outbox();
        // What it heard while it waited may have been meant for others.
        if outbox.held > 0 {
            outbox.pump(core);
        }
        if outbox.refresh(core)? == Standing::Settling {
            return Ok(None);
        }
        let route = outbox.route(&selector.label_op, SelectorMode::Unicast);
        let Some(target) = route.targets.first().copied() else {
            return Ok(None);
        };
        let Some(link) = outbox.link(target) else {
            return Ok(None);
        };
        let number = link.number;
        let refusal = match link.out.lease(len, FRONT) {
            Ok(lease) => {
                waited.end(&mut outbox);
                return Ok(Some(Lent {
                    lease,
                    target,
                    link: number,
                    sent: false,
                }));
            }
            Err(refusal) => refusal,
        };
        if let Err(attempt) = outbox.count(Err(refusal), len) {
            wait(core, outbox, target, attempt, patience, &mut waited)?;
        }
    }
}

impl Lent {
    /// Sends the block. False if it is not for this receiver, or not by this link, any more.
    fn send(
        &mut self,
        core: &Core,
        selector: &Selector,
        patience: Patience,
    ) -> Result<bool, SendError> {
        let deadline = deadline_of(selector);
        let mut waited = Waited::default();
        loop {
            let mut outbox = core.outbox();
            // While it is not settled who is on the bus, a link goes on by what was known before.
            outbox.refresh(core)?;
            let route = outbox.route(&selector.label_op, SelectorMode::Unicast);
            let origin = route.origin.clone();
            if route.targets.first() != Some(&self.target) {
                return Ok(false);
            }
            if let Some(attempt) = outbox.must_queue(core, self.target) {
                wait(core, outbox, self.target, attempt, patience, &mut waited)?;
                continue;
            }
            let Some(link) = outbox.link(self.target).filter(|l| l.number == self.link) else {
                return Ok(false);
            };
            let parcel = Parcel {
                uuid: &BytesMessage::UUID,
                head: &[],
                tail: &[],
                objects: 0,
                regions: 0,
                handles: &[],
            };
            let written = link
                .out
                .write_block(&parcel, &self.lease, Some(&origin), deadline);
            match outbox.count(written, self.lease.len()) {
                Ok(()) => {
                    self.sent = true;
                    waited.end(&mut outbox);
                    return Ok(true);
                }
                Err(attempt) => {
                    wait(core, outbox, self.target, attempt, patience, &mut waited)?;
                }
            }
        }
    }

    /// The block may be used for another message.
    fn give_back(&self, core: &Core) {
        let mut outbox = core.outbox();
        if let Some(link) = outbox.link_of(self.target, self.link)
            && !self.sent
        {
            link.out.abandon(&self.lease);
            outbox.tell_of_room(self.target);
        }
    }
}
