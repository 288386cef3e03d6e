//! What the log is made of, and its bytes inside a frame. Pure; no IO.
//!
//! ```text
//! record = length u32 · kind u8 · body          integers little-endian
//! ```
//! Checksums and encryption are the frame's matter, payloads that of whoever wrote them.

use bytes::Bytes;

use super::format::FormatError;

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

/// The records that [`put_record`] wrote one behind the other.
pub(crate) fn decode_records(mut bytes: Bytes) -> Result<Vec<Record>, FormatError> {
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

pub(crate) fn put_pos(out: &mut Vec<u8>, pos: Option<&LogPos>) {
    out.push(u8::from(pos.is_some()));
    put_pos_fields(out, pos.unwrap_or(&LogPos { term: 0, node: 0, index: 0 }));
}

fn put_pos_fields(out: &mut Vec<u8>, pos: &LogPos) {
    let LogPos { term, node, index } = pos;
    for value in [term, node, index] {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

pub(crate) fn put_ballot(out: &mut Vec<u8>, ballot: Option<&Ballot>) {
    out.push(u8::from(ballot.is_some()));
    let Ballot { term, node, committed } = *ballot.unwrap_or(&Ballot { term: 0, node: 0, committed: false });
    out.extend_from_slice(&term.to_le_bytes());
    out.extend_from_slice(&node.to_le_bytes());
    out.push(u8::from(committed));
}

/// Reads values off the front of a slice.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(FormatError::Short)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        Ok(self.take(N)?.try_into().expect("take gave N bytes"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn pos_fields(&mut self) -> Result<LogPos, FormatError> {
        Ok(LogPos { term: self.u64()?, node: self.u64()?, index: self.u64()? })
    }

    pub(crate) fn pos(&mut self) -> Result<Option<LogPos>, FormatError> {
        let present = self.u8()? != 0;
        let pos = self.pos_fields()?;
        Ok(present.then_some(pos))
    }

    pub(crate) fn ballot(&mut self) -> Result<Option<Ballot>, FormatError> {
        let present = self.u8()? != 0;
        let ballot = Ballot { term: self.u64()?, node: self.u64()?, committed: self.u8()? != 0 };
        Ok(present.then_some(ballot))
    }
}
