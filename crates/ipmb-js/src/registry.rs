//! `MemoryRegistry`: regions that are used again.

use crate::{
    fail::{CLOSED, Result, fail, of_error},
    region::{JsRegion, whole},
};
use ipmb::MemoryRegistry;
use napi_derive::napi;
use std::{cell::RefCell, rc::Rc};

/// The native part of a registry: what JavaScript's `free` functions are here are their numbers.
#[napi(js_name = "NativeRegistry")]
pub struct JsRegistry {
    registry: RefCell<Option<MemoryRegistry>>,
    freed: Rc<RefCell<Vec<u32>>>,
}

#[napi]
impl JsRegistry {
    /// A registry without regions.
    #[napi(constructor)]
    #[allow(clippy::new_without_default)] // Made by JavaScript.
    pub fn new() -> Self {
        Self {
            registry: RefCell::new(Some(MemoryRegistry::default())),
            freed: Rc::default(),
        }
    }

    /// A region of at least `min_size` bytes, and the number to report when it is free.
    #[napi]
    pub fn alloc(&self, min_size: f64, tag: Option<String>, free: Option<u32>) -> Result<JsRegion> {
        let size = whole(min_size, "minSize")?;
        let mut registry = self.registry.borrow_mut();
        let registry = registry
            .as_mut()
            .ok_or_else(|| fail(CLOSED, "the registry is closed"))?;
        let region = match free {
            None => registry.try_alloc(size, tag.as_deref()),
            Some(number) => {
                let freed = self.freed.clone();
                registry.try_alloc_with_free(size, tag.as_deref(), move || {
                    freed.borrow_mut().push(number);
                })
            }
        };
        region.map(JsRegion::of).map_err(|e| of_error(&e))
    }

    /// Finds what is free and gives idle memory back to the system.
    #[napi]
    pub fn maintain(&self) {
        if let Some(registry) = &mut *self.registry.borrow_mut() {
            registry.maintain();
        }
    }

    /// Forgets all regions; all their numbers are due then.
    #[napi]
    pub fn close(&self) {
        drop(self.registry.take());
    }

    /// The numbers that are due.
    #[napi]
    pub fn freed(&self) -> Vec<u32> {
        self.freed.take()
    }
}
