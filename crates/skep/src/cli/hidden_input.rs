//! Secrets that a person types or pipes in: passphrases and unlock keys.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::Result;
use super::output;

/// A line from the terminal, unseen; without a terminal, all that standard input has.
pub fn ask(prompt: &str) -> Result<String> {
    let mut stdin = io::stdin().lock();
    if !stdin.is_terminal() {
        let mut text = String::new();
        stdin.read_to_string(&mut text).context("failed to read standard input")?;
        return Ok(without_line_end(&text));
    }
    output::raw_complaint(prompt);
    let quiet = Quiet::enter().context("failed to hide what is typed")?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    drop(quiet);
    output::raw_complaint("\n");
    read.context("failed to read from the terminal")?;
    Ok(without_line_end(&line))
}

/// The first line of a file.
pub fn from_file(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => bail!("`{}` has no passphrase in its first line", path.display()),
    }
}

/// Whether a person confirms; the answer must be `yes`.
pub fn confirm(question: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    output::raw_complaint(question);
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("failed to read from the terminal")?;
    Ok(line.trim() == "yes")
}

fn without_line_end(text: &str) -> String {
    text.trim_end_matches(['\n', '\r']).to_owned()
}

/// The terminal does not show what is typed, for as long as this lives.
struct Quiet(Termios);

impl Quiet {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Drain, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // The terminal may be gone, and with it whoever could be told.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
