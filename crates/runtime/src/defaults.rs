//! What a container gets when its spec says nothing: Docker's masked and read-only paths, mounts, devices, environment
//! and sysctls, as constants.
//!
//! Source: moby `daemon/pkg/oci/defaults.go` and `daemon/oci_linux.go`. The core turns them into mounts and device
//! nodes; this file touches nothing but `/sys`, once, for the per-cpu paths.

use std::path::PathBuf;

/// `PATH` of a process whose image and spec set none.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `TERM` of a process with a terminal whose image and spec set none.
pub const TERM: &str = "xterm";

/// Size of `/dev/shm` in bytes when `shm_size` is not set.
pub const SHM_BYTES: u64 = 64 << 20;

/// Hidden from containers: `/dev/null` over files, an empty read-only directory over directories. A path that does not
/// exist is skipped. See also [`masked_thermal_paths`].
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Visible to containers, but not writable. A path that does not exist is skipped.
pub const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// `/sys/devices/system/cpu/cpuN/thermal_throttle` of every cpu that has one: Docker masks these too, because their
/// counters are a side channel between containers.
pub fn masked_thermal_paths() -> Vec<PathBuf> {
    let Ok(cpus) = std::fs::read_dir("/sys/devices/system/cpu") else {
        return Vec::new(); // no sysfs: nothing to mask
    };
    let is_cpu = |name: &str| name.strip_prefix("cpu").is_some_and(|n| n.parse::<u32>().is_ok());
    let mut paths: Vec<PathBuf> = cpus
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_cpu))
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.exists())
        .collect();
    paths.sort();
    paths
}

/// A file system that every container mounts, in this order. `options` are those of mount(8); the core splits them into
/// flags and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultMount {
    pub target: &'static str,
    pub fs_type: &'static str,
    pub source: &'static str,
    pub options: &'static [&'static str],
}

/// Docker's mounts in mount order. `/dev/shm`'s `size=` is not in the list: it is the container's `shm_size`, or
/// [`SHM_BYTES`]. `cgroup` stands for whatever this kernel has (cgroup2, or one mount per v1 hierarchy).
pub const MOUNTS: [DefaultMount; 7] = [
    DefaultMount { target: "/proc", fs_type: "proc", source: "proc", options: &["nosuid", "noexec", "nodev"] },
    DefaultMount {
        target: "/dev",
        fs_type: "tmpfs",
        source: "tmpfs",
        options: &["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    DefaultMount {
        target: "/dev/pts",
        fs_type: "devpts",
        source: "devpts",
        options: &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    DefaultMount { target: "/sys", fs_type: "sysfs", source: "sysfs", options: &["nosuid", "noexec", "nodev", "ro"] },
    DefaultMount {
        target: "/sys/fs/cgroup",
        fs_type: "cgroup",
        source: "cgroup",
        options: &["ro", "nosuid", "noexec", "nodev"],
    },
    DefaultMount {
        target: "/dev/mqueue",
        fs_type: "mqueue",
        source: "mqueue",
        options: &["nosuid", "noexec", "nodev"],
    },
    DefaultMount {
        target: "/dev/shm",
        fs_type: "tmpfs",
        source: "shm",
        options: &["nosuid", "noexec", "nodev", "mode=1777"],
    },
];

/// With `read_only: true` every mount of ours is read-only but these, which programs cannot do without.
pub const WRITABLE_WHEN_READ_ONLY: [&str; 5] = ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"];

/// A character device made in the container's `/dev`, mode 0666, owner root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultDevice {
    pub path: &'static str,
    pub major: u32,
    pub minor: u32,
}

/// `/dev/console` (a terminal's) is not in the list: the core binds the container's own pseudo-terminal over it.
pub const DEVICES: [DefaultDevice; 6] = [
    DefaultDevice { path: "/dev/null", major: 1, minor: 3 },
    DefaultDevice { path: "/dev/zero", major: 1, minor: 5 },
    DefaultDevice { path: "/dev/full", major: 1, minor: 7 },
    DefaultDevice { path: "/dev/random", major: 1, minor: 8 },
    DefaultDevice { path: "/dev/urandom", major: 1, minor: 9 },
    DefaultDevice { path: "/dev/tty", major: 5, minor: 0 },
];

/// `(link, target)` pairs in `/dev`. `core` exists only where `/proc/kcore` does.
pub const DEV_SYMLINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/core", "/proc/kcore"),
];

/// Set in a container's own network namespace (never with the host's): ports below 1024 and unprivileged ping for every
/// user. `ping_group_range` is left out where user namespaces map fewer groups.
pub const NET_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];
