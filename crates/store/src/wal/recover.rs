//! Reads the log's folder at start: which segments make the log, what their records add up to, and
//! where it ends.
//!
//! An interrupted write at the very end was never acknowledged and is dropped. Everything else that
//! does not read is damage, and an error that names the file and the place: a manager that guesses
//! could vote twice or forget what it acknowledged.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::WalError;
use super::disk::Disk;
use super::format::{BLOCK, FormatError, SegmentHeader};
use super::frames::FrameIndex;
use super::record::{Checkpoint, EntryRecord, PayloadKind, Record};
use super::segment::{STARTING, Scan, Segment, intact_frame, read_all};
use super::spare::{UNFINISHED, is_spare};
use crate::key::{DataKey, hex};

/// What the log held.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Vote, committed, purged and last place.
    pub checkpoint: Checkpoint,
    /// The index that the log began with, where nothing of it is purged.
    pub begin: u64,
    /// The newest entries, consecutive up to the last one, as many as the caller wants in memory.
    pub entries: VecDeque<EntryRecord>,
    /// Whether any proposal was ever written here, purged ones included.
    pub has_proposals: bool,
    /// Bytes in the log's segments, headers included.
    pub bytes: u64,
    /// Bytes of an interrupted write that were dropped, and where: (segment, offset).
    pub torn: Option<(String, u64)>,
}

/// What the writer goes on from.
pub(crate) struct Resume {
    /// The segments in order; the last is written on.
    pub(crate) segments: Vec<(Arc<Segment>, Option<u64>)>,
    pub(crate) frames: FrameIndex,
    pub(crate) next_frame: u64,
    /// Where the last segment's next frame belongs.
    pub(crate) end: u64,
    /// Where the last segment's last frame is; its header if it has none.
    pub(crate) last_unit: u64,
    /// The last segment's file length, which is less than its size if it was cut.
    pub(crate) file_length: u64,
    /// Names of files that are of no use any more.
    pub(crate) stale: Vec<String>,
    /// Names of zero-filled files to go on with.
    pub(crate) spares: Vec<String>,
}

/// Whose log it is, and how much of it to keep in memory.
pub(crate) struct Expect<'a> {
    pub(crate) key: &'a DataKey,
    pub(crate) node: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) keep_bytes: usize,
}

/// Reads the folder. `Resume::segments` is empty where there is no log yet.
pub(crate) fn recover(disk: &dyn Disk, dir: &Path, expect: &Expect<'_>) -> Result<(Recovered, Resume), WalError> {
    let mut resume = Resume {
        segments: Vec::new(),
        frames: FrameIndex::default(),
        next_frame: 0,
        end: 0,
        last_unit: 0,
        file_length: 0,
        stale: Vec::new(),
        spares: Vec::new(),
    };
    let mut seqs = Vec::new();
    for name in disk.list(dir).map_err(WalError::io("list", dir))? {
        match Segment::seq_of(&name) {
            Some(seq) => seqs.push(seq),
            None if is_spare(&name) => resume.spares.push(name),
            None if name == UNFINISHED || name == STARTING => resume.stale.push(name),
            None => {}
        }
    }
    seqs.sort_unstable();
    // A purge renames segments away from the front; a crash can keep some names and lose others.
    let run = seqs.len() - consecutive_at_end(&seqs);
    resume.stale.extend(seqs.drain(..run).map(Segment::name));

    let mut replay = Replay::new(dir, expect);
    if let Some(last) = seqs.last().copied()
        && never_used(disk, dir, expect.key, last, seqs.len())?
    {
        seqs.pop();
        replay.torn = Some((Segment::name(last), 0));
        resume.stale.push(Segment::name(last));
    }
    for (place, seq) in seqs.iter().enumerate() {
        let path = dir.join(Segment::name(*seq));
        let file = disk.open(&path).map_err(WalError::io("open", &path))?;
        let bytes = read_all(&path, &*file)?;
        let is_last = place + 1 == seqs.len();
        let parsed = Segment::parse(path.clone(), file, &bytes, expect.segment_bytes, expect.key);
        let segment = match parsed {
            Ok(segment) => segment,
            Err(FormatError::Format(format)) => return Err(WalError::Format { path, format }),
            Err(reason) => return Err(WalError::damaged(&path, 0, &reason)),
        };
        replay.check_owner(&segment, *seq)?;
        let segment = Arc::new(segment);
        let scan = segment.scan(&bytes);
        resume.end = scan.end;
        resume.next_frame = scan.next_frame;
        resume.last_unit = scan.frames.last().map_or(0, |frame| frame.offset);
        resume.file_length = bytes.len() as u64;
        let highest = replay.segment(&segment, scan, is_last)?;
        resume.segments.push((segment, highest));
    }
    let recovered = replay.finish(&resume)?;
    resume.frames = recovered.1;
    Ok((recovered.0, resume))
}

/// How many numbers at the end follow each other without a gap.
fn consecutive_at_end(seqs: &[u64]) -> usize {
    let gaps = seqs.windows(2).rev().take_while(|pair| pair[0] + 1 == pair[1]).count();
    if seqs.is_empty() { 0 } else { gaps + 1 }
}

/// A crash while the last segment is started leaves a bad header and no frame. Frames under a bad
/// header are damage. So is a bad header in a log's only segment, unless it is the very first one.
fn never_used(disk: &dyn Disk, dir: &Path, key: &DataKey, seq: u64, segments: usize) -> Result<bool, WalError> {
    let path = dir.join(Segment::name(seq));
    let file = disk.open(&path).map_err(WalError::io("open", &path))?;
    let mut block = [0; BLOCK];
    let count = file.read_at(&mut block, 0).map_err(WalError::io("read", &path))?;
    match SegmentHeader::decode(&block[..count]) {
        Ok(_) | Err(FormatError::Format(_)) => return Ok(false),
        Err(_) => {}
    }
    let bytes = read_all(&path, &*file)?;
    Ok(if segments > 1 {
        intact_frame(Segment::key(key, seq).salt, &bytes, BLOCK, 0).is_none()
    } else {
        // Never recycled, so anything in it was written there, whatever the key.
        seq == 1 && bytes.iter().skip(BLOCK).all(|byte| *byte == 0)
    })
}

/// Adds up records in order.
struct Replay<'a> {
    dir: &'a Path,
    expect: &'a Expect<'a>,
    checkpoint: Option<Checkpoint>,
    begin: u64,
    frames: FrameIndex,
    entries: VecDeque<EntryRecord>,
    entries_bytes: usize,
    has_proposals: bool,
    bytes: u64,
    next_frame: Option<(u64, std::path::PathBuf, u64, FormatError)>,
    torn: Option<(String, u64)>,
}

impl<'a> Replay<'a> {
    fn new(dir: &'a Path, expect: &'a Expect<'a>) -> Replay<'a> {
        Replay {
            dir,
            expect,
            checkpoint: None,
            begin: 0,
            frames: FrameIndex::default(),
            entries: VecDeque::new(),
            entries_bytes: 0,
            has_proposals: false,
            bytes: 0,
            next_frame: None,
            torn: None,
        }
    }

    fn check_owner(&self, segment: &Segment, seq: u64) -> Result<(), WalError> {
        let path = || segment.path.clone();
        let header = &segment.header;
        if header.key_id != self.expect.key.id() {
            let (found, given) = (hex(&header.key_id), hex(&self.expect.key.id()));
            return Err(WalError::WrongKey { path: path(), found, given });
        }
        if header.node != self.expect.node {
            return Err(WalError::WrongNode { path: path(), found: header.node, given: self.expect.node });
        }
        if header.seq != seq {
            let detail = format!("the header says segment {:x}", header.seq);
            return Err(WalError::Damaged { path: path(), offset: 0, detail });
        }
        Ok(())
    }

    /// Returns the highest entry index that the segment ever held.
    fn segment(&mut self, segment: &Arc<Segment>, scan: Scan, is_last: bool) -> Result<Option<u64>, WalError> {
        if let Some((next, path, end, reason)) = self.next_frame.take()
            && next != segment.header.first_frame
        {
            return Err(WalError::damaged(&path, end, &reason));
        }
        if let (Some(beyond), true) = (scan.intact_beyond, is_last) {
            return Err(WalError::Damaged {
                path: segment.path.clone(),
                offset: scan.end,
                detail: format!("{}, and there are intact records at byte {beyond}", scan.reason),
            });
        }
        // A frame whose checksum is right was written whole: what is wrong with it is no torn write.
        if matches!(
            scan.reason,
            FormatError::FrameNumber { .. } | FormatError::Sealed | FormatError::UnknownRecord(_) | FormatError::Short
        ) {
            return Err(WalError::damaged(&segment.path, scan.end, &scan.reason));
        }
        let mut highest = None;
        self.bytes += scan.end;
        self.checkpoint.get_or_insert(segment.header.checkpoint);
        for frame in &scan.frames {
            self.frames.add(segment, frame);
            for record in &frame.records {
                if let Record::Entry(entry) = record {
                    self.check_follows(segment, frame.offset, entry)?;
                    highest = highest.max(Some(entry.pos.index));
                }
                self.record(record);
            }
        }
        if is_last && scan.reason == FormatError::FrameChecksum {
            self.torn = Some((Segment::name(segment.seq), scan.end));
        }
        self.next_frame = Some((scan.next_frame, segment.path.clone(), scan.end, scan.reason));
        Ok(highest)
    }

    fn check_follows(&self, segment: &Segment, offset: u64, entry: &EntryRecord) -> Result<(), WalError> {
        let last = self.checkpoint.and_then(|checkpoint| checkpoint.last);
        if last.is_none_or(|last| last.index + 1 == entry.pos.index) {
            return Ok(());
        }
        Err(WalError::Damaged {
            path: segment.path.clone(),
            offset,
            detail: format!("entry {} does not follow the one before it", entry.pos.index),
        })
    }

    fn record(&mut self, record: &Record) {
        let checkpoint = self.checkpoint.get_or_insert_default();
        if let (Record::Entry(entry), None) = (record, checkpoint.last) {
            self.begin = entry.pos.index;
        }
        checkpoint.add(record);
        match record {
            Record::Entry(entry) => {
                self.has_proposals |= entry.kind == PayloadKind::Normal;
                self.entries_bytes += entry.payload.len();
                self.entries.push_back(entry.clone());
                while self.entries_bytes > self.expect.keep_bytes {
                    self.drop_first();
                }
            }
            Record::TruncateAfter(_) => {
                let next = checkpoint.next_index();
                while self.entries.back().is_some_and(|entry| entry.pos.index >= next) {
                    let entry = self.entries.pop_back().expect("back is there");
                    self.entries_bytes -= entry.payload.len();
                }
            }
            Record::Purge(pos) => {
                while self.entries.front().is_some_and(|entry| entry.pos.index <= pos.index) {
                    self.drop_first();
                }
            }
            Record::Vote(_) | Record::Committed(_) => {}
        }
    }

    fn drop_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.entries_bytes -= entry.payload.len();
        }
    }

    fn finish(self, resume: &Resume) -> Result<(Recovered, FrameIndex), WalError> {
        let checkpoint = self.checkpoint.unwrap_or_default();
        let purged_next = checkpoint.purged.map_or(0, |purged| purged.index + 1);
        if let Some((first, _)) = resume.segments.first()
            && first.seq > 1
            && first.header.checkpoint.next_index() > purged_next
        {
            return Err(WalError::MissingSegment { path: self.dir.join(Segment::name(first.seq - 1)) });
        }
        let has_proposals = self.has_proposals || checkpoint.purged.is_some();
        let Replay { begin, entries, bytes, torn, frames, .. } = self;
        let recovered = Recovered { checkpoint, begin, entries, has_proposals, bytes, torn };
        Ok((recovered, frames))
    }
}
