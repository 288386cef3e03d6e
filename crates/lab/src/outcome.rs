//! What a finished program said and how it ended, in a form that a failing test can show whole.

use std::fmt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; `128 + signal` when a signal ended it, as a shell reports it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Runs `command` to its end with no standard input. `shown` names it in messages.
    pub fn of(command: &mut Command, shown: &str) -> Result<Outcome> {
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run `{shown}`"))?;
        Ok(Outcome {
            command: shown.to_owned(),
            code: exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    pub fn is_ok(&self) -> bool {
        self.code == 0
    }

    /// Standard output, or an error with everything that the program said.
    pub fn ok(self) -> Result<String> {
        if self.is_ok() { Ok(self.stdout) } else { bail!("{self}") }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ended with {}", self.command, self.code)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(f, "\n{name}:\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}
