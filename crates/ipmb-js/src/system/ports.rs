//! Objects where they are Mach ports or descriptors: macOS. Node has numbers for descriptors only.

use super::is_exhausted;
use ipmb::{Error, MemoryRegion, Object, Resource};
use std::{
    cell::OnceCell,
    io,
    os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd},
    ptr,
    sync::Arc,
};

/// An object, and the descriptor by which Node knows it, made when it is first asked for.
pub(crate) struct Carried {
    object: Object,
    descriptor: OnceCell<OwnedFd>,
}

impl Carried {
    pub(crate) fn of(object: Object) -> Self {
        Self {
            object,
            descriptor: OnceCell::new(),
        }
    }

    pub(crate) fn object(&self) -> &Object {
        &self.object
    }

    /// The descriptor's number; it stays owned by `self`. Fails if the object is a port that is no file.
    pub(crate) fn number(&self) -> io::Result<i32> {
        if let Some(descriptor) = self.descriptor.get() {
            return Ok(descriptor.as_raw_fd());
        }
        let descriptor = OwnedFd::try_from(self.object.clone()?)?;
        Ok(self.descriptor.get_or_init(|| descriptor).as_raw_fd())
    }

    /// Leaves the descriptor that `number` named to the caller.
    pub(crate) fn leave(self) {
        self.descriptor.into_inner().map(IntoRawFd::into_raw_fd);
    }
}

/// An object of its own for the descriptor `fd`, which is not negative.
pub(crate) fn object_of(fd: i32) -> io::Result<Object> {
    // SAFETY: borrowed for this one call, which fails for a number that is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map(Object::from)
}

/// A copy of a frozen region: shared memory has no private mappings here.
pub(crate) struct Private {
    start: *mut u8,
    len: usize,
}

impl Private {
    /// Of a frozen region that is not empty.
    pub(crate) fn of(region: &MemoryRegion) -> Result<Self, Error> {
        // Maps it, by a handle that is given up again: a view of the region is not kept as long as the copy.
        let handle = region.clone().map_err(|e| refused("dup", e))?;
        let bytes = handle.as_frozen()?;
        // SAFETY: new memory, of at least one byte.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes.len(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANON,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(refused("mmap", io::Error::last_os_error()));
        }
        let start = start.cast::<u8>();
        // SAFETY: both have that many bytes, and nobody else knows the new memory.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
        Ok(Self {
            start,
            len: bytes.len(),
        })
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // SAFETY: mapped with this size by `of`, and whoever was given `start` looks at it no longer.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

fn refused(what: &'static str, error: io::Error) -> Error {
    let error = Arc::new(error);
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Error::Exhausted(Resource::Handles, error),
        _ if is_exhausted(&error) => Error::Exhausted(Resource::Memory, error),
        _ => Error::Io(what, error),
    }
}
