//! Shared memory that travels with messages.
//!
//! [`MemoryRegion`] is one counted handle of a shared memory, [`MemoryRegistry`] gives regions out again once nobody
//! else holds them. The link layer moves handles between processes by
//! [`MemoryRegion::try_clone_handle`] and [`MemoryRegion::from_handle`]; nothing here knows of messages. The memory has no
//! header: its size is the region's size and nothing in it is trusted, so neither side can mislead the other.
//!
//! Other processes may do anything to a region at any time: write to it, freeze it, drop their handles or die.

#[cfg(all(test, loom))]
mod model;
mod region;
mod registry;
mod shelf;

pub use region::MemoryRegion;
pub use registry::MemoryRegistry;
