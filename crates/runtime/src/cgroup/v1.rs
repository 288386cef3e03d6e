//! cgroup v1: one folder per hierarchy, and which of its files takes which limit.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::CgroupError;
use super::group::{Dirs, Setting, V1Dir, make_leaf, write};
use super::host::Hierarchy;
use super::limits::Limits;

/// Super options that are not controllers.
const PLAIN_OPTIONS: [&str; 9] =
    ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "all", "none", "seclabel"];

pub(super) fn controllers_of(options: &str) -> Vec<String> {
    let is_controller =
        |option: &&str| !PLAIN_OPTIONS.contains(option) && (!option.contains('=') || option.starts_with("name="));
    options.split(',').filter(is_controller).map(str::to_owned).collect()
}

/// The container's folder in every hierarchy, also in those without a limit: a process that stays in the host's own
/// cgroup there would be killed with the unit it was started from (name=systemd), or see the host's tree.
pub(super) fn create(hierarchies: &[Hierarchy], unified: Option<&Path>, relative: &Path) -> Result<Dirs, CgroupError> {
    let mut dirs = Dirs { v1: Vec::new(), v2: None };
    let result = fill(&mut dirs, hierarchies, unified, relative);
    match result {
        Ok(()) => Ok(dirs),
        Err(error) => {
            for dir in dirs.all() {
                fs::remove_dir(dir).ok(); // empty, just made, and the first error is the one to tell
            }
            Err(error)
        }
    }
}

fn fill(
    dirs: &mut Dirs,
    hierarchies: &[Hierarchy],
    unified: Option<&Path>,
    relative: &Path,
) -> Result<(), CgroupError> {
    for hierarchy in hierarchies {
        let path = hierarchy.mount.join(relative);
        let is_cpuset = hierarchy.controllers.iter().any(|c| c == "cpuset");
        for level in levels(&hierarchy.mount, relative) {
            if level == path {
                make_leaf(&level)?;
                dirs.v1.push(V1Dir { controllers: hierarchy.controllers.clone(), path: level.clone() });
            } else {
                make_parent(&level)?;
            }
            if is_cpuset {
                inherit_cpuset(&level)?;
            }
        }
    }
    if let Some(mount) = unified {
        for level in levels(mount, relative) {
            make_parent(&level)?;
        }
        dirs.v2 = Some(mount.join(relative));
    }
    Ok(())
}

pub(super) fn open(hierarchies: &[Hierarchy], unified: Option<&Path>, relative: &Path) -> Dirs {
    let v1 = hierarchies
        .iter()
        .map(|h| V1Dir { controllers: h.controllers.clone(), path: h.mount.join(relative) })
        .filter(|dir| dir.path.exists())
        .collect();
    Dirs { v1, v2: unified.map(|mount| mount.join(relative)).filter(|path| path.exists()) }
}

/// `mount/a`, `mount/a/b`, … down to `mount/relative`.
pub(super) fn levels(mount: &Path, relative: &Path) -> Vec<PathBuf> {
    let mut levels: Vec<PathBuf> =
        relative.ancestors().filter(|part| !part.as_os_str().is_empty()).map(|part| mount.join(part)).collect();
    levels.reverse();
    levels
}

pub(super) fn make_parent(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::Create { path: path.to_owned(), source: error })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A new v1 cpuset has no cpus and no memory nodes, and refuses processes until it has both.
fn inherit_cpuset(path: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = path.join(file);
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
        };
        if !read(&own)?.trim().is_empty() {
            continue;
        }
        let inherited = path.parent().map(|parent| parent.join(file));
        if let Some(inherited) = inherited {
            write(&own, read(&inherited)?.trim())?;
        }
    }
    Ok(())
}

pub(super) fn settings(limits: &Limits) -> Vec<Setting> {
    let bytes = |value: Option<u64>| value.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
    let mut settings = Vec::new();
    let mut set = |controller, file, value: String| settings.push(Setting { controller, file, value });
    if let Some(reservation) = limits.memory_reservation {
        set("memory", "memory.soft_limit_in_bytes", reservation.to_string());
    }
    // memsw must not go below memory: `Cgroup::apply` turns the two around where the kernel wants the other order.
    if let Some(memory) = limits.memory {
        set("memory", "memory.limit_in_bytes", memory.to_string());
    }
    if let Some(total) = limits.memory_and_swap() {
        set("memory", "memory.memsw.limit_in_bytes", bytes(total));
    }
    if let Some((quota, period)) = limits.cpu_bandwidth() {
        set("cpu", "cpu.cfs_period_us", period.to_string());
        set("cpu", "cpu.cfs_quota_us", bytes(quota));
    }
    if let Some(shares) = limits.cpu_shares {
        set("cpu", "cpu.shares", shares.to_string());
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        set("cpuset", "cpuset.cpus", cpus.clone());
    }
    if let Some(pids) = limits.pids {
        set("pids", "pids.max", pids.to_string());
    }
    settings
}
