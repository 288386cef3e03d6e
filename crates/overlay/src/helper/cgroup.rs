//! The helper's place in the cgroup trees: beside the daemon's and the containers', so that nothing that ends the
//! daemon's cgroup ends the helper too. No limits are set, and nothing is known of controllers but one: a v1 cpuset
//! takes no process before it has cpus.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const NAME: &str = "net";

/// Moves a process into `parent/net` of every hierarchy, making what is missing on the way.
///
/// # Errors
/// The first that failed, with its path; the others are tried nevertheless.
pub fn join(parent: &str, pid: u32) -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut first = Ok(());
    for mount in hierarchies(&mounts) {
        let joined = join_one(&mount, parent, pid);
        first = first.and(joined);
    }
    first
}

/// Removes `parent/net`; the parent too if nothing else is in it. What is not empty stays: it is somebody else's.
pub fn remove(parent: &str) {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return };
    for mount in hierarchies(&mounts) {
        // Not empty, or never made: both are as they should be.
        let _ = fs::remove_dir(place(&mount, parent).join(NAME));
        let _ = fs::remove_dir(place(&mount, parent));
    }
}

fn place(mount: &Path, parent: &str) -> PathBuf {
    mount.join(parent.trim_matches('/'))
}

fn join_one(mount: &Path, parent: &str, pid: u32) -> io::Result<()> {
    let group = place(mount, parent).join(NAME);
    fs::create_dir_all(&group).map_err(|error| named(&group, &error))?;
    let below = group.strip_prefix(mount).unwrap_or(Path::new("")).components();
    let mut level = mount.to_owned();
    for part in below {
        level.push(part);
        inherit_cpuset(&level)?;
    }
    let processes = group.join("cgroup.procs");
    fs::write(&processes, pid.to_string()).map_err(|error| named(&processes, &error))
}

/// On other hierarchies the files are not there, on cgroup2 they need nothing.
fn inherit_cpuset(level: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = level.join(file);
        let is_v2 = level.join("cgroup.controllers").exists();
        if is_v2 || !fs::read_to_string(&own).is_ok_and(|value| value.trim().is_empty()) {
            continue;
        }
        let inherited = fs::read_to_string(level.with_file_name(file))?;
        fs::write(&own, inherited.trim()).map_err(|error| named(&own, &error))?;
    }
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

/// One mount of each hierarchy, from mountinfo (proc_pid_mountinfo(5)).
fn hierarchies(mountinfo: &str) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut file_system = file_system.split(' ');
        let kind = file_system.next().filter(|kind| kind.starts_with("cgroup"))?;
        let options = file_system.nth(1)?;
        let path = PathBuf::from(mount.split(' ').nth(4)?.replace("\\040", " "));
        seen.insert((kind.to_owned(), options.to_owned())).then_some(path)
    });
    mounts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hierarchy_is_found_once() {
        let mountinfo = "\
            30 29 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
            31 29 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            32 29 0:26 / /mnt/the\\040same rw - cgroup cgroup rw,cpu\n\
            33 29 0:28 / /tmp rw - tmpfs tmpfs rw\n";
        assert_eq!(hierarchies(mountinfo), ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from));
    }
}
