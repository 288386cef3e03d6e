//! Programs of Debian that tests use, and folders that clean up after them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command for a program of `package`; fails the test with the package's name if it is absent.
pub fn program(path: &str, package: &str) -> Command {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|dir| dir.join(path))
        .chain([
            PathBuf::from("/bin").join(path),
            PathBuf::from("/usr/bin").join(path),
            PathBuf::from("/usr/sbin").join(path),
        ])
        .find(|candidate| candidate.is_file());
    let Some(found) = found else { panic!("`{path}` is missing: apt-get install -y {package}") };
    Command::new(found)
}

/// Runs to the end; panics with its output if it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// `skopeo copy` without a signature policy and without TLS.
pub fn skopeo_copy(arguments: &[&str]) -> String {
    let mut skopeo = program("skopeo", "skopeo");
    run(skopeo
        .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", "--src-tls-verify=false"])
        .args(arguments))
}

/// A folder that goes with the test.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A store's last background work may still make files. `rm` also takes folders deeper than std can.
        for _ in 0..1000 {
            let removed = program("rm", "coreutils").arg("-rf").arg(&self.path).stderr(Stdio::null()).status();
            if removed.is_ok_and(|status| status.success()) && !self.path.exists() {
                return;
            }
        }
        eprintln!("{} could not be removed", self.path.display());
    }
}

/// A folder on the disk that images live on in production (not a tmpfs without xattrs).
pub fn scratch() -> Scratch {
    let base = std::env::var_os("SKEP_TEST_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let dir = tempfile::Builder::new().prefix("skep-image-").tempdir_in(base).expect("a folder for the test");
    Scratch { path: dir.keep() }
}

/// Names of everything left in the store's `tmp/`.
pub fn leftovers(store: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(store.join("tmp")).expect("the store has tmp/");
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
