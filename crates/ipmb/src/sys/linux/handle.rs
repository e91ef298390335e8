//! More handles: a second one to the same object, and one in reserve.

use super::{above_stdio, fork::Fd};
use crate::sys::{BorrowedHandle, Handle};
use rustix::event::{EventfdFlags, eventfd};
use std::io;

/// A second handle to the same kernel object: close-on-exec, never one of 0–2.
pub(crate) fn duplicate(handle: BorrowedHandle<'_>) -> io::Result<Handle> {
    Ok(call!(rustix::io::fcntl_dupfd_cloexec(handle, 3))?)
}

/// A handle that is under way in a packet needs nobody to keep it.
#[derive(Debug, Default)]
pub(crate) struct Kept(());

#[inline]
pub(crate) fn keep(_: Option<BorrowedHandle<'_>>, _: &[BorrowedHandle<'_>]) -> io::Result<Kept> {
    Ok(Kept(()))
}

/// A place in the table of descriptors, to have one at hand when the table is full.
#[derive(Debug)]
pub(crate) struct Spare(#[allow(dead_code)] Fd);

impl Spare {
    pub(crate) fn new() -> io::Result<Self> {
        let fd = call!(eventfd(0, EventfdFlags::CLOEXEC))?;
        Ok(Self(Fd::new(above_stdio(fd)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn a_duplicate_is_inherited_or_lands_on_stdio() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let copy = duplicate(file.as_fd()).unwrap();
        assert!(copy.as_raw_fd() > 2);
        let flags = rustix::io::fcntl_getfd(&copy).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
}
