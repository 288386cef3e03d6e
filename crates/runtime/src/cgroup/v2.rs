//! cgroup v2: one folder, controllers switched on level by level, and which file takes which limit.

use std::fs;
use std::path::Path;

use super::CgroupError;
use super::group::{Dirs, Setting, make_leaf, write};
use super::limits::{Limits, cpu_weight};
use super::v1::{levels, make_parent};

/// Controllers that containers are to have; each may be missing.
pub(super) const WANTED: [&str; 5] = ["cpu", "memory", "pids", "io", "cpuset"];

/// What the hierarchy's root offers. `/proc/cgroups` is no substitute: without `CONFIG_MEMCG_V1` (Raspberry Pi OS) it has
/// no memory line although the controller is there.
pub(super) fn offered(mount: &Path) -> Result<Vec<String>, CgroupError> {
    let path = mount.join("cgroup.controllers");
    let text = fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

pub(super) fn create(mount: &Path, relative: &Path) -> Result<Dirs, CgroupError> {
    let leaf = mount.join(relative);
    for level in levels(mount, relative) {
        if let Some(parent) = level.parent() {
            enable_controllers(parent)?;
        }
        match level == leaf {
            true => make_leaf(&level)?,
            false => make_parent(&level)?,
        }
    }
    Ok(Dirs { v1: Vec::new(), v2: Some(leaf) })
}

/// One at a time, because one refusal would refuse the whole line. A refusal (the level holds processes, or the
/// controller cannot be delegated here) is not an error yet: it is one for a limit that needs the controller, and is
/// reported with that limit.
fn enable_controllers(level: &Path) -> Result<(), CgroupError> {
    let on = level.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&on).map_err(|source| CgroupError::Read { path: on.clone(), source })?;
    for controller in offered(level)? {
        let wanted = WANTED.contains(&controller.as_str());
        if wanted && !enabled.split_whitespace().any(|c| c == controller) {
            write(&on, &format!("+{controller}")).ok();
        }
    }
    Ok(())
}

pub(super) fn open(mount: &Path, relative: &Path) -> Dirs {
    Dirs { v1: Vec::new(), v2: Some(mount.join(relative)).filter(|path| path.exists()) }
}

pub(super) fn settings(limits: &Limits) -> Vec<Setting> {
    let or_max = |value: Option<u64>| value.map_or_else(|| "max".to_owned(), |value| value.to_string());
    let mut settings = Vec::new();
    let mut set = |controller, file, value: String| settings.push(Setting { controller, file, value });
    if let Some(reservation) = limits.memory_reservation {
        set("memory", "memory.low", reservation.to_string());
    }
    if let Some(memory) = limits.memory {
        set("memory", "memory.max", memory.to_string());
    }
    if let Some(swap) = limits.swap_alone() {
        set("memory", "memory.swap.max", or_max(swap));
    }
    if let Some((quota, period)) = limits.cpu_bandwidth() {
        set("cpu", "cpu.max", format!("{} {period}", or_max(quota)));
    }
    if let Some(shares) = limits.cpu_shares {
        set("cpu", "cpu.weight", cpu_weight(shares).to_string());
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        set("cpuset", "cpuset.cpus", cpus.clone());
    }
    if let Some(pids) = limits.pids {
        set("pids", "pids.max", pids.to_string());
    }
    settings
}
