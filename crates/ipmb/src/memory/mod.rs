//! Memory regions and their registry.

/// A region.
#[derive(Debug)]
pub struct MemoryRegion {}
/// A registry.
#[derive(Debug)]
pub struct MemoryRegistry {}
