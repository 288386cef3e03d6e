//! The build that this one must get along with: the last commit whose feature level was one lower, from this repository's
//! history, built in a folder of its own. Its source is taken out of git's store: no branch or work tree is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;
use crate::workspace::{Workspace, cargo};

const LEVEL_FILE: &str = "crates/model/src/level.rs";
const LEVEL: &str = "pub const FEATURE_LEVEL: u32 = ";

/// Builds it unless it is there; where its `skep` is.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let root = &workspace.workspace_root;
    let commit = commit(root)?;
    let folder = workspace.target_directory.join("previous").join(&commit);
    let (source, target) = (folder.join("source"), folder.join("target"));
    let binary = target.join("debug/skep");
    if binary.exists() {
        return Ok(binary);
    }
    fs::create_dir_all(&source).with_context(|| format!("cannot make {}", source.display()))?;
    let mut extract = Command::new("sh");
    extract.args(["-c", "git archive \"$0\" | tar -x -C \"$1\"", &commit]).arg(&source).current_dir(root);
    shell::run(&mut extract)?;
    let mut build = cargo();
    build.args(["build", "--package", "skep", "--bin", "skep", "--target-dir"]).arg(&target).current_dir(&source);
    // The folder has settings of its own, and is no part of this workspace.
    shell::run(build.env_remove("CARGO_TARGET_DIR"))?;
    Ok(binary)
}

/// The parent of the commit that gave this level.
fn commit(root: &Path) -> Result<String> {
    let text = fs::read_to_string(root.join(LEVEL_FILE)).with_context(|| format!("cannot read {LEVEL_FILE}"))?;
    let line = text.lines().find(|line| line.starts_with(LEVEL));
    let line = line.with_context(|| format!("{LEVEL_FILE} has no line `{LEVEL}…`"))?;
    let git = |args: &[&str]| shell::read(Command::new("git").args(args).current_dir(root));
    let raised = git(&["log", "-1", "--format=%H", "-S", line.trim_end_matches(';'), "--", LEVEL_FILE])
        .context("the build before this feature level is found in git's history, which is not there")?;
    if raised.trim().is_empty() || git(&["rev-parse", "--is-shallow-repository"])?.trim() == "true" {
        bail!(
            "git's history does not go back to the build before this feature level (`{line}`): it is shallow, or the level is \
             not committed yet; `git fetch --unshallow` brings the rest"
        );
    }
    let parent = format!("{}^", raised.trim());
    Ok(git(&["rev-parse", "--verify", &parent])?.trim().to_owned())
}
