//! Dropping endpoints. A drop may wait a second for the bus, which an event loop must not; but when a whole environment
//! ends (the process, or a worker), nothing else waits for it, and leaving in good order needs it.

use napi::{bindgen_prelude::Env, sys};
use std::{cell::Cell, ffi::c_void, ptr};

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State::Unknown) };
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Nobody watches for the end of this thread's environment yet.
    Unknown,
    Running,
    Ending,
}

/// Sees to it that the end of this thread's environment is noticed.
pub(crate) fn watch(env: Env) {
    if STATE.get() == State::Unknown {
        // SAFETY: the function needs no argument and stays loaded.
        let status =
            unsafe { sys::napi_add_env_cleanup_hook(env.raw(), Some(end), ptr::null_mut()) };
        if status == sys::Status::napi_ok {
            STATE.set(State::Running);
        }
    }
}

unsafe extern "C" fn end(_: *mut c_void) {
    STATE.set(State::Ending);
}

/// Drops a half of an endpoint.
pub(crate) fn drop_half<T: Send + 'static>(half: T) {
    if STATE.get() == State::Ending {
        drop(half);
        return;
    }
    // If there is no thread to be had, the closure is dropped here, and the half with it.
    let _ = std::thread::Builder::new()
        .name("ipmb-js-leave".into())
        .spawn(move || drop(half));
}
