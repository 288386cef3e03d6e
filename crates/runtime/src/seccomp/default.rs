//! Docker's default profile as a table of our own: what a container may call, by name, capability and argument.
//!
//! Source of the facts: moby/profiles `seccomp/default.json`. Its rules per architecture are not here: a name without a
//! number on an architecture drops out by itself. Its rule "ptrace from Linux 4.8" is always true on our 5.15. Everything
//! not listed is EPERM; what is newer than the list is ENOSYS, so that a newer libc falls back ([`super::compile`]).

use super::{Action, ArgTest, Profile, Rule};
use crate::caps;

const EPERM: Action = Action::Errno(1);
const ENOSYS: Action = Action::Errno(38);

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// Address families of `socket`: left out are those with a record of kernel holes and no use in containers (DECnet,
/// Econet, ATM SVC, IrDA, WANPIPE, IUCV, CAIF), AF_ALG (38), AF_VSOCK (40, which reaches the hypervisor), and what came
/// after AF_MCTP.
const FAMILIES: &[(u64, u64)] = &[(0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45)];

/// PER_LINUX, PER_LINUX32, UNAME26 with both, and the query.
const PERSONALITIES: &[(u64, u64)] =
    &[(0, 0), (8, 8), (0x2_0000, 0x2_0000), (0x2_0008, 0x2_0008), (0xffff_ffff, 0xffff_ffff)];

/// Docker's default profile.
pub fn default_profile() -> Profile {
    Profile { default: EPERM, rules: RULES.to_vec() }
}

const RULES: &[Rule] = &[
    allow(ALWAYS),
    allow(&["socket"]).with(&[ArgTest::In { index: 0, ranges: FAMILIES }]),
    allow(&["personality"]).with(&[ArgTest::In { index: 0, ranges: PERSONALITIES }]),
    allow(&["open_by_handle_at"]).needs(caps::DAC_READ_SEARCH),
    allow(ADMINISTRATION).needs(caps::SYS_ADMIN),
    allow(&["clone"]).unless(caps::SYS_ADMIN).with(&[ArgTest::Masked { index: 0, mask: NAMESPACE_FLAGS, value: 0 }]),
    // Its flags are behind a pointer, which no filter can follow: libc falls back to clone.
    allow(&["clone3"]).unless(caps::SYS_ADMIN).answering(ENOSYS),
    allow(&["reboot"]).needs(caps::SYS_BOOT),
    allow(&["chroot"]).needs(caps::SYS_CHROOT),
    allow(&["delete_module", "init_module", "finit_module"]).needs(caps::SYS_MODULE),
    allow(&["acct"]).needs(caps::SYS_PACCT),
    allow(&["kcmp", "pidfd_getfd", "process_madvise"]).needs(caps::SYS_PTRACE),
    allow(&["iopl", "ioperm"]).needs(caps::SYS_RAWIO),
    allow(&["settimeofday", "stime", "clock_settime", "clock_settime64"]).needs(caps::SYS_TIME),
    allow(&["vhangup"]).needs(caps::SYS_TTY_CONFIG),
    allow(&["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]).needs(caps::SYS_NICE),
    allow(&["syslog"]).needs(caps::SYSLOG),
    allow(&["bpf"]).needs(caps::BPF),
    allow(&["perf_event_open"]).needs(caps::PERFMON),
];

const fn allow(names: &'static [&'static str]) -> Rule {
    Rule { names, action: Action::Allow, needs: 0, unless: 0, args: &[] }
}

impl Rule {
    const fn needs(mut self, caps: u64) -> Self {
        self.needs = caps;
        self
    }

    const fn unless(mut self, caps: u64) -> Self {
        self.unless = caps;
        self
    }

    const fn with(mut self, args: &'static [ArgTest]) -> Self {
        self.args = args;
        self
    }

    const fn answering(mut self, action: Action) -> Self {
        self.action = action;
        self
    }
}

/// Namespaces, mounts and the like: with CAP_SYS_ADMIN only.
#[rustfmt::skip]
const ADMINISTRATION: &[&str] = &[
    "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie",
    "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount", "mount_setattr", "move_mount",
    "open_tree", "perf_event_open", "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns",
    "syslog", "umount", "umount2", "unshare",
];

#[rustfmt::skip]
const ALWAYS: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "arch_prctl",
    "arm_fadvise64_64", "arm_sync_file_range", "bind", "breakpoint", "brk", "cacheflush", "cachestat", "capget",
    "capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64", "clock_getres",
    "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64",
    "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create",
    "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group", "faccessat",
    "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod", "fchmodat",
    "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr",
    "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64",
    "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv",
    "futex_wake", "futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd", "getdents",
    "getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
    "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority",
    "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getrusage", "getsid",
    "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32", "getxattr", "getxattrat",
    "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy",
    "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit", "ioctl", "ioprio_get",
    "ioprio_set", "ipc", "kill", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self",
    "lchown", "lchown32", "lgetxattr", "link", "linkat", "listen", "listmount", "listxattr", "listxattrat",
    "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "lstat64", "madvise", "map_shadow_stack",
    "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock",
    "mlock2", "mlockall", "mmap", "mmap2", "modify_ldt", "mprotect", "mq_getsetattr", "mq_notify", "mq_open",
    "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "mremap",
    "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap",
    "name_to_handle_at", "nanosleep", "newfstatat", "open", "openat", "openat2", "pause", "pidfd_open",
    "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll",
    "ppoll_time64", "prctl", "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease",
    "process_vm_readv", "process_vm_writev", "pselect6", "pselect6_time64", "ptrace", "pwrite64", "pwritev",
    "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "recv", "recvfrom", "recvmmsg",
    "recvmmsg_time64", "recvmsg", "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat",
    "renameat2", "restart_syscall", "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64",
    "rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity",
    "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop", "semtimedop",
    "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto", "set_robust_list",
    "set_thread_area", "set_tid_address", "set_tls", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32",
    "setgid", "setgid32", "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority", "setregid",
    "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit",
    "setsid", "setsockopt", "setuid", "setuid32", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt",
    "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4", "sigprocmask", "sigreturn", "socketcall",
    "socketpair", "splice", "stat", "stat64", "statfs", "statfs64", "statmount", "statx", "symlink",
    "symlinkat", "sync", "sync_file_range", "sync_file_range2", "syncfs", "sysinfo", "tee", "tgkill", "time",
    "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime",
    "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit", "umask", "uname", "unlink",
    "unlinkat", "uretprobe", "utime", "utimensat", "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4",
    "waitid", "waitpid", "write", "writev",
];
