//! One handle of a shared memory.

use super::shelf::Counted;
use crate::{
    Object,
    error::Error,
    sys::{AsHandle, BorrowedHandle, Handle, Held, Mapping, Protection},
};
use std::{
    io,
    ops::{Bound, Range, RangeBounds},
    slice,
    sync::OnceLock,
};

/// A handle of a memory that processes share without copying it.
///
/// Put it into [`Message::memory_regions`](crate::Message) to give it to other processes; [`clone`](Self::clone) it
/// first to keep it too. It starts on a page and has exactly the size that was asked for. Every holder may read and
/// write until one of them [freezes](Self::freeze) it.
///
/// The kernel counts the holders, so [`ref_count`](Self::ref_count) is right after a holder was killed, too.
///
/// It is `Send` and `Sync`. No call blocks, except that `freeze` may wait some 100 ms for I/O that is under way in
/// the memory. A child that was forked without `exec` has no regions: there, calls fail with [`Error::Forked`], and
/// what `map` returned before the fork is not mapped any more.
///
/// ```
/// let mut region = ipmb::MemoryRegion::new(16 << 10);
/// let data = region.map(..).expect("Mapping failed");
/// data[0] = 0x10;
/// assert_eq!(region.buffer_size(), 16 << 10);
/// assert_eq!(region.ref_count(), 1);
/// ```
#[derive(Debug)]
pub struct MemoryRegion {
    // Before the handle, so that nobody counts a region free that is still mapped here.
    mapping: Option<Mapping>,
    /// Present only once the seals were seen.
    frozen: OnceLock<Mapping>,
    held: Held,
}

impl MemoryRegion {
    /// Makes a region of `size` bytes, all zero. Memory is used as it is touched.
    ///
    /// # Panics
    ///
    /// Only if the system refuses the memory or a descriptor; [`try_new`](Self::try_new) returns that as an error.
    pub fn new(size: usize) -> Self {
        Self::try_new(size)
            .unwrap_or_else(|error| panic!("no memory region of {size} bytes: {error}"))
    }

    /// Makes a region of `size` bytes, all zero. Memory is used as it is touched.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] if descriptors or memory ran out, [`Error::Io`] if the system refuses otherwise.
    ///
    /// ```
    /// assert_eq!(ipmb::MemoryRegion::try_new(0)?.buffer_size(), 0);
    /// assert!(ipmb::MemoryRegion::try_new(usize::MAX).is_err());
    /// # Ok::<(), ipmb::Error>(())
    /// ```
    pub fn try_new(size: usize) -> Result<Self, Error> {
        Held::new(size)
            .map(Self::of)
            .map_err(|error| Error::io("making a shared memory", error))
    }

    fn of(held: Held) -> Self {
        Self {
            mapping: None,
            frozen: OnceLock::new(),
            held,
        }
    }

    /// Takes over a handle that came from another process as it left [`into_handle`](Self::into_handle) or
    /// [`try_clone_handle`](Self::try_clone_handle) there. Believes nothing: seals, kind and size are looked at first.
    pub(crate) fn from_handle(handle: Handle, limit: u64) -> Result<Self, Error> {
        Held::from_handle(handle, limit).map(Self::of)
    }

    /// This handle, to be handed over. Unmaps it; it goes on counting until the descriptor is closed.
    pub(crate) fn into_handle(self) -> io::Result<Handle> {
        self.held.into_handle()
    }

    /// A further handle, to be handed over. It counts until the descriptor is closed.
    pub(crate) fn try_clone_handle(&self) -> io::Result<Handle> {
        self.held.try_clone_handle()
    }

    /// This handle, to be put into a socket by a sender that keeps the region until it knows that it was sent; then call
    /// [`given`](Self::given) and drop it. `None` if only a [clone](Self::try_clone_handle) may go.
    pub(crate) fn lend(&self) -> Option<BorrowedHandle<'_>> {
        self.held.lend()
    }

    /// What was lent is on its way.
    pub(crate) fn given(&self) {
        self.held.given();
    }

    /// Notes that the region goes to a process of another user than the one that made it, so that no registry uses it
    /// again. Call before it goes. Whoever is not of the owner's user fails with `EPERM`, but then it went before.
    pub(crate) fn mark_foreign(&self) -> io::Result<()> {
        self.held.mark_foreign()
    }

    /// Whether this process is a forked child of the one that holds it.
    fn forked(&self) -> bool {
        self.held.forked()
    }

    /// Size in bytes.
    pub fn buffer_size(&self) -> u64 {
        self.held.size() as u64
    }

    /// How many handles of this library there are in all processes, this one and those in messages under way
    /// included. It may have changed by the time it is returned. A descriptor taken out by [`object`](Self::object)
    /// does not count. Stops at 65,536, or earlier if a holder floods the region with locks. Zero in a forked child.
    ///
    /// ```
    /// let region = ipmb::MemoryRegion::new(1);
    /// let second = region.clone()?;
    /// assert_eq!(region.ref_count(), 2);
    /// drop(second);
    /// assert_eq!(region.ref_count(), 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn ref_count(&self) -> u32 {
        match self.held.count_others() {
            Ok(others) => others.saturating_add(1),
            Err(_) if self.forked() => 0,
            Err(_) => 1,
        }
    }

    /// The kernel's handle, for uses outside this library. It stays owned by the region; what is made of it by
    /// [`Object::clone`] does not count in [`ref_count`](Self::ref_count), so a registry may use the memory again
    /// while such a copy is in use. (On macOS it counts, as each descriptor is a handle there.)
    pub fn object(&self) -> &Object {
        Object::from_ref(self.held.expose())
    }

    /// Makes a region of the handle of one: of [`object`](Self::object), or of a sealed memfd that another program
    /// made. The region gets a handle of its own, which counts; `object` is closed.
    ///
    /// # Errors
    ///
    /// [`Error::NotARegion`] unless it is shared memory, open for reading and writing, whose size is sealed;
    /// [`Error::Exhausted`] and [`Error::Io`] as with [`clone`](Self::clone).
    ///
    /// ```
    /// let region = ipmb::MemoryRegion::new(1);
    /// let same = ipmb::MemoryRegion::from_object(region.object().clone()?)?;
    /// assert_eq!(same.ref_count(), 2);
    /// let file = ipmb::Object::from(std::fs::File::open("/dev/null")?);
    /// assert!(ipmb::MemoryRegion::from_object(file).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_object(object: Object) -> Result<Self, Error> {
        Held::open(object.as_handle()).map(Self::of)
    }

    /// One more handle of the same memory.
    ///
    /// # Errors
    ///
    /// If descriptors ran out. Also if `/proc/self/fd` can't be opened: each handle is opened anew through it. It is
    /// opened once per process, so it need not be there any more in a sandbox that was entered later.
    #[allow(clippy::should_implement_trait)] // It can fail.
    pub fn clone(&self) -> io::Result<Self> {
        self.held.try_clone().map(Self::of)
    }

    /// Lets the caller read and write a range of bytes.
    ///
    /// The first call maps the whole region; it stays mapped until it is sent, frozen, dropped or
    /// [unmapped](Self::unmap). Other holders may write to the same bytes at any time: agree with them on turns, for
    /// instance by messages, or freeze the region.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`], [`Error::Frozen`], [`Error::Exhausted`] if address space ran out, [`Error::Forked`], [`Error::Io`].
    ///
    /// ```
    /// let mut region = ipmb::MemoryRegion::new(100);
    /// region.map(10..=19)?.fill(7);
    /// assert_eq!(region.map(9..12)?, [0, 7, 7]);
    /// assert!(region.map(50..101).is_err());
    /// # Ok::<(), ipmb::Error>(())
    /// ```
    pub fn map(&mut self, range: impl RangeBounds<usize>) -> Result<&mut [u8], Error> {
        if self.forked() {
            return Err(Error::Forked);
        }
        let range = within(range, self.held.size())?;
        if self.held.size() == 0 {
            return match self.is_frozen() {
                true => Err(Error::Frozen),
                false => Ok(&mut []),
            };
        }
        let mapping = match self.mapping.take() {
            Some(mapping) => mapping,
            None => match self.held.map(Protection::ReadWrite) {
                Ok(mapping) => mapping,
                Err(_) if self.is_frozen() => return Err(Error::Frozen),
                Err(error) => return Err(Error::io("mmap", error)),
            },
        };
        let start = self.mapping.insert(mapping).start();
        // SAFETY: `range` lies within the mapping, which is readable, writable, never shrinks (its size was sealed
        // before it was mapped) and lives as long as `self` stays borrowed. Other holders write only by agreement.
        Ok(unsafe { slice::from_raw_parts_mut(start.as_ptr().add(range.start), range.len()) })
    }

    /// Undoes [`map`](Self::map), so that another holder may freeze the region. The next `map` maps it anew.
    pub fn unmap(&mut self) {
        self.mapping = None;
    }

    /// Makes the region immutable for everybody and for good. Doing it twice is fine.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] while any holder, in any process, has it mapped (what this handle mapped is unmapped first);
    /// nothing has changed then. On Linux also for a moment after a holder has died, while others look at it in `/proc`: the
    /// kernel keeps its mappings for so long. On macOS and Windows, while any other handle of it exists. [`Error::Forked`];
    /// [`Error::Io`] and [`Error::Exhausted`] if the system refuses.
    ///
    /// ```
    /// let mut region = ipmb::MemoryRegion::new(5);
    /// region.map(..)?.copy_from_slice(b"hello");
    /// region.freeze()?;
    /// assert_eq!(region.as_frozen()?, b"hello");
    /// assert!(region.map(..).is_err());
    /// # Ok::<(), ipmb::Error>(())
    /// ```
    pub fn freeze(&mut self) -> Result<(), Error> {
        if self.forked() {
            return Err(Error::Forked);
        }
        if self.is_frozen() {
            return Ok(());
        }
        self.mapping = None;
        self.held.freeze().map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => Error::Busy,
            _ => Error::io("freezing a shared memory", error),
        })
    }

    /// Whether the region is frozen. Once it is, it stays so.
    pub fn is_frozen(&self) -> bool {
        self.frozen.get().is_some() || self.held.is_frozen().unwrap_or(false)
    }

    /// The bytes of a frozen region, which nobody can ever change. On Windows, in a process that did not freeze it, a copy
    /// that the first call makes.
    ///
    /// # Errors
    ///
    /// [`Error::NotFrozen`], [`Error::Exhausted`] if address space or memory ran out, [`Error::Forked`], [`Error::Io`].
    pub fn as_frozen(&self) -> Result<&[u8], Error> {
        if self.forked() {
            return Err(Error::Forked);
        }
        let mapping = match self.frozen.get() {
            Some(mapping) => mapping,
            None => {
                if !self.is_frozen() {
                    return Err(Error::NotFrozen);
                }
                if self.held.size() == 0 {
                    return Ok(&[]);
                }
                let mapping = self
                    .held
                    .map(Protection::Frozen)
                    .map_err(|error| Error::io("mmap", error))?;
                self.frozen.get_or_init(|| mapping)
            }
        };
        // SAFETY: the seals were seen before this was mapped: no process can write to the memory nor change its size,
        // and seals can't be taken off. The mapping lives as long as `self`.
        Ok(unsafe { slice::from_raw_parts(mapping.start().as_ptr(), mapping.len()) })
    }
}

impl Counted for MemoryRegion {
    fn another(&self) -> io::Result<Self> {
        self.clone()
    }

    fn has_others(&self) -> io::Result<bool> {
        Ok(self.held.has_others()? && !crate::fault::on(23))
    }

    fn is_reusable(&self) -> io::Result<bool> {
        Ok(!self.held.is_frozen()? && !self.held.is_foreign()?)
    }

    fn forked(&self) -> bool {
        self.held.forked()
    }

    fn size(&self) -> u64 {
        self.buffer_size()
    }
}

/// Turns any range into one within `0..size`.
fn within(range: impl RangeBounds<usize>, size: usize) -> Result<Range<usize>, Error> {
    let start = match range.start_bound() {
        Bound::Included(&start) => Some(start),
        Bound::Excluded(&start) => start.checked_add(1),
        Bound::Unbounded => Some(0),
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end.checked_add(1),
        Bound::Excluded(&end) => Some(end),
        Bound::Unbounded => Some(size),
    };
    match (start, end) {
        (Some(start), Some(end)) if start <= end && end <= size => Ok(start..end),
        (start, end) => Err(Error::OutOfBounds {
            start: start.unwrap_or(usize::MAX),
            end: end.unwrap_or(usize::MAX),
            size,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryRegistry;
    use crate::sys::Channel;

    /// Waits until only `count` handles are left: a child that another test forks keeps copies of raw descriptors for a
    /// moment.
    fn falls_to(region: &MemoryRegion, count: u32) -> bool {
        let start = std::time::Instant::now();
        while region.ref_count() != count && start.elapsed().as_secs() < 5 {
            std::thread::yield_now();
        }
        region.ref_count() == count
    }

    #[test]
    fn a_handle_under_way_counts_until_nobody_can_receive_it() {
        let region = MemoryRegion::new(10);
        let under_way = region.clone().unwrap().into_handle().unwrap();
        let (left, right) = Channel::pair(0).unwrap();
        let right = Channel::from_peer(right.into_handle().unwrap()).unwrap();
        left.send(b"x", &[under_way.as_handle()]).unwrap();
        drop(under_way);
        assert_eq!(region.ref_count(), 2);
        drop(left);
        assert_eq!(region.ref_count(), 2);
        drop(right);
        assert!(falls_to(&region, 1));
    }

    #[test]
    fn a_handle_is_counted_twice_or_not_at_all_while_it_is_given_away() {
        if crate::sys::COUNTS_COPIES {
            println!(
                "SKIPPED a_handle_is_counted_twice_or_not_at_all_while_it_is_given_away: copies count"
            );
            return;
        }
        let mut region = MemoryRegion::new(10);
        let other = region.clone().unwrap();
        region.map(..).unwrap()[0] = 1;
        let sent = crate::sys::duplicate(region.lend().unwrap()).unwrap();
        assert_eq!((region.ref_count(), other.ref_count()), (2, 2));
        region.given();
        drop(region);
        assert_eq!(other.ref_count(), 2);
        let mut region = MemoryRegion::from_handle(sent, 10).unwrap();
        assert_eq!(region.map(..).unwrap()[0], 1);
        drop(region);
        assert_eq!(other.ref_count(), 1);
        let _copy = other.object().clone().unwrap();
        assert!(other.lend().is_none());
    }

    #[test]
    fn a_copy_of_the_raw_descriptor_does_not_count() {
        if crate::sys::COUNTS_COPIES {
            println!("SKIPPED a_copy_of_the_raw_descriptor_does_not_count: copies count");
            return;
        }
        let region = MemoryRegion::new(10);
        let other = region.clone().unwrap();
        let copies = [
            other.object().clone().unwrap(),
            region.object().clone().unwrap(),
        ];
        assert_eq!(region.ref_count(), 2);
        // Handed over with a copy left behind: the receiver's handle is its own.
        let fd = other.into_handle().unwrap();
        assert_eq!(region.ref_count(), 2);
        drop(fd);
        assert!(falls_to(&region, 1));
        drop(copies);
    }

    #[test]
    fn a_region_over_the_limit_is_refused() {
        let fd = MemoryRegion::new(11).into_handle().unwrap();
        match MemoryRegion::from_handle(fd, 10) {
            Err(Error::RegionTooLarge {
                size: 11,
                limit: 10,
            }) => {}
            other => panic!("{other:?}"),
        }
        let fd = MemoryRegion::new(0).into_handle().unwrap();
        assert_eq!(MemoryRegion::from_handle(fd, 0).unwrap().buffer_size(), 0);
    }

    #[test]
    fn a_region_that_went_to_another_user_is_not_used_again() {
        let mut registry = MemoryRegistry::default();
        let mut region = registry.alloc(4096, None);
        region.map(..).unwrap()[0] = 1;
        // Any holder may have been the one that sent it on.
        region.clone().unwrap().mark_foreign().unwrap();
        drop(region);
        assert_eq!(registry.alloc(4096, None).map(..).unwrap()[0], 0);
    }

    #[test]
    fn ranges_are_checked_without_overflow() {
        assert_eq!(within(.., 10).unwrap(), 0..10);
        assert_eq!(within(3.., 10).unwrap(), 3..10);
        assert_eq!(within(10.., 10).unwrap(), 10..10);
        assert_eq!(within(..0, 0).unwrap(), 0..0);
        assert_eq!(within(2..=4, 10).unwrap(), 2..5);
        let after = (Bound::Excluded(2), Bound::Included(4));
        assert_eq!(within(after, 10).unwrap(), 3..5);
        assert!(within(11.., 10).is_err());
        assert!(within(..11, 10).is_err());
        assert!(within(0..=usize::MAX, 10).is_err());
        assert!(within((Bound::Excluded(usize::MAX), Bound::Unbounded), 10).is_err());
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = 5..4;
        assert!(within(reversed, 10).is_err());
    }
}
