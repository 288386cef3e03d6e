//! The user's terminal: its size, and raw mode for as long as a value lives.

use std::io;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use skep_api::TerminalSize;

/// The size of the terminal that output goes to.
pub fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// Keys go through one by one, signals' keys too. Dropping it brings the terminal back as it was.
#[derive(Debug)]
pub struct RawMode(Termios);

impl RawMode {
    pub fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone, and with it whoever could be told.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}
