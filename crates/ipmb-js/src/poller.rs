//! Watches a source in Node's event loop and calls a JavaScript function when it is set.
//!
//! A libuv handle lives in a [`Watch`], which libuv holds until its close callback. Whoever comes first ends it: `close`, the
//! collector, or the end of the environment, which waits for the close callback. All of it happens on the loop's thread.

use crate::{
    fail::{Fail, Result, closed, fail, io},
    sys::{Handle, Source, Told, Uv, Waiter},
};
use napi::{
    JsValue,
    bindgen_prelude::{Env, Function},
    sys,
};
use std::{cell::Cell, ffi::c_void, ptr, rc::Rc};

const WATCHING: &str = "watching a handle";

struct Watch {
    uv: Uv,
    waiter: Waiter<Self>,
    env: sys::napi_env,
    /// The function; null once closed. Weak unless `held`.
    callback: Cell<sys::napi_ref>,
    hook: Cell<sys::napi_async_cleanup_hook_handle>,
    held: Cell<bool>,
    closing: Cell<bool>,
}

impl Watch {
    fn start(env: sys::napi_env, source: Source, callback: sys::napi_value) -> Result<Rc<Self>> {
        let no_uv = |name: &str| {
            fail(
                "IPMB_UNSUPPORTED_HOST",
                format!(
                    "this host has no {name}; ipmb-js needs Node.js, whose event loop is libuv"
                ),
            )
        };
        let uv = Uv::get().map_err(no_uv)?;
        let mut event_loop = ptr::null_mut();
        // SAFETY: `env` is that of the call under way, here and below.
        let status = unsafe { sys::napi_get_uv_event_loop(env, &mut event_loop) };
        if status != sys::Status::napi_ok {
            return Err(no_uv("napi_get_uv_event_loop"));
        }
        let watch = Rc::new(Self {
            uv,
            waiter: Waiter::new(uv, source).map_err(no_uv)?,
            env,
            callback: Cell::new(ptr::null_mut()),
            hook: Cell::new(ptr::null_mut()),
            held: Cell::new(false),
            closing: Cell::new(false),
        });
        let handle = watch.waiter.handle();
        // SAFETY: the loop of this thread. Below, libuv gets an `Rc` of the watch, until the close callback.
        unsafe { watch.waiter.init(event_loop.cast()) }.map_err(|e| io(WATCHING, &e))?;
        // From here on libuv holds the watch, until `closed`.
        let held = Rc::into_raw(watch.clone());
        // SAFETY: an initialised handle of this thread's loop.
        unsafe {
            (uv.set_data)(handle, held.cast_mut().cast());
            // Only a receive or a queue that waits keeps the process running.
            (uv.unref)(handle);
        }
        let mut reference = ptr::null_mut();
        let mut hook = ptr::null_mut();
        // SAFETY: a live value of `env`. The hook's argument is alive while the hook is set: `closed` removes it.
        let status = unsafe {
            match sys::napi_create_reference(env, callback, 0, &mut reference) {
                sys::Status::napi_ok => sys::napi_add_async_cleanup_hook(
                    env,
                    Some(environment_ends),
                    held.cast_mut().cast(),
                    &mut hook,
                ),
                status => status,
            }
        };
        watch.callback.set(reference);
        watch.hook.set(hook);
        if status != sys::Status::napi_ok {
            watch.close();
            return Err(fail("IPMB_IO", "Node refused to watch a handle"));
        }
        Ok(watch)
    }

    /// Calls the function from now on while the source is set, and keeps function and process alive.
    fn hold(&self) -> Result<()> {
        if self.closing.get() {
            return Err(closed("endpoint"));
        }
        // SAFETY: an open handle of this thread's loop.
        unsafe { self.waiter.start() }.map_err(|e| io(WATCHING, &e))?;
        if !self.held.replace(true) {
            // SAFETY: the reference was made by this environment and is not deleted before `close`.
            unsafe { sys::napi_reference_ref(self.env, self.callback.get(), ptr::null_mut()) };
        }
        Ok(())
    }

    /// No longer keeps function and process alive.
    fn release(&self) {
        if !self.closing.get() && self.held.replace(false) {
            // SAFETY: as in `hold`, which it undoes.
            unsafe {
                (self.uv.unref)(self.waiter.handle());
                sys::napi_reference_unref(self.env, self.callback.get(), ptr::null_mut());
            }
        }
    }

    fn keep_process(&self, keep: bool) {
        if !self.closing.get() {
            let set = if keep { self.uv.ref_ } else { self.uv.unref };
            // SAFETY: an open handle of this thread's loop.
            unsafe { set(self.waiter.handle()) };
        }
    }

    fn close(&self) {
        if self.closing.replace(true) {
            return;
        }
        let callback = self.callback.replace(ptr::null_mut());
        // SAFETY: the reference is this environment's and is deleted once; the handle is open and is closed once.
        unsafe {
            if !callback.is_null() {
                sys::napi_delete_reference(self.env, callback);
            }
            self.waiter.close(on_closed);
        }
    }

    fn call(&self) {
        let env = self.env;
        let (mut scope, mut function, mut global) =
            (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: on the environment's thread, from its loop, where no other scope is open; the values are used within it.
        unsafe {
            if sys::napi_open_handle_scope(env, &mut scope) != sys::Status::napi_ok {
                return;
            }
            let known = sys::napi_get_reference_value(env, self.callback.get(), &mut function)
                == sys::Status::napi_ok
                && !function.is_null()
                && sys::napi_get_global(env, &mut global) == sys::Status::napi_ok;
            if known {
                let status = sys::napi_make_callback(
                    env,
                    ptr::null_mut(),
                    global,
                    function,
                    0,
                    ptr::null(),
                    ptr::null_mut(),
                );
                let mut thrown = ptr::null_mut();
                if status == sys::Status::napi_pending_exception
                    && sys::napi_get_and_clear_last_exception(env, &mut thrown)
                        == sys::Status::napi_ok
                {
                    sys::napi_fatal_exception(env, thrown);
                }
            }
            sys::napi_close_handle_scope(env, scope);
        }
    }
}

impl Told for Watch {
    fn ready(&self) {
        if !self.held.get() {
            // SAFETY: an open handle of this thread's loop: it has just called.
            return unsafe { self.waiter.rest() };
        }
        self.call();
        if !self.closing.get() {
            // SAFETY: an open handle of this thread's loop.
            unsafe { self.waiter.looked(self.held.get()) };
        }
    }
}

unsafe extern "C" fn on_closed(handle: *mut Handle) {
    let Ok(uv) = Uv::get() else { return };
    // SAFETY: takes back what `start` gave to libuv, which does not use the handle any more.
    let watch = unsafe { Rc::from_raw((uv.get_data)(handle).cast::<Watch>().cast_const()) };
    let hook = watch.hook.replace(ptr::null_mut());
    if !hook.is_null() {
        // SAFETY: the hook was added and is removed once. If the environment is ending, it waits for this.
        unsafe { sys::napi_remove_async_cleanup_hook(hook) };
    }
}

unsafe extern "C" fn environment_ends(_: sys::napi_async_cleanup_hook_handle, watch: *mut c_void) {
    // SAFETY: alive until `on_closed`, which removes this hook.
    unsafe { &*watch.cast::<Watch>() }.close();
}

/// Watches one source. Does nothing once closed.
pub(crate) struct Poller(Rc<Watch>);

impl Poller {
    /// Watches `source`; calls `callback`, which must be kept alive elsewhere while nothing waits.
    pub(crate) fn new(env: Env, source: Source, callback: &Function<'_, (), ()>) -> Result<Self> {
        Watch::start(env.raw(), source, callback.raw()).map(Self)
    }

    /// Something waits; `keep` says whether the process is kept running for it.
    pub(crate) fn hold(&self, keep: bool) -> std::result::Result<(), Fail> {
        self.0.hold()?;
        self.0.keep_process(keep);
        Ok(())
    }

    /// Nothing waits any more.
    pub(crate) fn release(&self) {
        self.0.release();
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.0.close();
    }
}
