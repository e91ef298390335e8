//! One deliberate fault per promise of the bus, to see that the promise's test would notice one. Built in with `--cfg fault`
//! only; the environment variable `IPMB_FAULT` then says by number which one is on. `.ci/promises` tries them all.

/// Whether the fault of a promise is on.
#[cfg(fault)]
pub(crate) fn on(promise: u8) -> bool {
    static ON: std::sync::OnceLock<Option<u8>> = std::sync::OnceLock::new();
    let asked = || std::env::var("IPMB_FAULT").ok()?.parse().ok();
    *ON.get_or_init(asked) == Some(promise)
}

#[cfg(not(fault))]
#[inline(always)]
pub(crate) const fn on(_promise: u8) -> bool {
    false
}
