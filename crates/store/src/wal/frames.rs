//! Where on disk each entry is: one line per frame, for entries that memory no longer holds.

use std::collections::VecDeque;
use std::sync::Arc;

use super::WalError;
use super::record::{EntryRecord, Record};
use super::segment::{Frame, Segment};

/// A frame that holds entries which are still part of the log.
#[derive(Clone)]
pub(crate) struct FrameAt {
    first: u64,
    last: u64,
    number: u64,
    offset: u64,
    size: usize,
    segment: Arc<Segment>,
}

/// The frames with live entries, in the order of their entries.
#[derive(Default)]
pub(crate) struct FrameIndex {
    frames: VecDeque<FrameAt>,
}

impl FrameIndex {
    /// Adds a frame that is on disk, with what its records do to older frames.
    pub(crate) fn add(&mut self, segment: &Arc<Segment>, frame: &Frame) {
        let mut held: Option<(u64, u64)> = None;
        for record in &frame.records {
            match record {
                Record::Entry(entry) => {
                    let index = entry.pos.index;
                    held = Some(held.map_or((index, index), |(first, _)| (first, index)));
                }
                Record::TruncateAfter(after) => {
                    let next = after.map_or(0, |after| after.index + 1);
                    self.truncate(next);
                    held = held.filter(|(first, _)| *first < next).map(|(first, last)| (first, last.min(next - 1)));
                }
                Record::Purge(pos) => {
                    self.purge(pos.index);
                    held = held.filter(|(_, last)| *last > pos.index);
                }
                Record::Vote(_) | Record::Committed(_) => {}
            }
        }
        if let Some((first, last)) = held {
            let Frame { number, offset, size, records: _ } = *frame;
            let segment = Arc::clone(segment);
            self.frames.push_back(FrameAt { first, last, number, offset, size, segment });
        }
    }

    /// The frame that holds an entry.
    pub(crate) fn find(&self, index: u64) -> Option<FrameAt> {
        let after = self.frames.partition_point(|frame| frame.first <= index);
        let frame = self.frames.get(after.checked_sub(1)?)?;
        (index <= frame.last).then(|| frame.clone())
    }

    fn truncate(&mut self, next: u64) {
        while self.frames.back().is_some_and(|frame| frame.first >= next) {
            self.frames.pop_back();
        }
        if let Some(frame) = self.frames.back_mut() {
            frame.last = frame.last.min(next.saturating_sub(1));
        }
    }

    fn purge(&mut self, upto: u64) {
        while self.frames.front().is_some_and(|frame| frame.last <= upto) {
            self.frames.pop_front();
        }
    }
}

impl FrameAt {
    /// The live entries in it, in order.
    pub(crate) fn read(&self) -> Result<Vec<EntryRecord>, WalError> {
        let mut entries: Vec<EntryRecord> = Vec::new();
        for record in self.segment.read_frame(self.offset, self.size, self.number)? {
            match record {
                Record::Entry(entry) => entries.push(entry),
                Record::TruncateAfter(after) => {
                    let next = after.map_or(0, |after| after.index + 1);
                    entries.retain(|entry| entry.pos.index < next);
                }
                Record::Vote(_) | Record::Committed(_) | Record::Purge(_) => {}
            }
        }
        entries.retain(|entry| (self.first..=self.last).contains(&entry.pos.index));
        Ok(entries)
    }
}
