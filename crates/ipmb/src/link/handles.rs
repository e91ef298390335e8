//! The sender's books of the handles that it sends ahead of their records.

use super::side;
use crate::sys::{self, BorrowedHandle, Channel, Kept};
use std::{collections::VecDeque, io};

/// Handles under way on one link; a single message may have more. The kernel counts them per user.
const UNDER_WAY_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Handles {
    /// Records with handles that the receiver has not passed: their ends, how many handles, and what keeps those alive.
    records: VecDeque<(u64, usize, Kept)>,
    under_way: usize,
    /// Of the handles that were sent ahead of the next record.
    kept: Kept,
    count: usize,
    number: u64,
}

impl Handles {
    /// Whether so many more may be under way now.
    pub(super) fn may_send(&self, count: usize) -> bool {
        self.under_way == 0 || self.under_way + count <= UNDER_WAY_MAX
    }

    /// Sends the handles of the next record: a block's memory, then objects and regions.
    pub(super) fn send(
        &mut self,
        side: &Channel,
        memory: Option<BorrowedHandle<'_>>,
        handles: &[BorrowedHandle<'_>],
    ) -> io::Result<()> {
        self.kept = sys::keep(memory, handles)?;
        self.count = handles.len() + usize::from(memory.is_some());
        self.number += 1;
        side::send(side, self.number, memory, handles)
    }

    /// The number of the last ones that were sent, by which their record refers to them.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Their record ends at `end`.
    pub(super) fn recorded(&mut self, end: u64) {
        let kept = std::mem::take(&mut self.kept);
        self.records.push_back((end, self.count, kept));
        self.under_way += self.count;
    }

    /// The receiver has passed what ends where `passed` is true.
    #[inline]
    pub(super) fn passed(&mut self, passed: impl Fn(u64) -> bool) {
        while let Some((end, count, _)) = self.records.front()
            && passed(*end)
        {
            self.under_way -= count;
            self.records.pop_front();
        }
    }
}
