//! The write-ahead log: numbered records in segment files, written by one thread, durable when it
//! says so.
//!
//! ```text
//! log store --append--> queue --> writer thread: drain, seal into a frame, one pwrite, one fdatasync,
//!                                 then the callbacks in order
//! ```
//! It knows places, votes and opaque payloads; what an entry means is not its business, nor is
//! keeping recent entries in memory (`log_store`). An idle log writes nothing.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

pub mod disk;
mod format;
mod frames;
#[cfg(test)]
mod golden;
mod record;
mod recover;
mod segment;
mod spare;
mod writer;

pub use disk::{Disk, DiskFile, RealDisk};
pub use record::{Ballot, Checkpoint, EntryRecord, LogPos, PayloadKind, Record};
pub use recover::Recovered;
pub use writer::WalMetrics;

use crate::key::{DataKey, NoRandomness};
use format::FormatError;
use frames::FrameIndex;
use writer::{Counters, Op, Writer};

/// Bytes of a segment unless configured: the allocation unit of most SD cards.
pub const SEGMENT_BYTES: u64 = 4 << 20;

/// Called once when the records it came with are durable, or never will be.
pub type Completion = Box<dyn FnOnce(Result<(), WalHalted>) + Send>;

/// How to open a log.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// The folder; it holds nothing else.
    pub dir: PathBuf,
    /// The file operations.
    pub disk: Arc<dyn Disk>,
    /// What everything is encrypted with.
    pub key: DataKey,
    /// Whose log it is: the manager's Raft id.
    pub node: u64,
    /// Bytes of a segment file; a multiple of 4096, at least 16 KiB.
    pub segment_bytes: u64,
    /// Bytes of payload to hand back at open.
    pub keep_bytes: usize,
    /// The folder's lock, held until the writer has ended.
    pub lock: Option<Arc<File>>,
}

/// The log cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// A file operation failed.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Bytes that were once written and acknowledged do not read.
    #[error(
        "the Raft log is damaged: `{path}`, byte {offset}: {detail}; \
         put the folder back from a copy, or remove this manager's whole raft folder and let it join \
         the cluster again (removing single files loses acknowledged writes)"
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        detail: String,
    },
    /// A segment that the log still needs is not there.
    #[error(
        "the Raft log is incomplete: `{path}` is missing; put it back from a copy, or remove this \
         manager's whole raft folder and let it join the cluster again"
    )]
    MissingSegment {
        /// The file that should be there.
        path: PathBuf,
    },
    /// Encrypted with another key.
    #[error("`{path}` is encrypted with key {found}, and the key given is {given}")]
    WrongKey {
        /// The segment.
        path: PathBuf,
        /// The key's id in the file.
        found: String,
        /// The id of the key that was given.
        given: String,
    },
    /// Another manager's log.
    #[error("`{path}` is the log of manager {found}, and this is manager {given}")]
    WrongNode {
        /// The segment.
        path: PathBuf,
        /// The Raft id in the file.
        found: u64,
        /// The Raft id that was given.
        given: u64,
    },
    /// Written by a build that is too new or too old.
    #[error("`{path}` has format {format}; this build of skep reads format {}", format::FORMAT)]
    Format {
        /// The segment.
        path: PathBuf,
        /// Its format.
        format: u16,
    },
    /// A segment size that cannot work.
    #[error("a log segment of {0} bytes: it must be a multiple of 4096 and at least 16384")]
    SegmentSize(u64),
    /// The kernel gave no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// An earlier failure ended the log.
    #[error(transparent)]
    Halted(#[from] WalHalted),
}

/// The log has stopped for good: a write or a sync failed, so nobody knows what is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Raft log has stopped: {cause}")]
pub struct WalHalted {
    /// The failure, with its reasons.
    pub cause: Arc<str>,
}

impl WalError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> WalError + 'a {
        move |source| WalError::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, reason: &FormatError) -> WalError {
        WalError::Damaged { path: path.to_owned(), offset, detail: reason.to_string() }
    }
}

/// A handle to an open log. Clones share it; the last one dropped ends the thread without waiting.
#[derive(Clone)]
pub struct Wal {
    inner: Arc<Inner>,
}

struct Inner {
    queue: mpsc::Sender<Op>,
    frames: Arc<Mutex<FrameIndex>>,
    counters: Arc<Counters>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Wal {
    /// Opens the log, makes it if there is none, and starts its writer.
    ///
    /// Drops an interrupted write at the end; fails on everything else that does not read.
    pub fn open(options: WalOptions) -> Result<(Wal, Recovered), WalError> {
        let (writer, recovered) = Writer::open(options)?;
        let frames = writer.frames();
        let counters = writer.counters();
        let (queue, ops) = mpsc::channel();
        let thread = writer.spawn(ops)?;
        let inner = Inner { queue, frames, counters, thread: Mutex::new(Some(thread)) };
        Ok((Wal { inner: Arc::new(inner) }, recovered))
    }

    /// Queues records; `done` is called when all of them are durable. Entries must follow the last.
    pub fn append(&self, records: Vec<Record>, done: Completion) {
        if let Err(mpsc::SendError(op)) = self.inner.queue.send(Op::Append { records, done }) {
            op.fail(&WalHalted { cause: "it was closed".into() });
        }
    }

    /// Notes how far the log is committed. Written with the next records, not by itself: Raft finds
    /// it again without, and an own write would double what a lone entry costs the disk.
    pub fn note_committed(&self, pos: LogPos) {
        self.inner.counters.note_committed(pos);
    }

    /// Reads entries back from disk, from `index` on: at least that one, and what lies beside it.
    /// Blocking. Empty if the entry is not on disk (yet, or any more).
    pub fn read_from(&self, index: u64) -> Result<Vec<EntryRecord>, WalError> {
        let find = || self.frames().find(index);
        let Some(frame) = find() else { return Ok(Vec::new()) };
        match frame.read() {
            Ok(mut entries) => {
                entries.retain(|entry| entry.pos.index >= index);
                Ok(entries)
            }
            // Purged meanwhile, and its segment already in use for something else.
            Err(_) if find().is_none() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Counters since the log was opened.
    pub fn metrics(&self) -> WalMetrics {
        self.inner.counters.metrics()
    }

    /// Writes what is queued, stops the writer and waits for it. Blocking.
    pub fn close(&self) {
        // A thread that is gone already needs no message.
        self.inner.queue.send(Op::Close).ok();
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the Raft log's writer panicked");
        }
    }

    fn frames(&self) -> std::sync::MutexGuard<'_, FrameIndex> {
        self.inner.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
