//! The thread that writes the log: it alone has the segments' write side.
//!
//! Each round takes what is queued, seals it into frames, and writes and syncs them one after the
//! other; then it calls back in order. The first failure ends it for good: after a failed fsync
//! nobody can say what is on the disk, so trying again could acknowledge what is lost.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::format::{BLOCK, SegmentHeader, frame_size};
use super::frames::FrameIndex;
use super::record::{Checkpoint, LogPos, Record, put_record};
use super::recover::{Expect, Recovered, Resume, recover};
use super::segment::{Frame, STARTING, Segment, fill_zero};
use super::spare::Spares;
use super::{Completion, WalError, WalHalted, WalOptions};
use crate::error::chain;

/// Bytes of records that one frame takes, more or less: a whole frame is decrypted to read one entry.
const FRAME_BYTES: usize = 1 << 20;

pub(crate) enum Op {
    Append { records: Vec<Record>, done: Completion },
    Close,
}

/// What the log has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalMetrics {
    /// Bytes of frames and headers written, padding included; zero-filling is not counted.
    pub bytes_written: u64,
    /// Syncs for frames.
    pub syncs: u64,
    /// The last sync's duration.
    pub last_sync: Duration,
    /// The longest sync's duration.
    pub longest_sync: Duration,
    /// Segments that hold the log.
    pub segments: u64,
    /// Zero-filled segments in reserve.
    pub spares: u64,
}

/// Shared between the writer and the handles.
#[derive(Default)]
pub(crate) struct Counters {
    bytes_written: AtomicU64,
    syncs: AtomicU64,
    last_sync_us: AtomicU64,
    longest_sync_us: AtomicU64,
    segments: AtomicU64,
    spares: AtomicU64,
    committed: Mutex<Option<LogPos>>,
}

pub(crate) struct Writer {
    options: WalOptions,
    counters: Arc<Counters>,
    frames: Arc<Mutex<FrameIndex>>,
    spares: Spares,
    /// Full segments with the highest entry index each ever held, oldest first.
    full: VecDeque<(Arc<Segment>, Option<u64>)>,
    active: Arc<Segment>,
    active_highest: Option<u64>,
    /// Where in the active segment the next frame goes.
    end: u64,
    next_frame: u64,
    checkpoint: Checkpoint,
}

/// Records on their way into one frame.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    records: Vec<Record>,
}

impl Op {
    pub(crate) fn fail(self, halted: &WalHalted) {
        match self {
            Op::Append { records: _, done } => done(Err(halted.clone())),
            Op::Close => {}
        }
    }
}

impl Counters {
    pub(crate) fn note_committed(&self, pos: LogPos) {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = Some(pos);
    }

    fn committed(&self) -> Option<LogPos> {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn metrics(&self) -> WalMetrics {
        WalMetrics {
            bytes_written: self.bytes_written.load(Relaxed),
            syncs: self.syncs.load(Relaxed),
            last_sync: Duration::from_micros(self.last_sync_us.load(Relaxed)),
            longest_sync: Duration::from_micros(self.longest_sync_us.load(Relaxed)),
            segments: self.segments.load(Relaxed),
            spares: self.spares.load(Relaxed),
        }
    }

    fn synced(&self, bytes: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.bytes_written.fetch_add(bytes, Relaxed);
        self.syncs.fetch_add(1, Relaxed);
        self.last_sync_us.store(micros, Relaxed);
        self.longest_sync_us.fetch_max(micros, Relaxed);
    }
}

impl Writer {
    pub(crate) fn open(options: WalOptions) -> Result<(Writer, Recovered), WalError> {
        if !options.segment_bytes.is_multiple_of(BLOCK as u64) || options.segment_bytes < 16384 {
            return Err(WalError::SegmentSize(options.segment_bytes));
        }
        let WalOptions { dir, disk, key, node, segment_bytes, keep_bytes, lock: _ } = &options;
        let expect = Expect { key, node: *node, segment_bytes: *segment_bytes, keep_bytes: *keep_bytes };
        let (recovered, resume) = recover(&**disk, dir, &expect)?;
        let Resume { mut segments, frames, next_frame, end, last_unit, file_length, stale, spares } = resume;
        for name in stale {
            let path = dir.join(name);
            disk.remove(&path).map_err(WalError::io("remove", &path))?;
        }
        let counters = Arc::new(Counters::default());
        let spares = Spares::open(disk, dir, *segment_bytes, spares)?;
        let (active, active_highest, end) = match segments.pop() {
            Some((segment, highest)) => {
                let end = end.max(BLOCK as u64);
                let started = Instant::now();
                segment.rewrite(last_unit, end, file_length)?;
                counters.synced(end - last_unit, started.elapsed());
                (segment, highest, end)
            }
            None => {
                let header = SegmentHeader {
                    seq: 1,
                    node: *node,
                    key_id: key.id(),
                    first_frame: next_frame,
                    checkpoint: recovered.checkpoint,
                };
                let segment = make_segment(&options, None, header, *segment_bytes)?;
                // Once more, for the time that a sync takes when there is nothing to fill.
                let started = Instant::now();
                segment.rewrite(0, BLOCK as u64, *segment_bytes)?;
                counters.synced(BLOCK as u64, started.elapsed());
                (Arc::new(segment), None, BLOCK as u64)
            }
        };
        disk.sync_dir(dir).map_err(WalError::io("sync", dir))?;
        spares.refill();
        let writer = Writer {
            counters,
            frames: Arc::new(Mutex::new(frames)),
            spares,
            full: segments.into(),
            active,
            active_highest,
            end,
            next_frame,
            checkpoint: recovered.checkpoint,
            options,
        };
        writer.count_files();
        Ok((writer, recovered))
    }

    pub(crate) fn frames(&self) -> Arc<Mutex<FrameIndex>> {
        Arc::clone(&self.frames)
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    pub(crate) fn spawn(self, ops: Receiver<Op>) -> Result<JoinHandle<()>, WalError> {
        let dir = self.options.dir.clone();
        thread::Builder::new()
            .name("wal-writer".to_owned())
            .spawn(move || self.run(&ops))
            .map_err(WalError::io("start the thread that writes", &dir))
    }

    fn run(mut self, ops: &Receiver<Op>) {
        let mut halted: Option<WalHalted> = None;
        while let Ok(first) = ops.recv() {
            let (round, close) = drain(first, ops);
            if let Some(halted) = &halted {
                round.into_iter().for_each(|op| op.fail(halted));
            } else if let Err(failed) = self.round(round) {
                halted = Some(failed);
            }
            if close {
                break;
            }
        }
        let closed = WalHalted { cause: "it was closed".into() };
        ops.try_iter().for_each(|op| op.fail(&closed));
        if halted.is_none()
            && let Err(error) = self.write_committed()
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the Raft log closed badly");
        }
    }

    /// Writes one round. All its callbacks are called, whatever happens.
    fn round(&mut self, ops: Vec<Op>) -> Result<(), WalHalted> {
        let mut completions = Vec::with_capacity(ops.len());
        let mut records = Vec::new();
        for op in ops {
            match op {
                Op::Append { records: more, done } => {
                    records.extend(more);
                    completions.push(done);
                }
                Op::Close => {}
            }
        }
        let result = self.write(records).map_err(|error| {
            let halted = WalHalted { cause: chain(&error).into() };
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "writing the Raft log failed; this manager stops taking part"
            );
            halted
        });
        for done in completions {
            done(result.clone());
        }
        result
    }

    fn write(&mut self, records: Vec<Record>) -> Result<(), WalError> {
        let purges = records.iter().any(|record| matches!(record, Record::Purge(_)));
        let mut pending = Pending::default();
        if !records.is_empty()
            && let Some(committed) = self.new_committed()
        {
            pending.push(Record::Committed(committed));
        }
        for record in records {
            let before = pending.bytes.len();
            put_record(&mut pending.bytes, &record);
            let fits = self.fits(pending.bytes.len());
            if before > 0 && (!fits || pending.bytes.len() > FRAME_BYTES) {
                let rest = pending.bytes.split_off(before);
                self.write_frame(std::mem::take(&mut pending))?;
                pending.bytes = rest;
            }
            pending.records.push(record);
        }
        if !pending.records.is_empty() {
            self.write_frame(pending)?;
        }
        if purges {
            self.recycle()?;
        }
        self.spares.refill();
        self.count_files();
        Ok(())
    }

    fn new_committed(&self) -> Option<LogPos> {
        let committed = self.counters.committed();
        committed.filter(|_| committed != self.checkpoint.committed)
    }

    fn write_committed(&mut self) -> Result<(), WalError> {
        let Some(committed) = self.new_committed() else { return Ok(()) };
        self.write_frame(Pending::of(Record::Committed(committed)))
    }

    fn fits(&self, records: usize) -> bool {
        self.end + frame_size(records) as u64 <= self.active.size
    }

    /// One write, one sync; only then does anything else happen.
    fn write_frame(&mut self, pending: Pending) -> Result<(), WalError> {
        let Pending { bytes, records } = pending;
        if !self.fits(bytes.len()) {
            self.roll(bytes.len())?;
        }
        let number = self.next_frame;
        let frame = self.active.seal_frame(number, &bytes)?;
        let path = &self.active.path;
        self.active.file.write_at(&frame, self.end).map_err(WalError::io("write", path))?;
        let started = Instant::now();
        self.active.file.sync().map_err(WalError::io("sync", path))?;
        self.counters.synced(frame.len() as u64, started.elapsed());

        for record in &records {
            if let Record::Entry(entry) = record {
                self.active_highest = self.active_highest.max(Some(entry.pos.index));
            }
            self.checkpoint.add(record);
        }
        let frame = Frame { number, offset: self.end, size: frame.len(), records };
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).add(&self.active, &frame);
        self.end += frame.size as u64;
        self.next_frame += 1;
        Ok(())
    }

    /// Goes on in a new segment. One that is larger than usual is made for a record that needs it.
    fn roll(&mut self, records: usize) -> Result<(), WalError> {
        let least = (BLOCK + frame_size(records)) as u64;
        let size = self.options.segment_bytes.max(least);
        let header = SegmentHeader {
            seq: self.active.seq + 1,
            first_frame: self.next_frame,
            checkpoint: self.checkpoint,
            ..self.active.header
        };
        let spare = if size == self.options.segment_bytes { self.spares.take() } else { None };
        let segment = Arc::new(make_segment(&self.options, spare, header, size)?);
        self.counters.bytes_written.fetch_add(BLOCK as u64, Relaxed);
        let full = std::mem::replace(&mut self.active, segment);
        self.full.push_back((full, self.active_highest.take()));
        self.end = BLOCK as u64;
        Ok(())
    }

    /// Makes spares of the leading segments whose entries are all purged. The purge is durable.
    fn recycle(&mut self) -> Result<(), WalError> {
        let Some(purged) = self.checkpoint.purged else { return Ok(()) };
        let mut recycled = false;
        while let Some((segment, highest)) = self.full.front()
            && highest.is_none_or(|highest| highest <= purged.index)
        {
            self.spares.recycle(&segment.path, segment.size)?;
            self.full.pop_front();
            recycled = true;
        }
        if recycled {
            // Before a recycled file gets a new header, its old name must be gone for good.
            let dir = &self.options.dir;
            self.options.disk.sync_dir(dir).map_err(WalError::io("sync", dir))?;
        }
        Ok(())
    }

    fn count_files(&self) {
        self.counters.segments.store(self.full.len() as u64 + 1, Relaxed);
        self.counters.spares.store(self.spares.count() as u64, Relaxed);
    }
}

impl Pending {
    fn of(record: Record) -> Pending {
        let mut pending = Pending::default();
        pending.push(record);
        pending
    }

    fn push(&mut self, record: Record) {
        put_record(&mut self.bytes, &record);
        self.records.push(record);
    }
}

/// Everything that is queued right now, and whether the end is.
fn drain(first: Op, ops: &Receiver<Op>) -> (Vec<Op>, bool) {
    let mut round = Vec::new();
    let mut next = Ok(first);
    loop {
        match next {
            Ok(Op::Close) => return (round, true),
            Ok(op) => round.push(op),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return (round, false),
        }
        next = ops.try_recv();
    }
}

fn make_segment(
    options: &WalOptions,
    spare: Option<PathBuf>,
    header: SegmentHeader,
    size: u64,
) -> Result<Segment, WalError> {
    let WalOptions { dir, disk, key, .. } = options;
    let (path, file) = match spare {
        Some(path) => {
            let file = disk.open(&path).map_err(WalError::io("open", &path))?;
            (path, file)
        }
        None => {
            let path = dir.join(STARTING);
            let file = disk.create(&path).map_err(WalError::io("create", &path))?;
            fill_zero(&*file, 0, size).map_err(WalError::io("fill with zeros", &path))?;
            (path, file)
        }
    };
    Segment::start(&**disk, dir, &path, file, size, header, key)
}
