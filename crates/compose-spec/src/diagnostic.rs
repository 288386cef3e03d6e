//! What is wrong, where, and what would be right: the form of every error and warning of this crate.
//!
//! A diagnostic is complete in itself: it holds the line that it points at, so that it can be shown
//! without the sources.

use std::fmt;

use crate::source::{Location, Sources, Span};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing can be made of the file.
    Error,
    /// Something in it has no effect, or another than it seems to.
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Lower case, without a full stop.
    pub message: String,
    /// Absent for what no file says, such as a missing file of the command line.
    pub location: Option<Location>,
    /// What would be right.
    pub help: Option<String>,
}

impl Diagnostic {
    pub fn with_help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }
}

/// Collects diagnostics in the order of their finding.
#[derive(Debug, Default)]
pub struct Report {
    pub sources: Sources,
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// A report on files that were already read: for those who look at a loaded project further.
    pub fn on(sources: &Sources) -> Self {
        Self { sources: sources.clone(), diagnostics: Vec::new() }
    }

    pub fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Error, Some(span), message.into())
    }

    pub fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Warning, Some(span), message.into())
    }

    /// An error about the request itself.
    pub fn error_nowhere(&mut self, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Error, None, message.into())
    }

    fn push(&mut self, severity: Severity, span: Option<Span>, message: String) -> &mut Diagnostic {
        let location = span.map(|span| self.sources.location(span));
        self.diagnostics.push(Diagnostic { severity, message, location, help: None });
        self.diagnostics.last_mut().expect("one was pushed on the line before")
    }

    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    pub fn error_count(&self) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// By severity, then place: what a user reads top to bottom. Equal ones are said once.
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        let place = |d: &Diagnostic| d.location.as_ref().map(|l| (l.file.clone(), l.line, l.column));
        self.diagnostics.sort_by_key(|diagnostic| (diagnostic.severity, place(diagnostic)));
        self.diagnostics.dedup();
        self.diagnostics
    }
}

/// Lines longer than this are shown from the part that matters.
const SHOWN_WIDTH: usize = 120;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        match &self.location {
            Some(location) => {
                writeln!(f, "{}:{}:{}: {severity}: {}", location.file, location.line, location.column, self.message)?;
                excerpt(f, location)?;
            }
            None => writeln!(f, "{severity}: {}", self.message)?,
        }
        match &self.help {
            Some(help) => writeln!(f, "       help: {help}"),
            None => Ok(()),
        }
    }
}

fn excerpt(f: &mut fmt::Formatter<'_>, location: &Location) -> fmt::Result {
    let column = location.column.saturating_sub(1) as usize;
    let line: Vec<char> = location.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let skipped = if column > SHOWN_WIDTH * 3 / 4 { column - SHOWN_WIDTH / 2 } else { 0 };
    let shown: String = line.iter().skip(skipped).take(SHOWN_WIDTH).collect();
    let room = shown.chars().count().saturating_sub(column - skipped).max(1);
    let carets = usize::from(location.length).min(room);
    writeln!(f, "{:>5} | {}", location.line, shown.trim_end())?;
    writeln!(f, "      | {}{}", " ".repeat(column - skipped), "^".repeat(carets))
}
