//! Where a lab's programs and images are: the built `skep`, tools unpacked from packages, the images for tests.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The `skep` under test: `SKEP_BIN`, or the one built beside this executable.
pub fn skep_binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("SKEP_BIN") {
        return Ok(PathBuf::from(path));
    }
    let own = env::current_exe()?;
    // A test runs from target/PROFILE/deps, xtask from target/PROFILE, and `skep lab` is the binary itself.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("skep")).find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("no `skep` beside {}: run `cargo build -p skep`, or set SKEP_BIN to one", own.display()),
    }
}

/// The storage folder for [`crate::Registry`] that `cargo xtask images` fills: `SKEP_IMAGES`, or `images/registry` in the
/// target folder.
pub fn images_folder() -> Result<PathBuf> {
    if let Some(path) = env::var_os("SKEP_IMAGES") {
        return Ok(PathBuf::from(path));
    }
    match in_target("images/registry") {
        Some(path) => Ok(path),
        None => bail!("the images for tests are not made yet: run `cargo xtask images`"),
    }
}

/// A program on the search path, where only root looks, or among the packages that `cargo xtask images` unpacks under the
/// target folder.
pub fn find_tool(program: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let on_path = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    match on_path.or_else(|| in_target(&format!("tools/usr/bin/{program}"))) {
        Some(path) => Ok(path),
        None => bail!(
            "`{program}` is not on this machine: run `cargo xtask images`, which unpacks it from Debian's package"
        ),
    }
}

/// `path` below the target folder: the one of this executable, or the workspace's where cargo says where that is.
pub(crate) fn in_target(path: &str) -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    let beside = own.ancestors().map(|folder| folder.join(path));
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let of_workspace = Path::new(&package).ancestors().map(|folder| folder.join("target").join(path));
    beside.chain(of_workspace).find(|candidate| candidate.is_absolute() && candidate.exists())
}
