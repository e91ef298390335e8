//! What a frozen region's bytes are where there are no private mappings of it.

use crate::fail::system;
use ipmb::{Error, MemoryRegion};
use std::{io, ptr};

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
        let another = region.clone();
        let handle = another.map_err(|e| system("one more handle of a memory region", e))?;
        let bytes = handle.as_frozen()?;
        let mut memory = Vec::<u128>::new();
        memory
            .try_reserve_exact(bytes.len().div_ceil(size_of::<u128>()))
            .map_err(|_| system("a copy of a region", io::ErrorKind::OutOfMemory.into()))?;
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
