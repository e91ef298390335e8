//! The registry, which uses regions again.

use crate::{
    border,
    code::{ERROR_CODE_BUSY, ErrorCode, Failure},
    handle::{self, Kind},
    region::MemoryRegion,
};
use std::{
    cell::RefCell,
    ffi::{c_char, c_void},
    ptr,
};

/// Gives out memory regions and uses their memory again once nobody else, in any process, holds them. Owned by the
/// caller: free it with ipmb_memory_registry_drop. One thread at a time may use it; different threads one after the other.
pub type MemoryRegistry = *mut c_void;

/// In a cell, because `free` may call the registry that is calling it.
type Registry = RefCell<ipmb::MemoryRegistry>;

impl Kind for Registry {
    const NAME: &'static str = "MemoryRegistry";
    const TAG: [u8; 8] = *b"ipmb rgy";
}

/// What a registry is to call, and with what.
struct Free {
    context: *mut c_void,
    free: extern "C" fn(*mut c_void),
}

fn busy() -> Failure {
    Failure::new(
        ERROR_CODE_BUSY,
        "a registry cannot be used in a `free` that it calls",
    )
}

/// An empty registry.
///
/// Ownership: the caller frees it with ipmb_memory_registry_drop. Thread-safe; does not block; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ipmb_memory_registry() -> MemoryRegistry {
    border::value(ptr::null_mut(), || {
        Ok(handle::give(Registry::new(ipmb::MemoryRegistry::default())))
    })
}

/// Frees a registry, and calls each `free` that it has not called yet, be the region still held or not. Regions that it
/// gave out live on. NULL is fine.
///
/// Takes ownership of the registry; one thread at a time may use it. Does not block, but for what `free` does. Errors
/// (ipmb_last_error_code): ERROR_CODE_INVALID_ARGUMENT, and ERROR_CODE_BUSY from within a `free` of this registry;
/// nothing is freed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_registry_drop(registry: MemoryRegistry) {
    border::code(|| {
        if registry.is_null() {
            return Ok(());
        }
        // SAFETY: as the crate's text demands of all handles.
        unsafe {
            if handle::get::<Registry>(&registry)?
                .try_borrow_mut()
                .is_err()
            {
                return Err(busy());
            }
            handle::discard::<Registry>(registry)
        }
    });
}

/// Gives out a region of at least `min_size` bytes. Its first bytes may be what an earlier user of this registry and tag
/// left there. `tag` (NULL: none) keeps users apart who must not see each other's data. After a failure `*region` is
/// unchanged.
///
/// Ownership: `tag` is copied; `*region` is the caller's, to be freed with ipmb_memory_region_drop. One thread at a time
/// may use a registry; does not block, but for what a `free` that is due does. Errors: ERROR_CODE_INVALID_ARGUMENT,
/// ERROR_CODE_INVALID_UTF8, ERROR_CODE_BUSY from within a `free` of this registry, ERROR_CODE_EXHAUSTED,
/// ERROR_CODE_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_registry_alloc(
    registry: *mut MemoryRegistry,
    min_size: usize,
    tag: *const c_char,
    region: *mut MemoryRegion,
) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles, texts and pointers.
    border::code(|| unsafe { alloc(registry, min_size, tag, None, region) })
}

/// As ipmb_memory_registry_alloc, and calls `free(free_context)` once the region is free: exactly once, on the thread
/// that uses the registry, in the first call of ipmb_memory_registry_alloc, ipmb_memory_registry_alloc_with_free or
/// ipmb_memory_registry_maintain after it became free, or when the registry is dropped. A `free` that is NULL is not
/// called. After a failure `free` is not called and `*region` is unchanged.
///
/// `free` must return: it may neither throw nor jump out. It may not use this registry (ERROR_CODE_BUSY).
///
/// Ownership: `tag` is copied; `free_context` is only handed to `free`; `*region` is the caller's. One thread at a time
/// may use a registry; does not block, but for what a `free` that is due does. Errors: as ipmb_memory_registry_alloc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_registry_alloc_with_free(
    registry: *mut MemoryRegistry,
    min_size: usize,
    tag: *const c_char,
    free_context: *mut c_void,
    free: Option<extern "C" fn(*mut c_void)>,
    region: *mut MemoryRegion,
) -> ErrorCode {
    let free = free.map(|free| Free {
        context: free_context,
        free,
    });
    // SAFETY: as the crate's text demands of all handles, texts and pointers.
    border::code(|| unsafe { alloc(registry, min_size, tag, free, region) })
}

unsafe fn alloc(
    registry: *mut MemoryRegistry,
    min_size: usize,
    tag: *const c_char,
    free: Option<Free>,
    region: *mut MemoryRegion,
) -> Result<(), Failure> {
    handle::needs(region, "region")?;
    // SAFETY: the caller's contract.
    unsafe {
        let registry = handle::get::<Registry>(registry)?;
        let tag = match tag.is_null() {
            true => None,
            false => Some(handle::text(tag, "tag")?),
        };
        let mut registry = registry.try_borrow_mut().map_err(|_| busy())?;
        let made = match free {
            None => registry.try_alloc(min_size, tag)?,
            Some(Free { context, free }) => {
                registry.try_alloc_with_free(min_size, tag, move || free(context))?
            }
        };
        handle::put(region, "region", handle::give(made))
    }
}

/// Calls each `free` that is due, and gives memory back to the system that was not used for 5 seconds. Call it now and
/// then if allocations are rare; ipmb_memory_registry_maintain_try tells failures directly.
///
/// One thread at a time may use a registry; does not block, but for what `free` does. Errors (ipmb_last_error_code):
/// as ipmb_memory_registry_maintain_try.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_registry_maintain(registry: *mut MemoryRegistry) {
    // SAFETY: the same contract.
    unsafe { ipmb_memory_registry_maintain_try(registry) };
}

/// As ipmb_memory_registry_maintain, with a code.
///
/// One thread at a time may use a registry; does not block, but for what `free` does. Errors:
/// ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_BUSY from within a `free` of this registry.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_registry_maintain_try(
    registry: *mut MemoryRegistry,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles.
        let registry = unsafe { handle::get::<Registry>(registry)? };
        registry.try_borrow_mut().map_err(|_| busy())?.maintain();
        Ok(())
    })
}
