//! The anchor: Debian's dockerd with its containerd, started by hand in a lab node.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use skep_lab::{Lab, Node, Registry};

use super::measure::{self, Cost};
use crate::packages::{self, Package};
use crate::shell;

const PATIENCE: Duration = Duration::from_secs(120);
pub const IMAGE: &str = "127.0.0.1:5000/library/busybox:1";

/// Of what docker.io depends on, these are the programs; libraries come along.
const PROGRAMS: &[&str] = &["docker.io", "docker-cli", "containerd", "runc", "iptables"];
/// The machine's own C library and what its base system has run these as well.
const OF_THE_MACHINE: &[&str] = &["libc6", "libgcc", "libpam", "libperl", "libdb5", "libgdbm", "libaudit", "libsem"];

/// Where Docker was unpacked.
pub struct Docker {
    root: PathBuf,
}

/// A running dockerd in a lab of its own, with an image pulled.
pub struct Running<'a> {
    docker: &'a Docker,
    lab: Lab,
    _registry: Registry,
}

/// Downloads and unpacks docker.io with its runtime, once.
pub fn unpack(target: &Path) -> Result<Docker> {
    let root = target.join("anchors/docker");
    let done = root.join(".done");
    if !done.exists() {
        packages::refresh_lists()?;
        let cache = target.join("anchors/packages");
        let wants = |package: &Package| {
            let library =
                package.name.starts_with("lib") && !OF_THE_MACHINE.iter().any(|name| package.name.starts_with(name));
            PROGRAMS.contains(&package.name.as_str()) || library
        };
        let resolved = packages::resolve(&["docker.io", "iptables"], &cache)?;
        let chosen: Vec<Package> = resolved.into_iter().filter(wants).collect();
        for archive in packages::download(&chosen, &cache)? {
            packages::unpack(&archive, &root)?;
        }
        // Debian's alternatives would make these links.
        for (link, target) in [("iptables", "iptables-nft"), ("ip6tables", "ip6tables-nft")] {
            symlink(target, root.join("usr/sbin").join(link)).with_context(|| format!("cannot link {link}"))?;
        }
        fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
    }
    Ok(Docker { root })
}

impl Docker {
    pub fn version(&self) -> Result<String> {
        let text = shell::read(self.with_environment(&mut Command::new(self.program("dockerd"))).arg("--version"))?;
        let version = text.split(' ').nth(2).context("dockerd tells its version")?;
        Ok(format!("docker {}", version.trim_end_matches(',')))
    }

    /// The bytes of all programs that one node needs.
    pub fn program_bytes(&self) -> Result<f64> {
        let mut sum = 0.0;
        for name in
            ["dockerd", "docker", "docker-proxy", "docker-init", "containerd", "containerd-shim-runc-v2", "runc"]
        {
            let file = self.program(name);
            if file.exists() {
                sum += fs::metadata(&file).with_context(|| format!("cannot measure {}", file.display()))?.len() as f64;
            }
        }
        Ok(sum)
    }

    /// Starts a dockerd in a fresh lab node, with the image for containers pulled.
    pub fn start(&self, images: &Path) -> Result<Running<'_>> {
        let lab = Lab::builder().build()?;
        let node = lab.node(1);
        let registry = node.start_registry(images)?;
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
        let running = Running { docker: self, lab, _registry: registry };
        let deadline = Instant::now() + PATIENCE;
        while running.client(&["version"]).is_err() {
            let ended = child.try_wait().context("cannot wait for dockerd")?.is_some();
            if ended || Instant::now() > deadline {
                bail!("dockerd does not answer: {}", fs::read_to_string(&log_file).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(50));
        }
        running.client(&["pull", "--quiet", IMAGE])?;
        Ok(running)
    }

    fn program(&self, name: &str) -> PathBuf {
        let places = ["usr/sbin", "usr/bin", "usr/libexec/docker"].map(|folder| self.root.join(folder).join(name));
        places.iter().find(|path| path.exists()).unwrap_or(&places[0]).clone()
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

impl Running<'_> {
    /// Runs the docker command line.
    pub fn client(&self, args: &[&str]) -> Result<String> {
        shell::read(self.client_command().args(args))
    }

    /// Starts `count` containers at once and answers the seconds until the last one runs.
    pub fn start_containers(&self, count: usize) -> Result<f64> {
        let start = Instant::now();
        let clients = (0..count)
            .map(|_| {
                let mut command = self.client_command();
                command.args(["run", "--detach", IMAGE, "sleep", "100000"]);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()
            })
            .collect::<Result<Vec<_>, _>>()
            .context("cannot start the docker client")?;
        for mut client in clients {
            if !client.wait().context("cannot wait for the docker client")?.success() {
                bail!("a `docker run` failed");
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }

    pub fn remove_containers(&self) -> Result<()> {
        let all = self.client(&["ps", "--all", "--quiet"])?;
        let ids: Vec<&str> = all.lines().collect();
        if !ids.is_empty() {
            self.client(&[&["rm", "--force"], ids.as_slice()].concat())?;
        }
        Ok(())
    }

    /// What Docker's own processes cost now: dockerd, containerd and the shims.
    pub fn costs(&self) -> Result<Vec<Cost>> {
        let costs = measure::costs(&self.lab.node(1).processes()?);
        Ok(costs
            .into_iter()
            .filter(|cost| cost.name.starts_with("dockerd") || cost.name.starts_with("containerd"))
            .collect())
    }

    fn client_command(&self) -> Command {
        let node = self.lab.node(1);
        let mut command = node.command(self.docker.program("docker"));
        self.docker.with_environment(&mut command);
        command.arg("--host").arg(host(node));
        command
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
