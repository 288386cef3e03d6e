//! A cgroup parent per node, in every hierarchy of this machine, beside the groups that are there.
//!
//! One hierarchy also serves to find a node's processes again: everything started in a node begins in the leaf `lab` of its
//! parent, and children stay in the subtree, so that killing the subtree kills the node. That is the unified hierarchy where
//! there is one (also on hybrid machines, where it has no controllers), else `pids`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{ProcessId, StopSignal};

/// How long the kernel may take to end killed processes and let go of their groups.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount_point: PathBuf,
    unified: bool,
}

/// Creates the parent `name` everywhere and its leaf for processes; answers the leaf's `cgroup.procs`.
pub(crate) fn create(name: &str) -> Result<PathBuf> {
    let hierarchies = hierarchies()?;
    for hierarchy in &hierarchies {
        let group = hierarchy.mount_point.join(name);
        if hierarchy.unified {
            enable_controllers(&hierarchy.mount_point);
        }
        fs::create_dir_all(&group).with_context(|| format!("cannot create cgroup {}", group.display()))?;
        inherit_cpuset(&hierarchy.mount_point, &group)?;
    }
    let leaf = tracking(&hierarchies)?.mount_point.join(name).join("lab");
    fs::create_dir_all(&leaf).with_context(|| format!("cannot create cgroup {}", leaf.display()))?;
    Ok(leaf.join("cgroup.procs"))
}

/// Kills every process below `name` in any hierarchy, but for `spared`, and waits for their end. A group that is not there is
/// fine.
pub(crate) fn kill(name: &str, spared: Option<ProcessId>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut found = 0;
        for hierarchy in hierarchies()? {
            for group in subtree(&hierarchy.mount_point.join(name)) {
                thaw(&group);
                for pid in processes(&group) {
                    if spared.is_some_and(|spared| spared.pid == pid) {
                        continue;
                    }
                    found += 1;
                    if let Some(process) = ProcessId::of(pid) {
                        process.stop(StopSignal::Kill, PATIENCE)?;
                    }
                }
            }
        }
        if found == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{found} processes in cgroup {name} outlive SIGKILL");
        }
        // A process that is dying is still listed, and nothing announces on version 1 that it has left.
        thread::sleep(Duration::from_millis(2));
    }
}

/// Removes `name` and all below it from every hierarchy. A group that is not there is fine.
pub(crate) fn remove(name: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for hierarchy in hierarchies()? {
        for group in subtree(&hierarchy.mount_point.join(name)).into_iter().rev() {
            loop {
                match fs::remove_dir(&group) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    // The last process's exit frees its group a moment after the process is gone.
                    Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                    Err(error) => {
                        return Err(error).with_context(|| format!("cannot remove cgroup {}", group.display()));
                    }
                }
            }
        }
    }
    Ok(())
}

/// The process numbers below `name` in the tracking hierarchy.
pub(crate) fn members(name: &str) -> Result<Vec<i32>> {
    let hierarchies = hierarchies()?;
    let root = tracking(&hierarchies)?.mount_point.join(name);
    Ok(subtree(&root).iter().flat_map(|group| processes(group)).collect())
}

fn tracking(hierarchies: &[Hierarchy]) -> Result<&Hierarchy> {
    hierarchies
        .iter()
        .find(|hierarchy| hierarchy.unified)
        .or_else(|| hierarchies.iter().find(|hierarchy| hierarchy.mount_point.ends_with("pids")))
        .context("no cgroup hierarchy is mounted under /sys/fs/cgroup; mount one: mount -t cgroup2 none /sys/fs/cgroup")
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    Ok(mounts.lines().filter_map(parse_mount).collect())
}

/// One line of mountinfo (proc(5)): `id parent dev root mount-point options [optional] - type source super-options`.
fn parse_mount(line: &str) -> Option<Hierarchy> {
    let (place, kind) = line.split_once(" - ")?;
    let mount_point = place.split(' ').nth(4)?;
    let unified = match kind.split(' ').next()? {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    mount_point.starts_with("/sys/fs/cgroup").then(|| Hierarchy { mount_point: PathBuf::from(mount_point), unified })
}

/// On a pure version 2 machine a node's parent only gets the controllers that the root hands down.
/// systemd has usually asked for them; where nothing has, ask. A kernel may refuse one (cpu, while real-time processes run), and
/// a node without it is still a node: skep itself tells what it lacks.
fn enable_controllers(root: &Path) {
    let file = root.join("cgroup.subtree_control");
    let available = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    let enabled = fs::read_to_string(&file).unwrap_or_default();
    for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
        let has = |list: &str| list.split_ascii_whitespace().any(|word| word == controller);
        if has(&available)
            && !has(&enabled)
            && let Err(error) = fs::write(&file, format!("+{controller}"))
        {
            eprintln!("lab: cannot hand the {controller} controller down from {}: {error}", root.display());
        }
    }
}

/// A version 1 cpuset starts empty, and an empty one takes no processes.
fn inherit_cpuset(root: &Path, group: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (root.join(file), group.join(file));
        if from.exists() && to.exists() && fs::read_to_string(&to)?.trim().is_empty() {
            fs::write(&to, fs::read_to_string(&from)?).with_context(|| format!("cannot fill {}", to.display()))?;
        }
    }
    Ok(())
}

/// A frozen process ignores SIGKILL on version 1.
fn thaw(group: &Path) {
    for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        if let Err(error) = fs::write(group.join(file), value) {
            // Absent on all hierarchies but one; a group that went away meanwhile needs no thawing.
            debug_assert_ne!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}

/// The group and all below it, parents first.
fn subtree(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut groups = vec![root.to_path_buf()];
    for entry in below {
        groups.extend(subtree(&entry.path()));
    }
    groups
}

fn processes(group: &Path) -> Vec<i32> {
    let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cgroup_mounts_in_their_usual_place_count() {
        let check = |line: &str| parse_mount(line).map(|found| (found.mount_point, found.unified));
        assert_eq!(
            check("31 29 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"),
            Some((PathBuf::from("/sys/fs/cgroup/memory"), false))
        );
        assert_eq!(
            check("40 29 0:36 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw"),
            Some((PathBuf::from("/sys/fs/cgroup/unified"), true))
        );
        assert_eq!(check("40 29 0:36 / /run/other rw - cgroup2 cgroup2 rw"), None);
        assert_eq!(check("22 1 254:0 / / rw - ext4 /dev/vda rw"), None);
    }
}
