//! The last things that happened, kept for the report of a failure.

use std::collections::VecDeque;

use crate::clock::{Nanos, SECOND};

const KEPT: usize = 2000;

#[derive(Debug, Default)]
pub struct Trace {
    lines: VecDeque<String>,
    /// Whether anybody will read it; replays of a failing seed do.
    pub on: bool,
}

impl Trace {
    pub fn note(&mut self, now: Nanos, words: impl FnOnce() -> String) {
        if !self.on {
            return;
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        let (seconds, micros) = (now / SECOND, now % SECOND / 1000);
        self.lines.push_back(format!("{seconds:>5}.{micros:06} {}", words()));
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
