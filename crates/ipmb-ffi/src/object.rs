//! Kernel objects: file descriptors, which C holds as a number that is wide enough for every system.

use crate::{
    border,
    code::{ErrorCode, Failure},
};

/// A kernel object: on Unix, a file descriptor.
pub type Object = u64;

/// Takes a descriptor over.
///
/// # Safety
/// The caller owns it.
pub(crate) unsafe fn take(object: Object) -> Result<ipmb::Object, Failure> {
    let descriptor = i32::try_from(object)
        .map_err(|_| Failure::argument(format!("the object {object} is no file descriptor")))?;
    // SAFETY: only asks; says EBADF of a number that is not open.
    if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
        return Err(Failure::argument(format!(
            "the object {object} is not open in this process"
        )));
    }
    // SAFETY: it is open, and the caller gives it away.
    Ok(unsafe { ipmb::Object::from_raw(descriptor) })
}

/// The number of a descriptor, which is never negative.
pub(crate) fn number(descriptor: i32) -> Result<Object, Failure> {
    Object::try_from(descriptor).map_err(|_| Failure::argument("a negative descriptor"))
}

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
    border::code(|| unsafe { take(obj).map(drop) })
}
