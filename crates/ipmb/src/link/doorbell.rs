//! When to wake the other side: the sleep word.
//!
//! Each direction of a link has a word that only the side that may *sleep* writes, and an index that only the side that
//! may *ring* writes. The sleeper announces that it sleeps, fences, looks at the index once more, and sleeps. The ringer
//! publishes the index, fences, looks at the word, and rings if it announces a sleep that it has not rung for yet. With
//! both fences one of the two sees the other (the store-buffering pattern): no wake-up is lost, and there is at most one
//! ring per sleep.
//!
//! The ringer's fence is paid per message and waits for the cache line of the record to arrive, which costs more than all
//! the rest of a send. So while traffic is heavy the sleeper takes both fences upon itself: in mode [`Mode::Fast`] the
//! ringer only keeps the compiler from reordering, and the sleeper, before it sleeps, runs a fence on every core that
//! runs a member of the bus ([`crate::sys::fence_everybody`]). Such a fence falls, on the ringer's core, either before
//! the ringer's look at the word (then the index is visible to the sleeper's last look) or after it (then the look comes
//! before the fence in program order together with the publication that precedes it, which the fence made visible too).
//! If the look saw an old mode, the publication before it is thus seen by the sleeper.

#[cfg(not(loom))]
use crate::sync::compiler_fence;
use crate::{
    sync::{Ordering, SharedU32, fence},
    weakness,
};

/// What the sleep word says. The rest of the word counts the sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Awake; the ringer fences before it looks.
    Fenced,
    /// Awake; the ringer need not fence.
    Fast,
    /// Asleep, or about to be.
    Asleep,
}

const MODE: u32 = 0b11;
const FENCED: u32 = 0;
const FAST: u32 = 1;
const ASLEEP: u32 = 2;
const ONE_SLEEP: u32 = 4;

/// The sleeper's books.
#[derive(Debug)]
pub(crate) struct Sleeper {
    word: u32,
}

impl Sleeper {
    pub(crate) fn new() -> Self {
        Self { word: FENCED }
    }

    pub(crate) fn mode(&self) -> Mode {
        match self.word & MODE {
            FAST => Mode::Fast,
            ASLEEP => Mode::Asleep,
            _ => Mode::Fenced,
        }
    }

    /// Announces a new sleep. A fence must follow ([`Sleeper::fence`], one for any number of announcements), then a look
    /// at the index.
    pub(crate) fn announce(&mut self, shared: &SharedU32) {
        let one = if weakness::on(8) { 0 } else { ONE_SLEEP };
        self.word = (self.word & !MODE).wrapping_add(one) | ASLEEP;
        shared.store(self.word, Ordering::Relaxed);
    }

    /// Awake again. `fast` only if the ringer's process receives this side's fences.
    pub(crate) fn wake(&mut self, shared: &SharedU32, fast: bool) {
        self.word = (self.word & !MODE) | if fast { FAST } else { FENCED };
        // Relaxed: a ringer that sees it late rings or fences once more than needed.
        shared.store(self.word, Ordering::Relaxed);
    }
}

/// The fence between announcing something, a sleep above all, and a look at what others wrote. `everybody`: they do not fence themselves, as
/// ringers of a word in mode fast do not. False if the system refused to fence them; then a sleep must be cut short and followed by another look.
pub(crate) fn fence_before_look(everybody: bool) -> bool {
    if everybody && !cfg!(loom) {
        return crate::sys::fence_everybody();
    }
    if !weakness::on(6) {
        fence(Ordering::SeqCst);
    }
    true
}

/// The ringer's books.
#[derive(Debug)]
pub(crate) struct Watcher {
    /// The sleep that was rung for last.
    rung: u32,
    /// The model's stand-in for the fence that the sleeper runs on this side's core.
    #[cfg(loom)]
    pub(crate) fenced_by_sleeper: bool,
}

impl Watcher {
    pub(crate) fn new() -> Self {
        Self {
            rung: FENCED,
            #[cfg(loom)]
            fenced_by_sleeper: false,
        }
    }

    /// Whether to ring; to be asked after each publication.
    #[inline]
    pub(crate) fn must_ring(&mut self, shared: &SharedU32) -> bool {
        // The processor may let the look pass the publication: see the module on why the sleeper makes up for it.
        #[cfg(not(loom))]
        compiler_fence(Ordering::SeqCst);
        #[cfg(loom)]
        if self.fenced_by_sleeper && !weakness::on(7) {
            fence(Ordering::SeqCst);
        }
        // Any other mode needs the fence, also a sleep that was rung for: the next one may have been announced.
        if shared.load(Ordering::Relaxed) & MODE == FAST {
            return false;
        }
        self.must_ring_fenced(shared)
    }

    #[cold]
    fn must_ring_fenced(&mut self, shared: &SharedU32) -> bool {
        if !weakness::on(5) {
            fence(Ordering::SeqCst);
        }
        let word = shared.load(Ordering::Relaxed);
        if word & MODE != ASLEEP || word == self.rung {
            return false;
        }
        self.rung = word;
        true
    }
}

/// Whether the other side sleeps, for who has no books: it may be told so more than once. To be asked after the publication.
pub(crate) fn sleeps(shared: &SharedU32) -> bool {
    fence(Ordering::SeqCst);
    shared.load(Ordering::Relaxed) & MODE == ASLEEP
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::sync::SharedU64;
    use loom::{
        sync::{Arc, Condvar, Mutex},
        thread,
    };

    #[derive(Default)]
    struct Bell {
        rung: Mutex<u32>,
        bell: Condvar,
    }

    /// Every interleaving of two messages and a receiver that sleeps in between, in each mode: a lost wake-up is a
    /// deadlock, which the checker reports. The fence on everybody is modelled as what it does to the ringer: a fence
    /// between the publication and the look.
    fn nobody_sleeps_through_a_message(fast: bool) {
        let name = if fast { "fast" } else { "fenced" };
        weakness::check(&format!("sleep for messages, {name}"), move || {
            let shared = Arc::new((SharedU64::new(0), SharedU32::new(0), Bell::default()));
            if fast {
                shared.1.store(FAST, Ordering::Relaxed);
            }
            let theirs = shared.clone();
            let ringer = thread::spawn(move || {
                let (index, word, bell) = &*theirs;
                let mut watcher = Watcher::new();
                watcher.fenced_by_sleeper = fast;
                for value in 1..=2 {
                    index.store(value, Ordering::Release);
                    if watcher.must_ring(word) {
                        *bell.rung.lock().unwrap() += 1;
                        bell.bell.notify_one();
                    }
                }
            });
            let (index, word, bell) = &*shared;
            let mut sleeper = Sleeper::new();
            let (mut taken, mut sleeps, mut heard) = (0, 0, 0);
            while taken < 2 {
                sleeper.announce(word);
                sleeps += 1;
                fence_before_look(fast);
                let mut seen = index.load(Ordering::Acquire);
                if seen == taken {
                    let mut rung = bell.rung.lock().unwrap();
                    while *rung == heard {
                        rung = bell.bell.wait(rung).unwrap();
                    }
                    heard = *rung;
                    seen = index.load(Ordering::Acquire);
                }
                taken = seen;
                sleeper.wake(word, fast);
            }
            ringer.join().unwrap();
            assert!(
                *bell.rung.lock().unwrap() <= sleeps,
                "rung more than once per sleep"
            );
        });
    }

    #[test]
    fn a_fenced_receiver_sleeps_through_a_message() {
        nobody_sleeps_through_a_message(false);
    }

    #[test]
    fn a_fast_receiver_sleeps_through_a_message() {
        nobody_sleeps_through_a_message(true);
    }
}
