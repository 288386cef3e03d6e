//! One segment file: its name, making one, reading one frame, and scanning all of it.
//!
//! Which segments there are and what their records add up to is `recover`'s matter; filling one is
//! the writer's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::WalError;
use super::disk::{Disk, DiskFile};
use super::format::{self, BLOCK, FormatError, FoundFrame, SegmentHeader, encode_frame, find_frame, open_frame};
use super::record::Record;
use crate::key::{DataKey, FileKey, Purpose, fill_random};

/// The name of a segment's file while it is made without a spare; worthless after a crash.
pub(crate) const STARTING: &str = "starting";

/// Zeros are written in pieces of this size when a file is filled.
const FILL: usize = 256 * 1024;

/// An open segment. Its header never changes; only the writer appends frames.
pub(crate) struct Segment {
    pub(crate) seq: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Bytes in the file, header included; a multiple of the block.
    pub(crate) size: u64,
    pub(crate) header: SegmentHeader,
    header_bytes: Vec<u8>,
    key: FileKey,
}

/// A frame with what it holds.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) number: u64,
    pub(crate) offset: u64,
    pub(crate) size: usize,
    pub(crate) records: Vec<Record>,
}

/// The frames of a segment up to the first place where none is.
pub(crate) struct Scan {
    pub(crate) frames: Vec<Frame>,
    /// Where the next frame belongs.
    pub(crate) end: u64,
    /// The number that it has.
    pub(crate) next_frame: u64,
    /// Why there is none.
    pub(crate) reason: FormatError,
    /// An intact frame behind `end`: what is there was once written and acknowledged.
    pub(crate) intact_beyond: Option<u64>,
}

impl Segment {
    /// `seg-` and the sequence number in hexadecimal, so that names sort in order.
    pub(crate) fn name(seq: u64) -> String {
        format!("seg-{seq:016x}")
    }

    /// The sequence number in a segment's name; `None` for other files.
    pub(crate) fn seq_of(name: &str) -> Option<u64> {
        let digits = name.strip_prefix("seg-")?;
        (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
    }

    /// Writes the header into `file` (made at `from`), makes it durable, and gives it its name.
    pub(crate) fn start(
        disk: &dyn Disk,
        dir: &Path,
        from: &Path,
        file: Arc<dyn DiskFile>,
        size: u64,
        header: SegmentHeader,
        data_key: &DataKey,
    ) -> Result<Segment, WalError> {
        let path = dir.join(Segment::name(header.seq));
        let header_bytes = header.encode();
        let mut block = header_bytes.clone();
        block.resize(BLOCK, 0);
        file.write_at(&block, 0).map_err(WalError::io("write the header of", from))?;
        file.sync().map_err(WalError::io("sync", from))?;
        disk.rename(from, &path).map_err(WalError::io("rename a segment to", &path))?;
        disk.sync_dir(dir).map_err(WalError::io("sync", dir))?;
        let key = data_key.derive(Purpose::Segment(header.seq));
        Ok(Segment { seq: header.seq, path, file, size, header, header_bytes, key })
    }

    /// The key that the frames of segment `seq` are sealed with; known without its header.
    pub(crate) fn key(data_key: &DataKey, seq: u64) -> FileKey {
        data_key.derive(Purpose::Segment(seq))
    }

    /// A segment from its file's bytes. Size below `least` means that the file was cut.
    pub(crate) fn parse(
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        bytes: &[u8],
        least: u64,
        data_key: &DataKey,
    ) -> Result<Segment, FormatError> {
        let header = SegmentHeader::decode(bytes)?;
        let size = (bytes.len() as u64).next_multiple_of(BLOCK as u64).max(least);
        let key = Segment::key(data_key, header.seq);
        let header_bytes = header.encode();
        Ok(Segment { seq: header.seq, path, file, size, header, header_bytes, key })
    }

    /// Reads the frames in the file's `bytes`, in order, until there is none.
    pub(crate) fn scan(&self, bytes: &[u8]) -> Scan {
        let mut frames = Vec::new();
        let mut at = BLOCK;
        let mut next_frame = self.header.first_frame;
        let reason = loop {
            match self.frame_in(bytes, at, next_frame) {
                Ok((FoundFrame { number, size, .. }, records)) => {
                    frames.push(Frame { number, offset: at as u64, size, records });
                    at += size;
                    next_frame += 1;
                }
                Err(reason) => break reason,
            }
        };
        let intact_beyond = intact_frame(self.key.salt, bytes, at + BLOCK, next_frame);
        Scan { frames, end: at as u64, next_frame, reason, intact_beyond }
    }

    fn frame_in(&self, bytes: &[u8], at: usize, expected: u64) -> Result<(FoundFrame, Vec<Record>), FormatError> {
        let bytes = bytes.get(at..).ok_or(FormatError::NoFrame)?;
        let found = find_frame(self.key.salt, bytes)?;
        if found.number != expected {
            return Err(FormatError::FrameNumber { found: found.number, expected });
        }
        let records = open_frame(&self.key, &self.header_bytes, found, bytes)?;
        Ok((found, records))
    }

    /// Reads one frame back.
    pub(crate) fn read_frame(&self, offset: u64, size: usize, number: u64) -> Result<Vec<Record>, WalError> {
        let mut bytes = vec![0; size];
        let count = self.file.read_at(&mut bytes, offset).map_err(WalError::io("read", &self.path))?;
        bytes.truncate(count);
        self.frame_in(&bytes, 0, number)
            .map(|(_, records)| records)
            .map_err(|reason| WalError::damaged(&self.path, offset, &reason))
    }

    /// Encrypts records into a frame's bytes, padded to whole blocks.
    pub(crate) fn seal_frame(&self, number: u64, records: &[u8]) -> Result<Vec<u8>, WalError> {
        let mut nonce = [0; 12];
        fill_random(&mut nonce)?;
        Ok(encode_frame(&self.key, &self.header_bytes, number, nonce, records))
    }

    /// Writes the frame at `offset` and what follows it, up to `end`, once more and syncs it.
    ///
    /// After a failed fsync the kernel may call a page clean that never reached the disk, and the
    /// next process would read it from memory and believe it. Writing the same bytes again makes
    /// the kernel write them or say that it cannot.
    pub(crate) fn rewrite(&self, offset: u64, end: u64, fill_from: u64) -> Result<(), WalError> {
        let mut bytes = vec![0; usize::try_from(end - offset).expect("a frame fits memory")];
        self.file.read_at(&mut bytes, offset).map_err(WalError::io("read", &self.path))?;
        self.file.write_at(&bytes, offset).map_err(WalError::io("write", &self.path))?;
        if fill_from < self.size {
            fill_zero(&*self.file, fill_from.max(end), self.size)
                .map_err(WalError::io("fill with zeros", &self.path))?;
        }
        self.file.sync().map_err(WalError::io("sync", &self.path))
    }
}

/// The first intact frame at or behind `from` whose number is `least` or more.
pub(crate) fn intact_frame(salt: u32, bytes: &[u8], from: usize, least: u64) -> Option<u64> {
    (from..bytes.len()).step_by(BLOCK).find_map(|at| {
        let found = find_frame(salt, &bytes[at..]).ok()?;
        (found.number >= least).then_some(at as u64)
    })
}

/// All bytes of a file.
pub(crate) fn read_all(path: &Path, file: &dyn DiskFile) -> Result<Vec<u8>, WalError> {
    let length = file.size().map_err(WalError::io("measure", path))?;
    let length = usize::try_from(length).map_err(|_| WalError::damaged(path, 0, &format::FormatError::NoHeader))?;
    let mut bytes = vec![0; length];
    let count = file.read_at(&mut bytes, 0).map_err(WalError::io("read", path))?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Really writes zeros: a hole or an unwritten extent costs a second flush when it is filled.
pub(crate) fn fill_zero(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    let zeros = vec![0; FILL];
    let mut at = from;
    while at < to {
        let count = usize::try_from(to - at).unwrap_or(FILL).min(FILL);
        file.write_at(&zeros[..count], at)?;
        at += count as u64;
    }
    Ok(())
}
