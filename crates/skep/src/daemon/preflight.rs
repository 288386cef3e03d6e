//! What must be true of the machine before the daemon touches anything: one line for each thing that is
//! missing, with the command that mends it.

use std::fs;

use anyhow::{Result, bail};
use skep_runtime::cgroup::CgroupHost;

/// The oldest kernel that the runtime is built for.
const KERNEL_MIN: (u32, u32) = (5, 15);

/// Refuses a machine that cannot run containers; returns what it can only do in part, in words.
pub fn check() -> Result<Vec<String>> {
    if !rustix::process::geteuid().is_root() {
        bail!("the daemon must run as root; start it with `sudo skep daemon` or `sudo skep init`");
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match kernel_version(&release) {
        Some(version) if version >= KERNEL_MIN => {}
        _ => {
            let (major, minor) = KERNEL_MIN;
            bail!(
                "kernel {release} is too old: skep needs {major}.{minor} or newer; on Debian: `apt-get install linux-image-amd64` and reboot"
            );
        }
    }
    for (filesystem, module) in [("overlay", "overlay"), ("tmpfs", "tmpfs")] {
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let listed = known.lines().any(|line| line.split_whitespace().last() == Some(filesystem));
        if !listed && !fs::exists(format!("/sys/module/{module}")).unwrap_or(false) {
            bail!("this kernel does not know the file system {filesystem}; load it with `modprobe {module}`");
        }
    }
    if !fs::exists("/proc/net/netfilter").unwrap_or(false) && !fs::exists("/sys/module/nf_tables").unwrap_or(false) {
        bail!("this kernel has no nftables; load it with `modprobe nf_tables`");
    }
    let host = CgroupHost::detect().map_err(|error| {
        anyhow::anyhow!("{error}; cgroups must be mounted at /sys/fs/cgroup: `mount -t cgroup2 none /sys/fs/cgroup`")
    })?;
    let missing = host.missing_controllers()?;
    Ok(missing.iter().map(ToString::to_string).collect())
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read_as_distributions_write_them() {
        assert_eq!(kernel_version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("5.15.167.4-microsoft-standard-WSL2"), Some((5, 15)));
        assert_eq!(kernel_version("7.0-rc1"), Some((7, 0)));
        assert!(kernel_version("5.10.0-23") < Some(KERNEL_MIN));
    }
}
