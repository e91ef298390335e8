//! Kernel handles where they are `HANDLE`s, and the system's own traits of the public types.

use std::os::windows::io::{self as windows, AsRawHandle, FromRawHandle, IntoRawHandle};

/// A borrowed kernel handle.
pub(crate) use std::os::windows::io::BorrowedHandle;
/// What event loops wait for.
pub(crate) use std::os::windows::io::BorrowedHandle as BorrowedWaitable;
/// An owned kernel handle.
pub(crate) use std::os::windows::io::OwnedHandle as Handle;

/// A kernel handle as a plain number.
pub(crate) type RawHandle = windows::RawHandle;

/// What can be handed to another process.
pub(crate) trait AsHandle {
    fn as_handle(&self) -> BorrowedHandle<'_>;
}

impl<T: windows::AsHandle> AsHandle for T {
    #[inline]
    fn as_handle(&self) -> BorrowedHandle<'_> {
        windows::AsHandle::as_handle(self)
    }
}

/// Takes over a raw handle.
///
/// # Safety
/// It must be open, and nobody else may close it.
pub(crate) unsafe fn handle_from_raw(raw: RawHandle) -> Handle {
    // SAFETY: as the caller promises.
    unsafe { Handle::from_raw_handle(raw) }
}

/// Gives a raw handle up.
pub(crate) fn handle_into_raw(handle: Handle) -> RawHandle {
    handle.into_raw_handle()
}

/// The number of a handle.
pub(crate) fn handle_as_raw(handle: &Handle) -> RawHandle {
    handle.as_raw_handle()
}

/// The file that a handle is.
#[cfg(test)]
pub(crate) fn handle_into_file(handle: Handle) -> std::fs::File {
    handle.into()
}

/// What event loops wait for, of something that can be waited for.
pub(crate) fn waitable(of: &impl windows::AsHandle) -> BorrowedWaitable<'_> {
    of.as_handle()
}

/// Gives a public wrapper of a [`Handle`] the traits that owners of a handle have here.
macro_rules! owned_handle_traits {
    ($wrapper:ident) => {
        const _: () = {
            use std::os::windows::io::{
                AsHandle, AsRawHandle, BorrowedHandle, IntoRawHandle, OwnedHandle, RawHandle,
            };

            impl AsHandle for $wrapper {
                fn as_handle(&self) -> BorrowedHandle<'_> {
                    AsHandle::as_handle(&self.0)
                }
            }

            impl AsRawHandle for $wrapper {
                fn as_raw_handle(&self) -> RawHandle {
                    self.0.as_raw_handle()
                }
            }

            impl IntoRawHandle for $wrapper {
                fn into_raw_handle(self) -> RawHandle {
                    self.0.into_raw_handle()
                }
            }

            impl From<std::fs::File> for $wrapper {
                fn from(file: std::fs::File) -> Self {
                    Self(OwnedHandle::from(file))
                }
            }
        };
    };
}
pub(crate) use owned_handle_traits;

/// Lets event loops wait for a public type, by the handle that the named method lends.
macro_rules! waitable_traits {
    ($(#[$doc:meta])* $type:ident<$generic:ident>, $method:ident) => {
        impl<$generic> std::os::windows::io::AsHandle for $type<$generic> {
            $(#[$doc])*
            fn as_handle(&self) -> std::os::windows::io::BorrowedHandle<'_> {
                self.$method()
            }
        }
    };
}
pub(crate) use waitable_traits;
