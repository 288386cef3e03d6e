//! Containers whose warden is gone: found by their run folders, ended by their cgroup, told as "supervisor lost".
//! The keeper does this at once when a warden dies; the client does it for those that died while no keeper ran.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::cgroup::CgroupHost;
use crate::failure::Failure;
use crate::run_dir::{self, RunDir};
use crate::wire::State;

/// The error of a container that ended because its warden did.
pub const SUPERVISOR_LOST: &str = "supervisor lost";

/// The keeper writes a few files of a container, once each.
const REMOVALS_MAX: u32 = 20;

/// Whether somebody looks after a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    Supervised,
    Lost,
}

/// A container whose warden was gone; nothing of it but its files and log is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub id: String,
    /// `Exited`: with its real exit code if it had ended before its warden, else with the error [`SUPERVISOR_LOST`].
    pub state: State,
}

/// Every container with a run folder, and whether its warden answers.
pub fn list(run_dir: &RunDir) -> io::Result<Vec<(String, Liveness)>> {
    let ids = run_dir.ids()?;
    Ok(ids
        .into_iter()
        .map(|id| {
            let alive = liveness(run_dir, &id);
            (id, alive)
        })
        .collect())
}

fn liveness(run_dir: &RunDir, id: &str) -> Liveness {
    match run_dir::connect(&run_dir.container(id), run_dir::CONTROL_SOCKET) {
        Ok(_) => Liveness::Supervised,
        Err(_) => Liveness::Lost,
    }
}

/// Removes a run folder that the keeper, which recovers too, may be writing to or removing at the same time.
fn remove(folder: &Path) -> io::Result<()> {
    let mut left = REMOVALS_MAX;
    loop {
        left -= 1;
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && left > 0 => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => return done,
        }
    }
}

/// Kills what is left of each lost container, removes its cgroup and run folder, and says how it ended.
/// `cgroup_parent` serves for a container whose plan cannot be read any more.
pub fn recover_lost(run_dir: &RunDir, cgroup_parent: &str) -> Result<Vec<Lost>, Failure> {
    let what = |error: io::Error| Failure::new("recovery", format!("failed to read the run folder: {error}"));
    let mut lost = Vec::new();
    for (id, liveness) in list(run_dir).map_err(what)? {
        if liveness == Liveness::Supervised {
            continue;
        }
        let parent = cgroup_parent_of(run_dir, &id).unwrap_or_else(|| cgroup_parent.to_owned());
        let state = end(run_dir, &id, &parent)?;
        let host = CgroupHost::detect().map_err(cgroup_failure)?;
        if let Ok(cgroup) = host.open(&parent, &id) {
            cgroup.remove().map_err(cgroup_failure)?;
        }
        remove(&run_dir.container(&id)).map_err(what)?;
        lost.push(Lost { id, state });
    }
    Ok(lost)
}

/// Kills the processes of a container without a warden and writes down how it ended.
pub(crate) fn end_lost(run_dir: &RunDir, id: &str) -> Result<(), Failure> {
    match cgroup_parent_of(run_dir, id) {
        Some(parent) => end(run_dir, id, &parent).map(|_| ()),
        None => Err(Failure::new("recovery", format!("the plan of container `{id}` cannot be read"))),
    }
}

fn end(run_dir: &RunDir, id: &str, cgroup_parent: &str) -> Result<State, Failure> {
    let host = CgroupHost::detect().map_err(cgroup_failure)?;
    let mut oom_killed = false;
    if let Ok(cgroup) = host.open(cgroup_parent, id) {
        cgroup.kill().map_err(cgroup_failure)?;
        oom_killed = cgroup.oom_kills() > 0;
    }
    // An unreadable state is treated as none: the container is over either way.
    let started_at = match run_dir.read_state(id).unwrap_or(None) {
        Some(exited @ State::Exited { .. }) => return Ok(exited),
        Some(State::Running { started_at, .. }) => Some(started_at),
        Some(State::Created { .. }) | None => None,
    };
    let state = State::Exited {
        code: 128 + libc::SIGKILL,
        oom_killed,
        started_at,
        finished_at: SystemTime::now(),
        error: Some(SUPERVISOR_LOST.to_owned()),
    };
    run_dir
        .write_state(id, &state)
        .map_err(|error| Failure::new("recovery", format!("failed to write the state of container `{id}`: {error}")))?;
    Ok(state)
}

fn cgroup_parent_of(run_dir: &RunDir, id: &str) -> Option<String> {
    run_dir.read_plan(id).ok().map(|plan| plan.cgroup.parent)
}

pub(crate) fn cgroup_failure(error: crate::cgroup::CgroupError) -> Failure {
    let mut message = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        message = format!("{message}: {source}");
    }
    Failure::new("cgroup", message)
}
