//! What a frozen region's bytes are where there are no private mappings of it.

use ipmb::{Error, MemoryRegion, Resource};
use std::{io, ptr, sync::Arc};

/// A copy of a frozen region. On macOS shared memory has no private mappings. On Windows pages that are copied only when they
/// are written to would show what a liar still writes who handed out as frozen what it can write to.
pub(crate) struct Private {
    /// Of a type that aligns it for whatever JavaScript makes of a buffer.
    memory: Vec<u128>,
}

impl Private {
    /// Of a frozen region that is not empty.
    pub(crate) fn of(region: &MemoryRegion) -> Result<Self, Error> {
        // Maps it, by a handle that is given up again: a view of the region is not kept as long as the copy.
        let handle = region.clone().map_err(|e| {
            let resource = Resource::of(&e);
            let error = Arc::new(e);
            match resource {
                Some(resource) => Error::Exhausted(resource, error),
                None => Error::Io("one more handle of a memory region", error),
            }
        })?;
        let bytes = handle.as_frozen()?;
        let mut memory = Vec::<u128>::new();
        memory
            .try_reserve_exact(bytes.len().div_ceil(size_of::<u128>()))
            .map_err(|_| {
                let error = io::ErrorKind::OutOfMemory.into();
                Error::Exhausted(Resource::Memory, Arc::new(error))
            })?;
        // SAFETY: both have that many bytes, and nobody else knows the new memory.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), memory.as_mut_ptr().cast(), bytes.len());
        }
        Ok(Self { memory })
    }

    pub(crate) fn start(&mut self) -> *mut u8 {
        self.memory.as_mut_ptr().cast()
    }
}
