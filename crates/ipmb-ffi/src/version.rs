//! The library's version, and the strings that the library hands out.

use crate::{
    border,
    code::ErrorCode,
    handle::{self, Kind},
};
use std::ffi::{c_char, c_void};

/// A text that the library hands out. Owned by the caller: free it with ipmb_rstring_drop.
pub type RString = *mut c_void;

impl Kind for String {
    const NAME: &'static str = "RString";
    const TAG: [u8; 8] = *b"ipmb str";
}

/// Where the bytes of a text are, and how many. They are UTF-8 and not terminated by a NUL. After a failure `*ptr` is
/// NULL and `*size` 0.
///
/// Ownership: the bytes stay the text's and are valid until it is dropped. Thread-safe as long as nobody drops it; does
/// not block. Errors (ipmb_last_error_code): ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_rstring_data(
    rstring: *const RString,
    ptr: *mut *const c_char,
    size: *mut usize,
) {
    border::code(|| {
        // SAFETY: as the crate's text demands of all pointers.
        unsafe {
            let found = handle::get::<String>(rstring);
            let data = found.as_ref().ok();
            handle::put(
                ptr,
                "ptr",
                data.map_or(std::ptr::null(), |text| text.as_ptr().cast()),
            )?;
            handle::put(size, "size", data.map_or(0, |text| text.len()))?;
            found.map(drop)
        }
    });
}

/// Frees a text. NULL is fine.
///
/// Takes ownership of the text. Thread-safe; does not block. Errors (ipmb_last_error_code): ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_rstring_drop(rstring: RString) {
    // SAFETY: as the crate's text demands of all handles.
    border::code(|| unsafe { handle::discard::<String>(rstring) });
}

/// The version of the library. A pointer that is NULL is left out.
///
/// Thread-safe; does not block; cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_version(major: *mut u8, minor: *mut u8, patch: *mut u8) {
    let version = ipmb::version();
    for (place, number) in [
        (major, version.major()),
        (minor, version.minor()),
        (patch, version.patch()),
    ] {
        if !place.is_null() {
            // SAFETY: not null, so valid for writes as the crate's text demands.
            unsafe { place.write(number) };
        }
    }
}

/// The pre-release part of the library's version; an empty text for a release.
///
/// Ownership: the caller frees it with ipmb_rstring_drop. Thread-safe; does not block; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ipmb_version_pre() -> RString {
    border::value(std::ptr::null_mut(), || {
        Ok(handle::give(ipmb::version_pre()))
    })
}

/// As ipmb_version_pre, with a code.
///
/// Ownership: `*rstring` is the caller's, to be freed with ipmb_rstring_drop. Thread-safe; does not block.
/// Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_version_pre_try(rstring: *mut RString) -> ErrorCode {
    border::code(|| {
        handle::needs(rstring, "rstring")?;
        // SAFETY: not null, so valid for writes as the crate's text demands.
        unsafe { handle::put(rstring, "rstring", handle::give(ipmb::version_pre())) }
    })
}
