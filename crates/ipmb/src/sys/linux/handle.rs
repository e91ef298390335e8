//! Owned kernel handles: file descriptors.

use super::Handle;
use rustix::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::io;

/// A kernel handle as a plain number.
pub(crate) type RawHandle = RawFd;

/// Takes over a raw handle.
///
/// # Safety
/// It must be open, and nobody else may close it.
pub(crate) unsafe fn handle_from_raw(raw: RawHandle) -> Handle {
    // SAFETY: as the caller promises.
    unsafe { Handle::from_raw_fd(raw) }
}

/// Gives a raw handle up.
pub(crate) fn handle_into_raw(handle: Handle) -> RawHandle {
    handle.into_raw_fd()
}

/// The number of a handle.
pub(crate) fn handle_as_raw(handle: &Handle) -> RawHandle {
    handle.as_raw_fd()
}

/// A second handle to the same kernel object: close-on-exec, never one of 0–2.
pub(crate) fn duplicate(handle: &Handle) -> io::Result<Handle> {
    Ok(rustix::io::fcntl_dupfd_cloexec(handle, 3)?)
}
