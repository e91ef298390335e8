//! The asymmetric fence: a full fence on every running thread of the processes that asked for it, paid by the caller
//! alone. See membarrier(2), `MEMBARRIER_CMD_GLOBAL_EXPEDITED`.

use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};
use std::sync::OnceLock;

/// Makes the fences of others reach the threads of this process. Whether it does is the same for the process's life.
pub(crate) fn fences_reach_us() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| {
        let supported = call!(membarrier_query());
        supported.contains(rustix::thread::MembarrierQuery::GLOBAL_EXPEDITED)
            && call!(membarrier(MembarrierCommand::RegisterGlobalExpedited)).is_ok()
    })
}

/// A full fence on all running threads of all processes whose [`fences_reach_us`] is true; on this one in any case.
/// False when the system refused it: then only this thread was fenced.
pub(crate) fn fence_everybody() -> bool {
    crate::sync::fence(crate::sync::Ordering::SeqCst);
    call!(membarrier(MembarrierCommand::GlobalExpedited)).is_ok()
}
