//! How a command ends: exit codes, and the one line that says why.
//!
//! 0 ok · 1 usage or internal · 2 cannot be placed or planned · 3 deployed and rolled back · 4 no quorum or no manager
//! in reach · 124 timed out · 130 interrupted; `exec` passes on what its command ended with.

use std::fmt;
use std::io;
use std::process::ExitCode;

use skep_api::{Refusal, RefusalKind};

pub const UNPLACED: u8 = 2;
pub const ROLLED_BACK: u8 = 3;
const UNAVAILABLE: u8 = 4;
pub const TIMED_OUT: u8 = 124;
pub const INTERRUPTED: u8 = 130;

/// An end that is decided: the code, and what to say before it unless all was said.
#[derive(Debug)]
pub struct Exit {
    pub code: u8,
    pub message: Option<String>,
}

impl Exit {
    pub fn silent(code: u8) -> anyhow::Error {
        Self { code, message: None }.into()
    }

    pub fn saying(code: u8, message: impl Into<String>) -> anyhow::Error {
        Self { code, message: Some(message.into()) }.into()
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => f.write_str(message),
            None => write!(f, "exit code {}", self.code),
        }
    }
}

impl std::error::Error for Exit {}

/// Says what went wrong, and answers the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let (code, message) = verdict(error);
    if let Some(message) = message {
        super::output::complain(&message);
    }
    ExitCode::from(code)
}

fn verdict(error: &anyhow::Error) -> (u8, Option<String>) {
    let broken_pipe = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    if error.chain().filter_map(|cause| cause.downcast_ref()).any(broken_pipe) {
        // Whoever read our output has seen enough.
        return (0, None);
    }
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return (exit.code, exit.message.clone());
    }
    let code = match error.downcast_ref::<Refusal>().map(|refusal| refusal.kind) {
        Some(RefusalKind::Unavailable) => UNAVAILABLE,
        Some(RefusalKind::TimedOut) => TIMED_OUT,
        Some(
            RefusalKind::NotFound
            | RefusalKind::AlreadyExists
            | RefusalKind::OutOfSequence
            | RefusalKind::Conflict
            | RefusalKind::Invalid
            | RefusalKind::Denied
            | RefusalKind::Lapsed
            | RefusalKind::Unsupported
            | RefusalKind::Internal,
        )
        | None => 1,
    };
    (code, Some(format!("{error:#}").trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn refusals_become_codes_that_scripts_can_tell_apart() {
        let code = |kind| verdict(&Refusal::new(kind, "x").into()).0;
        assert_eq!(code(RefusalKind::NotFound), 1);
        assert_eq!(code(RefusalKind::Unavailable), 4);
        assert_eq!(code(RefusalKind::TimedOut), 124);
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_causes_are_said_in_one_line() {
        let pipe = Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe)).context("printing").unwrap_err();
        assert_eq!(verdict(&pipe), (0, None));
        let error = Err::<(), _>(io::Error::other("no such file")).context("reading x").unwrap_err();
        assert_eq!(verdict(&error), (1, Some("reading x: no such file".to_owned())));
    }
}
