//! Messages and their payloads.

use crate::{MemoryRegion, Selector, selector::SelectorMode};

/// A typed payload with attachments, and who gets it.
#[derive(Debug)]
pub struct Message<T> {
    pub(crate) selector: Selector,
    /// The payload.
    pub payload: T,
    /// Kernel handles.
    pub objects: Vec<Object>,
    /// Shared memory.
    pub memory_regions: Vec<MemoryRegion>,
}

/// A kernel handle.
#[derive(Debug)]
pub struct Object {}
/// A type with a UUID.
pub trait TypeUuid {}
/// A payload.
pub trait MessageBox {}
/// Bytes.
#[derive(Debug)]
pub struct BytesMessage {}
const _: SelectorMode = SelectorMode::Unicast;
