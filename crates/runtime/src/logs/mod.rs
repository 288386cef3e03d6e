//! A container's log: Docker's json-file, written by its warden and read by anyone, at the same time.
//!
//! ```text
//! pipe ─▶ Writer (lines, 16 KiB pieces, rotation) ─▶ x.log, x.log.1, … ─▶ Reader (tail, since, until, follow) ─▶ Entry
//! ```
//! One line per entry: `{"log":"text\n","stream":"stdout","time":"2024-01-02T03:04:05.678Z"}`. `log` ends in a newline
//! unless it is a piece of a longer line. Any tool that reads Docker's files reads these.
//!
//! Files are all they share: the writer never waits for a reader, and a reader needs no daemon.

mod decode;
mod encode;
mod files;
mod reader;
mod time;
mod writer;

use serde::{Deserialize, Serialize};
use std::time::SystemTime;

pub use reader::{ReadOptions, Reader};
pub use time::{format_time, parse_time};
pub use writer::{RotationConfig, Writer};

/// Longest piece of a line in one entry, in bytes, as in Docker.
pub const PIECE_BYTES: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// Docker's name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One entry as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub stream: Stream,
    pub time: SystemTime,
    /// UTF-8; ends in a newline unless the line goes on in a later entry of the same stream (or the program ended in
    /// mid-line).
    pub bytes: Vec<u8>,
}

impl Entry {
    /// True for a piece whose line goes on.
    pub fn is_partial(&self) -> bool {
        self.bytes.last() != Some(&b'\n')
    }
}
