//! One node of a lab: its folders, and running things in its namespaces.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::holder::Holder;
use crate::outcome::Outcome;
use crate::process::ProcessId;
use crate::record::NodeInfo;
use crate::registry::Registry;
use crate::{cgroup, tools, wiring};

#[derive(Debug)]
pub struct Node {
    info: NodeInfo,
    folder: PathBuf,
    holder: Holder,
    binary: Option<PathBuf>,
}

impl Node {
    pub(crate) fn new(info: NodeInfo, lab_folder: &Path, holder: Holder, binary: Option<PathBuf>) -> Node {
        let folder = lab_folder.join(&info.name);
        Node { info, folder, holder, binary }
    }

    /// `n1`, `n2`, …; also its host name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    pub fn number(&self) -> u8 {
        self.info.number
    }

    pub fn address(&self) -> Ipv4Addr {
        self.info.address
    }

    pub fn address_v6(&self) -> Ipv6Addr {
        wiring::node_address_v6(self.info.number)
    }

    /// The node's cgroup parent, as a path below each hierarchy's mount point: `/skep-lab-NAME-NUMBER`.
    pub fn cgroup_parent(&self) -> &str {
        &self.info.cgroup_parent
    }

    /// The folder that holds the others; a test may put files of its own here.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.join("etc/config.toml")
    }

    /// What daemons started with [`Node::start_daemon`] wrote to their standard output and error.
    pub fn daemon_log(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("skep.sock")
    }

    /// The process whose `/proc/PID/ns` are the node's namespaces.
    pub fn holder(&self) -> ProcessId {
        self.holder.process
    }

    /// The process numbers of all that runs in the node, containers included.
    pub fn processes(&self) -> Result<Vec<i32>> {
        cgroup::members(self.info.cgroup_parent.trim_start_matches('/'))
    }

    /// A command that runs in the node, with the environment that points `skep` at the node's folders.
    /// The program's exit code and streams are the command's; its process number too.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.holder.enter();
        command
            .arg(program)
            .env("SKEP_DATA_DIR", self.data_dir())
            .env("SKEP_RUN_DIR", self.run_dir())
            .env("SKEP_CONFIG", self.config_file())
            .env("SKEP_HOST", format!("unix://{}", self.socket().display()));
        command
    }

    /// Runs `program` in the node to its end.
    pub fn run(&self, program: impl AsRef<OsStr>, args: &[&str]) -> Result<Outcome> {
        let program = program.as_ref();
        let shown = format!("{} {}", program.to_string_lossy(), args.join(" "));
        Outcome::of(self.command(program).args(args), &shown)
    }

    /// Runs the `skep` command line in the node to its end: `node.skep(&["service", "ls"])?.ok()?`.
    pub fn skep(&self, args: &[&str]) -> Result<Outcome> {
        let shown = format!("skep {}", args.join(" "));
        Outcome::of(self.command(self.binary()?).args(args), &shown)
    }

    /// The `skep` that this node runs.
    pub fn binary(&self) -> Result<PathBuf> {
        match &self.binary {
            Some(binary) => Ok(binary.clone()),
            None => tools::skep_binary(),
        }
    }

    /// Runs `work` on a fresh thread in the node's network namespace: a `TcpStream` made in it is the node's.
    /// Only the network is the node's there; files are the caller's.
    pub fn in_netns<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.holder.in_netns(work)
    }

    /// A registry at `127.0.0.1:5000` inside this node, serving the storage folder `images`, read-only, over HTTP.
    pub fn start_registry(&self, images: &Path) -> Result<Registry> {
        Registry::start(&self.holder, Ipv4Addr::LOCALHOST, images, &self.folder)
    }

    /// Writes the node's settings: its cgroup parent, registries on the outside's address as insecure ones, and `more` lines of TOML.
    pub fn write_config(&self, more: &str) -> Result<()> {
        let text = format!(
            "cgroup_parent = \"{}\"\ninsecure_registries = [\"{}\"]\n{more}",
            self.info.cgroup_parent,
            wiring::OUTSIDE_ADDRESS
        );
        let file = self.config_file();
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

pub(crate) fn make_folders(node: &Node) -> Result<()> {
    for folder in [node.data_dir(), node.run_dir(), node.folder().join("etc")] {
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    node.write_config("")
}
