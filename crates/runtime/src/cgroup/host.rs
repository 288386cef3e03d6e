//! Which cgroup hierarchies this machine has, read from mountinfo: never assumed from names or places.

use std::path::{Component, Path, PathBuf};
use std::{fmt, fs};

use super::group::Cgroup;
use super::limits::{Limits, Swap};
use super::{CgroupError, v1, v2};

/// The machine's cgroup mounts. Cheap to keep; nothing is held open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupHost {
    layout: Layout,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    V1 { hierarchies: Vec<Hierarchy>, unified: Option<PathBuf> },
    V2 { mount: PathBuf },
}

/// One v1 mount. Controllers may share a mount (`cpu,cpuacct`); a named one (`name=systemd`) has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) mount: PathBuf,
    pub(super) controllers: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    V1,
    V2,
    /// Controllers on v1, and a cgroup2 mount beside them.
    Hybrid,
}

/// A controller that skep wants and this kernel does not offer. `Display` says what it is for and how to get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingController {
    pub name: &'static str,
}

impl fmt::Display for MissingController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            "memory" => write!(
                f,
                "memory controller off: memory limits are ignored; add cgroup_enable=memory to the kernel command line \
                 (Raspberry Pi: /boot/firmware/cmdline.txt, on its one line) and reboot"
            ),
            name => write!(f, "{name} controller off: limits that need it are ignored; this kernel does not offer it"),
        }
    }
}

const WANTED_V1: [&str; 8] = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids", "blkio"];

impl CgroupHost {
    /// Reads `/proc/self/mountinfo`. A v1 mount with a controller means v1, with or without cgroup2 beside it.
    pub fn detect() -> Result<Self, CgroupError> {
        let path = PathBuf::from("/proc/self/mountinfo");
        let mounts = fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })?;
        Self::from_mountinfo(&mounts)
    }

    /// A pure v2 host with its root at `mount`, whatever else is mounted: for a node that is given a hierarchy.
    pub fn v2_at(mount: impl Into<PathBuf>) -> Self {
        Self { layout: Layout::V2 { mount: mount.into() } }
    }

    fn from_mountinfo(mounts: &str) -> Result<Self, CgroupError> {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        for (fs_type, mount, options) in mounts.lines().filter_map(parse_mount) {
            match fs_type {
                "cgroup2" => unified = unified.or(Some(mount)),
                "cgroup" => {
                    let controllers = v1::controllers_of(options);
                    let known = |h: &Hierarchy| h.controllers.iter().any(|c| controllers.contains(c));
                    if !controllers.is_empty() && !hierarchies.iter().any(known) {
                        hierarchies.push(Hierarchy { mount, controllers });
                    }
                }
                _ => {}
            }
        }
        let has_controllers = hierarchies.iter().any(|h| h.controllers.iter().any(|c| !c.starts_with("name=")));
        let layout = match (has_controllers, unified) {
            (true, unified) => Layout::V1 { hierarchies, unified },
            (false, Some(mount)) => Layout::V2 { mount },
            (false, None) => return Err(CgroupError::NotMounted),
        };
        Ok(Self { layout })
    }

    pub fn mode(&self) -> Mode {
        match &self.layout {
            Layout::V1 { unified: None, .. } => Mode::V1,
            Layout::V1 { unified: Some(_), .. } => Mode::Hybrid,
            Layout::V2 { .. } => Mode::V2,
        }
    }

    /// Makes `parent/id` in every hierarchy, parents included, and writes the limits. Nothing has joined it yet.
    ///
    /// `parent` counts from the root of each mount, with or without a leading `/`. An empty cgroup left over under the
    /// same name is replaced.
    ///
    /// # Errors
    /// Everything made is removed again. What the kernel lacks is not an error but listed by [`Cgroup::unenforced`].
    pub fn create(&self, parent: &str, id: &str, limits: &Limits) -> Result<Cgroup, CgroupError> {
        let relative = relative_path(parent, id)?;
        if let (Swap::Total(total), Some(memory)) = (limits.memory_swap, limits.memory)
            && total < memory
        {
            return Err(CgroupError::SwapBelowMemory { total, memory });
        }
        let dirs = match &self.layout {
            Layout::V1 { hierarchies, unified } => v1::create(hierarchies, unified.as_deref(), &relative)?,
            Layout::V2 { mount } => v2::create(mount, &relative)?,
        };
        let mut cgroup = Cgroup::new(dirs)?;
        match cgroup.apply(limits).and_then(|()| cgroup.restrict_devices(&limits.devices)) {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                // The first error is the one to tell; what cannot be removed is an empty folder.
                cgroup.remove().ok();
                Err(error)
            }
        }
    }

    /// The handle of an existing cgroup, for a keeper that adopts what an earlier one started.
    pub fn open(&self, parent: &str, id: &str) -> Result<Cgroup, CgroupError> {
        let relative = relative_path(parent, id)?;
        let dirs = match &self.layout {
            Layout::V1 { hierarchies, unified } => v1::open(hierarchies, unified.as_deref(), &relative),
            Layout::V2 { mount } => v2::open(mount, &relative),
        };
        match dirs.any_exists() {
            true => Cgroup::new(dirs),
            false => Err(CgroupError::NotFound { path: relative }),
        }
    }

    /// What to tell the user once, at start-up or in `doctor`.
    pub fn missing_controllers(&self) -> Result<Vec<MissingController>, CgroupError> {
        let (wanted, offered): (&[&'static str], Vec<String>) = match &self.layout {
            Layout::V1 { hierarchies, .. } => {
                (&WANTED_V1, hierarchies.iter().flat_map(|h| h.controllers.iter().cloned()).collect())
            }
            Layout::V2 { mount } => (&v2::WANTED, v2::offered(mount)?),
        };
        let missing = wanted.iter().filter(|name| !offered.iter().any(|o| o == *name));
        Ok(missing.map(|name| MissingController { name }).collect())
    }
}

fn relative_path(parent: &str, id: &str) -> Result<PathBuf, CgroupError> {
    let plain = |part: &str| matches!(Path::new(part).components().next(), Some(Component::Normal(_)));
    let bad = |name: &str| CgroupError::BadName { name: name.to_owned() };
    let mut path = PathBuf::new();
    for part in parent.trim_matches('/').split('/').filter(|_| !parent.trim_matches('/').is_empty()) {
        if !plain(part) || part.contains(['\0', '\n']) {
            return Err(bad(parent));
        }
        path.push(part);
    }
    if !plain(id) || id.contains(['/', '\0', '\n']) {
        return Err(bad(id));
    }
    path.push(id);
    Ok(path)
}

/// `(type, mount point, super options)` of one line (proc_pid_mountinfo(5)).
fn parse_mount(line: &str) -> Option<(&str, PathBuf, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mount = before.split(' ').nth(4)?;
    let mut fields = after.split(' ');
    let fs_type = fields.next()?;
    let options = fields.nth(1)?;
    Some((fs_type, PathBuf::from(unescape(mount)), options))
}

/// mountinfo writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &str) -> String {
    let mut text = field.to_owned();
    for (escaped, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(escaped, plain);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(mounts: &str) -> CgroupHost {
        CgroupHost::from_mountinfo(mounts).unwrap()
    }

    #[test]
    fn co_mounted_controllers_share_a_hierarchy_wherever_it_is() {
        let host = host(
            "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             33 31 0:30 / /odd\\040place rw - cgroup cgroup rw,memory,release_agent=/x\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             41 31 0:30 / /again rw - cgroup cgroup rw,memory\n",
        );
        assert_eq!(host.mode(), Mode::V1);
        let Layout::V1 { hierarchies, .. } = host.layout else { panic!("v1 expected") };
        let seen: Vec<_> = hierarchies.iter().map(|h| (h.mount.to_str().unwrap(), h.controllers.join("+"))).collect();
        assert_eq!(
            seen,
            [
                ("/sys/fs/cgroup/cpu,cpuacct", "cpu+cpuacct".to_owned()),
                ("/odd place", "memory".to_owned()),
                ("/sys/fs/cgroup/systemd", "name=systemd".to_owned()),
            ]
        );
    }

    #[test]
    fn controllers_on_v1_win_over_a_cgroup2_beside_them() {
        let v2 = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let named = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        let pids = "38 31 0:35 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        assert_eq!(host(&format!("{v2}{named}{pids}")).mode(), Mode::Hybrid);
        assert_eq!(host(&format!("{v2}{named}")).mode(), Mode::V2);
        assert!(matches!(CgroupHost::from_mountinfo(named), Err(CgroupError::NotMounted)));
    }

    #[test]
    fn names_stay_below_the_mount() {
        assert_eq!(relative_path("/skep/node1/", "abc").unwrap(), PathBuf::from("skep/node1/abc"));
        assert_eq!(relative_path("", "abc").unwrap(), PathBuf::from("abc"));
        for (parent, id) in [("/skep", ""), ("/skep", ".."), ("/skep", "a/b"), ("/a/../b", "c"), ("a//b", "c")] {
            assert!(relative_path(parent, id).is_err(), "{parent} {id}");
        }
    }

    #[test]
    fn a_missing_memory_controller_comes_with_its_remedy() {
        let host = host("38 31 0:35 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids,cpu,cpuacct,cpuset\n");
        let missing = host.missing_controllers().unwrap();
        let text: Vec<_> = missing.iter().map(ToString::to_string).collect();
        assert!(text.iter().any(|t| t.starts_with("memory controller off") && t.contains("cgroup_enable=memory")));
    }
}
