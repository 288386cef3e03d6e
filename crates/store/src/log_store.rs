//! Raft's log: openraft's traits on the write-ahead log, with the newest entries in memory.
//!
//! Appends return when the entries can be read and call back when they are durable, so that openraft
//! goes on while the disk works. Only the vote waits.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::oneshot;

use crate::log_cache::{LogCache, Lookup};
use crate::raft::{Entry, LogId, Types, Voted, ballot_of, entry_of, log_id_of, pos_of, record_of, vote_of};
use crate::wal::{Checkpoint, Completion, EntryRecord, PayloadKind, Record, Wal, WalError, WalHalted, WalOptions};

/// What one read for a follower returns at most, in bytes.
const READ_BYTES: usize = 2 << 20;

/// A handle to the log. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
}

struct Shared {
    wal: Wal,
    cache: Mutex<LogCache>,
    has_proposals: AtomicBool,
}

/// The log's own doing, found at open.
#[derive(Debug)]
pub(crate) struct LogFound {
    /// An interrupted write that was dropped: segment and offset.
    pub(crate) torn: Option<(PathBuf, u64)>,
    /// The last purged index.
    pub(crate) purged: Option<u64>,
    /// Bytes that the log's segments hold.
    pub(crate) bytes: u64,
}

impl LogStore {
    /// Opens the log. Blocking.
    pub(crate) fn open(options: WalOptions) -> Result<(LogStore, LogFound), WalError> {
        let bytes_max = options.keep_bytes;
        let dir = options.dir.clone();
        let (wal, mut recovered) = Wal::open(options)?;
        let found = LogFound {
            torn: recovered.torn.take().map(|(name, offset)| (dir.join(name), offset)),
            purged: recovered.checkpoint.purged.map(|purged| purged.index),
            bytes: recovered.bytes,
        };
        let has_proposals = AtomicBool::new(recovered.has_proposals);
        let cache = Mutex::new(LogCache::new(recovered, bytes_max));
        Ok((LogStore { shared: Arc::new(Shared { wal, cache, has_proposals }) }, found))
    }

    /// Whether a proposal was ever logged here.
    pub(crate) fn has_proposals(&self) -> bool {
        self.shared.has_proposals.load(Ordering::Relaxed)
    }

    /// The last entry that the log has, or had before it was purged.
    pub(crate) fn last(&self) -> Option<LogId> {
        let state = self.cache().state;
        state.last.max(state.purged).as_ref().map(log_id_of)
    }

    pub(crate) fn wal(&self) -> &Wal {
        &self.shared.wal
    }

    /// Vote, committed, purged and last place.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        self.cache().state
    }

    /// Every entry from `from` on, read from disk. Blocking.
    pub(crate) fn read_to_end(&self, from: u64) -> io::Result<Vec<EntryRecord>> {
        let Lookup { on_disk, entries } = self.cache().lookup(from, u64::MAX, usize::MAX);
        let mut records = self.read_disk(on_disk.start, on_disk.end, Limit::None)?;
        records.extend(entries);
        Ok(records)
    }

    fn cache(&self) -> MutexGuard<'_, LogCache> {
        self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries of `from..end` that the log has; all of them, or the first ones by size.
    async fn read(&self, from: u64, end: u64, limit: Limit) -> io::Result<Vec<Entry>> {
        let bytes_max = match limit {
            Limit::None => usize::MAX,
            Limit::ReadBytes => READ_BYTES,
        };
        let Lookup { on_disk, entries } = self.cache().lookup(from, end, bytes_max);
        if on_disk.is_empty() {
            return entries.iter().map(entry_of).collect();
        }
        let store = self.clone();
        let mut records = tokio::task::spawn_blocking(move || store.read_disk(on_disk.start, on_disk.end, limit))
            .await
            .map_err(io::Error::other)??;
        if matches!(limit, Limit::None) {
            records.extend(entries);
        }
        records.iter().map(entry_of).collect()
    }

    fn read_disk(&self, from: u64, end: u64, limit: Limit) -> io::Result<Vec<EntryRecord>> {
        let mut records = Vec::new();
        let mut next = from;
        while next < end {
            let read = self.shared.wal.read_from(next).map_err(io::Error::other)?;
            let Some(last) = read.last() else {
                let purged = self.cache().state.purged.map_or(0, |purged| purged.index + 1);
                if purged <= next {
                    return Err(io::Error::other(format!("entry {next} is neither in memory nor on disk")));
                }
                next = purged;
                continue;
            };
            next = last.pos.index + 1;
            records.extend(read.into_iter().filter(|entry| entry.pos.index < end));
            if matches!(limit, Limit::ReadBytes) {
                break;
            }
        }
        Ok(records)
    }
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    None,
    ReadBytes,
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, end, Limit::None).await
    }

    async fn read_vote(&mut self) -> Result<Option<Voted>, io::Error> {
        Ok(self.cache().state.vote.as_ref().map(vote_of))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, Limit::ReadBytes).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let state = self.cache().state;
        Ok(LogState {
            last_purged_log_id: state.purged.as_ref().map(log_id_of),
            last_log_id: state.last.as_ref().map(log_id_of),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Voted) -> Result<(), io::Error> {
        let ballot = ballot_of(vote);
        let (done, durable) = oneshot::channel();
        {
            let mut cache = self.cache();
            cache.state.vote = Some(ballot);
            // Nobody may be waiting any more when openraft shuts down.
            let done: Completion = Box::new(move |result| drop(done.send(result)));
            self.shared.wal.append(vec![Record::Vote(ballot)], done);
        }
        durable.await.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let committed = committed.as_ref().map(pos_of);
        self.cache().state.committed = committed;
        if let Some(committed) = committed {
            self.shared.wal.note_committed(committed);
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.cache().state.committed.as_ref().map(log_id_of))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<EntryRecord> = entries.into_iter().map(record_of).collect();
        if entries.iter().any(|entry| entry.kind == PayloadKind::Normal) {
            self.shared.has_proposals.store(true, Ordering::Relaxed);
        }
        // Held over both, so that memory and disk see the same order.
        let mut cache = self.cache();
        let append = cache.append(&entries).map_err(io::Error::other)?;
        let shared = Arc::downgrade(&self.shared);
        let done = move |result: Result<(), WalHalted>| {
            if result.is_ok()
                && let Some(shared) = shared.upgrade()
            {
                shared.cache.lock().unwrap_or_else(PoisonError::into_inner).flushed(append);
            }
            callback.io_completed(result.map_err(io::Error::other));
        };
        self.shared.wal.append(entries.into_iter().map(Record::Entry).collect(), Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let after = last_log_id.as_ref().map(pos_of);
        let mut cache = self.cache();
        cache.truncate_after(after);
        self.shared.wal.append(vec![Record::TruncateAfter(after)], Box::new(drop));
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let upto = pos_of(&log_id);
        let mut cache = self.cache();
        cache.purge(upto);
        self.shared.wal.append(vec![Record::Purge(upto)], Box::new(drop));
        Ok(())
    }
}
