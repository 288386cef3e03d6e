//! `cargo xtask demo`: from sources to a stack that answers, in a node that leaves nothing on this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use skep_lab::{HttpAnswer, Lab, Node, http_get};

use crate::workspace::{Profile, Workspace};
use crate::{images, packages, shell};

/// The lab that `--keep` leaves.
pub const LAB: &str = "demo";

const PORT: u16 = 8080;
/// For the stack's health checks to pass, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Args)]
pub struct Options {
    /// Leave the node and its stack running, also when something fails
    #[arg(long)]
    keep: bool,
    /// Build with optimizations: slower to build, as fast as what ships
    #[arg(long)]
    release: bool,
}

#[derive(Args)]
pub struct EnterOptions {
    /// The command to run in the node; a shell when there is none
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

pub fn run(options: &Options) -> Result<()> {
    packages::need_root()?;
    let workspace = Workspace::load()?;
    let skep = workspace.build_skep(if options.release { Profile::Release } else { Profile::Dev })?;
    let images = images::make()?;
    if skep_lab::list()?.iter().any(|lab| lab.name == LAB) {
        println!("demo: ending the demo that was kept");
        skep_lab::down(LAB)?;
    }
    // Owned until it is asked to stay: whatever ends this process, nothing is left.
    let lab = Lab::builder().name(LAB).binary(skep).build()?;
    let result = show(&lab, &images, &workspace.workspace_root);
    if result.is_err() {
        print_daemon_log(lab.node(1));
    }
    if options.keep {
        lab.keep()?;
        say_what_next();
    }
    result?;
    println!(
        "demo: it works{}",
        if options.keep { "" } else { ", and is gone; `cargo xtask demo --keep` leaves it running" }
    );
    Ok(())
}

fn show(lab: &Lab, images: &Path, root: &Path) -> Result<()> {
    lab.node(1).start_registry(images)?;
    deploy(lab.node(1), root)?;
    check(lab)
}

/// The lab's folders go with it, and the reason of a failure is often only here.
fn print_daemon_log(node: &Node) {
    for folder in [node.folder().to_path_buf(), node.run_dir(), node.data_dir()] {
        if let Ok(log) = std::fs::read_to_string(folder.join("daemon.log")) {
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("demo: the daemon's last lines:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// Runs a command, or a shell, in the kept demo's node.
pub fn enter(options: &EnterOptions) -> Result<()> {
    let lab = Lab::attach(LAB).context("start one with `cargo xtask demo --keep`")?;
    let node = lab.node(1);
    let (program, args) = match options.command.split_first() {
        Some((program, args)) => (program.as_str(), args),
        None => ("sh", [].as_slice()),
    };
    let mut command = node.command(program);
    command.args(args).env("PS1", format!("{}# ", node.name())).env("PATH", path_with(&node.binary()?)?);
    shell::run(&mut command)
}

fn deploy(node: &Node, root: &Path) -> Result<()> {
    let compose = root.join("examples/stacks/counter/compose.yml");
    let compose = compose.to_str().context("the path of the workspace is not UTF-8")?;
    skep(node, &["init"])?;
    skep(node, &["stack", "deploy", "-c", compose, "counter"])?;
    skep(node, &["stack", "ps", "counter"])
}

/// Runs the command line as a user would, who sees what it says.
fn skep(node: &Node, args: &[&str]) -> Result<()> {
    println!("{}$ skep {}", node.name(), args.join(" "));
    let mut command: Command = node.command(node.binary()?);
    shell::run(command.args(args).env("REGISTRY", "127.0.0.1:5000/library"))
}

/// The published port answers outside and on localhost, and the count that redis keeps goes up.
fn check(lab: &Lab) -> Result<()> {
    let node = lab.node(1);
    let first = until_counted(|| lab.outside(|| ask(node.address().into()))?)?;
    println!("outside$ curl {}:{PORT}\n{}", node.address(), first.body.trim_end());
    let second = until_counted(|| node.in_netns(|| ask(Ipv4Addr::LOCALHOST.into()))?)?;
    println!("{}$ curl localhost:{PORT}\n{}", node.name(), second.body.trim_end());
    if count_in(&second) <= count_in(&first) {
        bail!("the counter went from {:?} to {:?}", count_in(&first), count_in(&second));
    }
    Ok(())
}

fn ask(address: IpAddr) -> Result<HttpAnswer> {
    http_get(SocketAddr::new(address, PORT), "/")
}

fn until_counted(ask: impl Fn() -> Result<HttpAnswer>) -> Result<HttpAnswer> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        match answer {
            Ok(answer) if answer.status == 200 && count_in(&answer).is_some() => return Ok(answer),
            Ok(answer) if Instant::now() > deadline => bail!("port {PORT} answers {}: {}", answer.status, answer.body),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("port {PORT} does not answer")));
            }
            // The stack's services find each other as they become healthy.
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The number in `visit 3 by way of …`.
fn count_in(answer: &HttpAnswer) -> Option<u64> {
    answer.body.split_ascii_whitespace().find_map(|word| word.parse().ok())
}

fn say_what_next() {
    println!(
        "\nThe node runs on. Enter it, where `skep` and `curl` are at hand:\n\
         \x20   cargo xtask enter\n\
         \x20   skep service ls\n\
         \x20   skep stack ps counter\n\
         \x20   skep service logs -f counter_web\n\
         \x20   skep exec counter_web.1 sh\n\
         \x20   skep service scale counter_web=4\n\
         \x20   curl localhost:{PORT}\n\
         End it:\n\
         \x20   cargo xtask down"
    );
}

fn path_with(binary: &Path) -> Result<std::ffi::OsString> {
    let folder = binary.parent().context("the binary is in a folder")?.to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder).chain(std::env::split_paths(&path)).collect::<Vec<PathBuf>>();
    std::env::join_paths(folders).context("a folder of PATH holds a colon")
}
