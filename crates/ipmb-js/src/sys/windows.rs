//! Windows: handles. libuv does not wait for events, so the system's thread pool does, and wakes the loop.

pub(crate) use super::copied::Private;

use super::uv::{CloseCallback, Handle, Memory, Told, Uv, functions, tell};
use ipmb::{EndpointReceiver, Object};
use std::{
    cell::{Cell, OnceCell},
    collections::BTreeMap,
    ffi::{CStr, c_int, c_void},
    io,
    marker::PhantomData,
    os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle},
    ptr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use windows_sys::Win32::System::{
    LibraryLoader::{GetModuleHandleW, GetProcAddress},
    Threading::{
        CloseThreadpoolWait, CreateEventW, CreateThreadpoolWait, PTP_CALLBACK_INSTANCE, PTP_WAIT,
        SetEvent, SetThreadpoolWait,
    },
};

/// An event that stays set until what it tells of was looked at.
pub(crate) type Source = OwnedHandle;

/// Sets an event when it is dropped.
pub(crate) struct Teller(OwnedHandle);

impl Drop for Teller {
    fn drop(&mut self) {
        // SAFETY: an open handle of an event that may be set.
        unsafe { SetEvent(self.0.as_raw_handle()) };
    }
}

pub(crate) fn source_of<R>(receiver: &EndpointReceiver<R>) -> io::Result<Source> {
    receiver.as_handle().try_clone_to_owned()
}

/// The source that an object is, of those that the library makes to be waited for.
pub(crate) fn source_in(object: Object) -> io::Result<Source> {
    Ok(object.into())
}

pub(crate) fn teller() -> io::Result<(Source, Teller)> {
    // SAFETY: without attributes and without a name. It stays set.
    let event = unsafe { CreateEventW(ptr::null(), 1, 0, ptr::null()) };
    if event.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: made just now, and nobody else knows of it.
    let event = unsafe { OwnedHandle::from_raw_handle(event) };
    Ok((event.try_clone()?, Teller(event)))
}

pub(crate) fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: null names the program itself, which has what it exports. A lookup by name.
    let found = unsafe { GetProcAddress(GetModuleHandleW(ptr::null()), name.as_ptr().cast()) };
    found.map(|function| function as *mut c_void)
}

/// `UV_ASYNC` of `uv_handle_type`, and `UV_FS` of `uv_req_type`.
const ASYNC: c_int = 1;
const FS: c_int = 6;

functions! {
    /// The functions for `uv_async_t`. `send` may be called on every thread.
    Async {
        init: c"uv_async_init", unsafe extern "C" fn(*mut c_void, *mut Handle, CloseCallback) -> c_int;
        send: c"uv_async_send", unsafe extern "C" fn(*mut Handle) -> c_int;
    }
}

/// A `uv_async_t`, and a wait in the system's thread pool that sends it.
pub(crate) struct Waiter<T> {
    uv: Uv,
    calls: Async,
    memory: Memory,
    /// Null before `init`.
    wait: Cell<PTP_WAIT>,
    /// Its number in `OPEN`.
    number: Cell<usize>,
    /// The pool waits for the source, or the loop is yet to hear that it was set.
    waits: Cell<bool>,
    /// Closed with the waiter, thus after the pool let go of it.
    event: OwnedHandle,
    told: PhantomData<fn(&T)>,
}

impl<T: Told> Waiter<T> {
    /// Fails with the name of a function that the host does not have.
    pub(crate) fn new(uv: Uv, source: Source) -> Result<Self, &'static str> {
        Ok(Self {
            uv,
            calls: Async::get()?,
            memory: Memory::new(uv, ASYNC),
            wait: Cell::new(0),
            number: Cell::new(0),
            waits: Cell::new(false),
            event: source,
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
        // Relaxed: nothing but the number.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the function takes any number for its context.
        let wait = unsafe {
            CreateThreadpoolWait(Some(set), ptr::without_provenance_mut(number), ptr::null())
        };
        if wait == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeroed memory of the size that libuv wants, which lives as long as promised.
        let code = unsafe { (self.calls.init)(event_loop, self.handle(), woken::<T>) };
        if code < 0 {
            // SAFETY: made above, and never started.
            unsafe { CloseThreadpoolWait(wait) };
            return Err(io::Error::other(format!("error {code} of libuv")));
        }
        self.wait.set(wait);
        self.number.set(number);
        let wake = Wake {
            send: self.calls.send,
            handle: self.handle(),
        };
        open().insert(number, wake);
        Ok(())
    }

    /// # Safety
    /// Between `init` and `close`, on the loop's thread.
    pub(crate) unsafe fn start(&self) -> io::Result<()> {
        if !self.waits.replace(true) {
            self.arm();
        }
        Ok(())
    }

    /// Lets the pool wait once. Ends at once if the event is still set.
    fn arm(&self) {
        // SAFETY: a wait that is not closed yet; the event is open as long as it.
        unsafe { SetThreadpoolWait(self.wait.get(), self.event.as_raw_handle(), ptr::null()) };
    }

    /// # Safety
    /// As for `start`.
    pub(crate) unsafe fn looked(&self, waits: bool) {
        self.waits.set(waits);
        if waits {
            self.arm();
        }
    }

    /// # Safety
    /// As for `start`.
    pub(crate) unsafe fn rest(&self) {
        self.waits.set(false);
    }

    /// # Safety
    /// Once, after `init`, on the loop's thread.
    pub(crate) unsafe fn close(&self, closed: CloseCallback) {
        open().remove(&self.number.get());
        // SAFETY: an open wait, which is closed once; the pool may still call `set`, which finds nothing. So nobody uses the
        // handle any more, which is closed once, on the thread of its loop.
        unsafe {
            SetThreadpoolWait(self.wait.get(), ptr::null_mut(), ptr::null());
            CloseThreadpoolWait(self.wait.get());
            (self.uv.close)(self.handle(), closed);
        }
    }
}

/// How to wake a loop.
struct Wake {
    send: unsafe extern "C" fn(*mut Handle) -> c_int,
    handle: *mut Handle,
}

// SAFETY: `send` may be called on every thread while the handle is open, which it is while this is in `OPEN`.
unsafe impl Send for Wake {}

/// The handles that are open, by numbers that are never used again. The pool is told a number and no address: Wine may call
/// `set` once more after its wait was cancelled and seen out.
static OPEN: Mutex<BTreeMap<usize, Wake>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicUsize = AtomicUsize::new(1);

fn open() -> MutexGuard<'static, BTreeMap<usize, Wake>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The event is set. On a thread of the pool.
unsafe extern "system" fn set(
    _: PTP_CALLBACK_INSTANCE,
    number: *mut c_void,
    _: PTP_WAIT,
    _result: u32,
) {
    // Under the lock, so that `close` does not close the handle meanwhile. It never blocks.
    if let Some(wake) = open().get(&number.addr()) {
        // SAFETY: an open handle.
        unsafe { (wake.send)(wake.handle) };
    }
}

unsafe extern "C" fn woken<T: Told>(handle: *mut Handle) {
    // SAFETY: libuv calls this on its thread while the handle is open; its data is as `init` was promised.
    unsafe { tell::<T>(handle) };
}

functions! {
    /// The functions for descriptors, which are a table of the C library that Node is linked with, and `uv_fs_t`.
    Descriptors {
        handle: c"uv_get_osfhandle", unsafe extern "C" fn(c_int) -> *mut c_void;
        open: c"uv_open_osfhandle", unsafe extern "C" fn(*mut c_void) -> c_int;
        close: c"uv_fs_close", unsafe extern "C" fn(*mut c_void, *mut Request, c_int, *const c_void) -> c_int;
        request_size: c"uv_req_size", unsafe extern "C" fn(c_int) -> usize;
        cleanup: c"uv_fs_req_cleanup", unsafe extern "C" fn(*mut Request);
    }
}

/// A `uv_fs_t`, of which only libuv knows the size.
#[repr(C)]
pub(crate) struct Request {
    _private: [u8; 0],
}

impl Descriptors {
    fn here() -> io::Result<Self> {
        let missing = |name| io::Error::other(format!("this host has no {name}"));
        Self::get().map_err(missing)
    }
}

/// A descriptor of Node's, with a handle of its own.
struct Descriptor(c_int);

impl Descriptor {
    fn of(object: &Object) -> io::Result<Self> {
        let calls = Descriptors::here()?;
        let own = object.as_handle().try_clone_to_owned()?;
        // SAFETY: an open handle, which the descriptor takes over if there is one.
        let fd = unsafe { (calls.open)(own.as_raw_handle()) };
        if fd < 0 {
            let text = "Node has descriptors for files, pipes and devices only, or no more of them";
            return Err(io::Error::other(text));
        }
        std::mem::forget(own);
        Ok(Self(fd))
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let Ok(calls) = Descriptors::get() else {
            return;
        };
        // SAFETY: zeroed memory as large as libuv wants it. Without a callback the call is done when it returns, and needs no
        // loop. The descriptor is this one's alone.
        unsafe {
            let mut request = vec![0u128; (calls.request_size)(FS).div_ceil(16)];
            let request = request.as_mut_ptr().cast();
            (calls.close)(ptr::null_mut(), request, self.0, ptr::null());
            (calls.cleanup)(request);
        }
    }
}

/// An object, with a descriptor once somebody asked for one.
pub(crate) struct Carried {
    object: Object,
    descriptor: OnceCell<Descriptor>,
}

impl Carried {
    pub(crate) fn of(object: Object) -> Self {
        Self {
            object,
            descriptor: OnceCell::new(),
        }
    }

    pub(crate) fn object(&self) -> &Object {
        &self.object
    }

    /// The descriptor's number; it stays owned by `self`.
    pub(crate) fn number(&self) -> io::Result<i32> {
        if let Some(descriptor) = self.descriptor.get() {
            return Ok(descriptor.0);
        }
        let descriptor = Descriptor::of(&self.object)?;
        Ok(self.descriptor.get_or_init(|| descriptor).0)
    }

    /// Leaves the descriptor that `number` named to the caller.
    pub(crate) fn leave(mut self) {
        std::mem::forget(self.descriptor.take());
    }
}

/// An object of its own for the descriptor `fd`, which is not negative.
pub(crate) fn object_of(fd: i32) -> io::Result<Object> {
    let calls = Descriptors::here()?;
    // SAFETY: a lookup in a table. It says −1 of what is not open, and −2 of what has no handle.
    let handle = unsafe { (calls.handle)(fd) };
    if handle as isize == -1 || handle as isize == -2 {
        return Err(io::Error::other("it is not open"));
    }
    // SAFETY: borrowed for this one call, during which no JavaScript runs that could close it.
    let borrowed = unsafe { BorrowedHandle::borrow_raw(handle) };
    borrowed.try_clone_to_owned().map(Object::from)
}
