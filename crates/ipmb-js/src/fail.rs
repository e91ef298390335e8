//! Errors as JavaScript sees them: a message and a `code`.

use ipmb::{Error, JoinError, RecvError, Resource, SendError};
use std::{error::Error as StdError, fmt::Write, io};

/// An error whose status becomes the property `code`.
pub(crate) type Fail = napi::Error<&'static str>;

pub(crate) type Result<T> = std::result::Result<T, Fail>;

pub(crate) const CLOSED: &str = "IPMB_CLOSED";
pub(crate) const FULL: &str = "IPMB_FULL";
pub(crate) const INVALID_ARGUMENT: &str = "IPMB_INVALID_ARGUMENT";
const EXHAUSTED: &str = "IPMB_EXHAUSTED";
const IO: &str = "IPMB_IO";

pub(crate) fn fail(code: &'static str, text: impl Into<String>) -> Fail {
    napi::Error::new(code, text.into())
}

pub(crate) fn closed(what: &str) -> Fail {
    fail(CLOSED, format!("the {what} is closed"))
}

pub(crate) fn io(what: &str, error: &io::Error) -> Fail {
    // Nothing that is called here waits: that it would is what Unix says of a thread for which there is no room.
    let code = match Resource::of(error).is_some() || error.kind() == io::ErrorKind::WouldBlock {
        true => EXHAUSTED,
        false => IO,
    };
    fail(code, format!("{what}: {error}"))
}

/// The error's text with those of its causes.
fn told(code: &'static str, error: &dyn StdError) -> Fail {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    fail(code, text)
}

pub(crate) fn of_join(error: &JoinError) -> Fail {
    let code = match error {
        JoinError::Timeout => "IPMB_TIMEOUT",
        JoinError::ControllerStopped { .. } => "IPMB_CONTROLLER_STOPPED",
        JoinError::VersionMismatch(_) => "IPMB_VERSION_MISMATCH",
        JoinError::TokenMismatch => "IPMB_TOKEN_MISMATCH",
        JoinError::PermissionDenied => "IPMB_PERMISSION_DENIED",
        JoinError::NameSquatted { .. } => "IPMB_NAME_SQUATTED",
        JoinError::BusFull { .. } => "IPMB_BUS_FULL",
        JoinError::UnsupportedSystem => "IPMB_UNSUPPORTED_SYSTEM",
        JoinError::InvalidIdentifier { .. } => "IPMB_INVALID_IDENTIFIER",
        JoinError::InvalidOption { .. } => "IPMB_INVALID_OPTION",
        JoinError::Exhausted(..) => EXHAUSTED,
        _ => IO,
    };
    told(code, error)
}

pub(crate) fn of_send(error: &SendError) -> Fail {
    let code = match error {
        SendError::Timeout => "IPMB_TIMEOUT",
        SendError::Full(_) | SendError::SelfQueueFull { .. } => FULL,
        SendError::Settling => "IPMB_SETTLING",
        SendError::ControllerStopped { .. } => "IPMB_CONTROLLER_STOPPED",
        SendError::VersionMismatch(_) => "IPMB_VERSION_MISMATCH",
        SendError::TokenMismatch => "IPMB_TOKEN_MISMATCH",
        SendError::PermissionDenied => "IPMB_PERMISSION_DENIED",
        SendError::TooLarge { .. } => "IPMB_TOO_LARGE",
        SendError::TooManyAttachments { .. } => "IPMB_TOO_MANY_ATTACHMENTS",
        SendError::Message(error) => return of_error(error),
        SendError::Exhausted(..) => EXHAUSTED,
        SendError::Left => "IPMB_LEFT",
        SendError::Forked => "IPMB_FORKED",
        _ => IO,
    };
    told(code, error)
}

pub(crate) fn of_recv(error: &RecvError) -> Fail {
    let code = match error {
        RecvError::Timeout => "IPMB_TIMEOUT",
        RecvError::Empty => "IPMB_EMPTY",
        RecvError::Decode(_) => "IPMB_DECODE",
        RecvError::VersionMismatch(_) => "IPMB_VERSION_MISMATCH",
        RecvError::TokenMismatch => "IPMB_TOKEN_MISMATCH",
        RecvError::PermissionDenied => "IPMB_PERMISSION_DENIED",
        RecvError::Attachment(error) => return of_error(error),
        RecvError::Exhausted(..) => EXHAUSTED,
        RecvError::Left => "IPMB_LEFT",
        RecvError::Forked => "IPMB_FORKED",
        _ => IO,
    };
    told(code, error)
}

pub(crate) fn of_error(error: &Error) -> Fail {
    let code = match error {
        Error::Encode(_) => "IPMB_ENCODE",
        Error::Decode(_) | Error::TypeUuidNotFound => "IPMB_DECODE",
        Error::Limit(_) => "IPMB_LIMIT",
        Error::OutOfBounds { .. } => "IPMB_OUT_OF_BOUNDS",
        Error::Busy => "IPMB_BUSY",
        Error::Frozen => "IPMB_FROZEN",
        Error::NotFrozen => "IPMB_NOT_FROZEN",
        Error::NotARegion(_) => "IPMB_NOT_A_REGION",
        Error::RegionTooLarge { .. } => "IPMB_REGION_TOO_LARGE",
        Error::Forked => "IPMB_FORKED",
        Error::Exhausted(..) => EXHAUSTED,
        _ => IO,
    };
    told(code, error)
}
