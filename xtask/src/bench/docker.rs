//! The anchor: Debian's dockerd with its containerd, started by hand in a lab node.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use skep_lab::{Docker, Lab, Registry};

use super::measure::{self, Cost};

pub const IMAGE: &str = "127.0.0.1:5000/library/busybox:1";

/// A running dockerd in a lab of its own, with an image pulled.
pub struct Running<'a> {
    docker: &'a Docker,
    lab: Lab,
    _registry: Registry,
}

/// Starts a dockerd in a fresh lab node, with the image for containers pulled.
pub fn start<'a>(docker: &'a Docker, images: &Path) -> Result<Running<'a>> {
    let lab = Lab::builder().build()?;
    let registry = lab.node(1).start_registry(images)?;
    docker.start(lab.node(1))?;
    let running = Running { docker, lab, _registry: registry };
    running.client(&["pull", "--quiet", IMAGE])?;
    Ok(running)
}

/// The bytes of all programs that one node needs.
pub fn program_bytes(docker: &Docker) -> Result<f64> {
    let mut sum = 0.0;
    for name in ["dockerd", "docker", "docker-proxy", "docker-init", "containerd", "containerd-shim-runc-v2", "runc"] {
        let file = docker.program(name);
        if file.exists() {
            sum += fs::metadata(&file).with_context(|| format!("cannot measure {}", file.display()))?.len() as f64;
        }
    }
    Ok(sum)
}

impl Running<'_> {
    /// Runs the docker command line.
    pub fn client(&self, args: &[&str]) -> Result<String> {
        self.docker.run(self.lab.node(1), args)?.ok()
    }

    /// Starts `count` containers at once and answers the seconds until the last one runs.
    pub fn start_containers(&self, count: usize) -> Result<f64> {
        let start = Instant::now();
        let clients = (0..count)
            .map(|_| {
                let mut command = self.docker.client(self.lab.node(1));
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
}
