//! `cargo xtask test`: everything that a change must pass, cheapest first, on a machine with nothing but Debian, root and cargo.

use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use crate::workspace::{Profile, Workspace, cargo};
use crate::{docker, images, packages, previous, shell, tidy, vm};

#[derive(Args)]
pub struct Options {
    /// Run the long tests at full length: more seeds, more kills, more hostile input, and managers of the version before
    #[arg(long)]
    soak: bool,
    /// Run only the tests whose name contains this, and no other checks
    filter: Option<String>,
}

pub fn run(options: &Options) -> Result<()> {
    packages::need_root()?;
    let workspace = Workspace::load()?;
    skep_lab::sweep()?;
    let result = check(&workspace, options);
    // A test that was killed could not clean up after itself.
    let swept = skep_lab::sweep()?;
    if swept > 0 {
        println!("test: took down {swept} labs that tests left");
    }
    result
}

fn check(workspace: &Workspace, options: &Options) -> Result<()> {
    let root = &workspace.workspace_root;
    if options.filter.is_none() {
        step("tidy", tidy::run)?;
        step("format", || shell::run(cargo().current_dir(root).args(["fmt", "--all", "--", "--check"])))?;
        step("clippy", || clippy(root))?;
    }
    step("build", || workspace.build_skep(Profile::Dev).map(drop))?;
    step("images", || images::make().map(drop))?;
    step("packages", || prepare(&workspace.target_directory))?;
    let mut previous = None;
    if options.soak {
        step("previous build", || {
            previous = Some(previous::build(workspace)?);
            Ok(())
        })?;
    }
    step("tests", || tests(workspace, options, previous.as_deref()))
}

/// Twice: what ships is held to every lint; tests may unwrap and read files.
fn clippy(root: &Path) -> Result<()> {
    let lint = |more: &[&str]| {
        let mut command = cargo();
        command.current_dir(root).args(["clippy", "--quiet", "--workspace"]).args(more);
        shell::run(&mut command)
    };
    lint(&["--", "--deny", "warnings"])?;
    let lenient = ["--allow", "clippy::unwrap_used", "--allow", "clippy::disallowed_methods"];
    lint(&[&["--all-targets", "--", "--deny", "warnings"], lenient.as_slice()].concat())
}

/// What single tests need beside the images: a kernel for virtual machines, a tunnel of another make, and a Docker to compare
/// with.
fn prepare(target: &Path) -> Result<()> {
    vm::prepare(target)?;
    let tunnels = ["wireguard-go", "wireguard-tools"];
    packages::unpack_once(&tunnels, &target.join("tools/packages"), &target.join("tools"))?;
    packages::install(&[("htpasswd", "apache2-utils"), ("umoci", "umoci"), ("nft", "nftables")])?;
    docker::unpack(target).map(drop)
}

/// The machine's programs first, then those that were unpacked and not installed.
fn path(target: &Path) -> Result<OsString> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = ["tools/usr/bin", "anchors/docker/usr/sbin", "anchors/docker/usr/bin"];
    let folders = std::env::split_paths(&own).chain(unpacked.map(|folder| target.join(folder)));
    std::env::join_paths(folders).context("the target folder's path has a colon")
}

fn tests(workspace: &Workspace, options: &Options, previous: Option<&Path>) -> Result<()> {
    let mut command = cargo();
    // nextest gives each test a process of its own, which a kill or a hang ends alone; the plain runner runs them as well.
    if shell::exists("cargo-nextest") {
        command.args(["nextest", "run", "--workspace", "--no-tests=warn"]);
    } else {
        println!("test: cargo-nextest is not installed, using `cargo test`");
        command.args(["test", "--workspace", "--no-fail-fast"]);
    }
    command.args(&options.filter).current_dir(&workspace.workspace_root);
    command.env("PATH", path(&workspace.target_directory)?);
    command.env("SKEP_IMAGES", workspace.target_directory.join("images/registry"));
    command.env("SKEP_BIN", workspace.target_directory.join("debug/skep"));
    if options.soak {
        command.env("SKEP_SOAK", "1");
    }
    if let Some(previous) = previous {
        command.env("SKEP_PREVIOUS", previous);
    }
    shell::run(&mut command)
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("test: {name}");
    let start = Instant::now();
    work()?;
    println!("test: {name} took {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
