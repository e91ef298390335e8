//! Who gets a message, as C writes it.

use crate::{code::Failure, handle, label::LabelOp};
use std::time::Duration;

/// How many of the matching endpoints get a message. In the header it is an `enum class` in C++ and an `int32_t` in C; a
/// number here, since C may pass any.
pub type SelectorMode = i32;

/// One of the matching endpoints: the one that joined first. `kUnicast` in the header.
pub const UNICAST: SelectorMode = 0;
/// All endpoints that match. `kMulticast` in the header.
pub const MULTICAST: SelectorMode = 1;

/// Wait for ever.
pub const TIMEOUT_INFINITE: u32 = !0;

/// Who gets a message. Plain data of the caller; the functions that take it copy what they need.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Selector {
    /// Which labels match. Stays the caller's.
    pub label_op: *const LabelOp,
    /// One or all of those that match.
    pub mode: SelectorMode,
    /// How long the message waits for somebody to match while nobody does, in milliseconds. 0: it does not.
    pub ttl: u32,
}

impl Selector {
    /// # Safety
    /// As the crate's text demands of all handles.
    pub(crate) unsafe fn read(self) -> Result<ipmb::Selector, Failure> {
        // SAFETY: the caller's contract.
        let op = unsafe { handle::get::<ipmb::LabelOp>(self.label_op)? }.clone();
        let mut selector = match self.mode {
            UNICAST => ipmb::Selector::unicast(op),
            MULTICAST => ipmb::Selector::multicast(op),
            mode => {
                return Err(Failure::argument(format!(
                    "{mode} is no SelectorMode; unicast is 0, multicast 1"
                )));
            }
        };
        selector.ttl = Duration::from_millis(self.ttl.into());
        Ok(selector)
    }
}

/// Milliseconds of the caller as a timeout.
pub(crate) fn timeout(milliseconds: u32) -> Option<Duration> {
    (milliseconds != TIMEOUT_INFINITE).then(|| Duration::from_millis(milliseconds.into()))
}
