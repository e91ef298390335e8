//! Events: what threads sleep on.

use super::{handle, security};
use std::{
    io,
    os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle},
    time::Duration,
};
use windows_sys::Win32::{
    Foundation::{HANDLE, WAIT_FAILED, WAIT_TIMEOUT},
    System::Threading::{
        CreateEventW, INFINITE, ResetEvent, SetEvent, WaitForMultipleObjects, WaitForSingleObject,
    },
};

/// Makes an event. `manual`: it stays set until it is reset; otherwise one wait takes it. Whoever gets a handle with fewer
/// rights cannot make one with more of it.
pub(super) fn event(manual: bool) -> io::Result<OwnedHandle> {
    let attributes = security::sealed_object()?;
    // SAFETY: the attributes live for ever; the event has no name.
    unsafe {
        handle::made(CreateEventW(
            &raw const attributes.0,
            manual.into(),
            0,
            std::ptr::null(),
        ))
    }
}

/// An event that stays set until it is reset.
#[derive(Debug)]
pub(super) struct Signal(OwnedHandle);

impl Signal {
    pub(super) fn new() -> io::Result<Self> {
        event(true).map(Self)
    }

    pub(super) fn set(&self) {
        set(&self.0);
    }

    pub(super) fn reset(&self) {
        // SAFETY: an open handle of an event. It cannot fail.
        unsafe { ResetEvent(self.raw()) };
    }

    pub(super) fn raw(&self) -> HANDLE {
        self.0.as_raw_handle()
    }

    pub(super) fn is_set(&self) -> io::Result<bool> {
        is_set(self.0.as_handle())
    }
}

impl AsHandle for Signal {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.0.as_handle()
    }
}

/// Sets an event. Never blocks, and cannot fail with a handle that may do it.
pub(super) fn set(event: &OwnedHandle) {
    // SAFETY: an open handle.
    unsafe { SetEvent(event.as_raw_handle()) };
}

/// Whether a wait for the object would end at once. Takes an event that one wait takes.
pub(super) fn is_set(object: BorrowedHandle<'_>) -> io::Result<bool> {
    // SAFETY: an open handle; the call does not wait.
    match unsafe { WaitForSingleObject(object.as_raw_handle(), 0) } {
        WAIT_FAILED => Err(io::Error::last_os_error()),
        other => Ok(other != WAIT_TIMEOUT),
    }
}

/// Sleeps until one of the objects is set, and says which: the first of those that are.
pub(super) fn wait_any(objects: &[HANDLE], timeout: Option<Duration>) -> io::Result<Option<usize>> {
    // SAFETY: the caller keeps the handles open for as long as it is in this call.
    let waited = unsafe {
        WaitForMultipleObjects(
            objects.len() as u32,
            objects.as_ptr(),
            0,
            milliseconds(timeout),
        )
    };
    match waited {
        WAIT_FAILED => Err(io::Error::last_os_error()),
        WAIT_TIMEOUT => Ok(None),
        // An abandoned mutex counts as set, too; its codes are 128 higher.
        other => Ok(Some((other & 0x7f) as usize)),
    }
}

/// A time as waits take it: no shorter than asked for.
fn milliseconds(timeout: Option<Duration>) -> u32 {
    let Some(timeout) = timeout else {
        return INFINITE;
    };
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
    u32::try_from(milliseconds).map_or(INFINITE - 1, |ms| ms.min(INFINITE - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_cut_short_or_never_ends() {
        assert_eq!(milliseconds(Some(Duration::ZERO)), 0);
        assert_eq!(milliseconds(Some(Duration::from_nanos(1))), 1);
        assert_eq!(milliseconds(Some(Duration::from_micros(2001))), 3);
        assert_eq!(milliseconds(Some(Duration::MAX)), INFINITE - 1);
        assert_eq!(milliseconds(None), INFINITE);
    }
}
