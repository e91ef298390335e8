//! Kernel handles where the standard library knows of none: plain numbers that nobody closes.

use std::marker::PhantomData;

/// A kernel handle as a plain number.
pub(crate) type RawHandle = usize;

/// An owned kernel handle.
#[derive(Debug)]
pub struct Handle(RawHandle);

/// A borrowed kernel handle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BorrowedHandle<'a>(PhantomData<&'a Handle>);

/// What event loops wait for.
pub(crate) type BorrowedWaitable<'a> = BorrowedHandle<'a>;

/// What can be handed to another process.
pub(crate) trait AsHandle {
    fn as_handle(&self) -> BorrowedHandle<'_>;
}

impl AsHandle for Handle {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        BorrowedHandle(PhantomData)
    }
}

/// Takes over a raw handle.
///
/// # Safety
/// It must be open, and nobody else may close it.
pub(crate) unsafe fn handle_from_raw(raw: RawHandle) -> Handle {
    Handle(raw)
}

/// Gives a raw handle up.
pub(crate) fn handle_into_raw(handle: Handle) -> RawHandle {
    handle.0
}

/// The number of a handle.
pub(crate) fn handle_as_raw(handle: &Handle) -> RawHandle {
    handle.0
}

/// What event loops wait for, of something that can be waited for.
pub(crate) fn waitable(of: &impl AsHandle) -> BorrowedWaitable<'_> {
    of.as_handle()
}

/// Gives a public wrapper of a [`Handle`] the traits that owners of a handle have here: none.
macro_rules! owned_handle_traits {
    ($wrapper:ident) => {
        impl crate::sys::AsHandle for $wrapper {
            fn as_handle(&self) -> crate::sys::BorrowedHandle<'_> {
                self.0.as_handle()
            }
        }
    };
}
pub(crate) use owned_handle_traits;

/// Lets event loops wait for a public type: there are none here.
macro_rules! waitable_traits {
    ($(#[$doc:meta])* $type:ident<$generic:ident>, $method:ident) => {
        impl<$generic> crate::sys::AsHandle for $type<$generic> {
            fn as_handle(&self) -> crate::sys::BorrowedHandle<'_> {
                self.$method()
            }
        }
    };
}
pub(crate) use waitable_traits;
