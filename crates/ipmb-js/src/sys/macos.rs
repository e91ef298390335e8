//! macOS: objects are Mach ports or descriptors. Node has numbers for descriptors only.

pub(crate) use super::{
    copied::Private,
    unix::{Source, Waiter, object_of, source_in, source_of, symbol, teller},
};

use ipmb::Object;
use std::{
    cell::OnceCell,
    io,
    os::fd::{AsRawFd, IntoRawFd, OwnedFd},
};

/// An object, and the descriptor by which Node knows it, made when it is first asked for.
pub(crate) struct Carried {
    object: Object,
    descriptor: OnceCell<OwnedFd>,
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

    /// The descriptor's number; it stays owned by `self`. Fails if the object is a port that is no file.
    pub(crate) fn number(&self) -> io::Result<i32> {
        if let Some(descriptor) = self.descriptor.get() {
            return Ok(descriptor.as_raw_fd());
        }
        let descriptor = OwnedFd::try_from(self.object.clone()?)?;
        Ok(self.descriptor.get_or_init(|| descriptor).as_raw_fd())
    }

    /// Leaves the descriptor that `number` named to the caller.
    pub(crate) fn leave(self) {
        self.descriptor.into_inner().map(IntoRawFd::into_raw_fd);
    }
}
