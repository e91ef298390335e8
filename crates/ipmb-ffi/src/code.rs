//! The error codes: one table, from which the constants, their texts and their part of the header are made.

use ipmb::{Error, JoinError, RecvError, Resource, SendError};
use std::{
    ffi::{CStr, c_char},
    io,
};

/// What most functions return: 0 or a negative code.
pub type ErrorCode = i32;

macro_rules! codes {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        $(
            #[doc = concat!("The code for: ", $text, ".")]
            pub const $name: ErrorCode = $value;
        )*

        /// Name, value and text of every code.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, ErrorCode, &str)] = &[$((stringify!($name), $value, $text)),*];

        fn text(code: ErrorCode) -> &'static CStr {
            match code {
                $($name => {
                    // A literal without a NUL, which the terminator follows.
                    const TEXT: &CStr = match CStr::from_bytes_with_nul(concat!($text, "\0").as_bytes()) {
                        Ok(text) => text,
                        Err(_) => panic!("a NUL in a text"),
                    };
                    TEXT
                })*
                _ => c"no code of this library",
            }
        }
    };
}

codes! {
    ERROR_CODE_SUCCESS = 0, "success";
    ERROR_CODE_UNKNOWN = -1, "an error without a code of its own";
    ERROR_CODE_TIMEOUT = -2, "the time is up";
    ERROR_CODE_DECODE = -3, "a payload does not decode; the message is gone, the next one can be received";
    ERROR_CODE_VERSION_MISMATCH = -4, "the bus speaks an incompatible version of the protocol";
    ERROR_CODE_TOKEN_MISMATCH = -5, "the bus has another token";
    ERROR_CODE_PERMISSION_DENIED = -6, "the access rules of the bus do not admit this user";
    ERROR_CODE_INVALID_ARGUMENT = -7, "a null pointer, a handle of another kind, or a value that is not allowed";
    ERROR_CODE_INVALID_UTF8 = -8, "a text is not UTF-8";
    ERROR_CODE_OUT_OF_RANGE = -9, "an index or a range is out of bounds";
    ERROR_CODE_FULL = -10, "there is no space at a receiver now";
    ERROR_CODE_EMPTY = -11, "there is no message now";
    ERROR_CODE_SETTLING = -12, "a new controller is being elected; who matches is not settled yet";
    ERROR_CODE_CONTROLLER_STOPPED = -13, "the process that hosts the controller is stopped";
    ERROR_CODE_TOO_LARGE = -14, "a payload or a memory region is larger than its limit";
    ERROR_CODE_LIMIT = -15, "a label, a selector or the number of attachments is over its limit";
    ERROR_CODE_EXHAUSTED = -16, "descriptors, memory or handles under way ran out";
    ERROR_CODE_LEFT = -17, "the endpoint has left the bus";
    ERROR_CODE_FORKED = -18, "the handle belongs to the parent of this forked process";
    ERROR_CODE_BUSY = -19, "the memory region is mapped somewhere, or the registry is in use by a caller further up";
    ERROR_CODE_FROZEN = -20, "the memory region is frozen and cannot be mapped writably";
    ERROR_CODE_NOT_FROZEN = -21, "the memory region is not frozen";
    ERROR_CODE_NOT_A_REGION = -22, "the object is no memory region";
    ERROR_CODE_NAME_SQUATTED = -23, "the name of the bus is held by a user who may not host it";
    ERROR_CODE_SYSTEM = -24, "the operating system refused a call";
    ERROR_CODE_PANIC = -25, "the library failed within itself; please report it with the text of ipmb_last_error";
    ERROR_CODE_BUS_FULL = -26, "the controller has no room for another endpoint";
    ERROR_CODE_UNSUPPORTED_SYSTEM = -27, "ipmb does not run on this operating system";
}

/// A text for an error code, in English, without a full stop.
///
/// Ownership: the text is static; do not free it. Never NULL. Thread-safe; does not block; cannot fail. A number that is no
/// error code of this library has a text that says so. ipmb_last_error tells more about one failure.
#[unsafe(no_mangle)]
pub extern "C" fn ipmb_strerror(code: ErrorCode) -> *const c_char {
    text(code).as_ptr()
}

/// A failure on its way to the caller: its code, and what ipmb_last_error will say.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// An argument that is not allowed.
    pub(crate) fn argument(text: impl Into<String>) -> Self {
        Self::new(ERROR_CODE_INVALID_ARGUMENT, text)
    }

    /// With the texts of all that caused `error`.
    fn of(code: ErrorCode, error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self { code, text }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        let code = match &error {
            JoinError::Timeout => ERROR_CODE_TIMEOUT,
            JoinError::ControllerStopped { .. } => ERROR_CODE_CONTROLLER_STOPPED,
            JoinError::VersionMismatch(_) => ERROR_CODE_VERSION_MISMATCH,
            JoinError::TokenMismatch => ERROR_CODE_TOKEN_MISMATCH,
            JoinError::PermissionDenied => ERROR_CODE_PERMISSION_DENIED,
            JoinError::NameSquatted { .. } => ERROR_CODE_NAME_SQUATTED,
            JoinError::BusFull { .. } => ERROR_CODE_BUS_FULL,
            JoinError::UnsupportedSystem => ERROR_CODE_UNSUPPORTED_SYSTEM,
            JoinError::InvalidIdentifier { .. } | JoinError::InvalidOption { .. } => {
                ERROR_CODE_INVALID_ARGUMENT
            }
            JoinError::Exhausted(..) => ERROR_CODE_EXHAUSTED,
            JoinError::Io(..) => ERROR_CODE_SYSTEM,
            _ => ERROR_CODE_UNKNOWN,
        };
        Self::of(code, &error)
    }
}

fn code_of(error: &Error) -> ErrorCode {
    match error {
        Error::Decode(_) | Error::TypeUuidNotFound => ERROR_CODE_DECODE,
        Error::Limit(_) => ERROR_CODE_LIMIT,
        Error::OutOfBounds { .. } => ERROR_CODE_OUT_OF_RANGE,
        Error::Busy => ERROR_CODE_BUSY,
        Error::Frozen => ERROR_CODE_FROZEN,
        Error::NotFrozen => ERROR_CODE_NOT_FROZEN,
        Error::NotARegion(_) => ERROR_CODE_NOT_A_REGION,
        Error::RegionTooLarge { .. } => ERROR_CODE_TOO_LARGE,
        Error::Forked => ERROR_CODE_FORKED,
        Error::Exhausted(..) => ERROR_CODE_EXHAUSTED,
        Error::Io(..) => ERROR_CODE_SYSTEM,
        _ => ERROR_CODE_UNKNOWN,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::of(code_of(&error), &error)
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        let code = match &error {
            SendError::Timeout => ERROR_CODE_TIMEOUT,
            SendError::Full(_) | SendError::SelfQueueFull { .. } => ERROR_CODE_FULL,
            SendError::Settling => ERROR_CODE_SETTLING,
            SendError::ControllerStopped { .. } => ERROR_CODE_CONTROLLER_STOPPED,
            SendError::VersionMismatch(_) => ERROR_CODE_VERSION_MISMATCH,
            SendError::TokenMismatch => ERROR_CODE_TOKEN_MISMATCH,
            SendError::PermissionDenied => ERROR_CODE_PERMISSION_DENIED,
            SendError::TooLarge { .. } => ERROR_CODE_TOO_LARGE,
            SendError::TooManyAttachments { .. } => ERROR_CODE_LIMIT,
            SendError::Message(error) => code_of(error),
            SendError::Exhausted(..) => ERROR_CODE_EXHAUSTED,
            SendError::Left => ERROR_CODE_LEFT,
            SendError::Forked => ERROR_CODE_FORKED,
            SendError::Io(..) => ERROR_CODE_SYSTEM,
            _ => ERROR_CODE_UNKNOWN,
        };
        Self::of(code, &error)
    }
}

impl From<RecvError> for Failure {
    fn from(error: RecvError) -> Self {
        let code = match &error {
            RecvError::Timeout => ERROR_CODE_TIMEOUT,
            RecvError::Empty => ERROR_CODE_EMPTY,
            RecvError::Decode(_) => ERROR_CODE_DECODE,
            RecvError::VersionMismatch(_) => ERROR_CODE_VERSION_MISMATCH,
            RecvError::TokenMismatch => ERROR_CODE_TOKEN_MISMATCH,
            RecvError::PermissionDenied => ERROR_CODE_PERMISSION_DENIED,
            RecvError::Attachment(error) => code_of(error),
            RecvError::Exhausted(..) => ERROR_CODE_EXHAUSTED,
            RecvError::Left => ERROR_CODE_LEFT,
            RecvError::Forked => ERROR_CODE_FORKED,
            RecvError::Io(..) => ERROR_CODE_SYSTEM,
            _ => ERROR_CODE_UNKNOWN,
        };
        Self::of(code, &error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let code = match Resource::of(&error) {
            Some(_) => ERROR_CODE_EXHAUSTED,
            None => ERROR_CODE_SYSTEM,
        };
        Self::of(code, &error)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use ipmb::version;
    use std::sync::Arc;

    fn io_error() -> Arc<io::Error> {
        Arc::new(io::Error::other("the system says no"))
    }

    #[test]
    fn a_shortage_is_taken_for_another_failure() {
        let code = |kind: io::ErrorKind| Failure::from(io::Error::from(kind)).code;
        assert_eq!(code(io::ErrorKind::OutOfMemory), ERROR_CODE_EXHAUSTED);
        assert_eq!(code(io::ErrorKind::NotFound), ERROR_CODE_SYSTEM);
    }

    #[test]
    fn codes_run_down_from_zero_without_a_gap_and_have_texts_of_their_own() {
        let mut seen = std::collections::HashSet::new();
        for (i, (name, value, text)) in ALL.iter().enumerate() {
            assert_eq!(*value, -ErrorCode::try_from(i).unwrap(), "{name}");
            // SAFETY: a static text that ends with a NUL.
            let said = unsafe { CStr::from_ptr(ipmb_strerror(*value)) };
            assert_eq!(said.to_str().unwrap(), *text);
            assert!(seen.insert(*text) && seen.insert(*name));
        }
        for stranger in [1, -1000, i32::MIN, i32::MAX] {
            // SAFETY: as above.
            let said = unsafe { CStr::from_ptr(ipmb_strerror(stranger)) };
            assert!(said.to_str().unwrap().starts_with("no code"));
        }
    }

    #[test]
    fn the_codes_that_older_programs_know_did_not_move() {
        assert_eq!(
            [
                ERROR_CODE_SUCCESS,
                ERROR_CODE_UNKNOWN,
                ERROR_CODE_TIMEOUT,
                ERROR_CODE_DECODE,
                ERROR_CODE_VERSION_MISMATCH,
                ERROR_CODE_TOKEN_MISMATCH,
                ERROR_CODE_PERMISSION_DENIED,
            ],
            [0, -1, -2, -3, -4, -5, -6]
        );
    }

    #[test]
    fn every_failure_of_join_has_its_code() {
        let io = io_error;
        for (error, code) in [
            (JoinError::Timeout, ERROR_CODE_TIMEOUT),
            (
                JoinError::ControllerStopped { pid: 7 },
                ERROR_CODE_CONTROLLER_STOPPED,
            ),
            (
                JoinError::VersionMismatch(version()),
                ERROR_CODE_VERSION_MISMATCH,
            ),
            (JoinError::TokenMismatch, ERROR_CODE_TOKEN_MISMATCH),
            (JoinError::PermissionDenied, ERROR_CODE_PERMISSION_DENIED),
            (
                JoinError::NameSquatted { uid: 1, pid: 2 },
                ERROR_CODE_NAME_SQUATTED,
            ),
            (JoinError::BusFull { pid: 7 }, ERROR_CODE_BUS_FULL),
            (JoinError::UnsupportedSystem, ERROR_CODE_UNSUPPORTED_SYSTEM),
            (
                JoinError::InvalidIdentifier {
                    identifier: String::new(),
                    reason: "it is empty",
                },
                ERROR_CODE_INVALID_ARGUMENT,
            ),
            (
                JoinError::InvalidOption {
                    option: "path",
                    reason: "it is empty",
                },
                ERROR_CODE_INVALID_ARGUMENT,
            ),
            (
                JoinError::Exhausted(Resource::Handles, io()),
                ERROR_CODE_EXHAUSTED,
            ),
            (JoinError::Io("connect", io()), ERROR_CODE_SYSTEM),
        ] {
            assert_eq!(Failure::from(error.clone()).code, code, "{error}");
        }
    }

    #[test]
    fn every_failure_of_send_has_its_code() {
        let io = io_error;
        for (error, code) in [
            (SendError::Timeout, ERROR_CODE_TIMEOUT),
            (SendError::Full(1), ERROR_CODE_FULL),
            (SendError::SelfQueueFull { limit: 1 }, ERROR_CODE_FULL),
            (SendError::Settling, ERROR_CODE_SETTLING),
            (
                SendError::ControllerStopped { pid: 7 },
                ERROR_CODE_CONTROLLER_STOPPED,
            ),
            (
                SendError::VersionMismatch(version()),
                ERROR_CODE_VERSION_MISMATCH,
            ),
            (SendError::TokenMismatch, ERROR_CODE_TOKEN_MISMATCH),
            (SendError::PermissionDenied, ERROR_CODE_PERMISSION_DENIED),
            (
                SendError::TooLarge { size: 2, limit: 1 },
                ERROR_CODE_TOO_LARGE,
            ),
            (
                SendError::TooManyAttachments { count: 254 },
                ERROR_CODE_LIMIT,
            ),
            (
                SendError::Message(Error::Limit("too deep")),
                ERROR_CODE_LIMIT,
            ),
            (
                SendError::Exhausted(Resource::HandlesInFlight, io()),
                ERROR_CODE_EXHAUSTED,
            ),
            (SendError::Left, ERROR_CODE_LEFT),
            (SendError::Forked, ERROR_CODE_FORKED),
            (SendError::Io("write", io()), ERROR_CODE_SYSTEM),
        ] {
            assert_eq!(Failure::from(error.clone()).code, code, "{error}");
        }
    }

    #[test]
    fn every_failure_of_recv_and_of_regions_has_its_code() {
        let io = io_error;
        for (error, code) in [
            (RecvError::Timeout, ERROR_CODE_TIMEOUT),
            (RecvError::Empty, ERROR_CODE_EMPTY),
            (
                RecvError::VersionMismatch(version()),
                ERROR_CODE_VERSION_MISMATCH,
            ),
            (RecvError::TokenMismatch, ERROR_CODE_TOKEN_MISMATCH),
            (RecvError::PermissionDenied, ERROR_CODE_PERMISSION_DENIED),
            (
                RecvError::Exhausted(Resource::Memory, io()),
                ERROR_CODE_EXHAUSTED,
            ),
            (RecvError::Left, ERROR_CODE_LEFT),
            (RecvError::Forked, ERROR_CODE_FORKED),
            (RecvError::Io("read", io()), ERROR_CODE_SYSTEM),
        ] {
            assert_eq!(Failure::from(error.clone()).code, code, "{error}");
        }
        for (error, code) in [
            (Error::Encode("x".into()), ERROR_CODE_UNKNOWN),
            (Error::TypeUuidNotFound, ERROR_CODE_DECODE),
            (Error::Limit("x"), ERROR_CODE_LIMIT),
            (
                Error::OutOfBounds {
                    start: 0,
                    end: 2,
                    size: 1,
                },
                ERROR_CODE_OUT_OF_RANGE,
            ),
            (Error::Busy, ERROR_CODE_BUSY),
            (Error::Frozen, ERROR_CODE_FROZEN),
            (Error::NotFrozen, ERROR_CODE_NOT_FROZEN),
            (Error::NotARegion("x"), ERROR_CODE_NOT_A_REGION),
            (
                Error::RegionTooLarge { size: 2, limit: 1 },
                ERROR_CODE_TOO_LARGE,
            ),
            (Error::Forked, ERROR_CODE_FORKED),
            (
                Error::Exhausted(Resource::Memory, io()),
                ERROR_CODE_EXHAUSTED,
            ),
            (Error::Io("mmap", io()), ERROR_CODE_SYSTEM),
        ] {
            assert_eq!(Failure::from(error.clone()).code, code, "{error}");
            let attached = RecvError::Attachment(error.clone());
            assert_eq!(Failure::from(attached).code, code, "{error}");
        }
    }

    #[test]
    fn the_text_names_the_causes_too() {
        let failure = Failure::from(SendError::Message(Error::Limit("nested too deep")));
        assert!(failure.text.contains("nested too deep"), "{}", failure.text);
        let failure = Failure::from(JoinError::Io("connect", io_error()));
        assert!(
            failure.text.contains("the system says no"),
            "{}",
            failure.text
        );
    }
}
