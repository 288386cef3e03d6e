//! Where things were written: the texts that were read, and spans into them.
//!
//! A span names its file by number, so that every node of the tree carries one at twelve bytes' cost.
//! Positions count characters, as editors do.

use std::sync::Arc;

/// A stretch of one line of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    pub(crate) file: u16,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
    /// In characters; at least 1, and cut at the line's end when shown.
    pub length: u16,
}

/// Every text that took part in a load.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Arc<Vec<Source>>,
}

#[derive(Debug, Clone)]
struct Source {
    name: String,
    text: Arc<str>,
}

/// A span with its file's name and its line's text: enough to show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    pub file: String,
    pub line: u32,
    pub column: u32,
    pub length: u16,
    /// The whole line, without its end.
    pub text: String,
}

impl Sources {
    pub(crate) fn add(&mut self, name: &str, text: &str) -> u16 {
        let files = Arc::make_mut(&mut self.files);
        files.push(Source { name: name.to_owned(), text: text.into() });
        u16::try_from(files.len() - 1).expect("a load reads fewer than 65536 files: load() bounds includes")
    }

    pub fn location(&self, span: Span) -> Location {
        let source = &self.files[usize::from(span.file)];
        let text = source.text.lines().nth(span.line.saturating_sub(1) as usize).unwrap_or_default();
        Location {
            file: source.name.clone(),
            line: span.line,
            column: span.column,
            length: span.length.max(1),
            text: text.to_owned(),
        }
    }

    /// `file:line`, for messages that refer to a second place.
    pub fn place(&self, span: Span) -> String {
        format!("{}:{}", self.files[usize::from(span.file)].name, span.line)
    }
}

impl Span {
    pub(crate) fn new(file: u16, line: usize, column: usize, length: usize) -> Self {
        Self {
            file,
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
            length: u16::try_from(length).unwrap_or(u16::MAX).max(1),
        }
    }
}
