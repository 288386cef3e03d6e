//! The newest entries in memory, and what Raft asks about the log all the time: its ends and the vote.
//!
//! An entry leaves memory only when it is durable and the memory is wanted; then it is read from disk.

use std::collections::VecDeque;

use crate::wal::{Checkpoint, EntryRecord, LogPos, Record, Recovered};

/// The log as of the last call, whether on disk already or not.
#[derive(Debug)]
pub(crate) struct LogCache {
    pub(crate) state: Checkpoint,
    /// The index that the log began with; a joining manager's need not begin at 0.
    begin: u64,
    /// Consecutive, and the last one is the log's last.
    recent: VecDeque<Recent>,
    bytes: usize,
    bytes_max: usize,
    /// Counts appends; an entry may leave memory when its append is durable. Indexes would not do:
    /// after a truncation the same index is written again.
    appended: u64,
    durable: u64,
}

#[derive(Debug)]
struct Recent {
    entry: EntryRecord,
    append: u64,
}

/// An entry does not follow the log's last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} does not follow entry {last}")]
pub(crate) struct Hole {
    index: u64,
    last: u64,
}

/// What of a range is where.
#[derive(Debug, Default)]
pub(crate) struct Lookup {
    /// Indexes that only the disk has, in front of the entries.
    pub(crate) on_disk: std::ops::Range<u64>,
    pub(crate) entries: Vec<EntryRecord>,
}

impl LogCache {
    pub(crate) fn new(recovered: Recovered, bytes_max: usize) -> LogCache {
        let bytes = recovered.entries.iter().map(weight).sum();
        let recent = recovered.entries.into_iter().map(|entry| Recent { entry, append: 0 }).collect();
        let Recovered { checkpoint: state, begin, .. } = recovered;
        LogCache { state, begin, recent, bytes, bytes_max, appended: 0, durable: 0 }
    }

    /// Adds entries; returns the append's number for [`LogCache::flushed`].
    pub(crate) fn append(&mut self, entries: &[EntryRecord]) -> Result<u64, Hole> {
        self.appended += 1;
        for entry in entries {
            if let Some(last) = self.state.last
                && last.index + 1 != entry.pos.index
            {
                return Err(Hole { index: entry.pos.index, last: last.index });
            }
            if self.state.last.is_none() {
                self.begin = entry.pos.index;
            }
            self.state.last = Some(entry.pos);
            self.bytes += weight(entry);
            self.recent.push_back(Recent { entry: entry.clone(), append: self.appended });
        }
        Ok(self.appended)
    }

    /// Everything up to this append is durable.
    pub(crate) fn flushed(&mut self, append: u64) {
        self.durable = self.durable.max(append);
        while self.bytes > self.bytes_max && self.recent.front().is_some_and(|recent| recent.append <= self.durable) {
            self.drop_first();
        }
    }

    pub(crate) fn truncate_after(&mut self, after: Option<LogPos>) {
        self.state.add(&Record::TruncateAfter(after));
        let next = self.state.next_index();
        while self.recent.back().is_some_and(|recent| recent.entry.pos.index >= next) {
            if let Some(recent) = self.recent.pop_back() {
                self.bytes -= weight(&recent.entry);
            }
        }
    }

    pub(crate) fn purge(&mut self, upto: LogPos) {
        self.state.add(&Record::Purge(upto));
        while self.recent.front().is_some_and(|recent| recent.entry.pos.index <= upto.index) {
            self.drop_first();
        }
    }

    /// The entries of `from..end` that the log has. `bytes_max` limits those in memory, but to no
    /// less than one.
    pub(crate) fn lookup(&self, from: u64, end: u64, bytes_max: usize) -> Lookup {
        let first = self.state.purged.map_or(self.begin, |purged| purged.index + 1).max(from);
        let end = end.min(self.state.next_index());
        if first >= end {
            return Lookup::default();
        }
        let in_memory = self.recent.front().map_or(self.state.next_index(), |recent| recent.entry.pos.index);
        let mut lookup = Lookup { on_disk: first..in_memory.clamp(first, end), entries: Vec::new() };
        let skip = usize::try_from(first.saturating_sub(in_memory)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        for Recent { entry, .. } in self.recent.iter().skip(skip) {
            bytes += weight(entry);
            if entry.pos.index >= end || (bytes > bytes_max && !lookup.entries.is_empty()) {
                break;
            }
            lookup.entries.push(entry.clone());
        }
        lookup
    }

    fn drop_first(&mut self) {
        if let Some(recent) = self.recent.pop_front() {
            self.bytes -= weight(&recent.entry);
        }
    }
}

/// What an entry costs in memory, about.
fn weight(entry: &EntryRecord) -> usize {
    entry.payload.len() + size_of::<Recent>()
}
