//! Handles: made into owned ones, copied, asked what they are, and one in reserve.

use super::event::Signal;
use crate::sys::{BorrowedHandle, Handle};
use std::{
    io,
    mem::MaybeUninit,
    os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle},
    sync::Arc,
};
use windows_sys::{
    Wdk::Foundation::{
        NtQueryObject, OBJECT_INFORMATION_CLASS, ObjectBasicInformation, ObjectTypeInformation,
    },
    Win32::{
        Foundation::{
            DUPLICATE_HANDLE_OPTIONS, DuplicateHandle, HANDLE, INVALID_HANDLE_VALUE,
            RtlNtStatusToDosError, UNICODE_STRING,
        },
        System::{
            Threading::GetCurrentProcess, WindowsProgramming::PUBLIC_OBJECT_BASIC_INFORMATION,
        },
    },
};

/// A handle that the library keeps: of a process. Nothing inherits it.
#[derive(Debug)]
pub(crate) struct OwnHandle(pub(super) Arc<OwnedHandle>);

/// A second handle to the same kernel object, which child processes do not inherit.
pub(crate) fn duplicate(handle: BorrowedHandle<'_>) -> io::Result<Handle> {
    handle.try_clone_to_owned().map(crate::crash::after)
}

/// A second handle to the same kernel object that may do no more than `access`.
pub(super) fn duplicate_for(handle: BorrowedHandle<'_>, access: u32) -> io::Result<Handle> {
    let mut copy: HANDLE = std::ptr::null_mut();
    // SAFETY: the source is open, and the place for the result is valid.
    let done = unsafe {
        DuplicateHandle(
            GetCurrentProcess(),
            handle.as_raw_handle(),
            GetCurrentProcess(),
            &raw mut copy,
            access,
            0,
            0 as DUPLICATE_HANDLE_OPTIONS,
        )
    };
    check(done)?;
    // SAFETY: made just now, and nobody else knows of it.
    Ok(crate::crash::after(unsafe {
        OwnedHandle::from_raw_handle(copy)
    }))
}

/// What a handle under way needs: it is in its receiver's table already, or a copy waits in this one.
#[derive(Debug, Default)]
pub(crate) struct Kept(());

pub(crate) fn keep(_: Option<BorrowedHandle<'_>>, _: &[BorrowedHandle<'_>]) -> io::Result<Kept> {
    Ok(Kept(()))
}

/// A place in the table of handles, to have one at hand when there is no more.
#[derive(Debug)]
pub(crate) struct Spare(#[allow(dead_code)] Signal);

impl Spare {
    pub(crate) fn new() -> io::Result<Self> {
        Signal::new().map(Self)
    }
}

/// The result of a call that returns a `BOOL`.
pub(super) fn check(done: i32) -> io::Result<()> {
    match done {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The result of a call of the native interface.
pub(super) fn check_status(status: i32) -> io::Result<()> {
    if status >= 0 {
        return Ok(());
    }
    // SAFETY: a plain table look-up.
    let code = unsafe { RtlNtStatusToDosError(status) };
    Err(io::Error::from_raw_os_error(code as i32))
}

/// Takes over what a call returned, which says null or the invalid handle when it failed.
///
/// # Safety
/// If it is a handle it must be open, and nobody else may close it.
pub(super) unsafe fn made(handle: HANDLE) -> io::Result<OwnedHandle> {
    if handle.is_null() || handle == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as the caller promises.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// Asks the kernel about an object.
fn query<T>(
    handle: BorrowedHandle<'_>,
    class: OBJECT_INFORMATION_CLASS,
    space: &mut MaybeUninit<T>,
) -> io::Result<()> {
    // SAFETY: the handle is open, and the kernel writes at most the size of the space.
    check_status(unsafe {
        NtQueryObject(
            handle.as_raw_handle(),
            class,
            space.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            std::ptr::null_mut(),
        )
    })
}

/// What this handle may do, and how many handles of its object there are in all processes.
pub(super) fn access_and_count(handle: BorrowedHandle<'_>) -> io::Result<(u32, u32)> {
    let mut space = MaybeUninit::<PUBLIC_OBJECT_BASIC_INFORMATION>::zeroed();
    query(handle, ObjectBasicInformation, &mut space)?;
    // SAFETY: plain numbers, which any bytes are.
    let basic = unsafe { space.assume_init() };
    Ok((basic.GrantedAccess, basic.HandleCount))
}

/// Whether the object is of the type that the kernel calls so.
pub(super) fn is_of_type(handle: BorrowedHandle<'_>, name: &str) -> io::Result<bool> {
    // The structure, and behind it the text that it points to.
    let mut space = MaybeUninit::<[u64; 128]>::zeroed();
    query(handle, ObjectTypeInformation, &mut space)?;
    // SAFETY: the information begins with the name, and is as aligned as the space.
    let text: UNICODE_STRING = unsafe { space.as_ptr().cast::<UNICODE_STRING>().read() };
    if usize::from(text.Length) != name.len() * 2 {
        return Ok(false);
    }
    // SAFETY: the kernel says that the text has this length; it lies in the space, which lives.
    let text = unsafe { std::slice::from_raw_parts(text.Buffer, name.len()) };
    Ok(text.iter().copied().eq(name.encode_utf16()))
}
