//! Telling a node from its copy: a number that this boot of this machine has, and that no copy of its disk has.

use std::path::Path;

use anyhow::{Context, Result};
use skep_identity::write_private;

use super::member::random_seed;

/// The number in the run folder, made anew when there is none: that folder is in memory, so the number outlives the
/// daemon and not the boot.
pub fn instance(run_dir: &Path) -> Result<String> {
    let path = run_dir.join("instance");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("failed to read {}", path.display())),
    }
    let made = format!("{:032x}", random_seed()?);
    write_private(&path, made.as_bytes()).context("failed to write this boot's number")?;
    Ok(made)
}

/// The node is no member any more.
pub fn forget(run_dir: &Path) -> Result<()> {
    let path = run_dir.join("instance");
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_outlives_the_daemon_and_differs_elsewhere() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = instance(one.path()).unwrap();
        assert_eq!(instance(one.path()).unwrap(), first);
        assert_ne!(instance(other.path()).unwrap(), first);
    }
}
