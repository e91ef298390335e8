//! Memory regions.

use crate::{
    border,
    code::{ERROR_CODE_OUT_OF_RANGE, ErrorCode, Failure},
    handle::{self, Kind},
    object::Object,
    sys,
};
use libc::size_t;
use std::{ffi::c_void, ptr};

/// A handle of a memory that processes share without copying it. Owned by the caller: free it with
/// ipmb_memory_region_drop, or put it into a message. One thread at a time may use a handle; different threads one after
/// the other.
pub type MemoryRegion = *mut c_void;

impl Kind for ipmb::MemoryRegion {
    const NAME: &'static str = "MemoryRegion";
    const TAG: [u8; 8] = *b"ipmb reg";
}

/// Makes a region of `size` bytes, all zero. Memory is used as it is touched. After a failure `*region` is unchanged.
///
/// Ownership: `*region` is the caller's, to be freed with ipmb_memory_region_drop. Thread-safe; does not block. Errors:
/// ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_EXHAUSTED, ERROR_CODE_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region(size: usize, region: *mut MemoryRegion) -> ErrorCode {
    border::code(|| {
        handle::needs(region, "region")?;
        let made = ipmb::MemoryRegion::try_new(size)?;
        // SAFETY: as the crate's text demands of all pointers.
        unsafe { handle::put(region, "region", handle::give(made)) }
    })
}

/// Frees a handle of a region and unmaps what it had mapped; the memory goes with its last handle in any process. NULL is
/// fine.
///
/// Takes ownership of the handle. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region_drop(region: MemoryRegion) {
    // SAFETY: as the crate's text demands of all handles.
    border::code(|| unsafe { handle::discard::<ipmb::MemoryRegion>(region) });
}

/// Maps `size` bytes (negative: to the end) from `offset` on, to be read and written. Returns where they are and, into
/// `*real_size` unless that is NULL, how many. NULL after a failure, and `*real_size` is 0 then.
///
/// Other holders, in other processes, may write to the same bytes at any time: agree with them on turns, or freeze the
/// region.
///
/// Ownership: the bytes are valid until this handle is dropped, frozen or unmapped, or an attempt is made to send the
/// message that has it, even one that fails. One thread at a time may use a handle, but all may use the bytes; does not
/// block. Errors (ipmb_last_error_code): as ipmb_memory_region_map_try.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region_map(
    region: *mut MemoryRegion,
    offset: usize,
    size: isize,
    real_size: *mut isize,
) -> *mut u8 {
    let mapped = border::value(None, || {
        // SAFETY: as the crate's text demands of all handles.
        unsafe { map(region, offset, usize::try_from(size).ok()).map(Some) }
    });
    let (start, len) = mapped.unwrap_or((ptr::null_mut(), 0));
    if !real_size.is_null() {
        // SAFETY: as the crate's text demands of all pointers. No mapping is longer than `isize::MAX`.
        unsafe { real_size.write(len as isize) };
    }
    start
}

/// Maps `size` bytes (SIZE_MAX: to the end) from `offset` on, to be read and written: where they are, and how many. A
/// pointer `real_size` that is NULL is left out. After a failure nothing is written.
///
/// Other holders, in other processes, may write to the same bytes at any time: agree with them on turns, or freeze the
/// region.
///
/// Ownership: the bytes are valid until this handle is dropped, frozen or unmapped, or an attempt is made to send the
/// message that has it, even one that fails. One thread at a time may use a handle, but all may use the bytes; does not
/// block. Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_OUT_OF_RANGE,
/// ERROR_CODE_FROZEN, ERROR_CODE_EXHAUSTED, ERROR_CODE_FORKED, ERROR_CODE_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region_map_try(
    region: *mut MemoryRegion,
    offset: size_t,
    size: size_t,
    ptr: *mut *mut u8,
    real_size: *mut size_t,
) -> ErrorCode {
    border::code(|| {
        handle::needs(ptr, "ptr")?;
        let size = (size != usize::MAX).then_some(size);
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let (start, len) = map(region, offset, size)?;
            if !real_size.is_null() {
                real_size.write(len);
            }
            handle::put(ptr, "ptr", start)
        }
    })
}

unsafe fn map(
    region: *mut MemoryRegion,
    offset: usize,
    size: Option<usize>,
) -> Result<(*mut u8, usize), Failure> {
    // SAFETY: the caller's contract.
    let region = unsafe { handle::get_mut::<ipmb::MemoryRegion>(region)? };
    let bytes = match size {
        None => region.map(offset..)?,
        Some(size) => {
            let end = offset.checked_add(size).ok_or_else(|| {
                Failure::new(
                    ERROR_CODE_OUT_OF_RANGE,
                    format!("{size} bytes from {offset} on are no range"),
                )
            })?;
            region.map(offset..end)?
        }
    };
    Ok((bytes.as_mut_ptr(), bytes.len()))
}

/// Undoes ipmb_memory_region_map, so that another holder may freeze the region. What is not mapped is no failure.
///
/// The bytes that were mapped must not be used any more. One thread at a time may use a handle; does not block. Errors:
/// ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region_unmap(region: *mut MemoryRegion) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles.
        unsafe { handle::get_mut::<ipmb::MemoryRegion>(region)?.unmap() };
        Ok(())
    })
}

/// The size of a region in bytes, into `*size`.
///
/// Thread-safe as long as nobody drops the handle; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region_size(
    region: *const MemoryRegion,
    size: *mut u64,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let region = handle::get::<ipmb::MemoryRegion>(region)?;
            handle::put(size, "size", region.buffer_size())
        }
    })
}

/// How many handles of the region's memory there are in all processes, this one and those in messages under way
/// included. It may have changed by the time it is returned. 0 after a failure, and in a forked child.
///
/// Thread-safe as long as nobody drops the handle; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region_ref_count(region: *const MemoryRegion) -> u32 {
    border::value(0, || {
        // SAFETY: as the crate's text demands of all handles.
        unsafe { Ok(handle::get::<ipmb::MemoryRegion>(region)?.ref_count()) }
    })
}

/// As ipmb_memory_region_ref_count, with a code.
///
/// Thread-safe as long as nobody drops the handle; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region_ref_count_try(
    region: *const MemoryRegion,
    count: *mut u32,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let region = handle::get::<ipmb::MemoryRegion>(region)?;
            handle::put(count, "count", region.ref_count())
        }
    })
}

/// One more handle of the same memory. After a failure `*cloned` is unchanged.
///
/// Ownership: `*cloned` is the caller's, to be freed with ipmb_memory_region_drop. Thread-safe as long as nobody drops
/// the handle; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_EXHAUSTED, ERROR_CODE_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region_clone(
    region: *const MemoryRegion,
    cloned: *mut MemoryRegion,
) -> ErrorCode {
    border::code(|| {
        handle::needs(cloned, "cloned")?;
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let region = handle::get::<ipmb::MemoryRegion>(region)?;
            handle::put(cloned, "cloned", handle::give(region.clone()?))
        }
    })
}

/// Makes a region immutable for everybody and for good. Doing it twice is fine. What this handle has mapped is unmapped
/// first. After a failure nothing has changed, but for that.
///
/// One thread at a time may use a handle. May wait some 100 ms for the kernel. Errors: ERROR_CODE_INVALID_ARGUMENT,
/// ERROR_CODE_BUSY while another handle, in any process, has it mapped, ERROR_CODE_FORKED, ERROR_CODE_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region_freeze(region: *mut MemoryRegion) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles.
        unsafe { handle::get_mut::<ipmb::MemoryRegion>(region)?.freeze()? };
        Ok(())
    })
}

/// Whether a region is frozen, into `*frozen`. Once it is, it stays so.
///
/// Thread-safe as long as nobody drops the handle; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region_is_frozen(
    region: *const MemoryRegion,
    frozen: *mut bool,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let region = handle::get::<ipmb::MemoryRegion>(region)?;
            handle::put(frozen, "frozen", region.is_frozen())
        }
    })
}

/// The bytes of a frozen region, which nobody can ever change: where they are, and how many. After a failure nothing is
/// written.
///
/// Ownership: the bytes are valid until this handle is dropped or sent. Thread-safe as long as nobody does; does not
/// block. Errors: ERROR_CODE_INVALID_ARGUMENT, ERROR_CODE_NOT_FROZEN, ERROR_CODE_EXHAUSTED, ERROR_CODE_FORKED,
/// ERROR_CODE_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region_frozen_data(
    region: *const MemoryRegion,
    ptr: *mut *const u8,
    size: *mut size_t,
) -> ErrorCode {
    border::code(|| {
        handle::needs(ptr, "ptr")?;
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let bytes = handle::get::<ipmb::MemoryRegion>(region)?.as_frozen()?;
            handle::put(size, "size", bytes.len())?;
            handle::put(ptr, "ptr", bytes.as_ptr())
        }
    })
}

/// The kernel's handle of a region, for uses outside this library. Copies of it do not count in the region's reference
/// count.
///
/// Ownership: `*obj` is borrowed: do not close it; it is valid until the region is dropped or sent. Thread-safe as long
/// as nobody does; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region_object(
    region: *const MemoryRegion,
    obj: *mut Object,
) -> ErrorCode {
    border::code(|| {
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let object = handle::get::<ipmb::MemoryRegion>(region)?.object();
            handle::put(obj, "obj", sys::number(object.as_raw())?)
        }
    })
}

/// Makes a region of an object that is one: of a copy of what ipmb_memory_region_object gives, or of a sealed memfd that
/// another program made. After a failure `*region` is unchanged.
///
/// Takes ownership of the object and closes it, unless the failure is ERROR_CODE_INVALID_ARGUMENT. `*region` is the
/// caller's, to be freed with ipmb_memory_region_drop. Thread-safe; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT,
/// ERROR_CODE_NOT_A_REGION, ERROR_CODE_EXHAUSTED, ERROR_CODE_SYSTEM.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_memory_region_from_object(
    obj: Object,
    region: *mut MemoryRegion,
) -> ErrorCode {
    border::code(|| {
        handle::needs(region, "region")?;
        // SAFETY: as the crate's text demands of all handles and pointers.
        unsafe {
            let made = ipmb::MemoryRegion::from_object(sys::take(obj)?)?;
            handle::put(region, "region", handle::give(made))
        }
    })
}
