//! The mounts that the user asked for: binds, volumes and tmpfs, in order.
//! Sources are opened before this process turns its mounts private, because a shared bind must stay a peer of the
//! host's; they are attached onto descriptors inside the container's root.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::copy_up::copy_up;
use super::filesystem::{attach, clone_tree, create, make_read_only, split_options};
use super::root::{Root, is_dir};
use crate::failure::{Failure, Step};
use crate::plan::{Bind, CreateSource, Mount, Plan, Propagation, Tmpfs};
use crate::sys::mount::{Attributes, Depth, set_attributes};

/// Files of /proc that a mount may cover; anything else there could blind the runtime's own safeguards.
/// <https://github.com/opencontainers/runc> allows the same.
const PROC_TARGETS: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// A mount whose host side is open.
#[derive(Debug)]
pub enum Opened<'p> {
    Bind { bind: &'p Bind, source: OwnedFd, tree: OwnedFd },
    Tmpfs(&'p Tmpfs),
}

/// Opens every source, in the host's view.
pub fn open_sources(plan: &Plan) -> Result<Vec<Opened<'_>>, Failure> {
    plan.mounts
        .iter()
        .map(|mount| match mount {
            Mount::Tmpfs(tmpfs) => Ok(Opened::Tmpfs(tmpfs)),
            Mount::Bind(bind) => {
                let source = open_source(bind)?;
                let tree = clone_tree(&source, Depth::Tree)
                    .step("mount", || format!("invalid mount source `{}`", bind.source.display()))?;
                Ok(Opened::Bind { bind, source, tree })
            }
        })
        .collect()
}

fn open_source(bind: &Bind) -> Result<OwnedFd, Failure> {
    let what = || format!("invalid mount source `{}`", bind.source.display());
    if !bind.source.is_absolute() {
        return Err(Failure::new("mount", format!("{}: must be an absolute path", what())));
    }
    let open = || rustix::fs::openat(CWD, &bind.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    match (open(), bind.create) {
        (Err(Errno::NOENT), CreateSource::Dir) => {
            DirBuilder::new().recursive(true).mode(0o755).create(&bind.source).step("mount", what)?;
        }
        (Err(Errno::NOENT), CreateSource::File) => {
            if let Some(parent) = bind.source.parent() {
                DirBuilder::new().recursive(true).mode(0o755).create(parent).step("mount", what)?;
            }
            std::fs::OpenOptions::new().append(true).create(true).open(&bind.source).step("mount", what)?;
        }
        (opened, _) => return opened.step("mount", what),
    }
    open().step("mount", what)
}

/// Attaches all of them inside `root`.
pub fn attach_all(root: &Root, mounts: &[Opened<'_>]) -> Result<(), Failure> {
    for mount in mounts {
        match mount {
            Opened::Bind { bind, source, tree } => attach_bind(root, bind, source, tree)?,
            Opened::Tmpfs(tmpfs) => attach_tmpfs(root, tmpfs)?,
        }
    }
    Ok(())
}

fn attach_bind(root: &Root, bind: &Bind, source: &OwnedFd, tree: &OwnedFd) -> Result<(), Failure> {
    let what = || format!("failed to mount `{}` at `{}`", bind.source.display(), bind.target);
    let source_is_dir = is_dir(source).step("mount", what)?;
    let of_image = root.resolve(&bind.target).is_ok();
    let target = if source_is_dir { root.ensure_dir(&bind.target) } else { root.ensure_file(&bind.target) };
    let target = match target {
        Err(Errno::NOTDIR) => {
            return Err(Failure::new("mount", format!("{}: the source is a directory and the target is not", what())));
        }
        other => other.step("mount", what)?,
    };
    if !source_is_dir && is_dir(&target).step("mount", what)? {
        return Err(Failure::new("mount", format!("{}: the target is a directory and the source is not", what())));
    }
    refuse_proc(&target, &bind.target)?;
    // What the image does not have gives the volume no mode and owner either: a file system that was mounted has its own.
    if bind.copy_up && source_is_dir && of_image {
        copy_up(root, &bind.target, source)
            .step("mount", || format!("failed to fill the volume at `{}`", bind.target))?;
    }
    let propagation = match bind.propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => libc::MS_SHARED,
    };
    let change = Attributes { propagation, ..Attributes::default() };
    set_attributes(tree.as_fd(), change, Depth::Tree).step("mount", what)?;
    if bind.read_only {
        make_read_only(tree, Depth::Tree).step("mount", what)?;
    }
    attach(tree, &target).step("mount", what)
}

fn attach_tmpfs(root: &Root, tmpfs: &Tmpfs) -> Result<(), Failure> {
    let what = || format!("failed to mount a tmpfs at `{}`", tmpfs.target);
    let covered = root.resolve(&tmpfs.target).ok();
    let target = root.ensure_dir(&tmpfs.target).step("mount", what)?;
    refuse_proc(&target, &tmpfs.target)?;
    let mode = match (tmpfs.mode, &covered) {
        (Some(mode), _) => mode,
        (None, Some(covered)) => rustix::fs::fstat(covered).step("mount", what)?.st_mode & 0o7777,
        (None, None) => 0o1777,
    };
    let mode = format!("{mode:o}");
    let size = tmpfs.size_bytes.map(|size| size.to_string());
    let words = ["noexec", "nosuid", "nodev"].into_iter().chain(tmpfs.options.iter().flat_map(|word| word.split(',')));
    let (attributes, given) = split_options(words);
    let mut options = vec![("source", Some("tmpfs")), ("mode", Some(mode.as_str()))];
    if let Some(size) = &size {
        options.push(("size", Some(size)));
    }
    options.extend(given);
    attach(&create("tmpfs", &options, attributes)?, &target).step("mount", what)
}

/// Judges by where the target really is, not by how its path is written.
fn refuse_proc(target: &OwnedFd, path: &str) -> Result<(), Failure> {
    let filesystem = rustix::fs::fstatfs(target).step("mount", || format!("failed to look at `{path}`"))?;
    if filesystem.f_type as u64 == PROC_SUPER_MAGIC && !PROC_TARGETS.contains(&path) {
        return Err(Failure::new("mount", format!("`{path}` cannot be mounted over because it is inside /proc")));
    }
    Ok(())
}
