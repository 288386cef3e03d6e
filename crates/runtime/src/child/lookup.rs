//! Finding the command in the container, with the words and exit codes that Docker's users know.

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::defaults;
use crate::failure::{Failure, reason};

pub const NOT_FOUND: i32 = 127;
pub const NOT_EXECUTABLE: i32 = 126;

/// Where `command` is: itself if it holds a slash, else the first match in the PATH of `env`.
/// Relative to the working directory, which must be set already.
pub fn find(command: &str, env: &[String]) -> Result<String, Failure> {
    if command.contains('/') {
        return match check(command) {
            Ok(()) => Ok(command.to_owned()),
            Err(Errno::NOENT | Errno::NOTDIR) => {
                let message = format!("exec: \"{command}\": stat {command}: no such file or directory");
                Err(Failure::new("exec", message).with_exit_code(NOT_FOUND))
            }
            Err(errno) => {
                let message = format!("exec: \"{command}\": {}", reason(errno));
                Err(Failure::new("exec", message).with_exit_code(NOT_EXECUTABLE))
            }
        };
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(defaults::PATH);
    path.split(':')
        .map(|folder| format!("{}/{command}", if folder.is_empty() { "." } else { folder }))
        .find(|candidate| check(candidate).is_ok())
        .ok_or_else(|| {
            let message = format!("exec: \"{command}\": executable file not found in $PATH");
            Failure::new("exec", message).with_exit_code(NOT_FOUND)
        })
}

fn check(path: &str) -> Result<(), Errno> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::empty())?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// What execve itself said about a command that was found.
pub fn exec_failure(command: &str, errno: Errno) -> Failure {
    let exit_code = match errno {
        // The file is there, so it is its interpreter that is not.
        Errno::NOENT => NOT_FOUND,
        Errno::ACCESS | Errno::NOEXEC | Errno::ISDIR => NOT_EXECUTABLE,
        _ => 125,
    };
    Failure::new("exec", format!("exec {command}: {}", reason(errno))).with_exit_code(exit_code)
}
