//! Taking labs down: this process's own, named ones, and those whose process is gone.
//!
//! Every step bears to find its work done, so that it can run again after being interrupted at any point.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};

use crate::cgroup;
use crate::process::ProcessId;
use crate::record::{self, LabInfo};

/// Every lab on this machine, in the order of their names.
pub fn list() -> Result<Vec<LabInfo>> {
    record::load_all()
}

/// Takes down lab `name`, whoever made it.
pub fn down(name: &str) -> Result<()> {
    record::check_name(name)?;
    let Some(lab) = record::load_named(name)? else {
        bail!("there is no lab `{name}`; `skep lab ls` lists them");
    };
    take_down(&lab)
}

/// Takes down every lab whose owner is gone; answers how many. Labs that were made to stay, stay.
pub fn sweep() -> Result<usize> {
    let orphans = |labs: Vec<LabInfo>| labs.into_iter().filter(LabInfo::is_orphan).collect::<Vec<_>>();
    if orphans(record::load_all()?).is_empty() {
        return Ok(0);
    }
    let _lock = record::lock()?;
    // Read again: another process may have swept while this one waited for the lock.
    let orphans = orphans(record::load_all()?);
    let results: Vec<Result<()>> = orphans.iter().map(take_down).collect();
    // One that resists must not keep the others.
    results.into_iter().collect::<Result<Vec<()>>>()?;
    Ok(orphans.len())
}

/// Namespaces and links go with the last process in them; the record goes last, so that a failure leaves something to retry.
pub(crate) fn take_down(lab: &LabInfo) -> Result<()> {
    for group in lab.cgroups() {
        cgroup::kill(&group, None)?;
    }
    let holders = lab.nodes.iter().filter_map(|node| node.holder).chain(lab.outside);
    holders.for_each(ProcessId::reap);
    for group in lab.cgroups() {
        cgroup::remove(&group)?;
    }
    detach_mounts(&lab.folder)?;
    match fs::remove_dir_all(&lab.folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", lab.folder.display()));
        }
        _ => {}
    }
    lab.forget()
}

/// A node's mounts are in its own mount namespace and end with it. If one ever got into ours, removing the folder would go
/// through it into somebody's files.
fn detach_mounts(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    for line in mounts.lines().rev() {
        let Some(place) = line.split(' ').nth(4) else { continue };
        if Path::new(place).starts_with(folder) {
            unmount(place, UnmountFlags::DETACH).with_context(|| format!("cannot unmount {place}"))?;
        }
    }
    Ok(())
}
