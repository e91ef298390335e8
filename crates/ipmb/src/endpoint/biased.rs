//! A lock for what one thread uses nearly all the time.
//!
//! An ordinary lock is two atomic exchanges, and each waits for all stores before it: here, for those to a ring whose memory is in
//! the cache of another core. So a thread that has taken the lock many times in a row gets the *bias*. From then on it takes it
//! with plain stores: it notes that it is busy, and looks whether it still has the bias. Everybody else takes
//! an ordinary lock, and first takes the bias away: they clear it, run a fence on every core ([`fence_before_look`]), and wait
//! until its thread is not busy.
//!
//! That fence falls, on the core of the thread with the bias, either before its look, which then finds that the bias is gone; or after it, and then
//! the note that it is busy, which comes before the look, is visible to whoever ran the fence. In the same way, a thread that is no longer
//! busy either finds the bias gone, and wakes who waits for that, or is seen not to be busy.
//!
//! A thread may be stopped between the note and the look for as long as anybody likes, and then takes its note back, whoever has the bias by then.
//! So each thread that ever has the bias has a note of its own. There are few of them: the lock is for one thread at a time.
//!
//! The idea is that of Dice, Moir and Scherer, “Quickly Reacquirable Locks” (2003).

#[cfg(not(loom))]
use crate::sync::compiler_fence;
#[cfg(loom)]
use crate::sync::fence;
use crate::{
    link::doorbell::fence_before_look,
    sync::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, Ordering},
    sys, weakness,
};
use std::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    sync::PoisonError,
    time::Duration,
};

/// Threads that can have the bias, one at a time.
const THREADS: usize = 4;
/// The bits of a number below that.
const NUMBER: u64 = THREADS as u64 - 1;
/// How often in a row a thread takes the lock before it gets the bias, at first and at most: twice as many after each time that it was taken
/// away, which costs a system call and a fence on every core.
#[cfg(not(loom))]
const ENOUGH: [u32; 2] = [64, 1 << 16];
#[cfg(loom)]
const ENOUGH: [u32; 2] = [1, 2];

/// A lock. Panics do not poison it.
pub(crate) struct BiasedLock<T> {
    /// The thread that has the bias, and its number; 0: none. Written under `slow`.
    bias: AtomicU64,
    /// By number: the thread is busy, or is about to find that it has no bias. Written by that thread.
    busy: [AtomicBool; THREADS],
    slow: Mutex<Slow>,
    /// A thread is no longer busy.
    left: (Mutex<()>, Condvar),
    value: UnsafeCell<T>,
}

/// How the lock was taken without a bias.
#[derive(Debug, Default)]
struct Slow {
    /// Threads by their numbers; 0: not given yet. A thread that is gone may come back as another one.
    threads: [u64; THREADS],
    last: u64,
    /// How often by that one since somebody else.
    in_a_row: u32,
    /// How often it must be for the bias.
    enough: u32,
    /// The system does not fence others any more.
    forbidden: bool,
}

// SAFETY: the value is lent to one thread at a time, see `lock_as`.
unsafe impl<T: Send> Sync for BiasedLock<T> {}

/// The value, while the lock is held.
pub(crate) struct Guard<'l, T> {
    lock: &'l BiasedLock<T>,
    /// The bias of this thread, which is busy with it; 0: it has none.
    bias: u64,
    /// The ordinary lock, if that is how it is held. Given back after the bias.
    slow: Option<MutexGuard<'l, Slow>>,
    /// As one to the value, it is shared between threads only if that may be.
    value: PhantomData<&'l mut T>,
}

/// The running thread: a number that no other has while it lives, not 0, with nothing in the bits of [`NUMBER`].
#[inline(always)]
fn this_thread() -> u64 {
    #[repr(align(8))]
    struct Place(#[allow(dead_code)] u8);
    thread_local!(static PLACE: Place = const { Place(0) });
    PLACE.with(|place| std::ptr::from_ref(place) as usize as u64)
}

/// Between a note of the thread with the bias and its look: the processor may let the look pass the note, see the module
/// on why whoever takes the bias away makes up for it.
#[inline(always)]
fn fenced_by_others() {
    #[cfg(not(loom))]
    compiler_fence(Ordering::SeqCst);
    #[cfg(loom)]
    if !weakness::on(16) {
        fence(Ordering::SeqCst);
    }
}

impl<T> BiasedLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            bias: AtomicU64::new(0),
            busy: std::array::from_fn(|_| AtomicBool::new(false)),
            slow: Mutex::new(Slow {
                enough: ENOUGH[0],
                ..Slow::default()
            }),
            left: (Mutex::new(()), Condvar::new()),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until nobody else has the lock. Deadlocks if this thread has it.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.lock_as(this_thread())
    }

    /// The same as the thread `me`.
    ///
    /// At most one guard exists. One with the ordinary lock has seen that nobody is busy with a bias, and only its own thread can get one while it
    /// exists, which then counts as busy. One without is of a thread that is busy with the bias: none with the ordinary lock comes about before it
    /// ends, and none without, since a thread that is busy already does not come this way.
    #[inline]
    fn lock_as(&self, me: u64) -> Guard<'_, T> {
        // Relaxed: only this thread can have made it this value, and whoever made it another was fenced.
        let bias = self.bias.load(Ordering::Relaxed);
        if bias & !NUMBER == me {
            let busy = self.note(bias);
            if !busy.load(Ordering::Relaxed) {
                busy.store(true, Ordering::Relaxed);
                fenced_by_others();
                if self.bias.load(Ordering::Relaxed) == bias {
                    return Guard {
                        lock: self,
                        bias,
                        slow: None,
                        value: PhantomData,
                    };
                }
                self.leave(bias);
            }
        }
        self.lock_slowly(me)
    }

    #[inline]
    fn note(&self, bias: u64) -> &AtomicBool {
        &self.busy[(bias & NUMBER) as usize]
    }

    /// The thread with the bias is not busy any more.
    #[inline]
    fn leave(&self, bias: u64) {
        // Release: what it did comes before what the next one does, who sees this.
        self.note(bias).store(false, Ordering::Release);
        fenced_by_others();
        if self.bias.load(Ordering::Relaxed) != bias && !weakness::on(19) {
            self.say_so();
        }
    }

    #[cold]
    fn say_so(&self) {
        let (lock, left) = &self.left;
        // Whoever waits has either not looked yet, or hears it.
        drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
        left.notify_all();
    }

    #[cold]
    fn lock_slowly(&self, me: u64) -> Guard<'_, T> {
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        self.take_the_bias_away(&mut slow);
        if slow.last == me {
            slow.in_a_row = slow.in_a_row.saturating_add(1);
        } else {
            (slow.last, slow.in_a_row) = (me, 1);
        }
        let mut bias = 0;
        if slow.in_a_row >= slow.enough && !slow.forbidden && may_be_biased() {
            slow.in_a_row = 0;
            let is_its = |t: &u64| *t == me || *t == 0 || weakness::on(18);
            let number = slow.threads.iter().position(is_its);
            if let Some(number) = number {
                slow.threads[number] = me;
                bias = me | number as u64;
                // Relaxed: others look at both under the lock.
                self.note(bias).store(true, Ordering::Relaxed);
                self.bias.store(bias, Ordering::Relaxed);
            }
        }
        Guard {
            lock: self,
            bias,
            slow: Some(slow),
            value: PhantomData,
        }
    }

    /// Returns when no thread has the bias, and none is busy with it.
    fn take_the_bias_away(&self, slow: &mut Slow) {
        let bias = self.bias.load(Ordering::Relaxed);
        if bias == 0 {
            return;
        }
        self.bias.store(0, Ordering::Relaxed);
        slow.enough = slow.enough.saturating_mul(2).min(ENOUGH[1]);
        if !fence_before_look(true) {
            // Forbidden since the bias was given. No core keeps a store to itself for so long.
            std::thread::sleep(Duration::from_millis(10));
            slow.forbidden = true;
        }
        let busy = self.note(bias);
        // Acquire: see `leave`.
        if busy.load(Ordering::Acquire) && !weakness::on(17) {
            let (lock, left) = &self.left;
            let mut guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
            while busy.load(Ordering::Acquire) {
                guard = left.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Whether the fences of others reach this process.
fn may_be_biased() -> bool {
    cfg!(loom) || sys::fences_reach_us()
}

impl<T> Guard<'_, T> {
    /// Lets others have the lock until `changed` is notified or the time is over, if `waits` says that there is something to wait for.
    pub(crate) fn wait(
        mut self,
        changed: &Condvar,
        timeout: Option<Duration>,
        waits: impl FnOnce(&T) -> bool,
    ) -> Self {
        let lock = self.lock;
        // Only the ordinary lock can be given up and waited for in one step. Before it is there somebody else may have this one.
        if self.slow.is_none() {
            let me = self.bias & !NUMBER;
            drop(self);
            self = lock.lock_slowly(me);
        }
        self.end_bias();
        if waits(&self)
            && let Some(slow) = self.slow.take()
        {
            let mut slow = match timeout {
                None => changed.wait(slow).unwrap_or_else(PoisonError::into_inner),
                Some(timeout) => {
                    let waited = changed.wait_timeout(slow, timeout);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            lock.take_the_bias_away(&mut slow);
            self.slow = Some(slow);
        }
        self
    }

    #[inline]
    fn end_bias(&mut self) {
        if self.bias != 0 {
            self.lock.leave(self.bias);
            self.bias = 0;
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: there is no other guard, see `lock_as`.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: there is no other guard, see `lock_as`.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.end_bias();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::{sync::Barrier, thread};

    /// Adds one so that another thread that does it at the same time shows.
    fn add(value: &mut [u64; 2]) {
        let [first, second] = *value;
        assert_eq!(first, second);
        value[0] = first + 1;
        std::hint::spin_loop();
        value[1] = second + 1;
    }

    #[test]
    fn two_threads_have_the_lock_at_once() {
        let lock = BiasedLock::new([0; 2]);
        let start = Barrier::new(3);
        thread::scope(|s| {
            for rounds in [2_000_000, 2_000, 500] {
                let (lock, start) = (&lock, &start);
                s.spawn(move || {
                    start.wait();
                    for round in 0..rounds {
                        add(&mut lock.lock());
                        if rounds < 1_000_000 {
                            // The other one gets the bias meanwhile.
                            thread::sleep(Duration::from_micros(round % 100));
                        }
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), [2_002_500; 2]);
    }

    #[test]
    fn a_thread_waits_for_what_came_before_it_had_the_ordinary_lock() {
        let lock = BiasedLock::new(false);
        let changed = Condvar::new();
        for _ in 0..2 * ENOUGH[0] {
            drop(lock.lock());
        }
        thread::scope(|s| {
            s.spawn(|| {
                *lock.lock() = true;
                changed.notify_all();
            });
            let mut guard = lock.lock();
            while !*guard {
                guard = guard.wait(&changed, None, |done| !done);
            }
        });
        let guard = lock.lock().wait(&changed, Some(Duration::ZERO), |_| true);
        assert!(*guard);
    }

    /// A second value of the same would be worse than waiting for oneself, as an ordinary lock does.
    #[test]
    fn a_thread_that_has_the_lock_gets_it_once_more() {
        for before in [0, ENOUGH[0] - 1, 2 * ENOUGH[0]] {
            let (said, heard) = std::sync::mpsc::channel();
            thread::spawn(move || {
                let lock = BiasedLock::new(());
                for _ in 0..before {
                    drop(lock.lock());
                }
                let _guard = lock.lock();
                said.send(false).unwrap();
                let _again = lock.lock();
                let _ = said.send(true);
            });
            assert_eq!(heard.recv(), Ok(false));
            assert!(heard.recv_timeout(Duration::from_millis(200)).is_err());
        }
    }

    #[test]
    fn more_threads_than_there_are_numbers_get_the_bias() {
        let lock = BiasedLock::new([0; 2]);
        for _ in 0..2 * THREADS {
            thread::scope(|s| {
                s.spawn(|| (0..3000).for_each(|_| add(&mut lock.lock())));
            });
        }
        assert_eq!(*lock.lock(), [6000 * THREADS as u64; 2]);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::{cell::Cell, sync::Arc, thread};

    /// Threads that take the lock so often each. The checker reports what two of them touch at once.
    fn one_at_a_time(name: &str, times: &'static [u32]) {
        weakness::check(&format!("biased lock, {name}"), move || {
            let lock = Arc::new(BiasedLock::new(Cell::new(0)));
            let run = |lock: &BiasedLock<Cell<u32>>, me: usize| {
                for _ in 0..times[me] {
                    let guard = lock.lock_as((me as u64 + 1) << 8);
                    guard.set(guard.get() + 1);
                }
            };
            let others: Vec<_> = (1..times.len())
                .map(|me| {
                    let lock = lock.clone();
                    thread::spawn(move || run(&lock, me))
                })
                .collect();
            run(&lock, 0);
            for other in others {
                other.join().unwrap();
            }
            let all: u32 = times.iter().sum();
            assert_eq!(lock.lock_as(8).get(), all);
        });
    }

    #[test]
    fn a_thread_with_the_bias_and_another_have_a_biased_lock_at_once() {
        one_at_a_time("two threads", &[3, 1]);
    }

    #[test]
    fn two_threads_with_the_bias_in_turn_have_a_biased_lock_at_once() {
        one_at_a_time("two threads in turn", &[4, 3]);
    }

    #[test]
    fn one_of_three_threads_has_a_biased_lock_at_once_with_another() {
        one_at_a_time("three threads", &[3, 2, 1]);
    }

    /// Who has the bias gives the lock up and waits: a lost notification is a deadlock, which the checker reports.
    #[test]
    fn who_waits_with_a_biased_lock_is_not_woken() {
        weakness::check("biased lock, a wait", || {
            let both = Arc::new((BiasedLock::new(Cell::new(false)), Condvar::new()));
            let other = both.clone();
            drop(both.0.lock_as(8));
            let other = thread::spawn(move || {
                let (lock, changed) = &*other;
                lock.lock_as(16).set(true);
                changed.notify_all();
            });
            let (lock, changed) = &*both;
            let mut guard = lock.lock_as(8);
            while !guard.get() {
                guard = guard.wait(changed, None, |done| !done.get());
            }
            drop(guard);
            other.join().unwrap();
        });
    }
}
