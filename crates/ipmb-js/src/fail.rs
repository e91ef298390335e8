//! Errors as JavaScript sees them: a message and a `code`.

use ipmb::{Error, JoinError, RecvError, Resource, SendError};
use std::{error::Error as StdError, fmt::Write, io, sync::Arc};

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
    // Nothing that is called here waits: `EAGAIN` means that there is no room for one more thread.
    let code = match Resource::of(error).is_some() || error.kind() == io::ErrorKind::WouldBlock {
        true => EXHAUSTED,
        false => IO,
    };
    fail(code, format!("{what}: {error}"))
}

/// A failure of the system, as the library says it.
pub(crate) fn system(what: &'static str, error: io::Error) -> Error {
    match Resource::of(&error) {
        Some(resource) => Error::Exhausted(resource, Arc::new(error)),
        None => Error::Io(what, Arc::new(error)),
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use ipmb::{DecodeError, version};
    use std::{collections::BTreeSet, fmt::Debug};

    const LIBRARY: &str = include_str!("../../ipmb/src/error.rs");
    const TYPES: &str = include_str!("../lib/index.d.ts");
    const HEADER: &str = include_str!("../../ipmb-ffi/include/ipmb_ffi.h");

    fn cause() -> Arc<io::Error> {
        Arc::new(io::Error::other("no"))
    }

    #[test]
    fn a_shortage_is_taken_for_another_failure() {
        let code = |kind: io::ErrorKind| io("a call", &kind.into()).status;
        assert_eq!(code(io::ErrorKind::OutOfMemory), EXHAUSTED);
        assert_eq!(code(io::ErrorKind::WouldBlock), EXHAUSTED);
        assert_eq!(code(io::ErrorKind::NotFound), IO);
        let error = |kind: io::ErrorKind| of_error(&system("a call", kind.into())).status;
        assert_eq!(error(io::ErrorKind::OutOfMemory), EXHAUSTED);
        assert_eq!(error(io::ErrorKind::WouldBlock), IO);
    }

    fn decode() -> DecodeError {
        match ipmb::Payload::new(&[]).read_into_vec(1) {
            Err(Error::Decode(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    /// The variants of an error of the library, by its source.
    fn variants(of: &str) -> BTreeSet<&'static str> {
        let (_, text) = LIBRARY.split_once(&format!("pub enum {of} {{")).unwrap();
        let (text, _) = text.split_once("\n}").unwrap();
        let name = |line: &'static str| {
            let line = line.strip_prefix("    ")?;
            line.starts_with(char::is_uppercase)
                .then(|| line.split(|c: char| !c.is_alphanumeric()).next().unwrap())
        };
        text.lines().filter_map(name).collect()
    }

    /// The name of an error's variant.
    fn variant(error: &impl Debug) -> String {
        let text = format!("{error:?}");
        let end = text.find(|c: char| !c.is_alphanumeric());
        text[..end.unwrap_or(text.len())].into()
    }

    /// `IPMB_`, and the variant's name as constants are written.
    fn named_after(variant: &str) -> String {
        let mut code = String::from("IPMB");
        for c in variant.chars() {
            if c.is_uppercase() {
                code.push('_');
            }
            code.push(c.to_ascii_uppercase());
        }
        code
    }

    /// Fails unless the errors are one of each variant, with a code of its own name or with the one of `otherwise`.
    fn assert_codes<E: Debug>(
        of: &str,
        errors: &[E],
        map: fn(&E) -> Fail,
        otherwise: &[[&str; 2]],
    ) {
        let mut seen = BTreeSet::new();
        for error in errors {
            let variant = variant(error);
            let other = otherwise.iter().find(|[name, _]| *name == variant);
            let code = other.map_or_else(|| named_after(&variant), |[_, code]| (*code).into());
            assert_eq!(map(error).status, code, "{of}::{variant}");
            assert!(TYPES.contains(&format!("'{code}'")), "{code} in the types");
            seen.insert(variant);
        }
        assert!(
            seen.iter().eq(variants(of)),
            "{seen:?}, there are {:?}",
            variants(of)
        );
    }

    #[test]
    fn every_failure_of_join_has_the_code_of_its_name() {
        let errors = [
            JoinError::Timeout,
            JoinError::ControllerStopped { pid: 7 },
            JoinError::VersionMismatch(version()),
            JoinError::TokenMismatch,
            JoinError::PermissionDenied,
            JoinError::NameSquatted { uid: 1, pid: 2 },
            JoinError::BusFull { pid: 7 },
            JoinError::UnsupportedSystem,
            JoinError::InvalidIdentifier {
                identifier: String::new(),
                reason: "it is empty",
            },
            JoinError::InvalidOption {
                option: "path",
                reason: "it is empty",
            },
            JoinError::Exhausted(Resource::Handles, cause()),
            JoinError::Io("connect", cause()),
        ];
        assert_codes("JoinError", &errors, of_join, &[]);
    }

    #[test]
    fn every_failure_of_send_has_the_code_of_its_name() {
        let errors = [
            SendError::Timeout,
            SendError::Full(1),
            SendError::SelfQueueFull { limit: 1 },
            SendError::Settling,
            SendError::ControllerStopped { pid: 7 },
            SendError::VersionMismatch(version()),
            SendError::TokenMismatch,
            SendError::PermissionDenied,
            SendError::TooLarge { size: 2, limit: 1 },
            SendError::TooManyAttachments { count: 254 },
            SendError::Message(Error::Limit("too deep")),
            SendError::Exhausted(Resource::HandlesInFlight, cause()),
            SendError::Left,
            SendError::Forked,
            SendError::Io("write", cause()),
        ];
        let otherwise = [["SelfQueueFull", "IPMB_FULL"], ["Message", "IPMB_LIMIT"]];
        assert_codes("SendError", &errors, of_send, &otherwise);
    }

    #[test]
    fn every_failure_of_recv_has_the_code_of_its_name() {
        let errors = [
            RecvError::Timeout,
            RecvError::Empty,
            RecvError::Decode(decode()),
            RecvError::VersionMismatch(version()),
            RecvError::TokenMismatch,
            RecvError::PermissionDenied,
            RecvError::Attachment(Error::NotARegion("no")),
            RecvError::Exhausted(Resource::Memory, cause()),
            RecvError::Left,
            RecvError::Forked,
            RecvError::Io("read", cause()),
        ];
        let otherwise = [["Attachment", "IPMB_NOT_A_REGION"]];
        assert_codes("RecvError", &errors, of_recv, &otherwise);
    }

    #[test]
    fn every_failure_of_a_region_has_the_code_of_its_name() {
        let errors = [
            Error::Encode("no".into()),
            Error::Decode(decode()),
            Error::TypeUuidNotFound,
            Error::Limit("too deep"),
            Error::OutOfBounds {
                start: 0,
                end: 2,
                size: 1,
            },
            Error::Busy,
            Error::Frozen,
            Error::NotFrozen,
            Error::NotARegion("no"),
            Error::RegionTooLarge { size: 2, limit: 1 },
            Error::Forked,
            Error::Exhausted(Resource::Memory, cause()),
            Error::Io("mmap", cause()),
        ];
        let otherwise = [
            ["TypeUuidNotFound", "IPMB_DECODE"],
            ["NotARegion", "IPMB_NOT_A_REGION"],
        ];
        assert_codes("Error", &errors, of_error, &otherwise);
    }

    /// What one of the two tells apart and the other does not.
    #[test]
    fn the_codes_of_c_have_the_same_names() {
        let names = |text: &'static str, before: &str, end: char| -> BTreeSet<&'static str> {
            let codes = text.split(before).skip(1);
            codes
                .filter_map(|rest| Some(rest.split_once(end)?.0))
                .collect()
        };
        let here = names(TYPES, "'IPMB_", '\'');
        let there = names(HEADER, "#define ERROR_CODE_", ' ');
        let only = |a: &BTreeSet<&'static str>, b: &BTreeSet<&'static str>| -> Vec<_> {
            a.difference(b).copied().collect()
        };
        assert_eq!(
            only(&there, &here),
            [
                "INVALID_UTF8",
                "OUT_OF_RANGE",
                "SUCCESS",
                "SYSTEM",
                "UNKNOWN"
            ]
        );
        assert_eq!(
            only(&here, &there),
            [
                "CLOSED",
                "ENCODE",
                "INVALID_IDENTIFIER",
                "INVALID_OPTION",
                "IO",
                "NO_EXTERNAL_BUFFERS",
                "NO_NATIVE",
                "OUT_OF_BOUNDS",
                "REGION_TOO_LARGE",
                "TOO_MANY_ATTACHMENTS",
                "UNSUPPORTED_HOST"
            ]
        );
    }
}
