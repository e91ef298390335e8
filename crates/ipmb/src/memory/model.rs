//! Counting and using again, for the model checker: a registry decides while others clone, send, receive, drop and die.
//!
//! The registry's decisions are the real ones ([`Shelf`]). Modelled is what is below it, `sys::Held` and the kernel, each
//! system call one step: a handle is an open description with a lock on it; a description ends, and its lock with it, when
//! the last descriptor of it is closed; what lies in a socket is a descriptor. Not modelled: mappings, seals, the choice of a
//! byte to lock (no two collide), raw descriptors that a program takes out, which are outside the count, and memory orders,
//! since the kernel's calls are ordered by its own locks.

use super::shelf::{Counted, Shelf};
use crate::{sync::Mutex, weakness};
use loom::{sync::Arc, thread};
use std::{cell::Cell, io, rc::Rc, time::Instant};

/// One memory, as the kernel has it.
#[derive(Default)]
struct Kernel {
    /// Per description: how many descriptors there are of it, and whether it holds a lock.
    descriptions: Vec<(u32, bool)>,
    /// Descriptions that lie in a socket.
    socket: Vec<usize>,
    /// What the kernel does not know: handles that somebody other than the registry may use, or get out of the socket.
    users: u32,
}

struct Handle {
    kernel: Arc<Mutex<Kernel>>,
    description: usize,
    given: bool,
    /// It counts as one of the users.
    used: bool,
}

impl Handle {
    fn open(kernel: &Arc<Mutex<Kernel>>) -> Self {
        let description = {
            let mut kernel = kernel.lock().unwrap();
            kernel.descriptions.push((1, false));
            kernel.descriptions.len() - 1
        };
        let handle = Self {
            kernel: kernel.clone(),
            description,
            given: false,
            used: false,
        };
        if !weakness::on(12) {
            handle.kernel.lock().unwrap().descriptions[description].1 = true;
        }
        handle
    }

    /// From now on somebody other than the registry may use it.
    fn out(mut self) -> Self {
        self.kernel.lock().unwrap().users += 1;
        self.used = true;
        self
    }

    /// Puts it into the socket, as a sender that keeps it until it knows that it was sent.
    fn send(mut self) {
        {
            let mut kernel = self.kernel.lock().unwrap();
            let description = self.description;
            kernel.descriptions[description].0 += 1;
            kernel.socket.push(description);
            // It may be used by whoever takes it out, so the number of users stays.
            self.used = false;
        }
        self.given = !weakness::on(13);
    }

    /// Takes one out of the socket.
    fn receive(kernel: &Arc<Mutex<Kernel>>) -> Option<Self> {
        let description = kernel.lock().unwrap().socket.pop()?;
        Some(Self {
            kernel: kernel.clone(),
            description,
            given: false,
            used: true,
        })
    }

    fn close(&self) {
        let mut kernel = self.kernel.lock().unwrap();
        let (descriptors, locked) = &mut kernel.descriptions[self.description];
        *descriptors -= 1;
        *locked &= *descriptors > 0;
    }

    /// As when the holder's process is killed.
    fn killed(mut self) {
        if std::mem::take(&mut self.used) {
            self.kernel.lock().unwrap().users -= 1;
        }
        self.given = true;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The checker has stopped.
        if std::thread::panicking() {
            return;
        }
        if self.used {
            self.kernel.lock().unwrap().users -= 1;
        }
        if !self.given {
            self.kernel.lock().unwrap().descriptions[self.description].1 = false;
        }
        self.close();
    }
}

impl Counted for Handle {
    fn another(&self) -> io::Result<Self> {
        Ok(Self::open(&self.kernel))
    }

    fn has_others(&self) -> io::Result<bool> {
        let kernel = self.kernel.lock().unwrap();
        let mut others = kernel.descriptions.iter().enumerate();
        Ok(others.any(|(i, (_, locked))| *locked && i != self.description))
    }

    fn is_reusable(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn forked(&self) -> bool {
        false
    }

    fn size(&self) -> u64 {
        4096
    }
}

/// A registry that looks so many times while others do what they do with the region that it gave out.
fn what_is_held_is_not_given_out(name: &str, others: &'static [fn(&Arc<Mutex<Kernel>>, Handle)]) {
    weakness::check(&format!("registry, {name}"), move || {
        let kernel = Arc::new(Mutex::new(Kernel::default()));
        let now = Instant::now();
        let mut shelf = Shelf::default();
        let kept = Handle::open(&kernel);
        let freed = Rc::new(Cell::new(0));
        let threads: Vec<_> = {
            let count = freed.clone();
            let given: Vec<_> = others
                .iter()
                .map(|_| kept.another().unwrap().out())
                .collect();
            shelf.add(
                kept,
                None,
                Some(Box::new(move || count.set(count.get() + 1))),
                now,
            );
            let each = others.iter().zip(given);
            each.map(|(what, handle)| {
                let kernel = kernel.clone();
                thread::spawn(move || what(&kernel, handle))
            })
            .collect()
        };
        let look = |shelf: &mut Shelf<Handle>| {
            shelf.sweep(now);
            shelf.call_freed();
            let region = shelf.reuse(4096, None, now).map(|(region, _)| region);
            if region.is_some() {
                assert_eq!(
                    kernel.lock().unwrap().users,
                    0,
                    "given out while somebody holds it"
                );
                assert_eq!(freed.get(), 1, "given out before it was freed");
            }
            region
        };
        let early = look(&mut shelf).or_else(|| look(&mut shelf));
        for thread in threads {
            thread.join().unwrap();
        }
        // Whatever lay in the socket is closed with it.
        while let Some(unread) = Handle::receive(&kernel) {
            unread.killed();
        }
        assert!(
            early.is_some() || look(&mut shelf).is_some(),
            "never given out again"
        );
        assert_eq!(freed.get(), 1, "freed once");
    });
}

#[test]
fn a_region_is_given_out_while_it_is_cloned() {
    what_is_held_is_not_given_out(
        "a clone that outlives its original",
        &[|_, handle| {
            let clone = handle.another().unwrap().out();
            drop(handle);
            drop(clone);
        }],
    );
}

#[test]
fn a_region_is_given_out_while_it_is_under_way() {
    what_is_held_is_not_given_out(
        "a sender and a receiver",
        &[
            |_, handle| handle.send(),
            |kernel, handle| {
                drop(handle);
                if let Some(got) = Handle::receive(kernel) {
                    drop(got);
                }
            },
        ],
    );
}

#[test]
fn a_region_of_a_killed_holder_is_never_given_out_again_or_too_early() {
    what_is_held_is_not_given_out(
        "a holder that clones, sends and is killed",
        &[|kernel, handle| {
            let clone = handle.another().unwrap().out();
            handle.send();
            clone.killed();
            if let Some(got) = Handle::receive(kernel) {
                got.killed();
            }
        }],
    );
}
