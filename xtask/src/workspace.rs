//! What cargo knows about this workspace: where it is, its packages and their dependencies.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::shell;

#[derive(Deserialize)]
pub struct Workspace {
    pub workspace_root: PathBuf,
    pub target_directory: PathBuf,
    pub packages: Vec<Package>,
}

#[derive(Deserialize)]
pub struct Package {
    pub name: String,
    pub manifest_path: PathBuf,
    pub dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
pub struct Dependency {
    pub name: String,
    /// `None` for a normal one, else `dev` or `build`.
    pub kind: Option<String>,
}

/// What a build is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

impl Workspace {
    pub fn load() -> Result<Workspace> {
        let text = shell::read(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
        serde_json::from_str(&text).context("cannot read cargo's metadata")
    }

    /// Builds the `skep` binary and answers where it is.
    pub fn build_skep(&self, profile: Profile) -> Result<PathBuf> {
        self.build("skep", profile)
    }

    /// Builds the binary that is named as its package, and answers where it is.
    pub fn build(&self, name: &str, profile: Profile) -> Result<PathBuf> {
        let mut command = cargo();
        command.args(["build", "--package", name, "--bin", name]).current_dir(&self.workspace_root);
        let folder = match profile {
            Profile::Dev => "debug",
            Profile::Release => {
                command.arg("--release");
                "release"
            }
        };
        shell::run(&mut command)?;
        Ok(self.target_directory.join(folder).join(name))
    }
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
