//! What is used of libuv, Node's event loop. Its functions are looked up in the running process, so that a host without
//! them gets an error and not a failure to load.

use std::{
    ffi::{CStr, c_int, c_uint, c_void},
    sync::OnceLock,
};

/// `uv_handle_t` and `uv_poll_t`, of which only libuv knows the size.
#[repr(C)]
pub(crate) struct Handle {
    _private: [u8; 0],
}

pub(crate) type PollCallback = unsafe extern "C" fn(*mut Handle, c_int, c_int);
pub(crate) type CloseCallback = unsafe extern "C" fn(*mut Handle);

/// `UV_POLL` of `uv_handle_type`, and `UV_READABLE` of `uv_poll_event`.
const POLL: c_int = 8;
pub(crate) const READABLE: c_int = 1;

/// The functions. All but `handle_size` are called on the loop's thread only.
#[derive(Clone, Copy)]
pub(crate) struct Uv {
    handle_size: unsafe extern "C" fn(c_int) -> usize,
    pub(crate) poll_init: unsafe extern "C" fn(*mut c_void, *mut Handle, c_int) -> c_int,
    pub(crate) poll_start: unsafe extern "C" fn(*mut Handle, c_int, PollCallback) -> c_int,
    pub(crate) poll_stop: unsafe extern "C" fn(*mut Handle) -> c_int,
    pub(crate) close: unsafe extern "C" fn(*mut Handle, CloseCallback),
    pub(crate) ref_: unsafe extern "C" fn(*mut Handle),
    pub(crate) unref: unsafe extern "C" fn(*mut Handle),
    pub(crate) get_data: unsafe extern "C" fn(*const Handle) -> *mut c_void,
    pub(crate) set_data: unsafe extern "C" fn(*mut Handle, *mut c_void) -> *mut c_void,
}

impl Uv {
    /// The functions, or the name of one that is missing.
    pub(crate) fn get() -> Result<Self, &'static str> {
        static UV: OnceLock<Result<Uv, &'static str>> = OnceLock::new();
        *UV.get_or_init(Self::look_up)
    }

    #[allow(clippy::missing_transmute_annotations)] // The fields' types are right above.
    fn look_up() -> Result<Self, &'static str> {
        macro_rules! symbol {
            ($name:literal) => {{
                let found = symbol($name).ok_or_else(|| $name.to_str().unwrap_or_default())?;
                // SAFETY: libuv 1.x has had this function with these types since before Node 18.
                unsafe { std::mem::transmute::<*mut c_void, _>(found) }
            }};
        }
        Ok(Self {
            handle_size: symbol!(c"uv_handle_size"),
            poll_init: symbol!(c"uv_poll_init"),
            poll_start: symbol!(c"uv_poll_start"),
            poll_stop: symbol!(c"uv_poll_stop"),
            close: symbol!(c"uv_close"),
            ref_: symbol!(c"uv_ref"),
            unref: symbol!(c"uv_unref"),
            get_data: symbol!(c"uv_handle_get_data"),
            set_data: symbol!(c"uv_handle_set_data"),
        })
    }

    /// Zeroed memory for a `uv_poll_t`, aligned for any type.
    pub(crate) fn poll_memory(&self) -> Box<[u128]> {
        // SAFETY: a pure function of a valid type.
        let size = unsafe { (self.handle_size)(POLL) };
        vec![0; size.div_ceil(16)].into()
    }

    /// What libuv says of an error.
    pub(crate) fn error(code: c_int) -> std::io::Error {
        std::io::Error::from_raw_os_error(code.unsigned_abs().min(c_uint::MAX >> 1) as i32)
    }
}

fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a lookup by name among what the process has loaded.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}
