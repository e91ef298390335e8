//! Kernel objects: file descriptors, ports or handles, which C holds as a number that is wide enough for every system.

use crate::{border, code::ErrorCode, sys};

/// A kernel object: on Unix, a file descriptor; on macOS, the name of a right to send to a Mach port, which for a
/// descriptor is its file port (fileport_makeport); on Windows, a HANDLE.
pub type Object = u64;

/// Closes an object that the caller owns. 0 is fine: it is what the functions of this library return for no object.
///
/// Takes ownership of the object. Thread-safe; does not block. Errors (ipmb_last_error_code):
/// ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_object_drop(obj: Object) {
    if obj != 0 {
        // SAFETY: as the crate's text demands of all handles.
        unsafe { ipmb_object_drop_try(obj) };
    }
}

/// Closes an object that the caller owns, also one with the number 0.
///
/// Takes ownership of the object. Thread-safe; does not block. Errors: ERROR_CODE_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ipmb_object_drop_try(obj: Object) -> ErrorCode {
    // SAFETY: as the crate's text demands of all handles.
    border::code(|| unsafe { sys::take(obj).map(drop) })
}
