//! The sender's books of what becomes of its records when their receiver dies.

use crate::LabelOp;
use std::{collections::VecDeque, ptr, sync::Arc, time::Instant};

/// Who else may get a unicast message when its link's receiver dies before it took it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub label_op: LabelOp,
}

/// Records one after the other that have the same origin, type and deadline.
#[derive(Debug)]
pub(super) struct Run {
    /// Index after the last of them.
    pub(super) end: u64,
    pub(super) uuid: [u8; 16],
    pub(super) origin: Option<Arc<Origin>>,
    pub(super) deadline: Option<Instant>,
}

impl Run {
    /// Whether a message would be one of the run.
    #[inline]
    pub(super) fn covers(
        &self,
        uuid: &[u8; 16],
        origin: Option<&Arc<Origin>>,
        deadline: Option<Instant>,
    ) -> bool {
        let origin = origin.map_or(ptr::null(), Arc::as_ptr);
        let ours = self.origin.as_ref().map_or(ptr::null(), Arc::as_ptr);
        self.uuid == *uuid && ours == origin && self.deadline == deadline
    }
}

/// The run of the last record, and those before it of which something may be untaken.
#[derive(Debug, Default)]
pub(super) struct Runs {
    pub(super) last: Option<Run>,
    before: VecDeque<Run>,
}

impl Runs {
    /// Begins a run.
    pub(super) fn begin(&mut self, run: Run) {
        self.before.extend(self.last.replace(run));
    }

    /// What was taken long ago piles up where nobody looks how far the receiver is.
    pub(super) fn are_many(&self) -> bool {
        self.before.len() > 64
    }

    /// The receiver has given back what lies before `head`.
    #[inline]
    pub(super) fn passed(&mut self, head: u64) {
        let is_passed = |run: &Run| head.wrapping_sub(run.end) as i64 >= 0;
        while self.before.front().is_some_and(is_passed) {
            self.before.pop_front();
        }
    }

    /// The origins of those from `head` on.
    pub(super) fn origins(&self, head: u64) -> impl Iterator<Item = &Arc<Origin>> {
        let untaken = move |run: &&Run| run.end.wrapping_sub(head) as i64 > 0;
        let runs = self.before.iter().chain(&self.last);
        runs.filter(untaken).filter_map(|run| run.origin.as_ref())
    }

    /// No more follow.
    pub(super) fn end(&mut self) {
        self.before.extend(self.last.take());
    }

    /// The first, after [`Runs::end`].
    pub(super) fn first(&self) -> Option<&Run> {
        self.before.front()
    }
}
