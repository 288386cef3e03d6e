//! The rows, by their numbers in the budgets.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::docker;
use super::measure::{median, total};
use super::row::{Goal, Row, Values};
use super::subject::Subject;
use super::tools::Bench;

const MEGABYTE: f64 = 1e6;
const KILOBYTE: f64 = 1e3;
/// A started daemon is idle when its start-up work is done and its allocator has settled.
const SETTLE: Duration = Duration::from_secs(5);
const FEW: usize = 10;
const MANY: usize = 50;

/// B5: resident memory of what runs on an idle node.
pub fn idle_memory(bench: &Bench) -> Result<Vec<Row>> {
    let docker = docker::start(bench.docker()?, bench.images()?)?;
    thread::sleep(SETTLE);
    let anchor = median(bench.runs, || Ok(total(&docker.costs()?, |cost| cost.rss_bytes)))?;
    drop(docker);
    let subject = Subject::start(bench.skep()?, bench.images()?)?;
    thread::sleep(SETTLE);
    let skep = median(bench.runs, || Ok(total(&subject.costs()?, |cost| cost.rss_bytes)))?;
    let values = Values { anchor: anchor / MEGABYTE, skep: skep / MEGABYTE, unit: "MB" };
    let name = format!("{}: dockerd, containerd", bench.docker()?.version()?);
    Ok(vec![Row::new("B5", "idle node, RSS of all its processes", name, values, Goal::AtMost(20.0))])
}

/// B6: proportional memory of what supervises one container.
pub fn memory_per_container(bench: &Bench) -> Result<Vec<Row>> {
    let docker = docker::start(bench.docker()?, bench.images()?)?;
    docker.start_containers(FEW)?;
    thread::sleep(SETTLE);
    let anchor = median(bench.runs, || {
        let shims: Vec<_> =
            docker.costs()?.into_iter().filter(|cost| cost.name.starts_with("containerd-shim")).collect();
        ensure!(shims.len() == FEW, "{} shims for {FEW} containers", shims.len());
        Ok(total(&shims, |cost| cost.pss_bytes) / FEW as f64)
    })?;
    drop(docker);
    let subject = Subject::start(bench.skep()?, bench.images()?)?;
    let before = subject.costs()?;
    subject.start_containers(FEW)?;
    thread::sleep(SETTLE);
    let skep = median(bench.runs, || {
        let wardens = subject.costs_beyond(&before)?;
        ensure!(wardens.len() == FEW, "{} wardens for {FEW} containers", wardens.len());
        Ok(total(&wardens, |cost| cost.pss_bytes) / FEW as f64)
    })?;
    let values = Values { anchor: anchor / KILOBYTE, skep: skep / KILOBYTE, unit: "kB" };
    let name = format!("{}: containerd-shim", bench.docker()?.version()?);
    Ok(vec![Row::new("B6", "supervisor of one container, PSS", name, values, Goal::AtMost(150.0))])
}

/// B9: containers started at once on one node, network attached.
pub fn start_fifty(bench: &Bench) -> Result<Vec<Row>> {
    let docker = docker::start(bench.docker()?, bench.images()?)?;
    let anchor = median(bench.runs, || {
        let seconds = docker.start_containers(MANY)?;
        docker.remove_containers()?;
        Ok(seconds)
    })?;
    drop(docker);
    let subject = Subject::start(bench.skep()?, bench.images()?)?;
    let skep = median(bench.runs, || {
        let seconds = subject.start_containers(MANY)?;
        subject.remove_containers()?;
        Ok(seconds)
    })?;
    let values = Values { anchor, skep, unit: "s" };
    let name = format!("{}: docker run, {MANY} at once", bench.docker()?.version()?);
    Ok(vec![Row::new("B9", "50 containers at once, until all run", name, values, Goal::AtMost(1.0))])
}

/// B20: bytes of the programs that a node needs.
pub fn binary_size(bench: &Bench) -> Result<Vec<Row>> {
    let skep = fs::metadata(bench.skep()?).context("cannot measure skep")?.len();
    let values =
        Values { anchor: docker::program_bytes(bench.docker()?)? / MEGABYTE, skep: skep as f64 / MEGABYTE, unit: "MB" };
    let name = format!("{}: all its programs", bench.docker()?.version()?);
    Ok(vec![Row::new("B20", "the programs of a node, stripped", name, values, Goal::AtMost(25.0))])
}
