//! Regions that are used again.

use super::{
    MemoryRegion,
    shelf::{Free, Shelf},
};
use crate::error::Error;
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

/// New regions are multiples of this, so that sizes that differ by little share regions.
const GRAIN: usize = 4096;

/// Gives out regions and uses their memory again once nobody else, in any process, holds them.
///
/// A region is used again only for the same tag, so that receivers who must not see each other's data can be kept
/// apart; what is in it is not cleared. A region that was frozen, or sent to a process of another user, is never used
/// again. The registry's own handle counts in [`MemoryRegion::ref_count`].
///
/// Nothing happens in the background: what became free is noticed by the next call. No call blocks.
///
/// ```
/// let mut registry = ipmb::MemoryRegistry::default();
/// let mut region = registry.alloc(8 << 20, None);
/// region.map(..)?[0] = 1;
/// drop(region);
/// assert_eq!(registry.alloc(8 << 20, None).map(..)?[0], 1); // The same memory.
/// # Ok::<(), ipmb::Error>(())
/// ```
#[derive(Default)]
pub struct MemoryRegistry {
    shelf: Shelf<MemoryRegion>,
}

impl MemoryRegistry {
    /// A region of at least `min_size` bytes. Its first bytes may be what an earlier user of this registry and `tag`
    /// left there.
    ///
    /// # Panics
    ///
    /// Only if the system refuses the memory or a descriptor; [`try_alloc`](Self::try_alloc) returns that as an error.
    pub fn alloc(&mut self, min_size: usize, tag: Option<&str>) -> MemoryRegion {
        self.try_alloc(min_size, tag)
            .unwrap_or_else(|error| panic!("no memory region of {min_size} bytes: {error}"))
    }

    /// As [`alloc`](Self::alloc), and calls `free` once the region is free: exactly once, on the thread that calls the
    /// registry, in the first `alloc…` or [`maintain`](Self::maintain) after it became free, or when the registry is
    /// dropped, be the region still held then or not.
    ///
    /// ```
    /// use std::{cell::Cell, rc::Rc};
    ///
    /// let freed = Rc::new(Cell::new(false));
    /// let mut registry = ipmb::MemoryRegistry::default();
    /// let region = registry.alloc_with_free(100, Some("video"), { let freed = freed.clone(); move || freed.set(true) });
    /// registry.maintain();
    /// assert!(!freed.get());
    /// drop(region);
    /// registry.maintain();
    /// assert!(freed.get());
    /// ```
    ///
    /// # Panics
    ///
    /// Only if the system refuses the memory or a descriptor, or if a `free` that is due panics.
    pub fn alloc_with_free(
        &mut self,
        min_size: usize,
        tag: Option<&str>,
        free: impl FnOnce() + 'static,
    ) -> MemoryRegion {
        self.try_alloc_with_free(min_size, tag, free)
            .unwrap_or_else(|error| panic!("no memory region of {min_size} bytes: {error}"))
    }

    /// As [`alloc`](Self::alloc), with an error in place of a panic.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] if descriptors or memory ran out, [`Error::Io`] if the system refuses otherwise.
    pub fn try_alloc(&mut self, min_size: usize, tag: Option<&str>) -> Result<MemoryRegion, Error> {
        self.take(min_size, tag, None)
    }

    /// As [`alloc_with_free`](Self::alloc_with_free), with an error in place of a panic. After an error `free` is
    /// dropped without a call.
    ///
    /// # Errors
    ///
    /// As [`try_alloc`](Self::try_alloc).
    pub fn try_alloc_with_free(
        &mut self,
        min_size: usize,
        tag: Option<&str>,
        free: impl FnOnce() + 'static,
    ) -> Result<MemoryRegion, Error> {
        self.take(min_size, tag, Some(Box::new(free)))
    }

    /// Calls what is due to be called and gives memory back to the system that was not used for 5 seconds. Call it now
    /// and then where regions are used seldom.
    pub fn maintain(&mut self) {
        self.shelf.sweep(Instant::now());
        self.shelf.call_freed();
    }

    fn take(
        &mut self,
        min_size: usize,
        tag: Option<&str>,
        free: Option<Free>,
    ) -> Result<MemoryRegion, Error> {
        let now = Instant::now();
        self.shelf.sweep(now);
        let result = match self.shelf.reuse(min_size, tag, now) {
            Some((region, its_free)) => {
                *its_free = free;
                Ok(region)
            }
            None => self.add(min_size, tag, free, now),
        };
        self.shelf.call_freed();
        result
    }

    fn add(
        &mut self,
        min_size: usize,
        tag: Option<&str>,
        free: Option<Free>,
        now: Instant,
    ) -> Result<MemoryRegion, Error> {
        let size = min_size
            .max(1)
            .checked_next_multiple_of(GRAIN)
            .unwrap_or(usize::MAX);
        let kept = MemoryRegion::try_new(size)?;
        let region = kept
            .clone()
            .map_err(|error| Error::io("opening /proc/self/fd", error))?;
        self.shelf.add(kept, tag, free, now);
        Ok(region)
    }
}

impl Drop for MemoryRegistry {
    fn drop(&mut self) {
        self.shelf.clear();
        while let Some(free) = self.shelf.next_freed() {
            if catch_unwind(AssertUnwindSafe(free)).is_err() {
                log::error!("a function that was to be called for a freed memory region panicked");
            }
        }
    }
}

impl fmt::Debug for MemoryRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRegistry")
            .field("regions", &self.shelf.len())
            .field("lent", &self.shelf.lent())
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{super::shelf::KEEP, *};
    use std::{cell::Cell, rc::Rc, time::Duration};

    #[test]
    fn idle_memory_goes_back_to_the_system() {
        if crate::sys::COUNTS_COPIES {
            println!("SKIPPED idle_memory_goes_back_to_the_system: copies count");
            return;
        }
        let freed = Rc::new(Cell::new(0));
        let count = freed.clone();
        let mut registry = MemoryRegistry::default();
        let region = registry.alloc_with_free(10, None, move || count.set(count.get() + 1));
        let raw = region.object().clone().unwrap();
        let start = Instant::now();
        let shelf = &mut registry.shelf;
        // Held here, so it is kept, however old.
        shelf.sweep(start + 3 * KEEP);
        shelf.call_freed();
        assert_eq!((region.ref_count(), freed.get()), (2, 0));
        drop(region);
        // Idle, but in use a moment ago.
        shelf.sweep(start + 4 * KEEP - Duration::from_millis(1));
        shelf.call_freed();
        assert_eq!((shelf.len(), freed.get()), (1, 1));
        shelf.sweep(start + 4 * KEEP);
        assert_eq!(shelf.len(), 0);
        shelf.call_freed();
        assert_eq!(freed.get(), 1);
        assert_eq!(MemoryRegion::from_object(raw).unwrap().ref_count(), 1);
    }

    #[test]
    fn a_region_found_free_late_goes_back_at_once() {
        let mut registry = MemoryRegistry::default();
        drop(registry.alloc(10, None));
        registry.shelf.sweep(Instant::now() + KEEP);
        assert_eq!(registry.shelf.len(), 0);
    }
}
