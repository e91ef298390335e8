//! What came from another process, until somebody asks for it.

use super::{Handle, backend::dispose};
use std::ops::{Deref, DerefMut};

/// Handles that came in a packet. Those that nobody takes out are thrown away with it, and nobody waits for that: what a
/// close waits for, its maker decides.
#[derive(Debug, Default)]
pub(crate) struct Received(Vec<Handle>);

impl From<Vec<Handle>> for Received {
    fn from(handles: Vec<Handle>) -> Self {
        Self(handles)
    }
}

impl Deref for Received {
    type Target = Vec<Handle>;

    fn deref(&self) -> &Vec<Handle> {
        &self.0
    }
}

impl DerefMut for Received {
    fn deref_mut(&mut self) -> &mut Vec<Handle> {
        &mut self.0
    }
}

/// Takes one after the other out.
impl Iterator for Received {
    type Item = Handle;

    fn next(&mut self) -> Option<Handle> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            dispose(std::mem::take(&mut self.0));
        }
    }
}
