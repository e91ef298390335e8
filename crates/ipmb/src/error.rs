//! The errors that the public calls return. Each names what is wrong and, where there is one, the remedy.

use crate::{Version, message::Message};
use std::{fmt, io, sync::Arc};
use thiserror::Error;

/// What ran out. Part of the errors about exhaustion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// Descriptors or handles: the process's or the system's table is full (`ulimit -n`).
    Handles,
    /// Memory or address space.
    Memory,
    /// Handles under way between processes: the kernel counts them per user (`ETOOMANYREFS`).
    HandlesInFlight,
}

impl Resource {
    /// What ran out, if that is what a system error says.
    ///
    /// ```
    /// use ipmb::Resource;
    /// use std::io;
    ///
    /// let error = io::Error::from(io::ErrorKind::OutOfMemory);
    /// assert_eq!(Resource::of(&error), Some(Resource::Memory));
    /// assert_eq!(Resource::of(&io::ErrorKind::NotFound.into()), None);
    /// ```
    pub fn of(error: &io::Error) -> Option<Self> {
        // An allocation of ours that failed has a kind, and no code of the system.
        let allocation = error.kind() == io::ErrorKind::OutOfMemory;
        crate::sys::exhausted(error).or(allocation.then_some(Self::Memory))
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handles => "file descriptors or handles (raise `ulimit -n` or close some)",
            Self::Memory => "memory (free some or raise the limit)",
            Self::HandlesInFlight => "handles under way between processes of this user",
        })
    }
}

/// A failure of an operation on messages, labels, objects and memory regions.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Error {
    /// The payload could not be serialised.
    #[error("the payload cannot be encoded: {0}")]
    Encode(String),
    /// The payload is not what its type says.
    #[error("the payload does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// The payload's type is none of those that are taken here.
    #[error("the payload's type is not among those taken here")]
    TypeUuidNotFound,
    /// A label or a selector is over one of its limits.
    #[error("{0}")]
    Limit(&'static str),
    /// A range is not inside the region.
    #[error("the range {start}..{end} is not inside a region of {size} bytes")]
    OutOfBounds {
        /// First byte asked for.
        start: usize,
        /// One past the last byte asked for.
        end: usize,
        /// Size of the region in bytes.
        size: usize,
    },
    /// The region is mapped writably by some process and can't be frozen now.
    #[error("the region is mapped writably somewhere; unmap it there, then freeze it")]
    Busy,
    /// The region is frozen and cannot be mapped writably.
    #[error("the region is frozen; read it with `MemoryRegion::as_frozen`")]
    Frozen,
    /// The region is not frozen, so a plain slice of it would not be sound.
    #[error("the region is not frozen; call `MemoryRegion::freeze` first")]
    NotFrozen,
    /// The handle is not a memory region of this library, or could change its size.
    #[error("not a memory region: {0}")]
    NotARegion(&'static str),
    /// The region is larger than the receiver's limit.
    #[error("the region has {size} bytes, the limit is {limit}")]
    RegionTooLarge {
        /// Size of the region in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The region belongs to the parent of this forked process.
    #[error("the region belongs to the parent process")]
    Forked,
    /// Something ran out.
    #[error("out of {0}")]
    Exhausted(Resource, #[source] Arc<io::Error>),
    /// The operating system refused a call.
    #[error("{0} failed")]
    Io(&'static str, #[source] Arc<io::Error>),
}

impl Error {
    /// Wraps a system error and recognises exhaustion.
    pub(crate) fn io(what: &'static str, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        match Resource::of(&error) {
            Some(resource) => Self::Exhausted(resource, Arc::new(error)),
            None => Self::Io(what, Arc::new(error)),
        }
    }
}

/// Why a payload did not decode.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct DecodeError(pub(crate) String);

/// Why [`join`](crate::join) failed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// No controller answered in time.
    #[error("no controller answered within the timeout")]
    Timeout,
    /// The controller is stopped (SIGSTOP, a debugger), so nobody can join until it continues.
    #[error("the controller, process {pid}, is stopped; continue or end it")]
    ControllerStopped {
        /// The controller's process id.
        pid: u32,
    },
    /// The bus speaks another protocol; 0.0.0: there is no ipmb bus at that name.
    #[error("the bus speaks protocol {0}, which is not compatible with this program")]
    VersionMismatch(Version),
    /// The tokens differ.
    #[error("the bus has another token")]
    TokenMismatch,
    /// The access rules of the bus do not admit this user, or its controller runs as a user who is not admitted.
    #[error("the access rules of the bus do not admit this user")]
    PermissionDenied,
    /// The bus's name is held by a user who may not host it.
    #[error(
        "the name of the bus is held by process {pid} of user {uid}, who may not host it; use a path rendezvous where others may squat names"
    )]
    NameSquatted {
        /// User id of the process that holds the name.
        uid: u32,
        /// Its process id.
        pid: u32,
    },
    /// The controller has no room for another endpoint: its process is out of descriptors, or the bus is full.
    #[error(
        "the controller, process {pid}, has no room for another endpoint; raise its `ulimit -n` or let others leave"
    )]
    BusFull {
        /// The controller's process id.
        pid: u32,
    },
    /// The identifier is empty, too long or has a NUL.
    #[error("the identifier {identifier:?} is not valid: {reason}")]
    InvalidIdentifier {
        /// The identifier, cut to 64 characters.
        identifier: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An option is out of its range.
    #[error("the option `{option}` is not valid: {reason}")]
    InvalidOption {
        /// Name of the option.
        option: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The bus does not run on this operating system; the README lists those on which it does.
    #[error("ipmb does not run on this operating system")]
    UnsupportedSystem,
    /// Something ran out.
    #[error("out of {0}")]
    Exhausted(Resource, #[source] Arc<io::Error>),
    /// The operating system refused a call.
    #[error("{0} failed")]
    Io(&'static str, #[source] Arc<io::Error>),
}

impl JoinError {
    pub(crate) fn io(what: &'static str, error: impl Into<io::Error>) -> Self {
        match Error::io(what, error) {
            Error::Exhausted(resource, error) => Self::Exhausted(resource, error),
            Error::Io(what, error) => Self::Io(what, error),
            _ => Self::PermissionDenied,
        }
    }

    /// For a line of the log, which shows no sources.
    pub(crate) fn with_cause(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum SendError {
    /// There was no space within the timeout.
    #[error("no space within the timeout")]
    Timeout,
    /// There is no space now; only from [`try_send`](crate::EndpointSender::try_send) and
    /// [`try_send_if`](crate::EndpointSender::try_send_if). Also while the link is new and sixteen others of this endpoint are
    /// not accepted yet either. The number is the endpoint's id, for [`watch_room`](crate::EndpointSender::watch_room); 0 if
    /// messages sent earlier wait and no single endpoint is the cause.
    #[error("{}", full(*.0))]
    Full(u64),
    /// The endpoint's queue to itself is full; receive first.
    #[error(
        "the endpoint's queue to itself holds {limit} bytes (option `self_queue`); receive first"
    )]
    SelfQueueFull {
        /// The limit in bytes.
        limit: usize,
    },
    /// A new controller is being elected and who matches is not settled yet (only from `try_send`).
    #[error("a new controller is being elected; who matches is not settled yet")]
    Settling,
    /// The controller is stopped, and the message needs it for a first contact.
    #[error("the controller, process {pid}, is stopped; continue or end it")]
    ControllerStopped {
        /// The controller's process id.
        pid: u32,
    },
    /// The bus speaks another protocol since its controller changed.
    /// A member that meets such a controller keeps its links and looks for another, so today nothing returns this.
    #[error("the bus speaks protocol {0}, which is not compatible with this program")]
    VersionMismatch(Version),
    /// The bus has another token since its controller changed.
    /// A member that meets such a controller keeps its links and looks for another, so today nothing returns this.
    #[error("the bus has another token")]
    TokenMismatch,
    /// The bus no longer admits this endpoint.
    /// A member that meets such a controller keeps its links and looks for another, so today nothing returns this.
    #[error("the access rules of the bus do not admit this user")]
    PermissionDenied,
    /// The payload is larger than the limit.
    #[error("the payload has {size} bytes, the limit is {limit} (option `max_payload`)")]
    TooLarge {
        /// Size of the encoded payload in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More than 253 objects or 253 memory regions.
    #[error("{count} attachments, a message carries at most 253 objects and 253 memory regions")]
    TooManyAttachments {
        /// How many there were.
        count: usize,
    },
    /// The selector is over one of its limits, or the payload or an attachment can't be sent.
    #[error("the message cannot be sent")]
    Message(#[source] Error),
    /// Something ran out.
    #[error("out of {0}")]
    Exhausted(Resource, #[source] Arc<io::Error>),
    /// The endpoint has left the bus.
    #[error("the endpoint has left the bus")]
    Left,
    /// The endpoint belongs to the parent of this forked process.
    #[error("the endpoint belongs to the parent process; join again after fork")]
    Forked,
    /// The operating system refused a call.
    #[error("{0} failed")]
    Io(&'static str, #[source] Arc<io::Error>),
}

fn full(id: u64) -> String {
    match id {
        0 => "messages that were sent earlier still wait".into(),
        id => format!("the link to endpoint {id} is full"),
    }
}

impl SendError {
    /// Whether the same message may be sent later.
    pub(crate) fn is_shortage(&self) -> bool {
        matches!(self, Self::Exhausted(..) | Self::SelfQueueFull { .. })
    }
}

impl From<JoinError> for SendError {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Timeout => Self::Timeout,
            JoinError::VersionMismatch(version) => Self::VersionMismatch(version),
            JoinError::TokenMismatch => Self::TokenMismatch,
            JoinError::ControllerStopped { pid } => Self::ControllerStopped { pid },
            JoinError::Exhausted(resource, error) => Self::Exhausted(resource, error),
            JoinError::Io(what, error) => Self::Io(what, error),
            _ => Self::PermissionDenied,
        }
    }
}

impl From<JoinError> for RecvError {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Timeout => Self::Timeout,
            JoinError::VersionMismatch(version) => Self::VersionMismatch(version),
            JoinError::TokenMismatch => Self::TokenMismatch,
            JoinError::Exhausted(resource, error) => Self::Exhausted(resource, error),
            JoinError::Io(what, error) => Self::Io(what, error),
            _ => Self::PermissionDenied,
        }
    }
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        match error {
            Error::Exhausted(resource, error) => Self::Exhausted(resource, error),
            Error::Io(what, error) => Self::Io(what, error),
            other => Self::Message(other),
        }
    }
}

/// Why [`try_send`](crate::EndpointSender::try_send) or [`send_timeout`](crate::EndpointSender::send_timeout)
/// failed, with the message.
pub struct TrySendError<T> {
    pub(crate) kind: SendError,
    pub(crate) message: Box<Message<T>>,
}

impl<T> TrySendError<T> {
    /// What went wrong.
    pub fn kind(&self) -> &SendError {
        &self.kind
    }

    /// The message, which can be sent again; its regions have been unmapped. After a multicast it is bound to the receivers
    /// that it has not reached.
    pub fn into_message(self) -> Message<T> {
        *self.message
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrySendError").field(&self.kind).finish()
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl<T> std::error::Error for TrySendError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.kind.source()
    }
}

impl<T> From<TrySendError<T>> for SendError {
    fn from(error: TrySendError<T>) -> Self {
        error.kind
    }
}

/// Why no message was received.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum RecvError {
    /// No message within the timeout.
    #[error("no message within the timeout")]
    Timeout,
    /// No message now (only from `try_recv`).
    #[error("no message now")]
    Empty,
    /// A payload did not decode, or is larger than this endpoint takes ([`max_payload`](crate::Options::max_payload)). The
    /// message is gone; the next one can be received.
    #[error("a payload does not decode")]
    Decode(#[from] DecodeError),
    /// The bus speaks another protocol since its controller changed.
    /// A member that meets such a controller keeps its links and looks for another, so today nothing returns this.
    #[error("the bus speaks protocol {0}, which is not compatible with this program")]
    VersionMismatch(Version),
    /// The bus has another token since its controller changed.
    /// A member that meets such a controller keeps its links and looks for another, so today nothing returns this.
    #[error("the bus has another token")]
    TokenMismatch,
    /// The bus no longer admits this endpoint.
    /// A member that meets such a controller keeps its links and looks for another, so today nothing returns this.
    #[error("the access rules of the bus do not admit this user")]
    PermissionDenied,
    /// A memory region of the message is over the limit or no region. The message is gone.
    #[error("an attachment was refused")]
    Attachment(#[source] Error),
    /// Something ran out. The message stays first in line; free some and receive again.
    #[error("out of {0}; the message is kept")]
    Exhausted(Resource, #[source] Arc<io::Error>),
    /// The endpoint has left the bus.
    #[error("the endpoint has left the bus")]
    Left,
    /// The endpoint belongs to the parent of this forked process.
    #[error("the endpoint belongs to the parent process; join again after fork")]
    Forked,
    /// The operating system refused a call.
    #[error("{0} failed")]
    Io(&'static str, #[source] Arc<io::Error>),
}

impl From<Error> for RecvError {
    fn from(error: Error) -> Self {
        match error {
            Error::Exhausted(resource, error) => Self::Exhausted(resource, error),
            Error::Io(what, error) => Self::Io(what, error),
            Error::Decode(error) => Self::Decode(error),
            other => Self::Attachment(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_link_is_named_and_none_that_there_is_not() {
        let said = |id| SendError::Full(id).to_string();
        assert_eq!(said(42), "the link to endpoint 42 is full");
        assert_eq!(said(0), "messages that were sent earlier still wait");
    }
}
