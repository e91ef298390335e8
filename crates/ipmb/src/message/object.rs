//! [`Object`]: an owned kernel handle.

use crate::sys::{self, AsHandle, Handle, RawHandle};
use std::io;

/// An owned kernel handle that can travel with a message: a file descriptor on Unix, a `HANDLE` on Windows; on macOS, a right to send
/// to a Mach port, or a file descriptor.
///
/// It is closed when dropped. Sending a message gives each receiver a handle of its own to the same kernel object.
///
/// ```
/// use std::fs::File;
///
/// let object = ipmb::Object::from(File::open("Cargo.toml")?);
/// let copy = object.clone()?;
/// assert_ne!(object.as_raw(), copy.as_raw());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// On macOS the raw handle is a `mach_port_t`. That of a descriptor is its file port (`fileport_makeport`), which is made when it is first asked for, and
/// `MACH_PORT_NULL` if the system makes none. A descriptor is got back by `OwnedFd::try_from`, which fails for a port that is no file.
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
    /// The handle must be open, and nobody else may close it. On macOS it is one reference of a send right.
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

    /// A second handle to the same kernel object; not inherited by child processes. On macOS a port has the same name again.
    ///
    /// # Errors
    /// What the system says, for example when the table of descriptors is full.
    #[allow(clippy::should_implement_trait)] // It can fail.
    pub fn clone(&self) -> io::Result<Self> {
        sys::duplicate(self.0.as_handle()).map(Self)
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

sys::owned_handle_traits!(Object);

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        io::{Read, Seek, Write},
    };

    #[test]
    fn a_clone_is_another_object() {
        let path = std::env::temp_dir().join(format!("ipmb-object-{}", std::process::id()));
        let mut file = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let object = Object::from(file.try_clone().unwrap());
        let copy = object.clone().unwrap();
        assert_ne!(copy.as_raw(), object.as_raw());
        drop(object);
        let mut same = sys::handle_into_file(copy.into());
        same.write_all(b"x").unwrap();
        drop(same);
        file.rewind().unwrap();
        let mut byte = [0];
        file.read_exact(&mut byte).unwrap();
        drop(file);
        std::fs::remove_file(path).unwrap();
        assert_eq!(byte, *b"x");
    }

    #[test]
    fn a_raw_handle_is_closed_on_its_way_out_and_in() {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let raw = Object::from(file).into_raw();
        // SAFETY: `into_raw` has just given it up.
        let object = unsafe { Object::from_raw(raw) };
        assert_eq!(object.as_raw(), raw);
        object.clone().unwrap();
    }
}
