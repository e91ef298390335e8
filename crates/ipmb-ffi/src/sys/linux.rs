//! Linux, and what is like it: objects are descriptors.

pub(crate) use super::unix::waitable;

use crate::{code::Failure, object::Object};
use std::os::fd::RawFd;

pub(super) fn open(object: Object) -> Option<RawFd> {
    let descriptor = RawFd::try_from(object).ok()?;
    // SAFETY: only asks; says EBADF of a number that is not open.
    (unsafe { libc::fcntl(descriptor, libc::F_GETFD) } >= 0).then_some(descriptor)
}

/// It is never negative.
pub(crate) fn number(descriptor: RawFd) -> Result<Object, Failure> {
    Object::try_from(descriptor).map_err(|_| Failure::argument("a negative descriptor"))
}
