//! `Object`: a file descriptor that travels.

use crate::fail::{CLOSED, INVALID_ARGUMENT, Result, fail, io};
use ipmb::Object;
use napi_derive::napi;
use std::{cell::RefCell, os::fd::BorrowedFd};

/// An owned file descriptor. Closed by `close`, or when it is collected.
#[napi(js_name = "Object")]
pub struct JsObject {
    object: RefCell<Option<Object>>,
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
            Some(object) => Ok(object.as_raw()),
            None => Err(gone()),
        }
    }

    /// Gives the descriptor up to the caller, who must close it, for instance with `fs.closeSync`.
    #[napi]
    pub fn detach(&self) -> Result<i32> {
        match self.object.take() {
            Some(object) => Ok(object.into_raw()),
            None => Err(gone()),
        }
    }

    /// Closes the descriptor. Doing it twice is fine.
    #[napi]
    pub fn close(&self) {
        drop(self.object.take());
    }

    pub(crate) fn of(object: Object) -> Self {
        Self {
            object: RefCell::new(Some(object)),
        }
    }

    pub(crate) fn duplicate(&self) -> Result<Object> {
        match &*self.object.borrow() {
            Some(object) => object.clone().map_err(|e| io("duplicating an object", &e)),
            None => Err(gone()),
        }
    }
}

fn gone() -> napi::Error<&'static str> {
    fail(CLOSED, "the object is closed or detached")
}

/// A descriptor of its own for a number that JavaScript gave.
pub(crate) fn duplicate(fd: i32) -> Result<Object> {
    if fd < 0 {
        return Err(fail(
            INVALID_ARGUMENT,
            format!("{fd} is no file descriptor"),
        ));
    }
    // SAFETY: borrowed for this one call, which fails for a number that is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    match borrowed.try_clone_to_owned() {
        Ok(owned) => Ok(Object::from(owned)),
        Err(e) => Err(io(&format!("duplicating the file descriptor {fd}"), &e)),
    }
}
