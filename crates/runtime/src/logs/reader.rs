//! The reading side: the last N entries, a span of time, and what is being written now.
//!
//! Nothing blocks and nothing waits: a caller polls, on its own clock or when inotify says so. The files are followed
//! through rotations by what they are, not by their names.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::SystemTime;

use super::files::{self, FileId};
use super::{Entry, decode};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Only so many entries from the end (before `since` and `until` are looked at, as in Docker); `None` is all.
    pub tail: Option<u64>,
    /// Entries of this time and later.
    pub since: Option<SystemTime>,
    /// Entries up to this time; the first later one ends the reading.
    pub until: Option<SystemTime>,
    /// Stay at the end for what is still to come.
    pub follow: bool,
}

#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    options: ReadOptions,
    current: Option<Source>,
    /// Newer files, oldest first.
    next: VecDeque<Source>,
    finished: bool,
    skipped_lines: u64,
}

#[derive(Debug)]
struct Source {
    id: FileId,
    file: File,
    /// Offset in the file of the end of `buffer`.
    read_to: u64,
    buffer: Vec<u8>,
    consumed: usize,
    /// Its name was seen to have moved on: nothing is added any more after one more read to its end.
    rotated: bool,
}

const BLOCK: usize = 16 * 1024;

/// A line without end is no log of ours: 16 KiB, each byte escaped to six, and the rest.
const MAX_LINE: usize = 256 * 1024;

impl Reader {
    /// Positions a reader. A log that does not exist yet is an empty one.
    pub fn open(path: impl Into<PathBuf>, options: ReadOptions) -> io::Result<Self> {
        let path = path.into();
        let mut next = VecDeque::new();
        let mut wanted = options.tail;
        for (id, file) in files::open_all(&path)?.into_iter().rev() {
            let mut source = Source::new(id, file);
            if let Some(lines) = &mut wanted {
                let (offset, found) = tail_offset(&source.file, *lines)?;
                source.seek(offset)?;
                *lines -= found;
            }
            next.push_front(source);
            if wanted == Some(0) {
                break;
            }
        }
        Ok(Self { path, options, current: None, next, finished: false, skipped_lines: 0 })
    }

    /// The next entry, or `None` when there is none now: for good without `follow` or past `until`, else until the
    /// program writes again.
    pub fn poll_next(&mut self) -> io::Result<Option<Entry>> {
        while !self.finished {
            let Some(source) = &mut self.current else {
                self.current = self.next.pop_front();
                if self.current.is_none() && !self.find_newer()? {
                    return Ok(None);
                }
                continue;
            };
            let line = source.next_line()?.map(decode::entry);
            match line {
                Some(Some(entry)) if self.options.until.is_some_and(|until| entry.time > until) => self.finished = true,
                Some(Some(entry)) if self.options.since.is_some_and(|since| entry.time < since) => {}
                Some(Some(entry)) => return Ok(Some(entry)),
                Some(None) => self.skipped_lines += 1,
                None if !self.next.is_empty() => self.current = self.next.pop_front(),
                None if !self.find_newer()? => return Ok(None),
                None => {}
            }
        }
        Ok(None)
    }

    /// Lines that were no entries: torn by a power cut, or foreign.
    pub fn skipped_lines(&self) -> u64 {
        self.skipped_lines
    }

    /// At the end of the newest file known: true if there is more to read.
    fn find_newer(&mut self) -> io::Result<bool> {
        if !self.options.follow {
            self.finished = true;
            return Ok(false);
        }
        let at_path = files::id_at(&self.path)?;
        match &mut self.current {
            Some(source) if at_path == Some(source.id) => source.rewind_if_truncated(),
            // In the middle of a rotation.
            _ if at_path.is_none() => Ok(false),
            // What was added between our last read and the rename is still to be read.
            Some(source) if !source.rotated => {
                source.rotated = true;
                Ok(true)
            }
            current => {
                let files = files::open_all(&self.path)?;
                let ours = current.as_ref().map(|source| source.id);
                // Not there any more: all that exists is newer.
                let newer_from = files.iter().position(|(id, _)| Some(*id) == ours).map_or(0, |at| at + 1);
                self.next = files.into_iter().skip(newer_from).map(|(id, file)| Source::new(id, file)).collect();
                self.current = None;
                Ok(!self.next.is_empty())
            }
        }
    }
}

impl Source {
    fn new(id: FileId, file: File) -> Self {
        Self { id, file, read_to: 0, buffer: Vec::new(), consumed: 0, rotated: false }
    }

    fn seek(&mut self, offset: u64) -> io::Result<()> {
        self.read_to = self.file.seek(SeekFrom::Start(offset))?;
        self.buffer.clear();
        self.consumed = 0;
        Ok(())
    }

    /// A whole line without its newline; `None` at the end. An unfinished line stays for the next call.
    fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        let mut searched = self.consumed;
        loop {
            if let Some(length) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let line = self.consumed..searched + length;
                self.consumed = line.end + 1;
                return Ok(Some(&self.buffer[line]));
            }
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
            if self.buffer.len() > MAX_LINE {
                self.buffer.clear();
            }
            searched = self.buffer.len();
            self.buffer.resize(searched + BLOCK, 0);
            let read = self.file.read(&mut self.buffer[searched..]);
            self.buffer.truncate(searched + read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => {
                    self.buffer.shrink_to(BLOCK);
                    return Ok(None);
                }
                Ok(bytes) => self.read_to += bytes as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Foreign writers (Docker with one file, `truncate`) start over in the same file.
    fn rewind_if_truncated(&mut self) -> io::Result<bool> {
        let length = self.file.metadata()?.len();
        match length < self.read_to {
            true => self.seek(0).map(|()| length > 0),
            false => Ok(false),
        }
    }
}

/// Where the last `lines` whole lines start, and how many there are (fewer in a shorter file). Reads backwards.
fn tail_offset(file: &File, lines: u64) -> io::Result<(u64, u64)> {
    let mut position = file.metadata()?.len();
    let mut block = vec![0; BLOCK];
    // The first newline met ends the last whole line, and does not start one before it.
    let mut newlines = 0;
    while position > 0 {
        let length = position.min(BLOCK as u64);
        position -= length;
        let block = &mut block[..length as usize];
        match file.read_exact_at(block, position) {
            // Truncated meanwhile: what is there now is all new.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok((0, 0)),
            result => result?,
        }
        for (index, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            if newlines == lines {
                return Ok((position + index as u64 + 1, lines));
            }
            newlines += 1;
        }
    }
    Ok((0, newlines))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::{RotationConfig, Stream, Writer};
    use super::*;

    struct Log {
        _dir: tempfile::TempDir,
        path: PathBuf,
        writer: Writer,
    }

    fn log(max_size: u64, max_files: u32) -> Log {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        let writer = Writer::open(&path, RotationConfig { max_size, max_files }).unwrap();
        Log { _dir: dir, path, writer }
    }

    impl Log {
        /// Entry n has the text "n\n" and the time n.
        fn write(&mut self, numbers: std::ops::Range<u64>) {
            for n in numbers {
                self.writer.write(Stream::Stdout, format!("{n}\n").as_bytes(), at(n));
            }
        }

        fn reader(&self, options: ReadOptions) -> Reader {
            Reader::open(&self.path, options).unwrap()
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn drain(reader: &mut Reader) -> Vec<u64> {
        let entries = std::iter::from_fn(|| reader.poll_next().unwrap());
        entries.map(|entry| String::from_utf8(entry.bytes).unwrap().trim().parse().unwrap()).collect()
    }

    fn range(numbers: std::ops::Range<u64>) -> Vec<u64> {
        numbers.collect()
    }

    #[test]
    fn tail_counts_backwards_over_rotated_files() {
        let mut log = log(500, 4);
        log.write(0..20);
        let tail = |n| drain(&mut log.reader(ReadOptions { tail: Some(n), ..ReadOptions::default() }));
        assert_eq!(tail(0), range(20..20));
        assert_eq!(tail(1), range(19..20));
        assert_eq!(tail(9), range(11..20));
        assert_eq!(tail(20), range(0..20));
        assert_eq!(tail(1000), range(0..20));
    }

    #[test]
    fn tail_reads_blocks_backwards_in_a_large_file() {
        let mut log = log(0, 1);
        log.write(0..2000);
        let mut reader = log.reader(ReadOptions { tail: Some(1500), ..ReadOptions::default() });
        assert_eq!(drain(&mut reader), range(500..2000));
    }

    #[test]
    fn since_and_until_include_their_ends() {
        let mut log = log(500, 4);
        log.write(0..20);
        let options = ReadOptions { since: Some(at(5)), until: Some(at(12)), ..ReadOptions::default() };
        assert_eq!(drain(&mut log.reader(options)), range(5..13));
    }

    #[test]
    fn following_goes_through_rotations_without_loss_or_repeat() {
        let mut log = log(500, 4);
        let mut reader = log.reader(ReadOptions { follow: true, ..ReadOptions::default() });
        let mut seen = Vec::new();
        for step in 0..40 {
            log.write(step * 7..(step + 1) * 7);
            seen.extend(drain(&mut reader));
        }
        assert_eq!(seen, range(0..280));
    }

    #[test]
    fn a_follower_that_was_too_slow_goes_on_with_what_is_left() {
        let mut log = log(500, 2);
        log.write(0..2);
        let mut reader = log.reader(ReadOptions { follow: true, ..ReadOptions::default() });
        assert_eq!(drain(&mut reader), range(0..2));
        log.write(2..100);
        let seen = drain(&mut reader);
        let lost_from = seen.windows(2).position(|pair| pair[0] + 1 != pair[1]);
        assert_eq!(seen.last(), Some(&99));
        assert!(lost_from.is_some(), "more was written than two files keep");
        assert!(seen.is_sorted());
    }

    #[test]
    fn following_a_log_that_does_not_exist_yet_starts_with_its_first_entry() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later");
        let mut reader = Reader::open(&path, ReadOptions { follow: true, ..ReadOptions::default() }).unwrap();
        assert_eq!(drain(&mut reader), range(0..0));
        let mut writer = Writer::open(&path, RotationConfig::default()).unwrap();
        writer.write(Stream::Stdout, b"1\n", at(1));
        assert_eq!(drain(&mut reader), [1]);
    }

    #[test]
    fn half_a_line_waits_for_its_end_and_foreign_lines_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut reader = Reader::open(&path, ReadOptions { follow: true, ..ReadOptions::default() }).unwrap();
        let line = r#"{"log":"7\n","stream":"stdout","time":"2024-01-01T00:00:00Z"}"#;
        std::fs::write(&path, &line[..20]).unwrap();
        assert_eq!(drain(&mut reader), range(0..0));
        std::fs::write(&path, format!("{line}\nnot a log\n{line}\n")).unwrap();
        assert_eq!(drain(&mut reader), [7, 7]);
        assert_eq!(reader.skipped_lines(), 1);
    }
}
