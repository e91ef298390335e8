//! Linux, and what is like it: objects and regions are descriptors.

pub(crate) use super::unix::{Source, Waiter, object_of, source_in, source_of, symbol, teller};

use crate::fail::system;
use ipmb::{Error, MemoryRegion, Object};
use std::{io, ptr};

/// An object is the descriptor itself.
pub(crate) struct Carried(Object);

impl Carried {
    pub(crate) fn of(object: Object) -> Self {
        Self(object)
    }

    pub(crate) fn object(&self) -> &Object {
        &self.0
    }

    /// The descriptor's number; it stays owned by `self`.
    pub(crate) fn number(&self) -> io::Result<i32> {
        Ok(self.0.as_raw())
    }

    /// Leaves the descriptor that `number` named to the caller.
    pub(crate) fn leave(self) {
        self.0.into_raw();
    }
}

/// A private mapping of a frozen region: pages are copied as they are written to.
pub(crate) struct Private {
    start: *mut u8,
    len: usize,
}

impl Private {
    /// Of a frozen region that is not empty.
    pub(crate) fn of(region: &MemoryRegion) -> Result<Self, Error> {
        let len = region.buffer_size() as usize;
        // SAFETY: a new mapping of an open descriptor; the region's size is sealed, so no access is beyond its end.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_NORESERVE,
                region.object().as_raw(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            return Err(system("mapping a frozen memory region", error));
        }
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    pub(crate) fn start(&mut self) -> *mut u8 {
        self.start
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // SAFETY: mapped with this size by `of`, and whoever was given `start` looks at it no longer.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}
