//! What Linux and macOS share: sources are descriptors, which libuv polls.

use super::uv::{CloseCallback, Handle, Memory, Told, Uv, functions, tell};
use ipmb::{EndpointReceiver, Object};
use std::{
    cell::Cell,
    ffi::{CStr, c_int, c_void},
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// A descriptor, which is set when it is readable.
pub(crate) type Source = OwnedFd;

/// Closes its end of a pipe, which makes the other one readable.
pub(crate) type Teller = io::PipeWriter;

pub(crate) fn source_of<R>(receiver: &EndpointReceiver<R>) -> io::Result<Source> {
    receiver.as_fd().try_clone_to_owned()
}

/// The source that an object is, of those that the library makes to be waited for.
#[allow(clippy::unnecessary_fallible_conversions)] // On macOS an object can be a port.
pub(crate) fn source_in(object: Object) -> io::Result<Source> {
    Source::try_from(object).map_err(io::Error::other)
}

pub(crate) fn teller() -> io::Result<(Source, Teller)> {
    let (source, teller) = io::pipe()?;
    Ok((source.into(), teller))
}

/// An object of its own for the descriptor `fd`, which is not negative.
pub(crate) fn object_of(fd: i32) -> io::Result<Object> {
    // SAFETY: borrowed for this one call, which fails for a number that is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map(Object::from)
}

pub(crate) fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a lookup by name among what the process has loaded.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// `UV_POLL` of `uv_handle_type`, and `UV_READABLE` of `uv_poll_event`.
const POLL: c_int = 8;
const READABLE: c_int = 1;

type Callback = unsafe extern "C" fn(*mut Handle, c_int, c_int);

functions! {
    /// The functions for `uv_poll_t`. Called on the loop's thread only.
    Poll {
        init: c"uv_poll_init", unsafe extern "C" fn(*mut c_void, *mut Handle, c_int) -> c_int;
        start: c"uv_poll_start", unsafe extern "C" fn(*mut Handle, c_int, Callback) -> c_int;
        stop: c"uv_poll_stop", unsafe extern "C" fn(*mut Handle) -> c_int;
    }
}

/// A `uv_poll_t`.
pub(crate) struct Waiter<T> {
    uv: Uv,
    poll: Poll,
    memory: Memory,
    started: Cell<bool>,
    /// Closed with the waiter, thus after libuv let go of it.
    fd: OwnedFd,
    told: PhantomData<fn(&T)>,
}

impl<T: Told> Waiter<T> {
    /// Fails with the name of a function that the host does not have.
    pub(crate) fn new(uv: Uv, source: Source) -> Result<Self, &'static str> {
        Ok(Self {
            uv,
            poll: Poll::get()?,
            memory: Memory::new(uv, POLL),
            started: Cell::new(false),
            fd: source,
            told: PhantomData,
        })
    }

    pub(crate) fn handle(&self) -> *mut Handle {
        self.memory.handle()
    }

    /// # Safety
    /// On the thread of the loop, once. If it succeeds, the waiter is not moved nor dropped before the callback of
    /// `close`, and the handle's data is set to an `Rc<T>` that is held as long.
    pub(crate) unsafe fn init(&self, event_loop: *mut c_void) -> io::Result<()> {
        // SAFETY: zeroed memory of the size that libuv wants, which lives as long as promised.
        check(unsafe { (self.poll.init)(event_loop, self.handle(), self.fd.as_raw_fd()) })
    }

    /// # Safety
    /// Between `init` and `close`, on the loop's thread.
    pub(crate) unsafe fn start(&self) -> io::Result<()> {
        if !self.started.get() {
            // SAFETY: an open handle of this thread's loop.
            check(unsafe { (self.poll.start)(self.handle(), READABLE, readable::<T>) })?;
            self.started.set(true);
        }
        Ok(())
    }

    /// Goes on watching even if nobody waits any more, until there is something: to stop and start each time costs more.
    ///
    /// # Safety
    /// As for `start`.
    pub(crate) unsafe fn looked(&self, _waits: bool) {}

    /// # Safety
    /// As for `start`.
    pub(crate) unsafe fn rest(&self) {
        self.started.set(false);
        // SAFETY: an open handle of this thread's loop.
        unsafe { (self.poll.stop)(self.handle()) };
    }

    /// # Safety
    /// Once, after `init`, on the loop's thread.
    pub(crate) unsafe fn close(&self, closed: CloseCallback) {
        // SAFETY: an open handle, which is closed once.
        unsafe { (self.uv.close)(self.handle(), closed) };
    }
}

unsafe extern "C" fn readable<T: Told>(handle: *mut Handle, _status: c_int, _events: c_int) {
    // SAFETY: libuv calls this on its thread while the handle is open; its data is as `init` was promised.
    unsafe { tell::<T>(handle) };
}

fn check(code: c_int) -> io::Result<()> {
    match code {
        0.. => Ok(()),
        _ => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}
