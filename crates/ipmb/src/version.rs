//! Version numbers.

use std::fmt;

/// A version number, of the crate or of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub(crate) u8, pub(crate) u8, pub(crate) u8);

impl Version {
    /// First number.
    pub const fn major(&self) -> u8 {
        self.0
    }

    /// Second number.
    pub const fn minor(&self) -> u8 {
        self.1
    }

    /// Third number.
    pub const fn patch(&self) -> u8 {
        self.2
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

const fn number(digits: &str) -> u8 {
    let (bytes, mut value, mut i) = (digits.as_bytes(), 0, 0);
    while i < bytes.len() {
        value = value * 10 + (bytes[i] - b'0');
        i += 1;
    }
    value
}

/// The version of this crate.
pub const fn version() -> Version {
    Version(
        number(env!("CARGO_PKG_VERSION_MAJOR")),
        number(env!("CARGO_PKG_VERSION_MINOR")),
        number(env!("CARGO_PKG_VERSION_PATCH")),
    )
}

/// The pre-release part of this crate's version, empty for a release.
pub fn version_pre() -> String {
    env!("CARGO_PKG_VERSION_PRE").to_owned()
}
