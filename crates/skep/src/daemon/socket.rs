//! The unix socket of the command line: for root, and for the group `skep` where it exists.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result, bail};
use tokio::net::UnixListener;

/// Listens on `path`; a socket that nobody listens on any more is replaced.
pub fn listen(path: &Path, group: &str) -> Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another skep daemon listens on {}; stop it, or give this one another --run-dir", path.display());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("failed to replace the socket {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("failed to listen on {}", path.display()))?;
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let mode = match group_id(&groups, group) {
        Some(gid) => {
            chown(path, None, Some(gid))
                .with_context(|| format!("failed to give {} to the group {group}", path.display()))?;
            0o660
        }
        None => 0o600,
    };
    let set = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    set.with_context(|| format!("failed to set the permissions of {}", path.display()))?;
    Ok(listener)
}

fn group_id(groups: &str, name: &str) -> Option<u32> {
    let line = groups.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_their_whole_name() {
        let groups = "root:x:0:\nskepper:x:7:\nskep:x:991:anna,ben\n";
        assert_eq!(group_id(groups, "skep"), Some(991));
        assert_eq!(group_id(groups, "ske"), None);
    }
}
