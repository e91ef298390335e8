//! What a registry decides: which of its regions nobody uses any more, which it gives out again, which it lets go.
//!
//! It decides by what the kernel counts, and other processes go on meanwhile; the model in `model.rs` checks that it never
//! gives out what somebody else holds. So it knows a region by a trait only.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

/// How long a region that nobody uses is kept.
pub(super) const KEEP: Duration = Duration::from_secs(5);
/// A region this small is never too big for a request.
const SMALL: usize = 64 << 10;

pub(super) type Free = Box<dyn FnOnce()>;

/// A region whose holders are counted.
pub(super) trait Counted: Sized {
    /// One more handle.
    fn another(&self) -> io::Result<Self>;
    /// Whether there is any other handle, in any process or under way.
    fn has_others(&self) -> io::Result<bool>;
    /// Whether it may be given out again, provided that nobody else holds it.
    fn is_reusable(&self) -> io::Result<bool>;
    /// Whether this process is a forked child of the one that holds it.
    fn forked(&self) -> bool;
    fn size(&self) -> u64;
}

/// The regions of a registry, in no order.
pub(super) struct Shelf<R> {
    entries: Vec<Entry<R>>,
    /// To be called; a queue, so that a panic in one loses none of the others.
    freed: VecDeque<Free>,
}

struct Entry<R> {
    region: R,
    tag: Option<Box<str>>,
    /// Whether it was given out and not seen free since.
    lent: bool,
    /// When it was given out or last seen in use.
    used: Instant,
    free: Option<Free>,
}

impl<R> Default for Shelf<R> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            freed: VecDeque::new(),
        }
    }
}

impl<R: Counted> Shelf<R> {
    /// Takes in a region of which one more handle was given out.
    pub(super) fn add(&mut self, region: R, tag: Option<&str>, free: Option<Free>, now: Instant) {
        self.entries.push(Entry {
            region,
            tag: tag.map(Into::into),
            lent: true,
            used: now,
            free,
        });
    }

    /// Gives out the smallest idle region that fits, with the place for what is to be called when it is free again.
    pub(super) fn reuse(
        &mut self,
        min_size: usize,
        tag: Option<&str>,
        now: Instant,
    ) -> Option<(R, &mut Option<Free>)> {
        let sizes = min_size as u64..=(min_size.saturating_mul(2).max(SMALL)) as u64;
        let entry = self
            .entries
            .iter_mut()
            .filter(|entry| {
                !entry.lent && entry.tag.as_deref() == tag && sizes.contains(&entry.region.size())
            })
            .min_by_key(|entry| entry.region.size())?;
        // A descriptor that was taken out may have become a handle again meanwhile.
        if entry.region.has_others().unwrap_or(true) {
            return None;
        }
        let region = entry.region.another().ok()?;
        entry.lent = true;
        entry.used = now;
        Some((region, &mut entry.free))
    }

    /// Finds what became free and lets go of what is not worth keeping.
    pub(super) fn sweep(&mut self, now: Instant) {
        let freed = &mut self.freed;
        if self
            .entries
            .first()
            .is_some_and(|entry| entry.region.forked())
        {
            // In a forked child. The regions and the calls are the parent's.
            self.entries.clear();
            freed.clear();
        }
        self.entries.retain_mut(|entry| {
            if entry.lent {
                if entry.region.has_others().unwrap_or(true) {
                    entry.used = now;
                    return true;
                }
                entry.lent = false;
                freed.extend(entry.free.take());
                if !entry.region.is_reusable().unwrap_or(false) {
                    return false;
                }
            }
            now.saturating_duration_since(entry.used) < KEEP
        });
    }

    pub(super) fn call_freed(&mut self) {
        while let Some(free) = self.freed.pop_front() {
            free();
        }
    }

    /// Lets go of everything, whoever holds it; what is to be called is due, unless it is the parent's.
    pub(super) fn clear(&mut self) {
        for mut entry in std::mem::take(&mut self.entries) {
            if entry.region.forked() {
                self.freed.clear();
                return;
            }
            self.freed.extend(entry.free.take());
        }
    }

    /// What is due to be called next.
    pub(super) fn next_freed(&mut self) -> Option<Free> {
        self.freed.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn lent(&self) -> usize {
        self.entries.iter().filter(|entry| entry.lent).count()
    }
}
