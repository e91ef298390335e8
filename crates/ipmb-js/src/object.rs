//! `Object`: a kernel handle that travels.

use crate::{
    fail::{CLOSED, INVALID_ARGUMENT, Result, fail, io},
    sys::{self, Carried},
};
use ipmb::Object;
use napi_derive::napi;
use std::cell::RefCell;

/// An owned kernel handle. Closed by `close`, or when it is collected.
#[napi(js_name = "Object")]
pub struct JsObject {
    object: RefCell<Option<Carried>>,
}

#[napi]
impl JsObject {
    /// A duplicate of a descriptor, which stays the caller's.
    #[napi(factory)]
    pub fn from_fd(fd: i32) -> Result<Self> {
        duplicate(fd).map(Self::of)
    }

    /// The descriptor's number. It stays owned by this object.
    #[napi]
    pub fn value(&self) -> Result<i32> {
        match &*self.object.borrow() {
            Some(object) => number(object),
            None => Err(gone()),
        }
    }

    /// Gives the descriptor up to the caller, who must close it, for instance with `fs.closeSync`.
    #[napi]
    pub fn detach(&self) -> Result<i32> {
        let number = self.value()?;
        if let Some(object) = self.object.take() {
            object.leave();
        }
        Ok(number)
    }

    /// Closes the descriptor. Doing it twice is fine.
    #[napi]
    pub fn close(&self) {
        drop(self.object.take());
    }

    pub(crate) fn of(object: Object) -> Self {
        Self {
            object: RefCell::new(Some(Carried::of(object))),
        }
    }

    pub(crate) fn duplicate(&self) -> Result<Object> {
        match &*self.object.borrow() {
            Some(object) => object
                .object()
                .clone()
                .map_err(|e| io("duplicating an object", &e)),
            None => Err(gone()),
        }
    }
}

fn number(object: &Carried) -> Result<i32> {
    let number = object.number();
    number.map_err(|e| io("making a descriptor of an object", &e))
}

fn gone() -> napi::Error<&'static str> {
    fail(CLOSED, "the object is closed or detached")
}

/// A handle of its own for a descriptor that JavaScript gave.
pub(crate) fn duplicate(fd: i32) -> Result<Object> {
    if fd < 0 {
        return Err(fail(
            INVALID_ARGUMENT,
            format!("{fd} is no file descriptor"),
        ));
    }
    sys::object_of(fd).map_err(|e| io(&format!("duplicating the file descriptor {fd}"), &e))
}
