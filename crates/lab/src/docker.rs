//! Debian's Docker beside skep, in a node: what tests compare with, and benchmarks measure against.
//!
//! It is unpacked, not installed, and started by hand, so that it never is a service of the machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::node::Node;
use crate::outcome::Outcome;
use crate::tools;

const PATIENCE: Duration = Duration::from_secs(120);

/// Where Docker was unpacked.
#[derive(Clone, Debug)]
pub struct Docker {
    root: PathBuf,
}

impl Docker {
    /// The one that `cargo xtask test` and `bench` unpack under the target folder.
    pub fn find() -> Result<Docker> {
        match tools::in_target("anchors/docker/.done") {
            Some(done) => Ok(Docker::in_folder(done.parent().unwrap_or(&done))),
            None => bail!("there is no Docker to compare with: run `cargo xtask test`, which unpacks Debian's"),
        }
    }

    /// The Docker in `root`, where its packages were unpacked.
    pub fn in_folder(root: &Path) -> Docker {
        Docker { root: root.to_owned() }
    }

    /// One of its programs, whether there or not.
    pub fn program(&self, name: &str) -> PathBuf {
        let places = ["usr/sbin", "usr/bin", "usr/libexec/docker"].map(|folder| self.root.join(folder).join(name));
        places.iter().find(|path| path.exists()).unwrap_or(&places[0]).clone()
    }

    /// `docker 20.10.24+dfsg1`
    pub fn version(&self) -> Result<String> {
        let mut command = Command::new(self.program("dockerd"));
        let text = Outcome::of(self.with_environment(&mut command).arg("--version"), "dockerd --version")?.ok()?;
        let version = text.split(' ').nth(2).context("dockerd tells its version")?;
        Ok(format!("docker {}", version.trim_end_matches(',')))
    }

    /// Starts dockerd in `node` and returns once it answers. It ends with the node's lab.
    pub fn start(&self, node: &Node) -> Result<()> {
        hide_machine(node)?;
        let log_file = node.folder().join("dockerd.log");
        let log = File::create(&log_file).context("cannot create dockerd's log")?;
        let mut command = node.command(self.program("dockerd"));
        self.with_environment(&mut command);
        command.arg("--host").arg(host(node)).arg("--cgroup-parent").arg(node.cgroup_parent());
        for (option, name) in
            [("--data-root", "docker-data"), ("--exec-root", "docker-run"), ("--pidfile", "docker.pid")]
        {
            command.arg(option).arg(node.folder().join(name));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().context("cannot share the log")?).stderr(log);
        let mut child = command.spawn().context("cannot start dockerd")?;
        let deadline = Instant::now() + PATIENCE;
        while !self.run(node, &["version"])?.is_ok() {
            let ended = child.try_wait().context("cannot wait for dockerd")?.is_some();
            if ended || Instant::now() > deadline {
                bail!("dockerd does not answer: {}", fs::read_to_string(&log_file).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The docker command line, as it speaks to the dockerd of `node`; arguments are the caller's.
    pub fn client(&self, node: &Node) -> Command {
        let mut command = node.command(self.program("docker"));
        self.with_environment(&mut command);
        command.arg("--host").arg(host(node));
        command
    }

    /// Runs the docker command line to its end.
    pub fn run(&self, node: &Node, args: &[&str]) -> Result<Outcome> {
        Outcome::of(self.client(node).args(args), &format!("docker {}", args.join(" ")))
    }

    fn with_environment<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let under = |path: &str| self.root.join(path).display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{}:{path}", under("usr/bin"), under("usr/sbin")))
            .env(
                "LD_LIBRARY_PATH",
                format!("{}:{}", under(&format!("usr/lib/{triplet}")), under(&format!("lib/{triplet}"))),
            )
            .env("XTABLES_LIBDIR", under(&format!("usr/lib/{triplet}/xtables")))
    }
}

/// dockerd and containerd leave folders in these places, which no option moves: in the node they are the node's.
fn hide_machine(node: &Node) -> Result<()> {
    for place in ["/run", "/opt"] {
        node.run("mount", &["-t", "tmpfs", "none", place])?.ok()?;
    }
    let (upper, work) = (node.folder().join("etc-upper"), node.folder().join("etc-work"));
    for folder in [&upper, &work] {
        fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let options = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
    node.run("mount", &["-t", "overlay", "none", "-o", &options, "/etc"])?.ok()?;
    Ok(())
}

fn host(node: &Node) -> String {
    format!("unix://{}", node.folder().join("docker.sock").display())
}
