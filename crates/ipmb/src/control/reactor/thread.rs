//! The serving thread's life: it starts with the first endpoint of the process and ends with the last, and so does the
//! thread that closes what others handed over.

use super::{COMMANDS, Reactor, Wires, orders::Command};
use crate::sys::{self, Interest, Ringer, WaitSet};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

/// What the serving thread and those who give it orders share.
pub(super) struct Shared {
    pub(super) commands: Mutex<Vec<Command>>,
    pub(super) ringer: Ringer,
    pub(super) next: crate::sync::AtomicU64,
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
    pub(super) generation: u32,
}

impl Shared {
    pub(super) fn command(&self, command: Command) {
        self.commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(command);
        self.ringer.ring();
    }
}

/// Keeps the serving thread alive; the last one ends it.
pub(super) struct Lease(
    pub(super) Arc<Shared>,
    /// Ends after the serving thread, which leaves it the last descriptors. Held for its drop.
    #[allow(dead_code)]
    sys::Closing,
);

impl Drop for Lease {
    fn drop(&mut self) {
        if sys::forked_since(self.0.generation) {
            // Its thread's handle is not dropped in the child: that detaches a thread, by a number that one of the child's
            // own may have by now. Not taken out instead: the lock may have been held when the parent forked.
            std::mem::forget(self.0.clone());
            return;
        }
        self.0.command(Command::Stop);
        let thread = self
            .0
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

static RUNNING: Mutex<Option<std::sync::Weak<Lease>>> = Mutex::new(None);

pub(super) fn lease() -> io::Result<Arc<Lease>> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(lease) = running.as_ref().and_then(std::sync::Weak::upgrade)
        && !sys::forked_since(lease.0.generation)
    {
        return Ok(lease);
    }
    // At once while the process has one thread; later it takes the kernel some milliseconds.
    sys::fences_reach_us();
    let set = WaitSet::new()?;
    let ringer = Ringer::local()?;
    set.add(&ringer, COMMANDS, Interest::Arrivals)?;
    let shared = Arc::new(Shared {
        commands: Mutex::new(Vec::new()),
        ringer,
        next: crate::sync::AtomicU64::new(1),
        thread: Mutex::new(None),
        generation: sys::generation(),
    });
    let reactor = Reactor {
        shared: shared.clone(),
        wires: Wires { set, next: 1 },
        members: HashMap::new(),
        controllers: HashMap::new(),
        sources: HashMap::new(),
        stop: false,
    };
    // Before the other: when this one cannot be made, that one need not be ended.
    let closing = sys::Closing::start()?;
    let thread = sys::spawn("ipmb", move || reactor.run())?;
    *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    let lease = Arc::new(Lease(shared, closing));
    *running = Some(Arc::downgrade(&lease));
    Ok(lease)
}
