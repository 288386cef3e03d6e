//! The container's root: the overlay, and the filesystems that every container has.
//! It deliberately does not apply user mounts (`mounts`), device nodes (`dev`) or masks (`guard`).

use std::ffi::CString;
use std::fs::DirBuilder;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags};

use super::filesystem::{self, attach, clone_tree, create, split_options};
use super::root::Root;
use crate::defaults::{self, DefaultMount};
use crate::failure::{Failure, Step};
use crate::plan::{Plan, Rootfs, Sharing};
use crate::sys::mount::Depth;

/// fsconfig takes values of up to 255 bytes.
const OPTION_BYTES_MAX: usize = 255;

/// Mounts the overlay at `merged` in this process's mount namespace, and opens it.
pub fn mount_overlay(rootfs: &Rootfs) -> Result<Root, Failure> {
    make_folders(rootfs)?;
    if !mount_by_context(rootfs)? {
        mount_by_options(rootfs)?;
    }
    Root::open(&rootfs.merged).step("rootfs", || format!("failed to open `{}`", rootfs.merged.display()))
}

/// The merged root shows the mode and owner of `upper`, so a new one takes the topmost layer's.
fn make_folders(rootfs: &Rootfs) -> Result<(), Failure> {
    let make = |path: &Path, mode: u32| {
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .step("rootfs", || format!("failed to make the folder `{}`", path.display()))
    };
    let top = &rootfs.lower[0];
    let layer = std::fs::metadata(top).step("rootfs", || format!("failed to find the layer `{}`", top.display()))?;
    if !rootfs.upper.exists() {
        if let Some(parent) = rootfs.upper.parent() {
            make(parent, 0o700)?;
        }
        make(&rootfs.upper, layer.mode() & 0o7777)?;
        std::os::unix::fs::chown(&rootfs.upper, Some(layer.uid()), Some(layer.gid()))
            .step("rootfs", || format!("failed to set the owner of `{}`", rootfs.upper.display()))?;
    }
    make(&rootfs.work, 0o700)?;
    make(&rootfs.merged, 0o700)
}

/// Layer by layer with `lowerdir+` (Linux 6.8), which has no limit on their number; false where it is unknown.
/// From 6.5 on the option itself is refused; before, overlay took any option (up to a page of them) and refused at creation.
fn mount_by_context(rootfs: &Rootfs) -> Result<bool, Failure> {
    let what = "failed to mount the container's overlay";
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).step("rootfs", || what.to_owned())?;
    // What `df` and the mount table call it, as in Docker.
    rustix::mount::fsconfig_set_string(&context, "source", "overlay").step("rootfs", || what.to_owned())?;
    let mut held = Vec::new();
    let mut set = |key: &str, path: &Path| -> Result<Result<(), Errno>, Failure> {
        let value = short_path(path, &mut held)?;
        Ok(rustix::mount::fsconfig_set_string(&context, key, &value))
    };
    for layer in &rootfs.lower {
        match set("lowerdir+", layer)? {
            Ok(()) => {}
            Err(Errno::INVAL) => return Ok(false),
            Err(errno) => {
                return Err(filesystem::explain(&context, &format!("{what}, layer `{}`", layer.display()), errno));
            }
        }
    }
    for (key, path) in [("upperdir", &rootfs.upper), ("workdir", &rootfs.work)] {
        set(key, path)?
            .map_err(|errno| filesystem::explain(&context, &format!("{what}, {key} `{}`", path.display()), errno))?;
    }
    // A kernel that indexes by default would refuse an upper folder whose layers moved; without the option it does not index.
    let _ = rustix::mount::fsconfig_set_string(&context, "index", "off");
    match rustix::mount::fsconfig_create(&context) {
        Ok(()) => {}
        Err(Errno::INVAL) => return Ok(false),
        Err(errno) => return Err(filesystem::explain(&context, what, errno)),
    }
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|errno| filesystem::explain(&context, what, errno))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", CWD, &rootfs.merged, flags).step("rootfs", || what.to_owned())?;
    Ok(true)
}

/// One option string, a page at most: each layer goes by its descriptor's short name.
fn mount_by_options(rootfs: &Rootfs) -> Result<(), Failure> {
    let mut held = Vec::new();
    let mut name = |path: &Path| hold(path, &mut held).map(|p| p.display().to_string());
    let layers = rootfs.lower.iter().map(|layer| name(layer)).collect::<Result<Vec<_>, _>>()?.join(":");
    let options = format!("lowerdir={layers},upperdir={},workdir={}", name(&rootfs.upper)?, name(&rootfs.work)?);
    let options = CString::new(options).expect("descriptor names hold no zero byte");
    rustix::mount::mount("overlay", &rootfs.merged, "overlay", MountFlags::empty(), options.as_c_str())
        .step("rootfs", || "failed to mount the container's overlay".to_owned())
}

fn short_path(path: &Path, held: &mut Vec<OwnedFd>) -> Result<PathBuf, Failure> {
    if path.as_os_str().len() <= OPTION_BYTES_MAX { Ok(path.to_owned()) } else { hold(path, held) }
}

fn hold(path: &Path, held: &mut Vec<OwnedFd>) -> Result<PathBuf, Failure> {
    let fd = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .step("rootfs", || format!("failed to open `{}`", path.display()))?;
    let name = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    held.push(fd);
    Ok(name)
}

/// Docker's own mounts, in its order (`defaults::MOUNTS`).
pub fn mount_system(root: &Root, plan: &Plan) -> Result<(), Failure> {
    for entry in &defaults::MOUNTS {
        match (entry.fs_type, entry.target, plan.ipc) {
            ("cgroup", _, _) => mount_cgroups(root, plan.privileged)?,
            ("mqueue", target, Sharing::Host) | (_, target @ "/dev/shm", Sharing::Host) => {
                bind_host(root, target, target)?;
            }
            _ => mount_default(root, entry, plan)?,
        }
    }
    Ok(())
}

fn mount_default(root: &Root, entry: &DefaultMount, plan: &Plan) -> Result<(), Failure> {
    let (mut attributes, mut options) = split_options(entry.options.iter().copied());
    if plan.privileged {
        attributes.remove(MountAttrFlags::MOUNT_ATTR_RDONLY);
    }
    let size = plan.shm_size_bytes.to_string();
    if entry.target == "/dev/shm" {
        options.push(("size", Some(&size)));
    }
    options.push(("source", Some(entry.source)));
    if entry.fs_type == "sysfs" && attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY) {
        options.push(("ro", None));
    }
    attach_at(root, entry.target, &create(entry.fs_type, &options, attributes)?)
}

fn attach_at(root: &Root, target: &str, mount: &OwnedFd) -> Result<(), Failure> {
    let what = || format!("failed to mount `{target}`");
    attach(mount, root.ensure_dir(target).step("mount", what)?).step("mount", what)
}

fn bind_host(root: &Root, source: &str, target: &str) -> Result<(), Failure> {
    let what = || format!("failed to share the host's `{source}`");
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let host = match rustix::fs::openat(CWD, source, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.step("mount", what)?,
    };
    attach_at(root, target, &clone_tree(&host, Depth::Tree).step("mount", what)?)
}

/// v2: the hierarchy (its root is ours inside a cgroup namespace). v1: one folder per hierarchy, showing our own cgroup.
fn mount_cgroups(root: &Root, privileged: bool) -> Result<(), Failure> {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    match rustix::fs::statfs("/sys/fs/cgroup") {
        Err(_) => return Ok(()),
        Ok(host) if host.f_type as u64 == CGROUP2_SUPER_MAGIC => {
            let read_only = if privileged { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
            let mount = create("cgroup2", &[("source", Some("cgroup"))], attributes | read_only)?;
            return attach_at(root, "/sys/fs/cgroup", &mount);
        }
        Ok(_) => {}
    }
    let what = || "failed to show the container its cgroups".to_owned();
    let views = own_v1_cgroups().step("mount", what)?;
    attach_at(
        root,
        "/sys/fs/cgroup",
        &create("tmpfs", &[("source", Some("tmpfs")), ("mode", Some("755"))], attributes)?,
    )?;
    let top = root.ensure_dir("/sys/fs/cgroup").step("mount", what)?;
    for view in views {
        let own = match rustix::fs::openat(CWD, &view.folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            // A hierarchy that the host mounts but does not show us, e.g. from inside a network namespace's mounts.
            Err(Errno::NOENT) => continue,
            other => other.step("mount", what)?,
        };
        let mount = clone_tree(&own, Depth::This).step("mount", what)?;
        let read_only = if privileged { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
        filesystem::add_attributes(&mount, attributes | read_only).step("mount", what)?;
        attach_at(root, &format!("/sys/fs/cgroup/{}", view.name), &mount)?;
        for alias in view.name.split(',').filter(|alias| *alias != view.name) {
            rustix::fs::symlinkat(&view.name, &top, alias).step("mount", what)?;
        }
    }
    if privileged { Ok(()) } else { filesystem::make_read_only(&top, Depth::This).step("mount", what) }
}

struct CgroupView {
    /// As the host names the hierarchy's folder, e.g. `cpu,cpuacct`.
    name: String,
    folder: PathBuf,
}

/// This process's own folder in each v1 hierarchy: /proc/self/mountinfo says where, /proc/self/cgroup which.
fn own_v1_cgroups() -> std::io::Result<Vec<CgroupView>> {
    let memberships = std::fs::read_to_string("/proc/self/cgroup")?;
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut views: Vec<CgroupView> = Vec::new();
    for line in mountinfo.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let Some(dash) = fields.iter().position(|field| *field == "-") else { continue };
        if fields.get(dash + 1) != Some(&"cgroup") {
            continue;
        }
        let (shown, mount_point) = (fields[3], Path::new(fields[4]));
        let options: Vec<&str> = fields.last().map_or(Vec::new(), |options| options.split(',').collect());
        let Some(name) = mount_point.file_name().and_then(|name| name.to_str()) else { continue };
        let membership = memberships.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            (!controllers.is_empty() && controllers.split(',').all(|c| options.contains(&c))).then_some(path)
        });
        if let Some(path) = membership
            && let Some(below) = path.strip_prefix(shown.trim_end_matches('/'))
            && mount_point.parent() == Some(Path::new("/sys/fs/cgroup"))
            && views.iter().all(|view| view.name != name)
        {
            let folder = mount_point.join(below.trim_start_matches('/'));
            views.push(CgroupView { name: name.to_owned(), folder });
        }
    }
    Ok(views)
}
