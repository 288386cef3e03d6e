//! What is inside a guest: a folder with busybox and the programs under test, made into its root disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::initramfs::Archive;
use super::kernel::Kernel;
use super::make_disk;
use crate::tools;

/// From the boot archive: the modules, then the root disk, where `/sbin/init` takes over.
const BOOT: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod /modules/$module; done < /modules/order
/bin/busybox mount -t ext4 /dev/vda /root || exec /bin/busybox poweroff -f
exec /bin/busybox switch_root /root /sbin/init
";

/// Process 1 of the guest: the usual mounts, then the script, then off.
const INIT: &str = "#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev,mode=755 run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
hostname guest
ip link set lo up
/bin/busybox sh /script > /dev/ttyS0 2>&1 < /dev/null
echo \"guest: the script ended with $?\" > /dev/ttyS0
sync
poweroff -f
";

/// A root folder under construction.
#[derive(Debug)]
pub struct GuestRoot {
    folder: PathBuf,
}

impl GuestRoot {
    /// Starts with busybox and its commands, an empty `/etc`, and `script`, which the guest runs with its output on the
    /// console; when the script ends, the guest says `guest: the script ended with CODE` and switches itself off.
    pub fn new(folder: &Path, script: &str) -> Result<GuestRoot> {
        let root = GuestRoot { folder: folder.to_owned() };
        for path in
            ["bin", "dev", "etc", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin", "var/lib"]
        {
            root.make_folder(&root.folder.join(path))?;
        }
        let busybox = tools::find_tool("busybox")?;
        root.program(&busybox, "/bin/busybox")?;
        let list = Command::new(&busybox).arg("--list").output().context("cannot run busybox")?;
        for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|applet| *applet != "busybox") {
            let link = root.folder.join("bin").join(applet);
            symlink("busybox", &link).with_context(|| format!("cannot link {}", link.display()))?;
        }
        root.file("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")?;
        root.file("/etc/group", b"root:x:0:\ntty:x:5:\n")?;
        root.file("/etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n")?;
        root.file("/script", script.as_bytes())?;
        root.file("/sbin/init", INIT.as_bytes())?;
        fs::set_permissions(root.folder.join("sbin/init"), fs::Permissions::from_mode(0o755))
            .context("cannot make the guest's init executable")?;
        Ok(root)
    }

    /// Puts `content` at `path`.
    pub fn file(&self, path: &str, content: &[u8]) -> Result<()> {
        let to = self.place(path)?;
        fs::write(&to, content).with_context(|| format!("cannot write {}", to.display()))
    }

    /// Puts a program of this machine at `path`, with the libraries and the loader that it was linked against.
    pub fn program(&self, program: &Path, path: &str) -> Result<()> {
        let to = self.place(path)?;
        copy(program, &to)?;
        strip(&to);
        for library in libraries(program)? {
            let library_in_guest = self.folder.join(library.strip_prefix("/").unwrap_or(&library));
            if !library_in_guest.exists() {
                self.make_folder(library_in_guest.parent().unwrap_or(&self.folder))?;
                copy(&library, &library_in_guest)?;
            }
        }
        Ok(())
    }

    /// Makes the disk `file` of it, with room for `free_mib` mebibytes more, and removes the folder.
    pub fn into_disk(self, file: &Path, free_mib: u64) -> Result<()> {
        let output = Command::new("du").args(["-sm"]).arg(&self.folder).output().context("cannot run du")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let used: u64 =
            text.split_whitespace().next().and_then(|word| word.parse().ok()).context("du tells no size")?;
        make_disk(file, used + used / 8 + free_mib, Some(&self.folder))?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {}", self.folder.display()))
    }

    fn place(&self, path: &str) -> Result<PathBuf> {
        let to = self.folder.join(path.trim_start_matches('/'));
        self.make_folder(to.parent().unwrap_or(&self.folder))?;
        Ok(to)
    }

    fn make_folder(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
    }
}

/// The archive that every guest boots from, whatever its root disk holds.
pub fn boot_archive(kernel: &Kernel) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "modules", "root"] {
        archive.folder(folder);
    }
    let busybox = tools::find_tool("busybox")?;
    let mut programs = vec![(busybox.clone(), "bin/busybox".to_owned())];
    for library in libraries(&busybox)? {
        let path = library.to_string_lossy().trim_start_matches('/').to_owned();
        let parents: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        parents.into_iter().for_each(|at| archive.folder(&path[..at]));
        programs.push((library, path));
    }
    for (file, path) in programs {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        archive.file(&path, &bytes);
    }
    let modules = kernel.modules()?;
    let order: String = modules.iter().map(|(name, _)| format!("{name}\n")).collect();
    for (name, bytes) in &modules {
        archive.file(&format!("modules/{name}"), bytes);
    }
    archive.file("modules/order", order.as_bytes());
    archive.file("init", BOOT.as_bytes());
    Ok(archive.finish())
}

/// What the loader would load for `program`, and the loader; nothing for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).stdin(Stdio::null()).output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.contains("not found") {
        bail!("{} misses libraries:\n{text}", program.display());
    }
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, and the loader by its path alone.
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Debug symbols are most of a test build, and a guest has little memory. Without binutils it goes in as it is.
fn strip(program: &Path) {
    Command::new("strip").arg(program).stdin(Stdio::null()).stderr(Stdio::null()).status().ok();
}
