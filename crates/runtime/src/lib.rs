//! One container on this kernel: namespaces, cgroups, mounts, seccomp, exec; the Plan, and the keeper with its wardens.
