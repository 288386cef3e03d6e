//! The writing side: bytes from a container's pipes in, whole json-file lines out, rotated by size.
//!
//! It lives in a warden, so its memory is two unfinished lines and one output buffer. Each call of `write` ends in one
//! write(2) to the page cache, which does not block and survives the warden; nothing is ever synced. When the disk is
//! full, entries are dropped and counted: a container must not stop for its log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::time::format_time;
use super::{PIECE_BYTES, Stream, encode, files};

/// When a log moves on to a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationConfig {
    /// Bytes; no file grows beyond, save for a single entry that is longer. 0 is unlimited.
    pub max_size: u64,
    /// Files kept, the current one included; 0 counts as 1: then the log starts anew when it is full.
    pub max_files: u32,
}

impl Default for RotationConfig {
    /// 10 MB × 3: skep's default, where Docker's is one file without end.
    fn default() -> Self {
        Self { max_size: 10_000_000, max_files: 3 }
    }
}

#[derive(Debug)]
pub struct Writer {
    file: LogFile,
    stdout: Line,
    stderr: Line,
}

/// The unfinished line of one stream.
#[derive(Debug, Default)]
struct Line {
    pending: Vec<u8>,
    /// Set once a piece of the line is written: its later pieces carry the same time, as in Docker.
    first_piece: Option<SystemTime>,
    last_write: Option<SystemTime>,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    rotation: RotationConfig,
    /// Bytes in the file, all of whole lines.
    size: u64,
    /// Encoded and not yet written.
    out: Vec<u8>,
    dropped_bytes: u64,
}

/// The output buffer is written at this size, and gives back what it grew beyond twice of it.
const OUT_BYTES: usize = 16 * 1024;

impl Writer {
    /// Opens or creates the log (mode 0640, as Docker's) and goes on at its end.
    pub fn open(path: impl Into<PathBuf>, rotation: RotationConfig) -> io::Result<Self> {
        let rotation = RotationConfig { max_files: rotation.max_files.max(1), ..rotation };
        let path = path.into();
        let mut file = create(&path)?;
        let mut size = file.metadata()?.len();
        if size > 0 && !ends_in_newline(&mut file)? {
            // A power cut tore the last line. Readers skip it once it ends.
            file.write_all(b"\n")?;
            size += 1;
        }
        // Left over from a setting that kept more.
        for index in rotation.max_files.. {
            if fs::remove_file(files::name(&path, index.max(1))).is_err() {
                break;
            }
        }
        let file = LogFile { path, file, rotation, size, out: Vec::new(), dropped_bytes: 0 };
        Ok(Self { file, stdout: Line::default(), stderr: Line::default() })
    }

    /// Takes what was read from a pipe. Whole lines, and pieces of [`PIECE_BYTES`] of longer ones, are in the file when
    /// this returns; the rest waits for its newline or for [`Writer::flush`].
    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: SystemTime) {
        let line = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        line.last_write = Some(now);
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = rest.len().min(PIECE_BYTES - line.pending.len());
            let newline = rest[..room].iter().position(|b| *b == b'\n');
            let (text, ends_line) = (&rest[..newline.unwrap_or(room)], newline.is_some());
            rest = &rest[text.len() + usize::from(ends_line)..];
            if line.pending.is_empty() && (ends_line || text.len() == PIECE_BYTES) {
                line.emit(&mut self.file, stream, Some(text), ends_line, now);
                continue;
            }
            line.pending.extend(text);
            if ends_line || line.pending.len() == PIECE_BYTES {
                line.emit(&mut self.file, stream, None, ends_line, now);
            }
        }
        self.file.write_out();
    }

    /// Writes unfinished lines as they are, without a newline: at the end of the streams, or to show a prompt. What
    /// comes later continues the same line.
    pub fn flush(&mut self) {
        for (line, stream) in [(&mut self.stdout, Stream::Stdout), (&mut self.stderr, Stream::Stderr)] {
            if let (false, Some(time)) = (line.pending.is_empty(), line.last_write) {
                line.emit(&mut self.file, stream, None, false, time);
            }
        }
        self.file.write_out();
    }

    /// Bytes of encoded entries lost to a full disk or another write error, since this writer was opened.
    pub fn dropped_bytes(&self) -> u64 {
        self.file.dropped_bytes
    }
}

impl Line {
    /// Writes `text`, or what is pending.
    fn emit(&mut self, file: &mut LogFile, stream: Stream, text: Option<&[u8]>, ends_line: bool, now: SystemTime) {
        let time = self.first_piece.unwrap_or(now);
        self.first_piece = (!ends_line).then_some(time);
        file.push(stream, text.unwrap_or(&self.pending), ends_line, time);
        self.pending.clear();
    }
}

impl LogFile {
    fn push(&mut self, stream: Stream, text: &[u8], ends_line: bool, time: SystemTime) {
        let start = self.out.len();
        encode::entry(&mut self.out, stream, text, ends_line, &format_time(time));
        let filled = self.size + self.out.len() as u64;
        if self.rotation.max_size > 0 && filled > self.rotation.max_size && self.size + start as u64 > 0 {
            let entry = self.out.split_off(start);
            self.write_out();
            self.rotate();
            self.out = entry;
        }
        if self.out.len() >= OUT_BYTES {
            self.write_out();
        }
    }

    fn write_out(&mut self) {
        if self.out.is_empty() {
            return;
        }
        match self.file.write_all(&self.out) {
            Ok(()) => self.size += self.out.len() as u64,
            Err(_) => {
                self.dropped_bytes += self.out.len() as u64;
                // Half a line must not stay before the next one. If even this fails, a reader skips the torn line.
                self.file.set_len(self.size).ok();
            }
        }
        self.out.clear();
        self.out.shrink_to(2 * OUT_BYTES);
    }

    /// The new file exists before the first name moves. When it cannot be made, or a name cannot be moved, the log goes
    /// on in the file it has, and the next entry tries again.
    fn rotate(&mut self) {
        let fresh_path = files::with_suffix(&self.path, "new");
        let moved = fs::remove_file(&fresh_path)
            .or_else(ignore_missing)
            .and_then(|()| create(&fresh_path))
            .and_then(|fresh| self.move_names(&fresh_path).map(|()| fresh));
        if let Ok(fresh) = moved {
            self.file = fresh;
            self.size = 0;
        }
    }

    fn move_names(&self, fresh: &Path) -> io::Result<()> {
        for index in (1..self.rotation.max_files).rev() {
            fs::rename(files::name(&self.path, index - 1), files::name(&self.path, index)).or_else(ignore_missing)?;
        }
        fs::rename(fresh, &self.path)
    }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).mode(0o640).open(path)
}

fn ends_in_newline(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn writer(max_size: u64, max_files: u32) -> (tempfile::TempDir, PathBuf, Writer) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        let writer = Writer::open(&path, RotationConfig { max_size, max_files }).unwrap();
        (dir, path, writer)
    }

    fn texts(path: &Path) -> Vec<String> {
        let file = fs::read(path).unwrap_or_default();
        let lines = file.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| String::from_utf8(super::super::decode::entry(line).unwrap().bytes).unwrap()).collect()
    }

    #[test]
    fn a_line_in_pieces_is_one_entry() {
        let (_dir, path, mut writer) = writer(0, 1);
        writer.write(Stream::Stdout, b"he", at(1));
        writer.write(Stream::Stderr, b"oops\n", at(2));
        writer.write(Stream::Stdout, b"llo\nwor", at(3));
        writer.write(Stream::Stdout, b"ld\n\n", at(4));
        assert_eq!(texts(&path), ["oops\n", "hello\n", "world\n", "\n"]);
        writer.write(Stream::Stdout, b"no newline", at(5));
        writer.flush();
        assert_eq!(texts(&path).last().unwrap(), "no newline");
    }

    #[test]
    fn long_lines_are_split_at_16_kib_and_keep_their_first_time() {
        let (_dir, path, mut writer) = writer(0, 1);
        let mut line = vec![b'a'; 2 * PIECE_BYTES];
        line.push(b'\n');
        for (index, part) in line.chunks(5000).enumerate() {
            writer.write(Stream::Stdout, part, at(index as u64));
        }
        let lengths: Vec<_> = texts(&path).iter().map(String::len).collect();
        // The newline comes after a full buffer: Docker writes it as a piece of its own.
        assert_eq!(lengths, [PIECE_BYTES, PIECE_BYTES, 1]);
        let file = fs::read_to_string(&path).unwrap();
        assert_eq!(file.matches("1970-01-01T00:00:03Z").count(), 3, "all pieces carry the time of the first");
    }

    #[test]
    fn files_rotate_before_they_are_too_large() {
        let (_dir, path, mut writer) = writer(250, 3);
        for n in 0..20 {
            writer.write(Stream::Stdout, format!("line {n}\n").as_bytes(), at(n));
        }
        let sizes: Vec<_> = (0..4).map(|i| fs::metadata(files::name(&path, i)).map(|m| m.len()).ok()).collect();
        assert!(sizes[..3].iter().all(|size| size.is_some_and(|s| s > 0 && s <= 250)), "{sizes:?}");
        assert_eq!(sizes[3], None);
        let kept: Vec<_> = [2, 1, 0].iter().flat_map(|i| texts(&files::name(&path, *i))).collect();
        assert_eq!(kept.last().unwrap(), "line 19\n");
        assert_eq!(kept.first().unwrap(), &format!("line {}\n", 20 - kept.len()), "no hole");
    }

    #[test]
    fn one_file_starts_anew_when_it_is_full() {
        let (dir, path, mut writer) = writer(250, 1);
        for n in 0..7 {
            writer.write(Stream::Stdout, format!("line {n}\n").as_bytes(), at(n));
        }
        assert_eq!(texts(&path).last().unwrap(), "line 6\n");
        assert!(fs::metadata(&path).unwrap().len() <= 250);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_torn_line_does_not_swallow_the_next_one() {
        let (_dir, path, mut first) = writer(0, 1);
        first.write(Stream::Stdout, b"a\n", at(1));
        drop(first);
        let torn = OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"log\":\"to");
        torn.unwrap();
        let mut second = Writer::open(&path, RotationConfig::default()).unwrap();
        second.write(Stream::Stdout, b"b\n", at(2));
        let file = fs::read(&path).unwrap();
        let readable = file.split(|b| *b == b'\n').filter_map(super::super::decode::entry);
        assert_eq!(readable.map(|e| e.bytes).collect::<Vec<_>>(), [b"a\n", b"b\n"]);
    }

    #[test]
    fn a_full_disk_drops_entries_and_counts_them() {
        let mut writer = Writer::open("/dev/full", RotationConfig { max_size: 0, max_files: 1 }).unwrap();
        writer.write(Stream::Stdout, b"lost\n", at(1));
        assert!(writer.dropped_bytes() > 0);
    }
}
