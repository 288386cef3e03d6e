//! What a container uses now, read from its cgroup. `None` means that the kernel does not say (controller off, cgroup
//! gone): to be shown as "–", not as 0.

use std::fs;
use std::path::Path;

use super::group::Cgroup;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes, page cache included. `docker stats` shows this less [`Stats::inactive_file`].
    pub memory_usage: Option<u64>,
    /// Bytes; `None` also when there is no limit.
    pub memory_limit: Option<u64>,
    /// Bytes of page cache that could go at once (v1: `total_inactive_file`).
    pub inactive_file: Option<u64>,
    /// Nanoseconds of cpu time since the cgroup was made.
    pub cpu_usage_ns: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// v1 shows "no limit" as the highest multiple of the page size below 2^63; nobody limits to more than an exbibyte.
const V1_UNLIMITED: u64 = 1 << 60;

pub(super) fn read(cgroup: &Cgroup) -> Stats {
    let memory = cgroup.dir("memory");
    let pids = cgroup.dir("pids").and_then(|dir| number(dir, "pids.current"));
    match cgroup.is_v2() {
        true => Stats {
            memory_usage: memory.and_then(|dir| number(dir, "memory.current")),
            memory_limit: memory.and_then(|dir| number(dir, "memory.max")),
            inactive_file: memory.and_then(|dir| keyed(dir, "memory.stat", "inactive_file")),
            cpu_usage_ns: cgroup.dir("cpu").and_then(|dir| keyed(dir, "cpu.stat", "usage_usec")).map(|us| us * 1000),
            pids,
        },
        false => Stats {
            memory_usage: memory.and_then(|dir| number(dir, "memory.usage_in_bytes")),
            memory_limit: memory
                .and_then(|dir| number(dir, "memory.limit_in_bytes"))
                .filter(|limit| *limit < V1_UNLIMITED),
            inactive_file: memory.and_then(|dir| keyed(dir, "memory.stat", "total_inactive_file")),
            cpu_usage_ns: cgroup.dir("cpuacct").and_then(|dir| number(dir, "cpuacct.usage")),
            pids,
        },
    }
}

/// How many processes of this cgroup the kernel has killed for memory. `oom_kill`, not `oom`: the latter stays 0 when it
/// is a limit above that was hit.
pub(super) fn oom_kills(cgroup: &Cgroup) -> Option<u64> {
    let dir = cgroup.dir("memory")?;
    match cgroup.is_v2() {
        true => keyed(dir, "memory.events", "oom_kill"),
        false => keyed(dir, "memory.oom_control", "oom_kill"),
    }
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

/// The number after `key ` in a file of `key number` lines.
pub(super) fn keyed(dir: &Path, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(dir.join(file)).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}
