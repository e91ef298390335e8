//! Kernel handles where they are file descriptors or Mach ports, and the system's own traits of the public types.
//!
//! As a plain number a handle is the name of a port: a descriptor's is that of a file port, made when it is first asked for.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

pub use super::backend::SendRight;
use super::backend::mach;

/// What event loops wait for.
pub(crate) use std::os::fd::BorrowedFd as BorrowedWaitable;

/// A kernel handle as a plain number: a `mach_port_t`.
pub(crate) type RawHandle = mach::Name;

/// An owned kernel handle.
#[derive(Debug)]
pub enum Handle {
    /// A descriptor, and its file port.
    Fd(OwnedFd, OnceLock<SendRight>),
    /// A right to send to a port.
    Port(SendRight),
}

/// A borrowed kernel handle.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BorrowedHandle<'a> {
    Fd(BorrowedFd<'a>),
    Port(&'a SendRight),
}

/// What can be handed to another process.
pub(crate) trait AsHandle {
    fn as_handle(&self) -> BorrowedHandle<'_>;
}

impl<T: AsFd> AsHandle for T {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        BorrowedHandle::Fd(self.as_fd())
    }
}

impl AsHandle for Handle {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        match self {
            Self::Fd(fd, _) => BorrowedHandle::Fd(fd.as_fd()),
            Self::Port(port) => BorrowedHandle::Port(port),
        }
    }
}

impl From<OwnedFd> for Handle {
    fn from(fd: OwnedFd) -> Self {
        Self::Fd(fd, OnceLock::new())
    }
}

/// Fails unless it is a descriptor or a file port.
impl TryFrom<Handle> for OwnedFd {
    type Error = io::Error;

    fn try_from(handle: Handle) -> io::Result<Self> {
        match handle {
            Handle::Fd(fd, _) => Ok(fd),
            Handle::Port(port) => mach::descriptor_of(&port),
        }
    }
}

/// The handle of a descriptor.
pub(crate) fn handle_from_fd(fd: OwnedFd) -> Handle {
    fd.into()
}

/// A descriptor for the handle, if there can be one.
pub(crate) fn handle_into_fd(handle: Handle) -> io::Result<OwnedFd> {
    handle.try_into()
}

/// Takes over a raw handle.
///
/// # Safety
/// It must be a send right, a dead name or no port, and nobody else may give it up.
pub(crate) unsafe fn handle_from_raw(raw: RawHandle) -> Handle {
    // SAFETY: as the caller promises.
    Handle::Port(unsafe { SendRight::own(raw) })
}

/// Gives a raw handle up. Of a descriptor that there can be no port for it is the null port.
pub(crate) fn handle_into_raw(handle: Handle) -> RawHandle {
    let port = match handle {
        Handle::Fd(fd, port) => match port.into_inner() {
            Some(port) => Ok(port),
            None => mach::file_port(fd.as_fd()),
        },
        Handle::Port(port) => Ok(port),
    };
    port.map_or(mach::NULL, SendRight::into_name)
}

/// The name of a handle's port. Of a descriptor that there can be no port for it is the null port.
pub(crate) fn handle_as_raw(handle: &Handle) -> RawHandle {
    match handle {
        Handle::Port(port) => port.name(),
        Handle::Fd(fd, kept) => {
            if kept.get().is_none()
                && let Ok(port) = mach::file_port(fd.as_fd())
            {
                // If another thread was faster, its port stays.
                let _ = kept.set(port);
            }
            kept.get().map_or(mach::NULL, SendRight::name)
        }
    }
}

/// The file that a handle is.
#[cfg(test)]
pub(crate) fn handle_into_file(handle: Handle) -> std::fs::File {
    handle_into_fd(handle).unwrap().into()
}

/// What event loops wait for, of something that can be waited for.
pub(crate) fn waitable(of: &impl AsFd) -> BorrowedWaitable<'_> {
    of.as_fd()
}

/// Gives a public wrapper of a [`Handle`] the traits that owners of a handle have here.
macro_rules! owned_handle_traits {
    ($wrapper:ident) => {
        const _: () = {
            use std::os::fd::OwnedFd;

            impl crate::sys::AsHandle for $wrapper {
                fn as_handle(&self) -> crate::sys::BorrowedHandle<'_> {
                    self.0.as_handle()
                }
            }

            /// Fails unless it is a descriptor or a file port.
            impl TryFrom<$wrapper> for OwnedFd {
                type Error = std::io::Error;

                fn try_from(object: $wrapper) -> std::io::Result<Self> {
                    object.0.try_into()
                }
            }

            macro_rules! from {
                ($ty:ty) => {
                    impl From<$ty> for $wrapper {
                        fn from(file: $ty) -> Self {
                            Self(OwnedFd::from(file).into())
                        }
                    }
                };
            }
            from!(OwnedFd);
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
