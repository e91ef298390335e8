//! What differs between systems: the numbers of kernel objects, and the codes of errors.

pub(crate) use here::{EXHAUSTED, number, take, waitable};

/// Whether a code of the system says that something ran out.
pub(crate) fn is_exhausted(error: &std::io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| EXHAUSTED.contains(&code))
}

#[cfg(unix)]
mod here {
    use crate::code::Failure;
    use std::{
        ffi::c_int,
        os::fd::{AsFd, AsRawFd},
    };

    pub(crate) use super::objects::{number, take};

    pub(crate) const EXHAUSTED: &[i32] = &[libc::EMFILE, libc::ENFILE, libc::ENOMEM];

    /// What one can wait for.
    pub(crate) fn waitable(receiver: &impl AsFd) -> Result<c_int, Failure> {
        Ok(receiver.as_fd().as_raw_fd())
    }
}

/// Objects are descriptors.
#[cfg(all(unix, not(target_os = "macos")))]
mod objects {
    use crate::{code::Failure, object::Object};
    use std::os::fd::RawFd;

    /// Takes a descriptor over.
    ///
    /// # Safety
    /// The caller owns it.
    pub(crate) unsafe fn take(object: Object) -> Result<ipmb::Object, Failure> {
        let descriptor = RawFd::try_from(object)
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
    pub(crate) fn number(descriptor: RawFd) -> Result<Object, Failure> {
        Object::try_from(descriptor).map_err(|_| Failure::argument("a negative descriptor"))
    }
}

/// Objects are Mach ports; the port of a descriptor is its file port.
#[cfg(target_os = "macos")]
mod objects {
    use crate::{code::Failure, object::Object};

    unsafe extern "C" {
        static mach_task_self_: u32;
        fn mach_port_type(task: u32, name: u32, kind: *mut u32) -> i32;
    }

    /// `MACH_PORT_TYPE_SEND` and `MACH_PORT_TYPE_DEAD_NAME`, which the former becomes when the port is gone.
    const SEND_OR_DEAD: u32 = 1 << 16 | 1 << 20;

    /// Takes a right to send over.
    ///
    /// # Safety
    /// The caller owns it.
    pub(crate) unsafe fn take(object: Object) -> Result<ipmb::Object, Failure> {
        let name = u32::try_from(object)
            .map_err(|_| Failure::argument(format!("the object {object} is no port")))?;
        let mut kind = 0;
        // SAFETY: only asks; fails for a name that this process does not have.
        let code = unsafe { mach_port_type(mach_task_self_, name, &raw mut kind) };
        if code != 0 || kind & SEND_OR_DEAD == 0 {
            return Err(Failure::argument(format!(
                "the object {object} is no right to send to a port in this process"
            )));
        }
        // SAFETY: it is one, and the caller gives it away.
        Ok(unsafe { ipmb::Object::from_raw(name) })
    }

    /// The name of a port. 0: there can be none for the descriptor.
    pub(crate) fn number(port: u32) -> Result<Object, Failure> {
        match port {
            0 => Err(Failure::argument("there can be no port for the descriptor")),
            port => Ok(port.into()),
        }
    }
}

#[cfg(windows)]
mod here {
    use crate::{code::Failure, object::Object};
    use std::{
        ffi::c_int,
        os::windows::io::{AsHandle, AsRawHandle, RawHandle},
    };
    use windows_sys::Win32::Foundation::{
        ERROR_COMMITMENT_LIMIT, ERROR_NO_SYSTEM_RESOURCES, ERROR_NOT_ENOUGH_MEMORY,
        ERROR_NOT_ENOUGH_QUOTA, ERROR_OUTOFMEMORY, ERROR_TOO_MANY_OPEN_FILES, GetHandleInformation,
    };

    pub(crate) const EXHAUSTED: &[i32] = &[
        ERROR_TOO_MANY_OPEN_FILES as i32,
        ERROR_NOT_ENOUGH_MEMORY as i32,
        ERROR_OUTOFMEMORY as i32,
        ERROR_COMMITMENT_LIMIT as i32,
        ERROR_NO_SYSTEM_RESOURCES as i32,
        ERROR_NOT_ENOUGH_QUOTA as i32,
    ];

    /// Takes a handle over.
    ///
    /// # Safety
    /// The caller owns it.
    pub(crate) unsafe fn take(object: Object) -> Result<ipmb::Object, Failure> {
        let number = usize::try_from(object)
            .map_err(|_| Failure::argument(format!("the object {object} is no handle")))?;
        let handle = number as RawHandle;
        let mut flags = 0;
        // SAFETY: only asks; fails for a number that is not open.
        if unsafe { GetHandleInformation(handle, &raw mut flags) } == 0 {
            return Err(Failure::argument(format!(
                "the object {object} is not open in this process"
            )));
        }
        // SAFETY: it is open, and the caller gives it away.
        Ok(unsafe { ipmb::Object::from_raw(handle) })
    }

    /// The number of a handle.
    pub(crate) fn number(handle: RawHandle) -> Result<Object, Failure> {
        Ok(handle as usize as Object)
    }

    /// What one can wait for: numbers of handles have 32 bits.
    pub(crate) fn waitable(receiver: &impl AsHandle) -> Result<c_int, Failure> {
        Ok(receiver.as_handle().as_raw_handle() as usize as c_int)
    }
}
