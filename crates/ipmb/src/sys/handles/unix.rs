//! Kernel handles where they are file descriptors, and the system's own traits of the public types.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, RawFd};

/// A borrowed kernel handle.
pub(crate) use std::os::fd::BorrowedFd as BorrowedHandle;
/// What event loops wait for.
pub(crate) use std::os::fd::BorrowedFd as BorrowedWaitable;
/// An owned kernel handle.
pub(crate) use std::os::fd::OwnedFd as Handle;

/// A kernel handle as a plain number.
pub(crate) type RawHandle = RawFd;

/// What can be handed to another process.
pub(crate) trait AsHandle {
    fn as_handle(&self) -> BorrowedHandle<'_>;
}

impl<T: AsFd> AsHandle for T {
    #[inline]
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.as_fd()
    }
}

/// Takes over a raw handle.
///
/// # Safety
/// It must be open, and nobody else may close it.
pub(crate) unsafe fn handle_from_raw(raw: RawHandle) -> Handle {
    // SAFETY: as the caller promises.
    unsafe { Handle::from_raw_fd(raw) }
}

/// Gives a raw handle up.
pub(crate) fn handle_into_raw(handle: Handle) -> RawHandle {
    handle.into_raw_fd()
}

/// The number of a handle.
pub(crate) fn handle_as_raw(handle: &Handle) -> RawHandle {
    handle.as_raw_fd()
}

/// The handle of a descriptor.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
pub(crate) fn handle_from_fd(fd: std::os::fd::OwnedFd) -> Handle {
    fd
}

/// A descriptor for the handle.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
pub(crate) fn handle_into_fd(handle: Handle) -> std::io::Result<std::os::fd::OwnedFd> {
    Ok(handle)
}

/// The file that a handle is.
#[cfg(test)]
pub(crate) fn handle_into_file(handle: Handle) -> std::fs::File {
    handle.into()
}

/// What event loops wait for, of something that can be waited for.
#[inline]
pub(crate) fn waitable(of: &impl AsHandle) -> BorrowedWaitable<'_> {
    of.as_handle()
}

/// Gives a public wrapper of a [`Handle`] the traits that owners of a handle have here.
macro_rules! owned_handle_traits {
    ($wrapper:ident) => {
        const _: () = {
            use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

            impl AsFd for $wrapper {
                fn as_fd(&self) -> BorrowedFd<'_> {
                    self.0.as_fd()
                }
            }

            impl AsRawFd for $wrapper {
                fn as_raw_fd(&self) -> RawFd {
                    self.0.as_raw_fd()
                }
            }

            impl IntoRawFd for $wrapper {
                fn into_raw_fd(self) -> RawFd {
                    self.0.into_raw_fd()
                }
            }

            macro_rules! from {
                ($ty:ty) => {
                    impl From<$ty> for $wrapper {
                        fn from(file: $ty) -> Self {
                            Self(OwnedFd::from(file))
                        }
                    }
                };
            }
            from!(std::fs::File);
            from!(std::net::TcpListener);
            from!(std::net::TcpStream);
            from!(std::net::UdpSocket);
            from!(std::os::unix::net::UnixDatagram);
            from!(std::os::unix::net::UnixListener);
            from!(std::os::unix::net::UnixStream);
        };
    };
}
pub(crate) use owned_handle_traits;

/// Lets event loops wait for a public type, by the handle that the named method lends.
macro_rules! waitable_traits {
    ($(#[$doc:meta])* $type:ident<$generic:ident>, $method:ident) => {
        impl<$generic> std::os::fd::AsFd for $type<$generic> {
            $(#[$doc])*
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.$method()
            }
        }
    };
}
pub(crate) use waitable_traits;
