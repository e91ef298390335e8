//! Closing what may wait for that. The last close of a descriptor can take as long as another process likes: of a TCP socket
//! that lingers (socket(7), `SO_LINGER`), of a socket in whose queue such a one lies, of a file of a file system in user
//! space. The last right to send to a port of such a thing closes it, too. So what others handed over and nobody asked for is closed by
//! a thread that has nothing else to do. On Linux sockets
//! never keep it (`leaving`); what remains is a file whose file system does not answer, and no system lets a thread out of that.
//!
//! The thread is made with the serving thread, and not when it is first needed: a sandbox that was entered meanwhile may
//! not let a thread be made, and kill the process for trying. (What `leaving` makes for sockets has to be made then; SECURITY.md
//! lists the calls that it takes.) It sleeps until there is something. While it waits in a
//! close, what comes after stays open; its number is bounded by the process's table of descriptors.
//!
//! A forked child has neither the thread nor the descriptors, and its own once it joins.

#[cfg(target_os = "linux")]
use super::leaving::close;
use super::{
    fork::{Fd, forked_since, generation},
    thread::spawn,
};
use crate::sync::process::{AtomicBool, AtomicPtr, Ordering};
use rustix::fd::OwnedFd;
use std::{
    io, ptr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

#[cfg(not(target_os = "linux"))]
fn close(descriptors: Vec<Fd>) {
    drop(descriptors);
}

/// How long the end of the last endpoint waits for a close that waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the closing thread of a process and those who need it share. Made once per process, and never freed.
struct Closer {
    generation: u32,
    work: Mutex<Work>,
    /// There is something to do.
    news: Condvar,
    /// A thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Work {
    waste: Waste,
    /// Threads that are there to stay.
    threads: usize,
}

/// What is to go.
#[derive(Default)]
struct Waste {
    descriptors: Vec<Fd>,
    /// What else may wait when it is dropped.
    others: Vec<Box<dyn Send>>,
}

impl Waste {
    fn is_empty(&self) -> bool {
        self.descriptors.is_empty() && self.others.is_empty()
    }

    /// Closes and drops all of it.
    fn go(self) {
        close(self.descriptors);
        drop(self.others);
    }

    /// Leaves it to the thread. If there is none it goes here.
    fn leave(self) {
        let Some(closer) = closer() else {
            return drop(self);
        };
        let mut work = closer.work();
        if work.threads == 0 {
            drop(work);
            return drop(self);
        }
        work.waste.descriptors.extend(self.descriptors);
        work.waste.others.extend(self.others);
        drop(work);
        closer.news.notify_one();
    }
}

impl Closer {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes what comes until it is told to end and nothing is left.
    fn run(&self, end: &AtomicBool) {
        let mut work = self.work();
        loop {
            let waste = std::mem::take(&mut work.waste);
            if !waste.is_empty() {
                drop(work);
                waste.go();
                work = self.work();
            // Relaxed: it is set under the lock.
            } else if end.load(Ordering::Relaxed) {
                return;
            } else {
                work = self.news.wait(work).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// The one of this process. Another generation's is that of the parent, in which a thread may have held the lock when it forked.
static CLOSER: AtomicPtr<Closer> = AtomicPtr::new(ptr::null_mut());

fn closer() -> Option<&'static Closer> {
    // SAFETY: null or a leaked box that was published with Release.
    let closer = unsafe { CLOSER.load(Ordering::Acquire).as_ref() }?;
    (!forked_since(closer.generation)).then_some(closer)
}

fn closer_or_new() -> &'static Closer {
    let known = CLOSER.load(Ordering::Acquire);
    if let Some(closer) = closer() {
        return closer;
    }
    let fresh = Box::into_raw(Box::new(Closer {
        generation: generation(),
        work: Mutex::default(),
        news: Condvar::new(),
        ended: Condvar::new(),
    }));
    match CLOSER.compare_exchange(known, fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: just published, thus leaked.
        Ok(_) => unsafe { &*fresh },
        Err(other) => {
            // SAFETY: `fresh` came from `Box::into_raw` just now and was not published.
            drop(unsafe { Box::from_raw(fresh) });
            // SAFETY: published, thus leaked; never null again once it was not.
            unsafe { &*other }
        }
    }
}

/// Keeps the closing thread. Its drop waits until all is closed, but no longer than a second: a thread that waits in a close
/// ends when that is over.
pub(crate) struct Closing {
    closer: &'static Closer,
    end: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Closing {
    pub(crate) fn start() -> io::Result<Self> {
        let closer = closer_or_new();
        let end = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicBool::new(false));
        let theirs = (end.clone(), done.clone());
        let thread = spawn("ipmb-close", move || {
            closer.run(&theirs.0);
            let _work = closer.work();
            // Relaxed: under the lock.
            theirs.1.store(true, Ordering::Relaxed);
            closer.ended.notify_all();
        })?;
        closer.work().threads += 1;
        Ok(Self {
            closer,
            end,
            done,
            thread: Some(thread),
        })
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if forked_since(self.closer.generation) {
            // To drop it is to detach a thread, by a number that one of the child's own may have by now.
            std::mem::forget(self.thread.take());
            return;
        }
        let mut work = self.closer.work();
        work.threads -= 1;
        // Relaxed: under the lock, as are the loads.
        self.end.store(true, Ordering::Relaxed);
        self.closer.news.notify_all();
        let ended = &self.closer.ended;
        let waited =
            ended.wait_timeout_while(work, PATIENCE, |_| !self.done.load(Ordering::Relaxed));
        let (work, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(work);
        match self.thread.take() {
            Some(thread) if !waited.timed_out() => drop(thread.join()),
            _ => log::warn!("a descriptor that another process handed over waits to be closed"),
        }
    }
}

/// Closes descriptors that came from others, which may take any time, without waiting for it. Without an endpoint in this
/// process there is no thread that does, and nobody else who would wait: then they are closed here.
pub(crate) fn dispose(descriptors: Vec<OwnedFd>) {
    // The table first: a fork from here on closes them in the child.
    dispose_owned(descriptors.into_iter().map(Fd::new));
}

/// The same for those that are the library's own by now.
pub(crate) fn dispose_owned(descriptors: impl IntoIterator<Item = Fd>) {
    let waste = Waste {
        descriptors: descriptors.into_iter().collect(),
        ..Waste::default()
    };
    waste.leave();
}

/// The same for what is no descriptor, and may wait as well when it is dropped.
#[cfg(any(target_os = "macos", test))]
pub(crate) fn drop_elsewhere(others: Vec<Box<dyn Send>>) {
    let waste = Waste {
        others,
        ..Waste::default()
    };
    waste.leave();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Waits when it is dropped, as a lingering socket does when it is closed.
    struct Slow(Sender<Option<String>>, Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            let name = std::thread::current().name().map(str::to_owned);
            self.0.send(name).unwrap();
            let _ = self.1.recv_timeout(Duration::from_secs(10));
        }
    }

    #[test]
    fn who_gives_something_up_waits_for_its_end() {
        let closing = Closing::start().unwrap();
        let (dropping, dropped) = channel();
        let (go_on, end) = channel();
        drop_elsewhere(vec![Box::new(Slow(dropping, end))]);
        // Here already, although it has not ended.
        assert_eq!(dropped.recv().unwrap().as_deref(), Some("ipmb-close"));
        go_on.send(()).unwrap();
        drop(closing);
    }
}
