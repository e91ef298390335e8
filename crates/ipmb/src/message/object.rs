//! [`Object`]: an owned kernel handle.

use crate::sys::{self, Handle, RawHandle};
use std::io;

/// An owned kernel handle that can travel with a message: a file descriptor on Unix, a `HANDLE` on Windows, a port
/// on macOS.
///
/// It is closed when dropped. Sending a message gives each receiver a handle of its own to the same kernel object.
///
/// ```
/// # #[cfg(unix)] {
/// use std::{fs::File, os::fd::OwnedFd};
///
/// let object = ipmb::Object::from(File::open("/dev/null")?);
/// let copy = object.clone()?;
/// assert_ne!(object.as_raw(), copy.as_raw());
/// let _file = File::from(OwnedFd::from(copy));
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[repr(transparent)] // For `from_ref`.
pub struct Object(Handle);

impl Object {
    /// The same handle as an `Object`, without taking it over.
    pub(crate) fn from_ref(handle: &Handle) -> &Self {
        // SAFETY: `Object` is a transparent wrapper of `Handle`, so a reference to one is valid for the other.
        unsafe { &*std::ptr::from_ref(handle).cast() }
    }

    /// Takes over a raw handle.
    ///
    /// # Safety
    /// The handle must be open, and nobody else may close it.
    pub unsafe fn from_raw(raw: RawHandle) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { sys::handle_from_raw(raw) })
    }

    /// Gives the raw handle up to the caller, who must close it.
    pub fn into_raw(self) -> RawHandle {
        sys::handle_into_raw(self.0)
    }

    /// The raw handle, which stays owned by `self`.
    pub fn as_raw(&self) -> RawHandle {
        sys::handle_as_raw(&self.0)
    }

    /// A second handle to the same kernel object; not inherited by child processes.
    ///
    /// # Errors
    /// What the system says, for example when the table of descriptors is full.
    #[allow(clippy::should_implement_trait)] // It can fail.
    pub fn clone(&self) -> io::Result<Self> {
        sys::duplicate(&self.0).map(Self)
    }
}

impl From<Handle> for Object {
    fn from(handle: Handle) -> Self {
        Self(handle)
    }
}

impl From<Object> for Handle {
    fn from(object: Object) -> Self {
        object.0
    }
}

#[cfg(unix)]
mod fd {
    use super::Object;
    use std::{
        fs::File,
        net::{TcpListener, TcpStream, UdpSocket},
        os::{
            fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd},
            unix::net::{UnixDatagram, UnixListener, UnixStream},
        },
    };

    impl AsFd for Object {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl AsRawFd for Object {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }
    }

    impl IntoRawFd for Object {
        fn into_raw_fd(self) -> RawFd {
            self.0.into_raw_fd()
        }
    }

    macro_rules! from {
        ($($ty:ty),*) => {
            $(impl From<$ty> for Object {
                fn from(file: $ty) -> Self {
                    Self(OwnedFd::from(file))
                }
            })*
        };
    }

    from!(
        File,
        TcpListener,
        TcpStream,
        UdpSocket,
        UnixDatagram,
        UnixListener,
        UnixStream
    );
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::{
        fs::File,
        io::{Read, Write},
        os::fd::{AsFd, OwnedFd},
        os::unix::net::UnixStream,
    };

    #[test]
    fn a_clone_is_closed_on_exec_clear_of_stdio_and_the_same_object() {
        let (a, mut b) = UnixStream::pair().unwrap();
        let object = Object::from(a);
        let copy = object.clone().unwrap();
        assert!(copy.as_raw() > 2);
        let flags = rustix::io::fcntl_getfd(copy.as_fd()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        drop(object);
        let mut copy = UnixStream::from(OwnedFd::from(copy));
        copy.write_all(b"x").unwrap();
        let mut byte = [0];
        b.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x");
    }

    #[test]
    fn a_raw_handle_goes_in_and_out_without_being_closed() {
        let raw = Object::from(File::open("/dev/null").unwrap()).into_raw();
        // SAFETY: `into_raw` has just given it up.
        let object = unsafe { Object::from_raw(raw) };
        assert_eq!(object.as_raw(), raw);
        object.clone().unwrap();
    }
}
