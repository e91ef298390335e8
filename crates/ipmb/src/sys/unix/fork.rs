//! What a forked child must not keep: the descriptors of this library.
//!
//! A child that goes on after `fork` without `exec` would keep names bound, sockets open and lock bytes held long
//! after its parent died. So every descriptor that the library keeps is an [`Fd`]: it stands in a table, and a
//! `pthread_atfork` handler closes in the child what stands there and counts a *generation* up, by which everything
//! made before the fork knows that it is the parent's. Best effort: a descriptor that another thread was opening or
//! closing at the instant of the fork may stay open in the child, and a raw `clone` runs no handlers.
//!
//! The table is a bitmap indexed by descriptor number, in chunks that are made when first needed and never freed.
//! Any thread may set and clear bits at any time; nothing here takes a lock, so a fork can't leave one held.

use super::super::handles::{Handle, handle_from_fd, handle_into_fd};
use crate::sync::process::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    io::Errno,
};
use std::{io, mem::ManuallyDrop, ptr, sync::Once};

/// Words in a chunk. One chunk covers 131,072 descriptors.
const WORDS: usize = 2048;
const BITS: usize = u64::BITS as usize;
/// Chunks in all: 2^30 descriptors, which is more than the kernel's highest limit.
const CHUNKS: usize = 8192;

type Chunk = [AtomicU64; WORDS];

/// The first chunk needs no allocation; most processes never need another.
static FIRST: Chunk = [const { AtomicU64::new(0) }; WORDS];
static MORE: [AtomicPtr<Chunk>; CHUNKS] = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS];
/// How many chunks may have bits, so that the handler looks no further.
static USED: AtomicUsize = AtomicUsize::new(1);
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Number of forks between the start of the program and this process. Compare with [`forked_since`].
#[inline]
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Whether this process is a forked child of the one that read `generation`.
#[inline]
pub(crate) fn forked_since(generation: u32) -> bool {
    self::generation() != generation && !crate::fault::on(29)
}

/// A descriptor that a forked child does not keep.
///
/// In the child it is closed before `fork` returns, and dropping the `Fd` there leaves alone whatever has got its
/// number since. Ask [`Fd::forked`] before a use that may happen in a child: there, `as_fd` names a descriptor that is
/// closed or somebody else's.
#[derive(Debug)]
pub(crate) struct Fd {
    fd: RawFd,
    handle: ManuallyDrop<Handle>,
    generation: u32,
}

impl Fd {
    /// Enters the descriptor into the table.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        install();
        set(fd.as_raw_fd());
        Self {
            fd: fd.as_raw_fd(),
            handle: ManuallyDrop::new(handle_from_fd(fd)),
            generation: generation(),
        }
    }

    /// Whether this process is a forked child of the one that made it.
    pub(crate) fn forked(&self) -> bool {
        forked_since(self.generation)
    }

    /// Takes the descriptor back out of the table. Fails with `EBADF` in a forked child.
    pub(crate) fn into_owned(self) -> io::Result<OwnedFd> {
        if self.forked() {
            return Err(Errno::BADF.into());
        }
        clear(self.fd);
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped nor used again, so the descriptor is taken once.
        handle_into_fd(unsafe { ManuallyDrop::take(&mut this.handle) })
    }

    /// The descriptor where an owned handle is asked for by reference.
    pub(crate) fn as_owned(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        let _dropping = crate::crash::dropping();
        if self.forked() {
            return;
        }
        // The bit goes first: between a close and a late clearing, another thread could get the number for a
        // descriptor of its own, and the handler would close that.
        clear(self.fd);
        // SAFETY: dropped once, here; `into_owned` forgets `self`.
        unsafe { call!(ManuallyDrop::drop(&mut self.handle)) };
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

/// Chunk, word and mask of a descriptor.
fn place(fd: RawFd) -> Option<(usize, usize, u64)> {
    let bit = usize::try_from(fd).ok()?;
    let (chunk, rest) = (bit / (WORDS * BITS), bit % (WORDS * BITS));
    (chunk < CHUNKS).then_some((chunk, rest / BITS, 1 << (rest % BITS)))
}

/// The chunk of a number, if there is one.
fn chunk(number: usize) -> Option<&'static Chunk> {
    if number == 0 {
        return Some(&FIRST);
    }
    let chunk = MORE.get(number)?.load(Ordering::Acquire);
    // SAFETY: null or a chunk that `chunk_or_new` leaked, published with Release after it was filled.
    unsafe { chunk.as_ref() }
}

/// The chunk of a number, made if there is none.
fn chunk_or_new(number: usize) -> Option<&'static Chunk> {
    if let Some(chunk) = chunk(number) {
        return Some(chunk);
    }
    let fresh = Box::into_raw(Box::new([const { AtomicU64::new(0) }; WORDS]));
    if MORE
        .get(number)?
        .compare_exchange(ptr::null_mut(), fresh, Ordering::Release, Ordering::Relaxed)
        .is_err()
    {
        // SAFETY: `fresh` came from `Box::into_raw` just now and was not published.
        drop(unsafe { Box::from_raw(fresh) });
    }
    USED.fetch_max(number + 1, Ordering::Release);
    chunk(number)
}

fn set(fd: RawFd) {
    if let Some((number, word, mask)) = place(fd) {
        if let Some(word) = chunk_or_new(number).and_then(|chunk| chunk.get(word)) {
            word.fetch_or(mask, Ordering::Relaxed);
        }
    }
}

fn clear(fd: RawFd) {
    if let Some((number, word, mask)) = place(fd) {
        if let Some(word) = chunk(number).and_then(|chunk| chunk.get(word)) {
            word.fetch_and(!mask, Ordering::Relaxed);
        }
    }
}

/// Installs the handler, once per process tree: children inherit it.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: `in_child` is a function for the life of the program, and calls only what a forked child of a
        // multi-threaded process may call: atomics and close(2).
        let error = unsafe { call!(libc::pthread_atfork(None, None, Some(in_child))) };
        if error != 0 {
            log::warn!(
                "no fork handler ({}): a forked child will keep descriptors of the bus",
                io::Error::from_raw_os_error(error)
            );
        }
    });
}

/// Runs in the forked child, before `fork` returns there. There is no other thread.
extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    for number in 0..USED.load(Ordering::Acquire) {
        let Some(chunk) = chunk(number) else { continue };
        for (index, word) in chunk.iter().enumerate() {
            let mut bits = word.swap(0, Ordering::Relaxed);
            while bits != 0 {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let fd = (number * WORDS + index) * BITS + bit;
                // SAFETY: the table holds descriptors that this library owned in the parent; in this process they are
                // copies whose owners see the new generation and neither use nor close them. Errors don't matter.
                unsafe { call!(libc::close(fd as RawFd)) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::FromRawFd;

    fn some_fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn listed(fd: RawFd) -> bool {
        let (number, word, mask) = place(fd).unwrap();
        chunk(number).is_some_and(|chunk| chunk[word].load(Ordering::Relaxed) & mask != 0)
    }

    /// Runs `body` in a forked child and returns its exit code. The body must not allocate much nor panic.
    fn in_forked_child(body: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child calls `body`, which keeps to system calls, and leaves by `_exit`.
        unsafe {
            match libc::fork() {
                0 => libc::_exit(body()),
                child => {
                    let mut status = 0;
                    assert_eq!(libc::waitpid(child, &mut status, 0), child);
                    assert!(libc::WIFEXITED(status), "{status:#x}");
                    libc::WEXITSTATUS(status)
                }
            }
        }
    }

    fn is_open(fd: RawFd) -> bool {
        // SAFETY: F_GETFD only looks the number up.
        unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
    }

    #[test]
    fn a_descriptor_is_listed_while_it_is_owned() {
        let fd = Fd::new(some_fd());
        let raw = fd.as_raw_fd();
        assert!(listed(raw));
        let owned = fd.into_owned().unwrap();
        assert_eq!(owned.as_raw_fd(), raw);
        assert!(is_open(raw));
    }

    #[test]
    fn a_forked_child_keeps_no_descriptor() {
        let fd = Fd::new(some_fd());
        let raw = fd.as_raw_fd();
        let before = generation();
        let code = in_forked_child(|| {
            i32::from(is_open(raw))
                | i32::from(!fd.forked()) << 1
                | i32::from(!forked_since(before)) << 2
        });
        assert_eq!(code, 0);
        assert!(is_open(raw) && !fd.forked() && listed(raw));
    }

    #[test]
    fn a_drop_in_the_child_leaves_a_new_descriptor_of_the_same_number_alone() {
        let fd = Fd::new(some_fd());
        let raw = fd.as_raw_fd();
        let code = in_forked_child(move || {
            // SAFETY: duplicates onto the number that the handler has closed.
            if unsafe { libc::dup2(0, raw) } != raw && unsafe { libc::dup2(2, raw) } != raw {
                return 9;
            }
            drop(fd);
            i32::from(!is_open(raw))
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn a_child_can_own_descriptors_and_fork_again() {
        let fd = Fd::new(some_fd());
        let code = in_forked_child(|| {
            // SAFETY: opens a constant path.
            let raw = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_CLOEXEC) };
            // SAFETY: fresh and owned by nobody else.
            let own = Fd::new(unsafe { OwnedFd::from_raw_fd(raw) });
            let code = in_forked_child(|| i32::from(is_open(raw)) | i32::from(!own.forked()) << 1);
            code | i32::from(own.forked()) << 2 | i32::from(!is_open(raw)) << 3
        });
        assert_eq!(code, 0);
        drop(fd);
    }

    #[test]
    fn numbers_beyond_the_first_chunk_have_a_place() {
        let high = (WORDS * BITS) as RawFd + 77;
        set(high);
        assert!(listed(high));
        clear(high);
        assert!(!listed(high));
        set(-1);
        set(RawFd::MAX);
    }
}
