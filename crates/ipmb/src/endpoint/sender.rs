//! The sending half.

use super::{
    Endpoint,
    delivery::{deliver, park},
    loan::Loan,
    outbox::{Sending, io_error},
    patience::Patience,
};
use crate::{
    Encoder, MemoryRegion, Message, MessageBox, Object, Selector, SelectorMode, SendError, Stats,
    TrySendError,
};
use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

/// The sending half of an endpoint. Clones share the endpoint, and its order of messages.
///
/// All calls may be made from any thread at the same time.
pub struct EndpointSender<T> {
    endpoint: Arc<Endpoint>,
    sends: PhantomData<fn(T)>,
}

impl<T> Clone for EndpointSender<T> {
    fn clone(&self) -> Self {
        Self {
            endpoint: self.endpoint.clone(),
            sends: PhantomData,
        }
    }
}

impl<T> fmt::Debug for EndpointSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointSender").finish_non_exhaustive()
    }
}

impl<T> EndpointSender<T> {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            sends: PhantomData,
        }
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn core(&self) -> &Arc<super::Core> {
        &self.endpoint.core
    }

    /// Leaves the bus in good order: parked messages and, if it is here, the controller's role are handed over. Afterwards
    /// both halves' calls fail with `Left`. Blocks at most for `timeout` (`None`: for ever).
    ///
    /// An endpoint without [`controller_affinity`](crate::Options::controller_affinity) that finds no controller for 60 ms (0.8 s
    /// with parked messages) leaves without announcing it. If a controller appears only later, the endpoint stays listed until
    /// its process ends, and messages for which it is the first match wait and are not delivered.
    ///
    /// # Errors
    /// [`SendError::Timeout`] if nobody took over in time, [`SendError::ControllerStopped`] if that is why; the endpoint is off
    /// the bus all the same once it is dropped. [`SendError::Forked`].
    pub fn leave(&self, timeout: Option<Duration>) -> Result<(), SendError> {
        self.endpoint.leave(timeout)
    }

    /// What this endpoint has done so far. Waits while another thread puts a message into a link, or receives or
    /// [watches](crate::Options::spin) for messages; not while it sleeps.
    pub fn stats(&self) -> Stats {
        self.endpoint.stats()
    }

    /// Lends memory for a message of `size` bytes, to be written where its receiver will read it, and sent as a
    /// [`BytesMessage`](crate::BytesMessage) with [`Loan::send`]. What is received as a [`BytesView`](crate::BytesView)
    /// stays there; only what is looked at is copied out.
    ///
    /// Waits while the receiver has not taken 4 MiB of payloads, or it and you hold 32 blocks or 64 MiB (two blocks are
    /// always allowed), at most for `timeout` (`None`: for ever). Where there is no single linked receiver (the first message to
    /// somebody, a multicast, nobody who matches, this endpoint itself, or while a new controller is elected) the loan is
    /// private memory, and copied when it is sent.
    ///
    /// # Errors
    /// [`SendError::Timeout`], [`SendError::TooLarge`], [`SendError::Exhausted`] without memory, and what [`send`](Self::send) returns.
    ///
    /// ```
    /// use ipmb::{BytesMessage, BytesView, Options, Selector, label};
    ///
    /// let bus = format!("doc.loan.{}", std::process::id());
    /// let join = |label: &str| Options::new(&bus, label!(label), "");
    /// let (sender, _) = ipmb::join::<BytesMessage, ()>(join("camera"), None)?;
    /// let (_other, receiver) = ipmb::join::<(), BytesView>(join("screen"), None)?;
    /// for frame in 0..3 {
    ///     let mut loan = sender.loan(&Selector::unicast("screen"), 1 << 20, None)?;
    ///     loan.fill(frame);
    ///     loan.send(1)?;
    ///
    ///     let view = receiver.recv(None)?.payload;
    ///     view.for_each_chunk(|bytes| assert!(bytes.iter().all(|b| *b == frame)))?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn loan(
        &self,
        selector: &Selector,
        size: usize,
        timeout: Option<Duration>,
    ) -> Result<Loan, SendError> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let patience = Patience::Until(deadline);
        Loan::new(self.endpoint.clone(), selector, size, patience)
    }

    /// Asks for news of room at the endpoint `id`, which [`SendError::Full`] named: [`rooms`](Self::rooms) will list it
    /// once. False if nobody may tell, because there is no link yet or handles are short: try again in some
    /// milliseconds. Never blocks.
    pub fn watch_room(&self, id: u64) -> bool {
        let core = &*self.endpoint.core;
        !core.forked() && core.outbox().watch_room(core, id)
    }

    /// The endpoints that may have room again, or are gone, of those that [`watch_room`](Self::watch_room) was asked
    /// about. Each is listed once; ask again as needed. Never blocks.
    pub fn rooms(&self) -> Vec<u64> {
        let core = &*self.endpoint.core;
        if core.forked() {
            return Vec::new();
        }
        core.outbox().take_rooms()
    }

    /// A descriptor to wait for in an event loop: readable while [`rooms`](Self::rooms) has something to list. Do nothing
    /// else with it. Each call returns another one.
    ///
    /// # Errors
    /// [`SendError::Exhausted`] if descriptors ran out, [`SendError::Forked`].
    pub fn room_object(&self) -> Result<Object, SendError> {
        let core = &*self.endpoint.core;
        if core.forked() {
            return Err(SendError::Forked);
        }
        let mut outbox = core.outbox();
        let handle = outbox.room_ringer().and_then(|ringer| ringer.handle());
        Ok(Object::from(handle.map_err(io_error)?))
    }
}

impl<T: MessageBox> EndpointSender<T> {
    /// Sends a message, and waits for space as long as it takes. On error the message is dropped; use
    /// [`send_timeout`](Self::send_timeout) to get it back.
    ///
    /// `Ok` means that the message is in the links of its receivers, or parked, or that nobody matched a selector without
    /// `ttl`; not that anybody has received it. Two endpoints that each wait here for space at the other, and receive on the
    /// same thread, wait for ever: use [`try_send`](Self::try_send) there.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&self, mut message: Message<T>) -> Result<(), SendError> {
        self.send_now(&mut message, Patience::Until(None), None)
    }

    /// Sends a message if that is possible at once.
    ///
    /// # Errors
    /// [`SendError::Full`], [`SendError::Settling`] and what [`send`](Self::send) returns, with the message.
    pub fn try_send(&self, message: Message<T>) -> Result<(), TrySendError<T>> {
        self.dispatch(message, Patience::None, None)
    }

    /// Sends a message, and waits for space at most for `timeout` (`None`: for ever).
    ///
    /// # Errors
    /// [`SendError::Timeout`], [`SendError::ControllerStopped`] and what [`send`](Self::send) returns, with the message.
    pub fn send_timeout(
        &self,
        message: Message<T>,
        timeout: Option<Duration>,
    ) -> Result<(), TrySendError<T>> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        self.dispatch(message, Patience::Until(deadline), None)
    }

    /// As [`try_send`](Self::try_send), and takes for full every endpoint for whose id `may` is false. For programs that keep
    /// a queue of their own for each receiver, as an event loop must: what is in a queue is not to be overtaken.
    ///
    /// [`SendError::Full`] names the endpoint whenever one is known, also while there is no link to it yet; ask
    /// [`watch_room`](Self::watch_room) for news of it. `may` is called under the endpoint's lock: one that uses this
    /// endpoint waits for itself for ever.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn try_send_if(
        &self,
        message: Message<T>,
        may: impl Fn(u64) -> bool,
    ) -> Result<(), TrySendError<T>> {
        self.dispatch(message, Patience::None, Some(&may))
    }

    #[inline]
    fn dispatch(
        &self,
        mut message: Message<T>,
        patience: Patience,
        may: Option<&dyn Fn(u64) -> bool>,
    ) -> Result<(), TrySendError<T>> {
        match self.send_now(&mut message, patience, may) {
            Ok(()) => Ok(()),
            Err(kind) => Err(TrySendError {
                kind,
                message: Box::new(message),
            }),
        }
    }

    #[inline]
    fn send_now(
        &self,
        message: &mut Message<T>,
        patience: Patience,
        may: Option<&dyn Fn(u64) -> bool>,
    ) -> Result<(), SendError> {
        let core = &*self.endpoint.core;
        if core.forked() {
            return Err(SendError::Forked);
        }
        let Message {
            selector,
            bound,
            payload,
            objects,
            memory_regions,
        } = message;
        // Who receives a region may freeze it at once.
        memory_regions.iter_mut().for_each(MemoryRegion::unmap);
        let mut encoder = Encoder::new();
        payload.encode(&mut encoder)?;
        let sending = Sending {
            objects,
            regions: memory_regions,
            gives: selector.mode == SelectorMode::Unicast,
            may,
            ..Sending::plain(payload.uuid(), &encoder)
        };
        if deliver(core, selector, &sending, patience, bound)? {
            let plain = Sending::plain(sending.uuid, &encoder);
            let (objects, regions) = (std::mem::take(objects), std::mem::take(memory_regions));
            park(core, selector, &plain, objects, regions);
        }
        Ok(())
    }
}
