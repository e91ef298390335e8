//! Objects are handles.

use crate::{code::Failure, object::Object};
use std::{
    ffi::c_int,
    os::windows::io::{AsHandle, AsRawHandle, RawHandle},
};
use windows_sys::Win32::Foundation::GetHandleInformation;

pub(super) fn open(object: Object) -> Option<RawHandle> {
    let handle = usize::try_from(object).ok()? as RawHandle;
    let mut flags = 0;
    // SAFETY: only asks; fails for a number that is not open.
    (unsafe { GetHandleInformation(handle, &raw mut flags) } != 0).then_some(handle)
}

pub(crate) fn number(handle: RawHandle) -> Result<Object, Failure> {
    Ok(handle as usize as Object)
}

/// Numbers of handles have 32 bits.
pub(crate) fn waitable(receiver: &impl AsHandle) -> c_int {
    receiver.as_handle().as_raw_handle() as usize as c_int
}
