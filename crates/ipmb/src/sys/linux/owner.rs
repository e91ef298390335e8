//! A word in shared memory that the kernel marks when the thread that owns it dies, before anything else of the process
//! is torn down: an entry of the thread's robust list (get_robust_list(2), `Documentation/locking/robust-futexes.rst`).
//!
//! The kernel finds the word at a fixed distance from the list entry. The entry holds addresses of this process, so it
//! must not lie in the memory that others can read: the mapping is preceded by a private page, and the entry lies there.

use super::{fork, memory::Memory};
use crate::sync::{Ordering, SharedU32};
use rustix::{
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap},
    param::page_size,
};
use std::{cell::RefCell, io, mem::ManuallyDrop, ptr::NonNull};

/// Set by the kernel in an owner word when its thread has died (`FUTEX_OWNER_DIED`).
pub(crate) const OWNER_DIED: u32 = 0x4000_0000;

#[repr(C)]
struct Entry {
    next: *mut Entry,
}

#[repr(C)]
struct Head {
    list: Entry,
    offset: libc::c_long,
    pending: *mut Entry,
}

thread_local! {
    /// The list of this thread. Only the thread that serves the controllers has one, and it holds no other robust lock.
    static LIST: RefCell<Option<List>> = const { RefCell::new(None) };
}

/// The head of a thread's list, which the kernel knows by its address.
struct List(ManuallyDrop<Box<Head>>);

impl List {
    fn new(offset: libc::c_long) -> Self {
        let mut head = Box::new(Head {
            list: Entry {
                next: std::ptr::null_mut(),
            },
            offset,
            pending: std::ptr::null_mut(),
        });
        head.list.next = &raw mut head.list;
        announce(&raw mut *head);
        Self(ManuallyDrop::new(head))
    }
}

impl Drop for List {
    fn drop(&mut self) {
        let _dropping = crate::crash::dropping();
        if std::ptr::eq(self.0.list.next, &raw const self.0.list) {
            announce(std::ptr::null_mut());
            // SAFETY: dropped once, here, and the kernel no longer knows the address.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
        // Otherwise the kernel will still walk it when the thread is gone, and it stays.
    }
}

/// Tells the kernel where this thread's list is. A kernel (or an emulator) without robust lists refuses; then a
/// death shows at the hang-up, a little later.
fn announce(head: *mut Head) {
    // SAFETY: null, or a boxed head that stays until the kernel was told otherwise or the thread is gone.
    unsafe {
        call!(libc::syscall(
            libc::SYS_set_robust_list,
            head,
            size_of::<Head>()
        ))
    };
}

/// A writable mapping whose word at [`OwnedMapping::WORD`] belongs to the thread that made it.
#[derive(Debug)]
pub(crate) struct OwnedMapping {
    /// The private page in front.
    base: NonNull<u8>,
    page: usize,
    len: usize,
    owned: bool,
    generation: u32,
}

// SAFETY: an address range of the process. `disown` and the drop must run on the thread that made it, because they
// change that thread's list; the owner keeps it on one thread.
unsafe impl Send for OwnedMapping {}

impl OwnedMapping {
    /// Where the owner word lies in the mapping.
    pub(crate) const WORD: usize = 128;

    /// Maps `memory` writably and makes this thread the owner of its word.
    pub(crate) fn new(memory: &Memory) -> io::Result<Self> {
        let (page, len) = (call!(page_size()), memory.size());
        // SAFETY: a fresh private mapping; nothing is overlapped.
        let base = unsafe {
            call!(later mmap_anonymous(
                std::ptr::null_mut(),
                page + len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            ))
        }?;
        let mut mapping = Self {
            base: NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            page,
            len,
            owned: false,
            generation: fork::generation(),
        };
        // SAFETY: MAP_FIXED replaces the part of the range that was mapped just now and that nobody else knows.
        unsafe {
            call!(mmap(
                mapping.start().as_ptr().cast(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                memory,
                0,
            ))
        }?;
        // SAFETY: the range is ours; the advice changes only what a forked child inherits.
        let _ = unsafe { call!(madvise(base, page + len, Advice::LinuxDontFork)) };
        #[cfg(tsan)]
        super::one_mapping::enter(rustix::fd::AsFd::as_fd(memory), len, mapping.start());
        mapping.own()?;
        Ok(mapping)
    }

    /// First byte of the shared memory.
    pub(crate) fn start(&self) -> NonNull<u8> {
        // SAFETY: the private page lies in front of the shared memory in one range.
        unsafe { self.base.add(self.page) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn word(&self) -> &SharedU32 {
        // SAFETY: inside the mapping (every memory is at least a page), aligned, and only accessed atomically.
        unsafe { self.start().add(Self::WORD).cast().as_ref() }
    }

    /// Distance from the entry to the word.
    fn distance(&self) -> libc::c_long {
        (self.page + Self::WORD) as libc::c_long
    }

    fn own(&mut self) -> io::Result<()> {
        let entry: *mut Entry = self.base.as_ptr().cast();
        LIST.with_borrow_mut(|list| {
            let head = &mut list.get_or_insert_with(|| List::new(self.distance())).0;
            // SAFETY: the private page is ours and page-aligned.
            unsafe { (*entry).next = head.list.next };
            // The word before the entry is linked: a death in between finds no entry, which is as if it came earlier.
            self.word().store(thread_id(), Ordering::SeqCst);
            head.list.next = entry;
        });
        self.owned = true;
        Ok(())
    }

    /// Gives the word up: it becomes 0, and the kernel forgets it.
    pub(crate) fn disown(&mut self) {
        if !std::mem::take(&mut self.owned) {
            return;
        }
        self.word().store(0, Ordering::SeqCst);
        let entry: *mut Entry = self.base.as_ptr().cast();
        LIST.with_borrow_mut(|list| {
            let Some(List(head)) = list else { return };
            let mut at: *mut Entry = &raw mut head.list;
            // SAFETY: the list is circular, and every entry on it is the private page of a mapping that still lives,
            // because each mapping takes itself off before it is unmapped.
            unsafe {
                while (*at).next != entry && (*at).next != &raw mut head.list {
                    at = (*at).next;
                }
                if (*at).next == entry {
                    (*at).next = (*entry).next;
                }
            }
        });
    }
}

impl Drop for OwnedMapping {
    fn drop(&mut self) {
        let _dropping = crate::crash::dropping();
        if fork::forked_since(self.generation) {
            // A forked child has neither the mapping nor the thread.
            return;
        }
        self.disown();
        #[cfg(tsan)]
        if !super::one_mapping::leave(self.start()) {
            // The last reader unmaps it, but for the private page.
            return;
        }
        // SAFETY: the range is ours since `new`, and nothing borrowed from `self` outlives it.
        let _ = unsafe { call!(munmap(self.base.as_ptr().cast(), self.page + self.len)) };
    }
}

fn thread_id() -> u32 {
    call!(rustix::thread::gettid()).as_raw_nonzero().get() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Protection;

    /// Whether there are robust lists: an emulator may have none.
    fn robust_lists() -> bool {
        let (mut head, mut len) = (std::ptr::null_mut::<Head>(), 0usize);
        // SAFETY: both places are valid; the kernel writes this thread's own list to them.
        unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) == 0 }
    }

    #[test]
    fn the_word_says_that_its_thread_died() {
        if !robust_lists() {
            println!("SKIPPED the_word_says_that_its_thread_died: the system has no robust lists");
            return;
        }
        let memory = Memory::new(c"owner", page_size()).unwrap();
        let view = memory.map_all(Protection::Read).unwrap();
        // SAFETY: inside the mapping, aligned.
        let word: &SharedU32 = unsafe { view.start().add(OwnedMapping::WORD).cast().as_ref() };
        std::thread::scope(|s| {
            s.spawn(|| {
                let mapping = OwnedMapping::new(&memory).unwrap();
                assert_ne!(word.load(Ordering::SeqCst), 0);
                // The thread ends with the word still owned, as a killed one does.
                std::mem::forget(mapping);
            });
        });
        while word.load(Ordering::SeqCst) & OWNER_DIED == 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_word_that_was_given_up_is_not_marked() {
        let memory = Memory::new(c"owner", page_size()).unwrap();
        let view = memory.map_all(Protection::Read).unwrap();
        // SAFETY: inside the mapping, aligned.
        let word: &SharedU32 = unsafe { view.start().add(OwnedMapping::WORD).cast().as_ref() };
        std::thread::scope(|s| {
            s.spawn(|| drop(OwnedMapping::new(&memory).unwrap()));
        });
        assert_eq!(word.load(Ordering::SeqCst), 0);
    }
}
