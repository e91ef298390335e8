//! What is used of libuv, Node's event loop. Its functions are looked up in the running process, so that a host without
//! them gets an error and not a failure to load.

use std::{
    cell::UnsafeCell,
    ffi::{c_int, c_void},
    rc::Rc,
};

/// A `uv_handle_t` of whatever kind, of which only libuv knows the size.
#[repr(C)]
pub(crate) struct Handle {
    _private: [u8; 0],
}

pub(crate) type CloseCallback = unsafe extern "C" fn(*mut Handle);

/// Whoever is told that a source is set: what the data of a waiter's handle is an `Rc` of.
pub(crate) trait Told {
    fn ready(&self);
}

/// Defines a set of functions that are looked up once.
macro_rules! functions {
    ($(#[$doc:meta])* $set:ident { $($name:ident: $symbol:literal, $type:ty;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $set {
            $(pub(crate) $name: $type),*
        }

        impl $set {
            /// The functions, or the name of one that is missing.
            pub(crate) fn get() -> Result<Self, &'static str> {
                static FOUND: std::sync::OnceLock<Result<$set, &'static str>> = std::sync::OnceLock::new();
                *FOUND.get_or_init(|| {
                    Ok(Self {
                        $($name: {
                            let found = crate::sys::backend::symbol($symbol);
                            let found = found.ok_or_else(|| $symbol.to_str().unwrap_or_default())?;
                            // SAFETY: libuv 1.x has had this function with this type since before Node 18.
                            unsafe { std::mem::transmute::<*mut std::ffi::c_void, $type>(found) }
                        }),*
                    })
                })
            }
        }
    };
}
pub(super) use functions;

functions! {
    /// The functions for handles of every kind. All but `handle_size` are called on the loop's thread only.
    Uv {
        handle_size: c"uv_handle_size", unsafe extern "C" fn(c_int) -> usize;
        close: c"uv_close", unsafe extern "C" fn(*mut Handle, CloseCallback);
        ref_: c"uv_ref", unsafe extern "C" fn(*mut Handle);
        unref: c"uv_unref", unsafe extern "C" fn(*mut Handle);
        get_data: c"uv_handle_get_data", unsafe extern "C" fn(*const Handle) -> *mut c_void;
        set_data: c"uv_handle_set_data", unsafe extern "C" fn(*mut Handle, *mut c_void) -> *mut c_void;
    }
}

/// Memory for a handle, zeroed and aligned for any type. Only libuv looks into it.
pub(super) struct Memory(UnsafeCell<Box<[u128]>>);

impl Memory {
    /// For a handle of a kind, a `uv_handle_type`.
    pub(super) fn new(uv: Uv, kind: c_int) -> Self {
        // SAFETY: a pure function of a valid type.
        let size = unsafe { (uv.handle_size)(kind) };
        Self(UnsafeCell::new(vec![0; size.div_ceil(16)].into()))
    }

    pub(super) fn handle(&self) -> *mut Handle {
        // SAFETY: nobody else makes references to the box, which is not moved out of here.
        unsafe { (*self.0.get()).as_mut_ptr().cast() }
    }
}

/// Tells whom a waiter's handle belongs to.
///
/// # Safety
/// On the loop's thread, with an open handle whose data is an `Rc<T>` that is held until the handle is closed.
pub(super) unsafe fn tell<T: Told>(handle: *mut Handle) {
    let Ok(uv) = Uv::get() else { return };
    // SAFETY: as promised. One more reference, so that it outlives what it does.
    let told = unsafe {
        let told = (uv.get_data)(handle).cast::<T>().cast_const();
        Rc::increment_strong_count(told);
        Rc::from_raw(told)
    };
    told.ready();
}
