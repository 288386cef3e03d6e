//! skep as it is measured: a node of its own, driven by the built binary's command line.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use skep_lab::{Lab, Node, Registry};

use super::docker::IMAGE;
use super::measure::{self, Cost};

/// A node with an initialized skep and the image for containers pulled.
pub struct Subject {
    lab: Lab,
    registry: i32,
    _registry: Registry,
}

impl Subject {
    pub fn start(skep: &Path, images: &Path) -> Result<Subject> {
        let lab = Lab::builder().binary(skep).build()?;
        let registry = lab.node(1).start_registry(images)?;
        let subject = Subject { lab, registry: registry.process().pid, _registry: registry };
        subject.node().skep(&["init"])?.ok()?;
        subject.node().skep(&["image", "pull", IMAGE])?.ok()?;
        Ok(subject)
    }

    /// Deploys one service of `count` replicas and answers the seconds until all of them run.
    pub fn start_containers(&self, count: usize) -> Result<f64> {
        let file = self.node().folder().join("compose.yml");
        let compose = format!(
            "services:\n  s:\n    image: {IMAGE}\n    command: [sleep, \"100000\"]\n    stop_signal: SIGKILL\n    deploy:\n      replicas: {count}\n"
        );
        fs::write(&file, compose).with_context(|| format!("cannot write {}", file.display()))?;
        let file = file.to_str().context("the lab's folder is not UTF-8")?;
        let start = Instant::now();
        self.node().skep(&["stack", "deploy", "-c", file, "bench"])?.ok()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Removes the service and waits until its containers and their supervisors are gone.
    pub fn remove_containers(&self) -> Result<()> {
        self.node().skep(&["stack", "rm", "bench"])?.ok()?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.all_costs()?.iter().any(|cost| cost.name == "sleep") && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What skep's own processes cost now: all of the node but the containers' and the registry.
    pub fn costs(&self) -> Result<Vec<Cost>> {
        Ok(self.all_costs()?.into_iter().filter(|cost| cost.name != "sleep").collect())
    }

    /// What the processes cost that are there now and are not in `before`: the containers' supervisors.
    pub fn costs_beyond(&self, before: &[Cost]) -> Result<Vec<Cost>> {
        let before: BTreeSet<i32> = before.iter().map(|cost| cost.pid).collect();
        Ok(self.costs()?.into_iter().filter(|cost| !before.contains(&cost.pid)).collect())
    }

    fn all_costs(&self) -> Result<Vec<Cost>> {
        let not_skep = [self.registry, self.node().holder().pid];
        let pids: Vec<i32> = self.node().processes()?.into_iter().filter(|pid| !not_skep.contains(pid)).collect();
        Ok(measure::costs(&pids))
    }

    fn node(&self) -> &Node {
        self.lab.node(1)
    }
}
