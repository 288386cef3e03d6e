//! Mounts as descriptors: made detached, then attached onto a resolved target.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::failure::{Failure, Step, reason};
use crate::sys::mount::{Attributes, Depth, set_attributes};

/// A new filesystem of kind `kind`; options are `key=value` strings or bare flags.
pub fn create(kind: &str, options: &[(&str, Option<&str>)], attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    let what = || format!("failed to make a {kind} filesystem");
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).step("mount", what)?;
    for (key, value) in options {
        let set = match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, *key, *value),
            None => rustix::mount::fsconfig_set_flag(&context, *key),
        };
        set.map_err(|errno| explain(&context, &format!("{} with option `{key}`", what()), errno))?;
    }
    finish(&context, attributes, &what())
}

/// Creates the filesystem that `context` describes, as a detached mount.
pub fn finish(context: &OwnedFd, attributes: MountAttrFlags, what: &str) -> Result<OwnedFd, Failure> {
    rustix::mount::fsconfig_create(context).map_err(|errno| explain(context, what, errno))?;
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|errno| explain(context, what, errno))
}

/// A filesystem says more than an errno in its context's log; its last error line is the cause.
pub fn explain(context: &OwnedFd, what: &str, errno: Errno) -> Failure {
    let mut detail = String::new();
    let mut buffer = [0u8; 1024];
    while let Ok(read @ 1..) = rustix::io::read(context, &mut buffer) {
        if let Some(line) = String::from_utf8_lossy(&buffer[..read]).trim_end().strip_prefix("e ") {
            detail = format!(" ({line})");
        }
    }
    Failure::new("mount", format!("{what}: {}{detail}", reason(errno)))
}

/// Attaches a detached mount onto `target`.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}

/// A detached copy of the mount tree at `source`, for a bind mount.
pub fn clone_tree(source: impl AsFd, depth: Depth) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if depth == Depth::Tree {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(source, "", flags)
}

/// Makes a mount read-only, and all below it if asked.
pub fn make_read_only(mount: impl AsFd, depth: Depth) -> Result<(), Errno> {
    let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    set_attributes(mount.as_fd(), attributes, depth)
}

/// Adds attributes to one mount.
pub fn add_attributes(mount: impl AsFd, added: MountAttrFlags) -> Result<(), Errno> {
    let attributes = Attributes { set: u64::from(added.bits()), ..Attributes::default() };
    set_attributes(mount.as_fd(), attributes, Depth::This)
}

/// Options of mount(8) as attributes of the mount and options of the filesystem; a later word undoes an earlier one.
pub fn split_options<'a>(
    words: impl IntoIterator<Item = &'a str>,
) -> (MountAttrFlags, Vec<(&'a str, Option<&'a str>)>) {
    let mut attributes = MountAttrFlags::empty();
    let mut options = Vec::new();
    for word in words {
        match word {
            "ro" => attributes.insert(MountAttrFlags::MOUNT_ATTR_RDONLY),
            "rw" => attributes.remove(MountAttrFlags::MOUNT_ATTR_RDONLY),
            "nosuid" => attributes.insert(MountAttrFlags::MOUNT_ATTR_NOSUID),
            "suid" => attributes.remove(MountAttrFlags::MOUNT_ATTR_NOSUID),
            "nodev" => attributes.insert(MountAttrFlags::MOUNT_ATTR_NODEV),
            "dev" => attributes.remove(MountAttrFlags::MOUNT_ATTR_NODEV),
            "noexec" => attributes.insert(MountAttrFlags::MOUNT_ATTR_NOEXEC),
            "exec" => attributes.remove(MountAttrFlags::MOUNT_ATTR_NOEXEC),
            "noatime" => attributes.insert(MountAttrFlags::MOUNT_ATTR_NOATIME),
            "strictatime" => attributes.insert(MountAttrFlags::MOUNT_ATTR_STRICTATIME),
            "relatime" | "defaults" | "" => {}
            other => options.push(match other.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (other, None),
            }),
        }
    }
    (attributes, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_word_undoes_an_earlier_one() {
        let (attributes, options) = split_options(["noexec", "nosuid", "size=64m", "exec", "noswap"]);
        assert_eq!(attributes, MountAttrFlags::MOUNT_ATTR_NOSUID);
        assert_eq!(options, [("size", Some("64m")), ("noswap", None)]);
    }
}
