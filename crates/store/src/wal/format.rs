//! The bytes of a log segment: header, frames, records. Pure; no IO.
//!
//! ```text
//! segment = header block (4 KiB) · frame · frame · … · whatever the recycled file held before
//! frame   = magic u32 · number u64 · length u32 · nonce [12] · crc32c u32 · sealed records · zeros to 4 KiB
//! record  = length u32 · kind u8 · body
//! ```
//! Integers are little-endian. A frame is one write and one fdatasync, and the next frame is written
//! only when the previous one is durable: so an unreadable frame with a readable one behind it is
//! damage, and one with nothing behind it is a write that was interrupted before anybody was told.
//! The checksum starts from a salt of the segment, so that a recycled file's old bytes never parse;
//! the seal covers the segment's header too.

use bytes::Bytes;

use crate::key::{FileKey, TAG_LEN};

/// The unit of writing: one page, the smallest that a disk or a card writes without reading first.
pub(crate) const BLOCK: usize = 4096;

/// What this build writes. It reads only this: there was none before.
pub(crate) const FORMAT: u16 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"SKEPWAL\n";
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"SkFr");
const FRAME_HEADER: usize = 32;
const NONCE: std::ops::Range<usize> = 16..28;
const CRC: std::ops::Range<usize> = 28..32;

/// A place in the log: index, and the leader that proposed the entry there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPos {
    /// The leader's term.
    pub term: u64,
    /// The leader's Raft id.
    pub node: u64,
    /// The entry's index, from 0.
    pub index: u64,
}

/// A vote as Raft keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ballot {
    /// The term voted in.
    pub term: u64,
    /// The candidate's Raft id.
    pub node: u64,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// What an entry's payload is; the log does not look into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadKind {
    /// A leader's first entry; no payload.
    Blank,
    /// A proposal.
    Normal,
    /// The cluster's managers.
    Membership,
}

/// One Raft entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRecord {
    /// Where.
    pub pos: LogPos,
    /// What kind.
    pub kind: PayloadKind,
    /// Its bytes.
    pub payload: Bytes,
}

/// What the log is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An entry behind the last one.
    Entry(EntryRecord),
    /// The vote from here on.
    Vote(Ballot),
    /// Everything up to here is committed.
    Committed(LogPos),
    /// Entries behind this place are void; `None`: all of them.
    TruncateAfter(Option<LogPos>),
    /// Entries up to this place are in a snapshot and no longer needed.
    Purge(LogPos),
}

/// What all records before a place add up to, entries aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last vote.
    pub vote: Option<Ballot>,
    /// The last place known to be committed.
    pub committed: Option<LogPos>,
    /// The last purged place.
    pub purged: Option<LogPos>,
    /// The last entry, or the last purged place where there is none behind it.
    pub last: Option<LogPos>,
}

/// The first block of a segment. It repeats the checkpoint, so that any number of leading segments
/// can be dropped without losing the vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) seq: u64,
    pub(crate) node: u64,
    pub(crate) key_id: [u8; 8],
    pub(crate) first_frame: u64,
    pub(crate) checkpoint: Checkpoint,
}

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("no segment header here")]
    NoHeader,
    #[error("the segment header's checksum is wrong")]
    HeaderChecksum,
    #[error("format {0}, this build reads format {FORMAT}")]
    Format(u16),
    #[error("no record frame here")]
    NoFrame,
    #[error("frame {found} where frame {expected} belongs")]
    FrameNumber { found: u64, expected: u64 },
    #[error("the frame's checksum is wrong")]
    FrameChecksum,
    #[error("the frame does not decrypt, though its checksum is right")]
    Sealed,
    #[error("record of unknown kind {0}: written by a newer skep")]
    UnknownRecord(u8),
    #[error("a record is cut short")]
    Short,
}

impl Checkpoint {
    /// The index that the next entry gets, where the log decides it.
    pub fn next_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// Adds a record. An entry must follow the last one; the caller has checked.
    pub(crate) fn add(&mut self, record: &Record) {
        match record {
            Record::Entry(entry) => self.last = Some(entry.pos),
            Record::Vote(ballot) => self.vote = Some(*ballot),
            Record::Committed(pos) => self.committed = Some(*pos),
            Record::TruncateAfter(after) => {
                let after = (*after).filter(|after| self.purged.is_none_or(|purged| after.index > purged.index));
                let kept = after.or(self.purged);
                let shorter = match (kept, self.last) {
                    (Some(kept), Some(last)) => kept.index < last.index,
                    (None, Some(_)) => true,
                    (_, None) => false,
                };
                if shorter {
                    self.last = kept;
                }
            }
            Record::Purge(pos) => {
                if self.purged.is_none_or(|purged| purged.index < pos.index) {
                    self.purged = Some(*pos);
                }
                if self.last.is_none_or(|last| last.index < pos.index) {
                    self.last = Some(*pos);
                }
            }
        }
    }
}

impl SegmentHeader {
    /// The header's bytes, without the padding to a block. Every frame's seal covers them.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(192);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.node.to_le_bytes());
        out.extend_from_slice(&self.key_id);
        out.extend_from_slice(&self.first_frame.to_le_bytes());
        let Checkpoint { vote, committed, purged, last } = &self.checkpoint;
        put_ballot(&mut out, vote.as_ref());
        put_pos(&mut out, committed.as_ref());
        put_pos(&mut out, purged.as_ref());
        put_pos(&mut out, last.as_ref());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(block: &[u8]) -> Result<SegmentHeader, FormatError> {
        let mut input = Input(block);
        if input.take(8).map_err(|_| FormatError::NoHeader)? != SEGMENT_MAGIC {
            return Err(FormatError::NoHeader);
        }
        let format = input.u16()?;
        if format != FORMAT {
            return Err(FormatError::Format(format));
        }
        let header = SegmentHeader {
            seq: input.u64()?,
            node: input.u64()?,
            key_id: input.array()?,
            first_frame: input.u64()?,
            checkpoint: Checkpoint {
                vote: input.ballot()?,
                committed: input.pos()?,
                purged: input.pos()?,
                last: input.pos()?,
            },
        };
        let covered = block.len() - input.0.len();
        if input.u32()? != crc32c::crc32c(&block[..covered]) {
            return Err(FormatError::HeaderChecksum);
        }
        Ok(header)
    }
}

/// The bytes that a frame with this many bytes of records takes on disk.
pub(crate) fn frame_size(records: usize) -> usize {
    (FRAME_HEADER + records + TAG_LEN).next_multiple_of(BLOCK)
}

/// Builds a frame, padded, from encoded records.
pub(crate) fn encode_frame(key: &FileKey, header: &[u8], number: u64, nonce: [u8; 12], records: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(frame_size(records.len()));
    frame.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
    frame.extend_from_slice(&number.to_le_bytes());
    let length = u32::try_from(records.len()).expect("a frame's records fit a segment, under 4 GiB");
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&nonce);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(records);
    key.seal(nonce, &frame_context(header, number), &mut frame, FRAME_HEADER);
    let crc = frame_crc(key.salt, &frame);
    frame[CRC].copy_from_slice(&crc.to_le_bytes());
    frame.resize(frame.len().next_multiple_of(BLOCK), 0);
    frame
}

/// A frame that was found and whose checksum is right; still sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundFrame {
    pub(crate) number: u64,
    /// Bytes on disk, padding included.
    pub(crate) size: usize,
    length: usize,
}

/// Looks for a whole frame at the start of `bytes`.
pub(crate) fn find_frame(salt: u32, bytes: &[u8]) -> Result<FoundFrame, FormatError> {
    let mut input = Input(bytes);
    if input.u32().map_err(|_| FormatError::NoFrame)? != FRAME_MAGIC {
        return Err(FormatError::NoFrame);
    }
    let number = input.u64().map_err(|_| FormatError::NoFrame)?;
    let length = input.u32().map_err(|_| FormatError::NoFrame)? as usize;
    let end = FRAME_HEADER.saturating_add(length).saturating_add(TAG_LEN);
    let frame = bytes.get(..end).ok_or(FormatError::FrameChecksum)?;
    let stored: [u8; 4] = frame[CRC].try_into().expect("the range has four bytes");
    if u32::from_le_bytes(stored) != frame_crc(salt, frame) {
        return Err(FormatError::FrameChecksum);
    }
    Ok(FoundFrame { number, size: end.next_multiple_of(BLOCK), length })
}

/// Opens a frame that [`find_frame`] found at the start of `bytes`.
pub(crate) fn open_frame(
    key: &FileKey,
    header: &[u8],
    found: FoundFrame,
    bytes: &[u8],
) -> Result<Vec<Record>, FormatError> {
    let nonce: [u8; 12] = bytes[NONCE].try_into().expect("the range has twelve bytes");
    let mut sealed = bytes[FRAME_HEADER..FRAME_HEADER + found.length + TAG_LEN].to_vec();
    let length =
        key.open(nonce, &frame_context(header, found.number), &mut sealed).map_err(|_| FormatError::Sealed)?.len();
    sealed.truncate(length);
    decode_records(Bytes::from(sealed))
}

/// Appends a record's bytes.
pub(crate) fn put_record(out: &mut Vec<u8>, record: &Record) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    match record {
        Record::Entry(entry) => {
            out.push(1);
            out.push(match entry.kind {
                PayloadKind::Blank => 0,
                PayloadKind::Normal => 1,
                PayloadKind::Membership => 2,
            });
            put_pos_fields(out, &entry.pos);
            out.extend_from_slice(&entry.payload);
        }
        Record::Vote(ballot) => {
            out.push(2);
            put_ballot(out, Some(ballot));
        }
        Record::Committed(pos) => {
            out.push(3);
            put_pos(out, Some(pos));
        }
        Record::TruncateAfter(after) => {
            out.push(4);
            put_pos(out, after.as_ref());
        }
        Record::Purge(pos) => {
            out.push(5);
            put_pos(out, Some(pos));
        }
    }
    let length = u32::try_from(out.len() - start - 4).expect("a record is under 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn decode_records(mut bytes: Bytes) -> Result<Vec<Record>, FormatError> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let length = Input(&bytes).u32()? as usize;
        let end = length.saturating_add(4);
        if bytes.len() < end {
            return Err(FormatError::Short);
        }
        let body = bytes.split_to(end).slice(4..);
        records.push(decode_record(body)?);
    }
    Ok(records)
}

fn decode_record(body: Bytes) -> Result<Record, FormatError> {
    let mut input = Input(&body);
    Ok(match input.u8()? {
        1 => {
            let kind = match input.u8()? {
                0 => PayloadKind::Blank,
                1 => PayloadKind::Normal,
                2 => PayloadKind::Membership,
                other => return Err(FormatError::UnknownRecord(other)),
            };
            let pos = input.pos_fields()?;
            let at = body.len() - input.0.len();
            Record::Entry(EntryRecord { pos, kind, payload: body.slice(at..) })
        }
        2 => Record::Vote(input.ballot()?.ok_or(FormatError::Short)?),
        3 => Record::Committed(input.pos()?.ok_or(FormatError::Short)?),
        4 => Record::TruncateAfter(input.pos()?),
        5 => Record::Purge(input.pos()?.ok_or(FormatError::Short)?),
        other => return Err(FormatError::UnknownRecord(other)),
    })
}

fn frame_context(header: &[u8], number: u64) -> Vec<u8> {
    let mut context = Vec::with_capacity(header.len() + 8);
    context.extend_from_slice(header);
    context.extend_from_slice(&number.to_le_bytes());
    context
}

/// Everything but the checksum's own four bytes.
fn frame_crc(salt: u32, frame: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(salt, &frame[..CRC.start]);
    crc32c::crc32c_append(crc, &frame[CRC.end..])
}

fn put_pos(out: &mut Vec<u8>, pos: Option<&LogPos>) {
    out.push(u8::from(pos.is_some()));
    put_pos_fields(out, pos.unwrap_or(&LogPos { term: 0, node: 0, index: 0 }));
}

fn put_pos_fields(out: &mut Vec<u8>, pos: &LogPos) {
    let LogPos { term, node, index } = pos;
    for value in [term, node, index] {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn put_ballot(out: &mut Vec<u8>, ballot: Option<&Ballot>) {
    out.push(u8::from(ballot.is_some()));
    let Ballot { term, node, committed } = *ballot.unwrap_or(&Ballot { term: 0, node: 0, committed: false });
    out.extend_from_slice(&term.to_le_bytes());
    out.extend_from_slice(&node.to_le_bytes());
    out.push(u8::from(committed));
}

/// Reads values off the front of a slice.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(FormatError::Short)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        Ok(self.take(N)?.try_into().expect("take gave N bytes"))
    }

    fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn pos_fields(&mut self) -> Result<LogPos, FormatError> {
        Ok(LogPos { term: self.u64()?, node: self.u64()?, index: self.u64()? })
    }

    fn pos(&mut self) -> Result<Option<LogPos>, FormatError> {
        let present = self.u8()? != 0;
        let pos = self.pos_fields()?;
        Ok(present.then_some(pos))
    }

    fn ballot(&mut self) -> Result<Option<Ballot>, FormatError> {
        let present = self.u8()? != 0;
        let ballot = Ballot { term: self.u64()?, node: self.u64()?, committed: self.u8()? != 0 };
        Ok(present.then_some(ballot))
    }
}
