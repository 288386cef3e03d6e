//! One container on this kernel: namespaces, cgroups, mounts, seccomp, exec; the Plan, and the keeper with its wardens.

pub mod caps;
pub mod cgroup;
pub mod defaults;
pub mod logs;
pub mod seccomp;
pub mod user;
