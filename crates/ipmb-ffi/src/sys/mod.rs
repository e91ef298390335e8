//! The only code that knows an operating system: what the numbers of kernel objects are. It knows nothing of messages.
//!
//! One *backend* is compiled in: `linux`, `macos` or `windows`; `unix` is what the first two share. This file is the contract: what a backend provides, by name.
//!
//! | item | what it is |
//! |---|---|
//! | `open` | the raw handle of a number, if this process has such a handle |
//! | [`number`] | the number of a raw handle, if there is one |
//! | [`waitable`] | what event loops wait for at a receiver, as a C `int` |

#[cfg(unix)]
mod unix;

#[cfg(all(unix, not(target_os = "macos")))]
mod linux;
#[cfg(all(unix, not(target_os = "macos")))]
use linux as backend;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
use macos as backend;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as backend;

pub(crate) use backend::{number, waitable};

use crate::{code::Failure, object::Object};

/// Takes an object over.
///
/// # Safety
/// The caller owns it.
pub(crate) unsafe fn take(object: Object) -> Result<ipmb::Object, Failure> {
    let raw = backend::open(object).ok_or_else(|| {
        Failure::argument(format!("the object {object} is not open in this process"))
    })?;
    // SAFETY: it is open, and the caller gives it away.
    Ok(unsafe { ipmb::Object::from_raw(raw) })
}
