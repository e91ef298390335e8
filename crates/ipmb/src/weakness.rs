//! One deliberate weakness per ordering, fence and step that the models rely on, to see that a model would notice one. Built
//! in for the model checker and for ThreadSanitizer only; the environment variable `IPMB_WEAKNESS` then says by number which
//! one is on. `.ci/models` tries them all.

use crate::sync::Ordering;

/// Whether a weakness is on.
#[cfg(any(loom, tsan))]
pub(crate) fn on(number: u8) -> bool {
    static ON: std::sync::OnceLock<Option<u8>> = std::sync::OnceLock::new();
    let asked = || std::env::var("IPMB_WEAKNESS").ok()?.parse().ok();
    *ON.get_or_init(asked) == Some(number)
}

#[cfg(not(any(loom, tsan)))]
#[inline(always)]
pub(crate) const fn on(_number: u8) -> bool {
    false
}

/// The ordering, or none at all where the weakness is on.
#[cfg(any(loom, tsan))]
pub(crate) fn ordering(number: u8, strong: Ordering) -> Ordering {
    if on(number) {
        Ordering::Relaxed
    } else {
        strong
    }
}

#[cfg(not(any(loom, tsan)))]
#[inline(always)]
pub(crate) const fn ordering(_number: u8, strong: Ordering) -> Ordering {
    strong
}

/// Checks every interleaving of a model, and says how many there are.
#[cfg(all(test, loom))]
pub(crate) fn check(name: &str, body: impl Fn() + Send + Sync + 'static) {
    use crate::sync::process::{AtomicU64, Ordering};
    let count = std::sync::Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    loom::model(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        body();
    });
    println!(
        "MODEL {name}: {} interleavings",
        count.load(Ordering::Relaxed)
    );
}
