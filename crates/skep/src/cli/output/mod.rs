//! What commands print: tables, templates, JSON lines, filters, times and sizes, in Docker's forms.

pub mod filter;
pub mod format;
pub mod json;
pub mod listing;
pub mod reference;
pub mod size;
pub mod table;
pub mod time;

use std::fmt::Display;
use std::io::{self, Write};

/// A line on standard output.
pub fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

/// Text as it is on standard output.
pub fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What went wrong, or may: a line on standard error.
pub fn complain(message: impl Display) {
    raw_complaint(&format!("skep: {message}\n"));
}

/// Text as it is on standard error. When that is closed, nobody is left to tell.
pub fn raw_complaint(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
