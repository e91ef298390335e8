//! The two functions that are called for every message, `send` and `next`, by hand: what the generated bindings do around a
//! method takes several times as long as the work itself. Endpoints and labels are named by the numbers of a table.

use crate::{
    fail::{INVALID_ARGUMENT, Result, closed, fail},
    label_op::LabelOp,
    receiver, sender,
};
use napi::{
    JsError,
    bindgen_prelude::{Env, JsObjectValue, Object, retain_current_module_for_unload_safety},
    sys,
};
use napi_derive::napi;
use std::{
    cell::RefCell,
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    rc::Rc,
    slice,
};

/// Things by their numbers, for one thread, thus for one JavaScript environment.
pub(crate) struct Table<T>(RefCell<Entries<T>>);

struct Entries<T> {
    things: Vec<Option<Rc<T>>>,
    free: Vec<u32>,
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Entries {
            things: Vec::new(),
            free: Vec::new(),
        }))
    }

    /// Enters a thing.
    pub(crate) fn enter(&self, thing: Rc<T>) -> u32 {
        let entries = &mut *self.0.borrow_mut();
        if let Some(number) = entries.free.pop()
            && let Some(slot) = entries.things.get_mut(number as usize)
        {
            *slot = Some(thing);
            return number;
        }
        entries.things.push(Some(thing));
        entries.things.len() as u32 - 1
    }

    /// Forgets a thing, whose number is used again.
    pub(crate) fn remove(&self, number: u32) {
        let thing = {
            let entries = &mut *self.0.borrow_mut();
            let slot = entries.things.get_mut(number as usize);
            let thing = slot.and_then(Option::take);
            if thing.is_some() {
                entries.free.push(number);
            }
            thing
        };
        drop(thing);
    }

    /// The thing with a number.
    pub(crate) fn get(&self, number: u32) -> Option<Rc<T>> {
        let entries = self.0.borrow();
        entries.things.get(number as usize)?.clone()
    }
}

/// The arguments of a call.
struct Arguments<const N: usize> {
    env: sys::napi_env,
    values: [sys::napi_value; N],
}

impl<const N: usize> Arguments<N> {
    /// # Safety
    /// `env` and `info` are those of the call under way.
    unsafe fn read(env: sys::napi_env, info: sys::napi_callback_info) -> Self {
        let mut values = [ptr::null_mut(); N];
        let mut count = N;
        // SAFETY: as promised; missing arguments are set to `undefined`.
        unsafe {
            sys::napi_get_cb_info(
                env,
                info,
                &mut count,
                values.as_mut_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
            );
        }
        Self { env, values }
    }

    fn get(&self, index: usize) -> sys::napi_value {
        self.values.get(index).copied().unwrap_or(ptr::null_mut())
    }

    fn number(&self, index: usize, name: &str) -> Result<f64> {
        let mut number = 0.0;
        // SAFETY: a value of the call under way, or null, which is an error.
        match unsafe { sys::napi_get_value_double(self.env, self.get(index), &mut number) } {
            sys::Status::napi_ok => Ok(number),
            _ => Err(fail(INVALID_ARGUMENT, format!("`{name}` must be a number"))),
        }
    }

    fn whole(&self, index: usize, name: &str) -> Result<u32> {
        let number = self.number(index, name)?;
        if number >= 0.0 && number <= f64::from(u32::MAX) && number.fract() == 0.0 {
            return Ok(number as u32);
        }
        let text = format!("`{name}` must be a whole number, not {number}");
        Err(fail(INVALID_ARGUMENT, text))
    }

    /// Start and length of a `Uint8Array`; valid while no JavaScript runs.
    fn bytes(&self, index: usize, name: &str) -> Result<(*mut u8, usize)> {
        let (mut kind, mut len, mut start) = (0, 0, ptr::null_mut::<c_void>());
        // SAFETY: a value of the call under way, or null, which is an error.
        let status = unsafe {
            sys::napi_get_typedarray_info(
                self.env,
                self.get(index),
                &mut kind,
                &mut len,
                &mut start,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        if status == sys::Status::napi_ok && kind == sys::TypedarrayType::uint8_array {
            return Ok((start.cast(), len));
        }
        let text = format!("`{name}` must be a Buffer or a Uint8Array");
        Err(fail(INVALID_ARGUMENT, text))
    }
}

/// What a call returns.
pub(crate) enum Answer {
    Number(f64),
    /// A value that this call has made.
    Value(sys::napi_value),
}

/// Runs a call: makes an error or a panic an exception.
fn answer(env: sys::napi_env, run: impl FnOnce() -> Result<Answer>) -> sys::napi_value {
    let panicked = |_| {
        Err(fail(
            "IPMB_PANIC",
            "a bug in ipmb-js: the native part panicked",
        ))
    };
    let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(panicked);
    let mut value = ptr::null_mut();
    match result {
        // SAFETY: `env` is that of the call under way, here and below.
        Ok(Answer::Number(number)) => unsafe {
            sys::napi_create_double(env, number, &mut value);
        },
        Ok(Answer::Value(made)) => value = made,
        // SAFETY: as above.
        Err(error) => unsafe { JsError::from(error).throw_into(env) },
    }
    value
}

/// `send(sender, op, mode, ttl, format, data, otherwise)`, see `sender.rs`.
unsafe extern "C" fn send(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    answer(env, || {
        // SAFETY: Node calls this with them.
        let arguments = unsafe { Arguments::<7>::read(env, info) };
        let half = sender::TABLE.with(|table| table.get(arguments.whole(0, "sender").ok()?));
        let half = half.ok_or_else(|| closed("sender"))?;
        let op = LabelOp::numbered(arguments.whole(1, "labelOp")?)?;
        let mode = arguments.whole(2, "mode")?;
        let ttl = arguments.number(3, "ttl")?;
        let format = arguments.whole(4, "format")?;
        let (start, len) = arguments.bytes(5, "data")?;
        let otherwise = arguments.whole(6, "otherwise")?;
        let data: &[u8] = if len == 0 {
            &[]
        } else {
            // SAFETY: the memory of a typed array, which nothing can free or detach while this call runs. Another worker
            // may write to shared memory meanwhile; the bytes are only copied.
            unsafe { slice::from_raw_parts(start, len) }
        };
        let selector = sender::selector(op, mode, ttl)?;
        half.post(selector, format, data, Vec::new(), Vec::new(), 0, otherwise)
            .map(Answer::Number)
    })
}

/// `next(receiver, slab, offset, small)`, see `receiver.rs`.
unsafe extern "C" fn next(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    answer(env, || {
        // SAFETY: Node calls this with them.
        let arguments = unsafe { Arguments::<4>::read(env, info) };
        let half = receiver::TABLE.with(|table| table.get(arguments.whole(0, "receiver").ok()?));
        let half = half.ok_or_else(|| closed("receiver"))?;
        let (start, len) = arguments.bytes(1, "slab")?;
        let offset = arguments.whole(2, "offset")? as usize;
        let small = arguments.whole(3, "small")? as usize;
        let room: &mut [u8] = if offset >= len {
            &mut []
        } else {
            // SAFETY: the rest of a slab that only the receiver's JavaScript has, behind what it gave out; it does not run.
            unsafe { slice::from_raw_parts_mut(start.add(offset), len - offset) }
        };
        // SAFETY: `env` is that of this call.
        unsafe { half.next(env, room, small) }
    })
}

/// Adds the two functions to the module.
#[napi(module_exports)]
pub fn add(mut exports: Object<'_>, env: Env) -> napi::Result<()> {
    // Threads may outlive the worker that loaded this.
    retain_current_module_for_unload_safety();
    for (name, function) in [(c"send", send as Function), (c"next", next as Function)] {
        let mut value = ptr::null_mut();
        // SAFETY: the name is as long as said, and the function stays loaded.
        let status = unsafe {
            sys::napi_create_function(
                env.raw(),
                name.as_ptr(),
                name.count_bytes() as isize,
                Some(function),
                ptr::null_mut(),
                &mut value,
            )
        };
        if status != sys::Status::napi_ok {
            return Err(napi::Error::from_reason("napi_create_function failed"));
        }
        // SAFETY: a value that `env` has just made.
        let value = unsafe { napi::Unknown::from_raw_unchecked(env.raw(), value) };
        exports.set_named_property(name.to_str().unwrap_or_default(), value)?;
    }
    Ok(())
}

type Function = unsafe extern "C" fn(sys::napi_env, sys::napi_callback_info) -> sys::napi_value;
