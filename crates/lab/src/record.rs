//! What is written down about a lab, so that it can be found, listed and taken down by another process.
//!
//! One JSON file per lab under `/run/skep-lab`, written before anything else of the lab exists and removed last.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::faults::Faults;
use crate::process::ProcessId;

const FOLDER: &str = "/run/skep-lab";
/// The format of the records; a build reads only its own, labs do not outlive an upgrade.
const FORMAT: u32 = 1;

/// A lab as its record tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabInfo {
    format: u32,
    pub name: String,
    /// The process whose end makes this lab an orphan; `None` for one that stays until it is taken down.
    pub owner: Option<ProcessId>,
    pub folder: PathBuf,
    pub outside: Option<ProcessId>,
    pub nodes: Vec<NodeInfo>,
    /// The outside's address, where that is this machine's own: see [`crate::Reach`].
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// What is wrong with its network just now.
    #[serde(default)]
    pub faults: Faults,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub name: String,
    pub number: u8,
    pub address: Ipv4Addr,
    /// Its cgroup parent as a path below each hierarchy's mount point.
    pub cgroup_parent: String,
    /// The process that holds its namespaces: `/proc/PID/ns/net`.
    pub holder: Option<ProcessId>,
}

impl LabInfo {
    pub(crate) fn new(name: &str, owner: Option<ProcessId>, folder: PathBuf) -> LabInfo {
        LabInfo {
            format: FORMAT,
            name: name.to_owned(),
            owner,
            folder,
            outside: None,
            nodes: Vec::new(),
            gateway: None,
            faults: Faults::default(),
        }
    }

    pub fn is_orphan(&self) -> bool {
        self.owner.is_some_and(|owner| !owner.is_alive())
    }

    /// The lab's cgroups, the outside's (number 0) first.
    pub(crate) fn cgroups(&self) -> impl Iterator<Item = String> {
        let numbers = self.nodes.iter().map(|node| node.number);
        std::iter::once(0).chain(numbers).map(|number| cgroup_name(&self.name, number))
    }

    pub(crate) fn save(&self) -> Result<()> {
        let path = path_of(&self.name);
        let part = path.with_extension("part");
        let text = serde_json::to_vec_pretty(self).context("a record is plain data")?;
        fs::create_dir_all(FOLDER).with_context(|| format!("cannot create {FOLDER}; a lab needs root"))?;
        fs::write(&part, text).with_context(|| format!("cannot write {}", part.display()))?;
        fs::rename(&part, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn forget(&self) -> Result<()> {
        match fs::remove_file(path_of(&self.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("cannot remove the lab's record")
            }
            _ => Ok(()),
        }
    }
}

/// The cgroup parent of node `number` of lab `name`.
pub(crate) fn cgroup_name(name: &str, number: u8) -> String {
    format!("skep-lab-{name}-{number}")
}

/// All records, in the order of their names.
pub(crate) fn load_all() -> Result<Vec<LabInfo>> {
    let entries = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {FOLDER}")),
    };
    let mut labs = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {FOLDER}"))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            labs.extend(load(&path)?);
        }
    }
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(labs)
}

/// The record of `name`, `None` when there is no such lab.
pub(crate) fn load_named(name: &str) -> Result<Option<LabInfo>> {
    load(&path_of(name))
}

/// Changes the record of `name`, which no other process changes meanwhile. When `change` fails, the record stays as it was.
pub(crate) fn update<T>(name: &str, change: impl FnOnce(&mut LabInfo) -> Result<T>) -> Result<T> {
    let _lock = lock()?;
    let Some(mut info) = load_named(name)? else {
        bail!("there is no lab `{name}`; `skep lab ls` lists them");
    };
    let result = change(&mut info)?;
    info.save()?;
    Ok(result)
}

/// Only one process at a time makes a named lab, changes one, or takes orphans down.
pub(crate) fn lock() -> Result<File> {
    fs::create_dir_all(FOLDER).with_context(|| format!("cannot create {FOLDER}; a lab needs root"))?;
    let path = Path::new(FOLDER).join("lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).context("cannot lock the labs' records")?;
    Ok(file)
}

/// Names go into paths, cgroups and host names.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= 32
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if fits { Ok(()) } else { bail!("`{name}` cannot name a lab: use 1 to 32 of a-z, 0-9 and -") }
}

fn load(path: &Path) -> Result<Option<LabInfo>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let lab: LabInfo =
        serde_json::from_slice(&text).with_context(|| format!("{} is not a lab's record", path.display()))?;
    if lab.format != FORMAT {
        bail!(
            "{} has format {}, this build reads {FORMAT}: take the lab down with the build that made it",
            path.display(),
            lab.format
        );
    }
    Ok(Some(lab))
}

fn path_of(name: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for name in ["", "../x", "a/b", "A", "a b", "123456789012345678901234567890123"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("4711-0").is_ok());
    }
}
