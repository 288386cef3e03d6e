//! What is in the container's /dev: nodes, links, and the console of a terminal.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, major, makedev, minor};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;

use super::filesystem::{attach, clone_tree};
use super::root::Root;
use crate::defaults;
use crate::failure::{Failure, Step};
use crate::plan::{Device, DeviceKind, Plan};
use crate::sys::mount::Depth;

/// Makes the nodes and links. The umask is 0, so that modes come out as given.
pub fn populate(root: &Root, plan: &Plan) -> Result<(), Failure> {
    for device in &defaults::DEVICES {
        make_node(
            root,
            &Device {
                path: device.path.to_owned(),
                kind: DeviceKind::Char,
                major: device.major,
                minor: device.minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
            },
        )?;
    }
    for device in &plan.devices {
        make_node(root, device)?;
    }
    if plan.privileged {
        let mut found = Vec::new();
        list_host_devices(Path::new("/dev"), &mut found);
        for device in &found {
            make_node(root, device)?;
        }
    }
    for (link, target) in &defaults::DEV_SYMLINKS {
        // Not every kernel has it, and a link to nothing would be in the way.
        if *target == "/proc/kcore" && !Path::new(target).exists() {
            continue;
        }
        let what = || format!("failed to make the link `{link}`");
        let (parent, name) = root.ensure_parent(link).step("dev", what)?;
        match rustix::fs::symlinkat(*target, &parent, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).step("dev", what),
        }
    }
    Ok(())
}

fn make_node(root: &Root, device: &Device) -> Result<(), Failure> {
    let what = || format!("failed to make the device `{}`", device.path);
    let (parent, name) = root.ensure_parent(&device.path).step("dev", what)?;
    let kind = match device.kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
    };
    let number: Dev = makedev(device.major, device.minor);
    match rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(device.mode & 0o777), number) {
        Ok(()) if (device.uid, device.gid) == (0, 0) => Ok(()),
        Ok(()) => {
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&parent, name, Some(uid), Some(gid), flags).step("dev", what)
        }
        // A default node named again, or found on a privileged container's host.
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).step("dev", what),
    }
}

/// Device nodes of the host for a privileged container, but those that it has its own of.
/// A node that vanishes during the walk is simply not there.
fn list_host_devices(folder: &Path, found: &mut Vec<Device>) {
    const OWN: [&str; 7] = ["pts", "shm", "mqueue", "fd", "console", ".udev", ".lxc"];
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        let kind = metadata.file_type();
        if OWN.iter().any(|own| name == *own) {
            continue;
        }
        if kind.is_dir() {
            list_host_devices(&path, found);
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(Device {
                path: path.display().to_string(),
                kind: if kind.is_char_device() { DeviceKind::Char } else { DeviceKind::Block },
                major: major(metadata.rdev()),
                minor: minor(metadata.rdev()),
                mode: metadata.mode(),
                uid: metadata.uid(),
                gid: metadata.gid(),
            });
        }
    }
}

/// A new terminal of the container's own devpts: master and slave.
/// The slave comes from the master itself (TIOCGPTPEER), never from a path that the container could have replaced.
pub fn open_terminal(root: &Root) -> Result<(OwnedFd, OwnedFd), Failure> {
    let what = || "failed to open a terminal".to_owned();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
    let master = root.open_at("/dev/pts/ptmx", flags, ResolveFlags::NO_SYMLINKS).step("terminal", what)?;
    let stat = rustix::fs::fstat(&master).step("terminal", what)?;
    if (major(stat.st_rdev), minor(stat.st_rdev)) != (5, 2) {
        return Err(Failure::new("terminal", format!("{}: /dev/pts/ptmx is not a terminal multiplexer", what())));
    }
    rustix::pty::unlockpt(&master).step("terminal", what)?;
    let peer_flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, peer_flags).step("terminal", what)?;
    rustix::io::ioctl_fionbio(&master, false).step("terminal", what)?;
    Ok((master, slave))
}

/// Shows the terminal as /dev/console.
pub fn mount_console(root: &Root, slave: &OwnedFd) -> Result<(), Failure> {
    let what = || "failed to mount /dev/console".to_owned();
    let target = root.ensure_file("/dev/console").step("terminal", what)?;
    let tree = clone_tree(slave.as_fd(), Depth::This).step("terminal", what)?;
    attach(&tree, &target).step("terminal", what)
}
