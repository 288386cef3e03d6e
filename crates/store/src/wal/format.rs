//! The bytes of a log segment: header and frames. Pure; no IO. What is in a frame: `record`.
//!
//! ```text
//! segment = header block (4 KiB) · frame · frame · … · whatever the recycled file held before
//! frame   = magic u32 · number u64 · length u32 · nonce [12] · crc32c u32 · sealed records · zeros to 4 KiB
//! ```
//! Integers are little-endian. A frame is one write and one fdatasync, and the next frame is written
//! only when the previous one is durable: so an unreadable frame with a readable one behind it is
//! damage, and one with nothing behind it is a write that was interrupted before anybody was told.
//! The checksum starts from a salt of the segment, so that a recycled file's old bytes never parse;
//! the seal covers the segment's header too.

use bytes::Bytes;

use super::record::{Checkpoint, Input, Record, decode_records, put_ballot, put_pos};
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
