//! Progress on a terminal, redrawn in place; elsewhere a line for each change.

use std::io::{self, IsTerminal, Write};

use crate::cli::terminal;

const NARROWEST: usize = 20;

/// Whether a user wants to see how it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Shown,
    Silent,
}

#[derive(Debug)]
pub struct Screen {
    progress: Progress,
    terminal: bool,
    /// What was shown last.
    shown: Vec<(String, String)>,
}

impl Screen {
    pub fn new(progress: Progress) -> Self {
        Self { progress, terminal: io::stdout().is_terminal(), shown: Vec::new() }
    }

    /// Progress is not the command's result: what cannot be written is not missed.
    pub fn show(&mut self, lines: &[(String, String)]) {
        if lines == self.shown || self.progress == Progress::Silent {
            return;
        }
        let (rows, columns) = terminal::size().map_or((24, 80), |size| (size.rows.into(), size.columns.into()));
        // What has scrolled away cannot be redrawn.
        self.terminal &= lines.len() < rows;
        let text = match self.terminal {
            true => redrawn(lines, self.shown.len(), columns),
            false => changes(lines, &self.shown),
        };
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        self.shown = lines.to_vec();
    }
}

/// Up over what was drawn before, then every line anew.
fn redrawn(lines: &[(String, String)], drawn: usize, width: usize) -> String {
    let mut text = String::new();
    if drawn > 0 {
        text.push_str(&format!("\x1b[{drawn}A"));
    }
    for line in aligned(lines) {
        let cut: String = line.chars().take(width.max(NARROWEST) - 1).collect();
        text.push_str(&format!("\r\x1b[2K{cut}\n"));
    }
    // Lines of services that are gone.
    text.push_str("\x1b[0J");
    text
}

fn changes(lines: &[(String, String)], before: &[(String, String)]) -> String {
    let aligned = aligned(lines).into_iter().zip(lines);
    aligned.filter(|(_, line)| !before.contains(line)).map(|(text, _)| text + "\n").collect()
}

fn aligned(lines: &[(String, String)]) -> Vec<String> {
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    lines.iter().map(|(name, state)| format!("{name:<width$}  {}", state.replace('\n', " "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(states: &[&str]) -> Vec<(String, String)> {
        let names = ["api", "counter_web"].map(str::to_owned);
        names.into_iter().zip(states.iter().map(|&state| state.to_owned())).collect()
    }

    #[test]
    fn only_what_changed_is_said_again() {
        let before = lines(&["0/1 running", "0/2 running"]);
        let after = lines(&["0/1 running", "1/2 running"]);
        assert_eq!(changes(&before, &[]), "api          0/1 running\ncounter_web  0/2 running\n");
        assert_eq!(changes(&after, &before), "counter_web  1/2 running\n");
    }

    #[test]
    fn a_terminal_is_redrawn_within_its_width() {
        let text = redrawn(&lines(&["0/1 running", "1/2 running"]), 2, 22);
        assert_eq!(text, "\x1b[2A\r\x1b[2Kapi          0/1 runn\n\r\x1b[2Kcounter_web  1/2 runn\n\x1b[0J");
    }
}
