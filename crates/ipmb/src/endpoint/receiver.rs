//! The receiving half.

use super::{Endpoint, inbox::Patience};
use crate::{
    Message, MessageBox, RecvError, Stats, control::membership::Phase, sys::BorrowedWaitable,
};
use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

/// The receiving half of an endpoint. Dropping it makes the endpoint send-only: at once it matches no selector any more. Of
/// what it had not received, unicasts without objects and regions go to others who match, or wait for the rest of their ttl.
/// Unicasts with objects or regions are lost, and so are its copies of multicasts.
///
/// Dropping blocks for up to a second while the bus is told; the process's last half may take a second more, for a close that is
/// slow. Call [`EndpointSender::leave`](crate::EndpointSender::leave) first to choose another time.
///
/// All calls may be made from any thread at the same time; each message goes to one of them.
pub struct EndpointReceiver<R> {
    endpoint: Arc<Endpoint>,
    receives: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for EndpointReceiver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointReceiver").finish_non_exhaustive()
    }
}

impl<R> EndpointReceiver<R> {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            receives: PhantomData,
        }
    }

    /// What this endpoint has done so far. Waits as [`EndpointSender::stats`](crate::EndpointSender::stats) does.
    pub fn stats(&self) -> Stats {
        self.endpoint.stats()
    }

    fn handle(&self) -> BorrowedWaitable<'_> {
        self.endpoint.core.inbox.poll_handle()
    }
}

impl<R: MessageBox> EndpointReceiver<R> {
    /// Receives the next message. Blocks until there is one, at most for `timeout` (`None`: for ever).
    ///
    /// Messages of one sender come in its order. Messages of other types than `R` takes are skipped.
    ///
    /// # Errors
    /// See [`RecvError`]. After [`RecvError::Decode`] and [`RecvError::Attachment`] the message is gone and the next one
    /// can be received; after [`RecvError::Exhausted`] it is still first in line.
    pub fn recv(&self, timeout: Option<Duration>) -> Result<Message<R>, RecvError> {
        self.take(Patience::For(timeout))
    }

    /// Receives a message if there is one now. After [`RecvError::Empty`] the handle that
    /// event loops can wait for (`AsFd`, on Windows `AsHandle`) becomes readable when the next one is there; so an event loop
    /// (such as tokio's `AsyncFd`) clears its readiness only after `Empty`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Message<R>, RecvError> {
        self.take(Patience::None)
    }

    /// The messages as they come; waits for each. Ends when the endpoint is no longer on the bus, and where
    /// [`recv`](Self::recv) says [`RecvError::Io`]; ask that for the reason. A message that cannot be received is an `Err` item and
    /// the next follows. While memory or handles are short, every item is [`RecvError::Exhausted`], with no pause between them:
    /// free some, or wait, before you ask for the next.
    pub fn iter(&self) -> Iter<'_, R> {
        Iter { receiver: self }
    }

    #[inline]
    fn take(&self, patience: Patience) -> Result<Message<R>, RecvError> {
        let core = &self.endpoint.core;
        if core.forked() {
            return Err(RecvError::Forked);
        }
        core.inbox.recv(patience)
    }
}

impl<R> Drop for EndpointReceiver<R> {
    fn drop(&mut self) {
        let core = &self.endpoint.core;
        if core.forked() {
            return;
        }
        // Nobody sends: the endpoint leaves as a whole.
        if Arc::strong_count(&self.endpoint) > 1 {
            let done = core.membership.status().done;
            core.orders.stop_receiving();
            let deadline = Instant::now() + Duration::from_secs(1);
            core.membership.wait(Some(deadline), |status| {
                let over = matches!(status.phase, Phase::Left | Phase::Failed(_));
                (over || status.done > done).then_some(())
            });
        }
        core.inbox.close();
    }
}

/// Messages as they come, see [`EndpointReceiver::iter`].
#[derive(Debug)]
pub struct Iter<'r, R> {
    receiver: &'r EndpointReceiver<R>,
}

impl<R: MessageBox> Iterator for Iter<'_, R> {
    type Item = Result<Message<R>, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.receiver.recv(None) {
            Err(
                RecvError::Left
                | RecvError::Forked
                | RecvError::TokenMismatch
                | RecvError::PermissionDenied
                | RecvError::VersionMismatch(_)
                | RecvError::Io(..),
            ) => None,
            other => Some(other),
        }
    }
}

impl<'r, R: MessageBox> IntoIterator for &'r EndpointReceiver<R> {
    type Item = Result<Message<R>, RecvError>;
    type IntoIter = Iter<'r, R>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

crate::sys::waitable_traits! {
    /// A handle to wait for, with what this system has for that: poll, epoll, an event loop. It is ready to be read when there
    /// may be a message; receive with [`try_recv`](EndpointReceiver::try_recv) until it says [`RecvError::Empty`], then wait.
    /// Do nothing else with it.
    EndpointReceiver<R>, handle
}
