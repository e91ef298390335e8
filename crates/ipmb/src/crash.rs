//! Points at which a process may die: after each store to shared memory and after each system call.
//!
//! Tests let a process, or what a thread does, end at the k-th point, for every k, and see what becomes of the others. Every
//! store passes `sync`, and every call to the system the macro `call!` of `sys` (in the backend for Linux; `.ci/points` checks that); both pass
//! a point here. A large store has a point in its middle, too. Outside of tests and of a build with `--cfg fault` a point is
//! nothing at all.
//!
//! At such a point others may also do something meanwhile, in the order that a test wants to see (`meanwhile`).
//!
//! There are two ways to die. `abandon`: the thread unwinds from the point and drops what it had, so that the kernel's objects
//! are closed and what is shared stays as it is; for the parts that say nothing when they are dropped. `arm`: the process
//! ends on the spot, and all of its threads with it. A drop is abandoned in the second way only: unwinding from it would
//! leak what the function that it ends was about to return.

/// Passes a point after a call to the system.
#[inline(always)]
#[allow(dead_code)] // A system without a backend makes no calls.
pub(crate) fn after<T>(result: T) -> T {
    point();
    result
}

#[cfg(not(all(any(test, fault), not(loom))))]
#[inline(always)]
pub(crate) fn point() {}

/// Lives as long as something is dropped.
#[allow(dead_code)]
pub(crate) struct Dropping(());

/// To be called first by each `drop` that passes points.
#[inline(always)]
#[allow(dead_code)]
pub(crate) fn dropping() -> Dropping {
    #[cfg(all(test, not(loom)))]
    armed::dropping(true);
    Dropping(())
}

impl Drop for Dropping {
    #[inline(always)]
    fn drop(&mut self) {
        #[cfg(all(test, not(loom)))]
        armed::dropping(false);
    }
}

#[cfg(all(any(test, fault), not(loom)))]
pub(crate) use armed::point;
#[cfg(all(test, not(loom)))]
pub(crate) use armed::{Abandoned, abandon, meanwhile};
#[cfg(fault)]
pub use armed::{EXIT, arm, disarm};

#[cfg(all(any(test, fault), not(loom)))]
mod armed {
    /// The last point of the thread's doing was passed, after so many.
    #[cfg(test)]
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Abandoned;

    #[cfg(test)]
    type Other = std::cell::RefCell<Option<Box<dyn FnOnce()>>>;

    #[cfg(test)]
    thread_local! {
        /// Points that this thread passes before it abandons what it does; 0: it goes on.
        static LEFT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
        /// What happens there, if it is not the end.
        static OTHER: Other = const { std::cell::RefCell::new(None) };
        /// How many drops it is in.
        static DROPS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }

    #[cfg(test)]
    pub(super) fn dropping(begins: bool) {
        let change = |drops: &std::cell::Cell<u32>| match begins {
            true => drops.set(drops.get() + 1),
            false => drops.set(drops.get() - 1),
        };
        let _ = DROPS.try_with(change);
    }

    #[inline]
    pub(crate) fn point() {
        #[cfg(test)]
        let _ = LEFT.try_with(|left| {
            if DROPS.try_with(std::cell::Cell::get).unwrap_or(1) > 0 {
                return;
            }
            let before = left.replace(left.get().saturating_sub(1));
            if before == 1 {
                match OTHER.take() {
                    Some(other) => other(),
                    None => std::panic::resume_unwind(Box::new(Abandoned)),
                }
            }
        });
        #[cfg(fault)]
        process::point();
    }

    /// Does something up to its `last` point, counted from 1, and drops it there. `Ok`: it has fewer points.
    #[cfg(test)]
    pub(crate) fn abandon<T>(last: u64, body: impl FnOnce() -> T) -> Result<T, Abandoned> {
        LEFT.set(last);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        LEFT.set(0);
        result.map_err(|cause| match cause.downcast::<Abandoned>() {
            Ok(abandoned) => *abandoned,
            Err(other) => std::panic::resume_unwind(other),
        })
    }

    /// Does something, and at its point `at`, counted from 1, lets something else happen, as if another thread or process did it. False:
    /// it has fewer points.
    #[cfg(test)]
    pub(crate) fn meanwhile<T>(
        at: u64,
        other: impl FnOnce() + 'static,
        body: impl FnOnce() -> T,
    ) -> (T, bool) {
        OTHER.set(Some(Box::new(other)));
        LEFT.set(at);
        let result = body();
        LEFT.set(0);
        (result, OTHER.take().is_none())
    }

    #[cfg(fault)]
    pub use process::{EXIT, arm, disarm};

    #[cfg(fault)]
    mod process {
        use crate::sync::process::{AtomicU64, Ordering};

        /// The exit code of a process that died at a point.
        pub const EXIT: i32 = 77;

        const ARMED: u64 = 1 << 63;
        /// The points that are left, of all threads together, if armed.
        static LEFT: AtomicU64 = AtomicU64::new(0);

        /// From now on the process passes `points` points, in all of its threads, and dies at the last of them.
        pub fn arm(points: u64) {
            LEFT.store(ARMED | points, Ordering::SeqCst);
        }

        /// The process lives on. Returns how many points were left. Does not return if another thread is at its last point.
        pub fn disarm() -> u64 {
            let left = LEFT.swap(0, Ordering::SeqCst);
            if left == ARMED || left != 0 && left & ARMED == 0 {
                // Until the process is dead; a park can end by itself.
                loop {
                    std::thread::park();
                }
            }
            left & !ARMED
        }

        pub(super) fn point() {
            let left = LEFT.load(Ordering::Relaxed);
            if left & ARMED == 0 {
                return;
            }
            // Of two threads at their last points one dies, and the process with it.
            let left = LEFT.fetch_sub(1, Ordering::SeqCst);
            if left & ARMED != 0 && left & !ARMED <= 1 {
                crate::sys::end_at_once(EXIT);
            }
        }
    }
}
