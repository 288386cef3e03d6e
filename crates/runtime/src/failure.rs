//! Why a container or an exec could not start: the step, the words for the user, and Docker's exit code.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// A failed step. It crosses processes (child, warden, client), so it is plain data without a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which step: `plan`, `rootfs`, `mount`, `user`, `exec`, …
    pub step: String,
    /// What is wrong, with its subject, for the user.
    pub message: String,
    /// 127 command not found, 126 not executable, 125 everything else.
    pub exit_code: i32,
}

/// Longest message that is carried, in bytes; paths inside may be up to 4096 bytes each.
const MESSAGE_BYTES_MAX: usize = 2048;

impl Failure {
    pub(crate) fn new(step: &str, mut message: String) -> Failure {
        if message.len() > MESSAGE_BYTES_MAX {
            let end = (0..=MESSAGE_BYTES_MAX).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
            message.truncate(end);
        }
        Failure { step: step.to_owned(), message, exit_code: 125 }
    }

    pub(crate) fn with_exit_code(self, exit_code: i32) -> Failure {
        Failure { exit_code, ..self }
    }

    /// `what` failed with an errno: "what: reason".
    pub(crate) fn errno(step: &str, what: &str, errno: Errno) -> Failure {
        Failure::new(step, format!("{what}: {}", reason(errno)))
    }
}

/// The kernel's reason in lower case, in the words that users of Docker know.
pub(crate) fn reason(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// Names the step and the subject of a failed call: `.step("mount", || format!("failed to mount `{target}`"))?`.
pub(crate) trait Step<T> {
    fn step(self, step: &str, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, step: &str, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|errno| Failure::errno(step, &what(), errno))
    }
}

impl<T> Step<T> for std::io::Result<T> {
    fn step(self, step: &str, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| match error.raw_os_error() {
            Some(raw) => Failure::errno(step, &what(), Errno::from_raw_os_error(raw)),
            None => Failure::new(step, format!("{}: {error}", what())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_under_docker() {
        assert_eq!(reason(Errno::NOENT), "no such file or directory");
        assert_eq!(reason(Errno::NOEXEC), "exec format error");
    }
}
