//! Mach ports, by the headers of the system: `mach/port.h`, `mach/message.h`, `servers/bootstrap.h`, and `sys/fileport.h`, which is not
//! among the public ones (its two functions are those of the system's own library all the same). What is taken for
//! granted of them stands in `.ci/macos-layouts.c`, too.

use super::{adopt_raw, fork};
use rustix::{
    fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    io::Errno,
};
use std::{
    ffi::{CStr, c_char, c_int},
    io,
    mem::ManuallyDrop,
};

/// The name of a port in this process (`mach_port_t`).
pub(crate) type Name = u32;

/// No port (`MACH_PORT_NULL`), and one that was dead when it came (`MACH_PORT_DEAD`): neither is a right.
pub(crate) const NULL: Name = 0;
const DEAD: Name = Name::MAX;

/// `MACH_PORT_RIGHT_SEND` and `MACH_PORT_RIGHT_DEAD_NAME`: what the former becomes when the port is gone.
const SEND: u32 = 0;
const DEAD_NAME: u32 = 4;
/// `MACH_MSG_TYPE_MAKE_SEND` and `MACH_MSG_TYPE_MAKE_SEND_ONCE`: made of the right to receive.
const MAKE_SEND: u32 = 20;
pub(super) const MAKE_SEND_ONCE: u32 = 21;
/// `MACH_PORT_LIMITS_INFO`, its size in numbers, and `MACH_PORT_QLIMIT_LARGE`.
const LIMITS: c_int = 1;
const LIMITS_COUNT: u32 = 1;
pub(super) const LARGE: u32 = 1024;
/// Options of `mach_msg`.
const SEND_MSG: c_int = 1;
const RCV_MSG: c_int = 2;
const RCV_LARGE: c_int = 4;
const SEND_TIMEOUT: c_int = 0x10;
const RCV_TIMEOUT: c_int = 0x100;
/// `MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AUDIT)`, of the one type of trailers.
const RCV_AUDIT: c_int = 0x0300_0000;
/// What it returns: `MACH_SEND_INVALID_DEST`, `MACH_SEND_TIMED_OUT`, `MACH_SEND_INVALID_RIGHT`,
/// `MACH_SEND_NO_BUFFER`; `MACH_RCV_TOO_LARGE`.
const SEND_NOBODY: c_int = 0x1000_0003;
const SEND_FULL: c_int = 0x1000_0004;
const SEND_NO_RIGHT: c_int = 0x1000_000a;
const SEND_NO_BUFFER: c_int = 0x1000_000d;
const RCV_TOO_LARGE: c_int = 0x1000_4004;
/// `MACH_RCV_HEADER_ERROR` and `MACH_RCV_BODY_ERROR`, which come with what ran out, in the bits of `MACH_MSG_MASK`.
const RCV_HEADER_ERROR: c_int = 0x1000_400b;
const RCV_BODY_ERROR: c_int = 0x1000_400c;
const MASK: c_int = 0x3e00;
/// Words, more than any trailer takes (`mach_msg_max_trailer_t`).
const TRAILER: usize = 32;
/// `BOOTSTRAP_MAX_NAME_LEN`, the end included.
pub(super) const NAME_MAX: usize = 128;

unsafe extern "C" {
    static mach_task_self_: Name;
    static bootstrap_port: Name;
    fn mach_port_mod_refs(task: Name, name: Name, right: u32, delta: c_int) -> c_int;
    fn mach_port_deallocate(task: Name, name: Name) -> c_int;
    fn mach_port_insert_right(task: Name, name: Name, port: Name, kind: u32) -> c_int;
    fn mach_port_set_attributes(
        task: Name,
        name: Name,
        flavor: c_int,
        info: *const u32,
        count: u32,
    ) -> c_int;
    fn mach_msg(
        message: *mut u32,
        option: c_int,
        send_size: u32,
        receive_size: u32,
        receive_name: Name,
        timeout: u32,
        notify: Name,
    ) -> c_int;
    fn mach_msg_destroy(message: *mut u32);
    fn bootstrap_check_in(server: Name, name: *const c_char, port: *mut Name) -> c_int;
    fn bootstrap_look_up(server: Name, name: *const c_char, port: *mut Name) -> c_int;
    fn fileport_makeport(fd: c_int, port: *mut Name) -> c_int;
    fn fileport_makefd(port: Name) -> RawFd;
}

fn task() -> Name {
    // SAFETY: set before the program begins, and by `fork` in the child before it returns there.
    unsafe { mach_task_self_ }
}

/// The error for what a call returned.
fn error(call: &str, code: c_int) -> io::Error {
    io::Error::other(format!("{call}: {code:#x}"))
}

fn check(call: &str, code: c_int) -> io::Result<()> {
    match code {
        0 => Ok(()),
        _ => Err(error(call, code)),
    }
}

/// A right to send to a port, which is given up when it is dropped. A forked child does not have it: there, the name may be that of
/// another port.
#[derive(Debug)]
pub struct SendRight {
    name: Name,
    generation: u32,
}

impl SendRight {
    /// Takes a right over.
    ///
    /// # Safety
    /// It is one, a dead name or none, and nobody else gives it up.
    pub(crate) unsafe fn own(name: Name) -> Self {
        fork::install();
        Self {
            name,
            generation: fork::generation(),
        }
    }

    pub(crate) fn name(&self) -> Name {
        self.name
    }

    /// Leaves the right to the caller.
    pub(crate) fn into_name(self) -> Name {
        ManuallyDrop::new(self).name
    }

    /// Whether there is a right to give up.
    fn is_held(&self) -> bool {
        self.name != NULL && self.name != DEAD && !fork::forked_since(self.generation)
    }

    /// The same right once more, under the same name.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        if fork::forked_since(self.generation) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if self.is_held() {
            // SAFETY: takes numbers; the right is there, and stays.
            let once_more = |right| unsafe { mach_port_mod_refs(task(), self.name, right, 1) };
            if once_more(SEND) != 0 {
                check("mach_port_mod_refs", once_more(DEAD_NAME))?;
            }
        }
        // SAFETY: made just now.
        Ok(unsafe { Self::own(self.name) })
    }
}

impl Drop for SendRight {
    fn drop(&mut self) {
        if self.is_held() {
            // SAFETY: the right is this one's, which is dropped once.
            unsafe { mach_port_deallocate(task(), self.name) };
        }
    }
}

/// A port for a descriptor.
pub(crate) fn file_port(fd: BorrowedFd<'_>) -> io::Result<SendRight> {
    let mut name = NULL;
    // SAFETY: a place for the name.
    if unsafe { fileport_makeport(fd.as_raw_fd(), &raw mut name) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: made just now, and nobody else knows of it.
    Ok(unsafe { SendRight::own(name) })
}

/// A descriptor for the port of one. Fails with `EINVAL` if it is another port.
pub(crate) fn descriptor_of(port: &SendRight) -> io::Result<OwnedFd> {
    if !port.is_held() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: takes a name; a fresh descriptor, or a negative number.
    unsafe { adopt_raw(fileport_makefd(port.name())) }
}

/// Registers a port that this process receives from, with a long queue, under a name that nobody else has. It is there as long
/// as the process.
pub(super) fn register(name: &CStr) -> io::Result<Name> {
    let mut port = NULL;
    // SAFETY: the name ends with NUL and is not too long; a place for the port.
    let code = unsafe { bootstrap_check_in(bootstrap_port, name.as_ptr(), &raw mut port) };
    check("bootstrap_check_in", code)?;
    // SAFETY: the port is ours, and the limit is a number. Without it there is room for fewer.
    unsafe { mach_port_set_attributes(task(), port, LIMITS, &raw const LARGE_LIMIT, LIMITS_COUNT) };
    Ok(port)
}

/// `mach_port_limits_t`.
static LARGE_LIMIT: u32 = LARGE;

/// A right to send to the port that another process has registered.
pub(super) fn look_up(name: &CStr) -> io::Result<SendRight> {
    let mut port = NULL;
    // SAFETY: as in `register`.
    let code = unsafe { bootstrap_look_up(bootstrap_port, name.as_ptr(), &raw mut port) };
    check("bootstrap_look_up", code)?;
    // SAFETY: got just now.
    Ok(unsafe { SendRight::own(port) })
}

/// A right to send to a port that this process receives from.
pub(super) fn right_to(port: Name) -> io::Result<SendRight> {
    // SAFETY: takes numbers; the new right has the name of the port.
    let code = unsafe { mach_port_insert_right(task(), port, port, MAKE_SEND) };
    check("mach_port_insert_right", code)?;
    // SAFETY: made just now.
    Ok(unsafe { SendRight::own(port) })
}

/// Sends a message, at once or not at all: its header says how long it is.
pub(super) fn send(message: &mut [u32]) -> io::Result<()> {
    let size = size_of_val(message) as u32;
    // SAFETY: the message is as long as it says, and stays for as long as the call takes. There is nobody to notify.
    let code = unsafe {
        mach_msg(
            message.as_mut_ptr(),
            SEND_MSG | SEND_TIMEOUT,
            size,
            0,
            NULL,
            0,
            NULL,
        )
    };
    if code == 0 {
        return Ok(());
    }
    // A message that was taken and could not be delivered comes back with the rights that were made for it. Of another one nothing is
    // given up: it has copies only.
    // SAFETY: the kernel has left the message as it was, or has written a whole one.
    unsafe { mach_msg_destroy(message.as_mut_ptr()) };
    Err(match code & !MASK {
        // Not `WouldBlock`, after which room in a socket would be waited for: that there is.
        SEND_FULL => Errno::TOOMANYREFS.into(),
        SEND_NOBODY => Errno::PIPE.into(),
        SEND_NO_RIGHT => io::Error::new(
            io::ErrorKind::InvalidInput,
            "an object is no right to send to a port",
        ),
        SEND_NO_BUFFER => Errno::NOBUFS.into(),
        _ => error("mach_msg", code),
    })
}

/// What a look into a port has brought.
pub(super) enum Came {
    /// A message, with its trailer.
    Message,
    /// One of which something has no room here: to be destroyed.
    Part,
    /// One that needs space of so many words, and waits for that.
    Longer(usize),
    /// One that had no room for its rights here, and is gone.
    Gone,
    Nothing,
}

/// Takes the next message without waiting, if it fits. Longer ones stay: the kernel would destroy them in this thread, which may
/// take any time.
pub(super) fn receive(port: Name, space: &mut [u32]) -> Came {
    // SAFETY: the kernel writes no more than the size of the space.
    let code = unsafe {
        mach_msg(
            space.as_mut_ptr(),
            RCV_MSG | RCV_TIMEOUT | RCV_LARGE | RCV_AUDIT,
            0,
            size_of_val(space) as u32,
            port,
            0,
            NULL,
        )
    };
    match code & !MASK {
        0 => Came::Message,
        RCV_BODY_ERROR => Came::Part,
        // It has written the size, without the trailer, where it stands in the header.
        RCV_TOO_LARGE => Came::Longer(space.get(1).map_or(0, |size| *size as usize / 4) + TRAILER),
        RCV_HEADER_ERROR => Came::Gone,
        _ => Came::Nothing,
    }
}

/// A message that was received, and that nobody wants. When it is dropped what it has brought is given up, which may wait.
pub(super) struct Junk {
    message: Vec<u32>,
    generation: u32,
}

impl Junk {
    /// # Safety
    /// The kernel has written its header and descriptors, and nobody else gives up what they name.
    pub(super) unsafe fn new(message: Vec<u32>) -> Self {
        Self {
            message,
            generation: fork::generation(),
        }
    }
}

impl Drop for Junk {
    fn drop(&mut self) {
        // A forked child has none of it.
        if !fork::forked_since(self.generation) {
            // SAFETY: as `new` was promised; once, here.
            unsafe { mach_msg_destroy(self.message.as_mut_ptr()) };
        }
    }
}

/// Sleeps until there is a message, and leaves it there.
pub(super) fn wait(port: Name) -> io::Result<()> {
    // Too little for any message with its trailer: it stays where it is (`mach_msg_receive_results`).
    let mut header = [0u32; 6];
    // SAFETY: the kernel writes no more than the size of the space.
    let code = unsafe {
        mach_msg(
            header.as_mut_ptr(),
            RCV_MSG | RCV_LARGE,
            0,
            size_of_val(&header) as u32,
            port,
            0,
            NULL,
        )
    };
    match code {
        RCV_TOO_LARGE => Ok(()),
        _ => Err(error("mach_msg", code)),
    }
}
