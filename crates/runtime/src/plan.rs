//! The Plan: everything about one container, resolved, as plain data.
//! The agent computes it, the keeper's warden executes it; nothing in it needs a look-up except what only the
//! container's own files can answer (users). It carries no secret bytes: those come as bind mounts of tmpfs files.
//! On the wire and on disk it is postcard behind one format number.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroup::Limits;
use crate::failure::Failure;
use crate::logs::RotationConfig;
use crate::seccomp::{self, Arch, Instruction, SeccompError};
use crate::signal::Signal;
use crate::{caps, defaults};

/// Format of an encoded [`Plan`] or [`ExecPlan`].
pub const PLAN_FORMAT: u8 = 1;
/// A plan with a lease: one of format 1, and the [`LeasePlan`] behind it. A plan that needs none is written as
/// format 1, which keepers that were started by an older build read.
pub const LEASED_PLAN_FORMAT: u8 = 2;

/// One container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `[A-Za-z0-9][A-Za-z0-9_.-]{0,127}`; names the run folder and the cgroup.
    pub id: String,
    /// Entrypoint and command, merged; must not be empty.
    pub argv: Vec<String>,
    /// `KEY=VALUE`, image and user merged. PATH, HOSTNAME, TERM and HOME are added where unset, as Docker does.
    pub env: Vec<String>,
    /// Working directory; created (root, 0755) where missing.
    pub cwd: String,
    /// `user`, `user:group`, names or numbers, looked up in the container's own files; empty is root.
    pub user: String,
    /// Further groups, names or numbers.
    pub groups: Vec<String>,
    /// `None` keeps the host's UTS namespace.
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub rootfs: Rootfs,
    /// In order; a later one may cover an earlier one.
    pub mounts: Vec<Mount>,
    /// Dotted or slashed names of namespaced sysctls; they come after Docker's own (`defaults::NET_SYSCTLS`).
    pub sysctls: Vec<(String, String)>,
    pub rlimits: Vec<Rlimit>,
    /// Bit per capability number; those that this kernel does not grant us are left out.
    pub capabilities: u64,
    pub seccomp: Seccomp,
    pub no_new_privileges: bool,
    pub masked_paths: Vec<String>,
    pub read_only_paths: Vec<String>,
    /// Beside Docker's default nodes.
    pub devices: Vec<Device>,
    /// Every capability and host device; no masks, no filter, writable /sys and cgroups.
    pub privileged: bool,
    pub shm_size_bytes: u64,
    /// -1000 to 1000; lowering below the keeper's own may need CAP_SYS_RESOURCE.
    pub oom_score_adj: i32,
    /// A small reaper as process 1, the command as its child.
    pub init: bool,
    pub tty: bool,
    /// Keeps standard input open for [`crate::Container::stdin`]; else it is /dev/null.
    pub open_stdin: bool,
    /// What [`crate::Container::stop`] sends.
    pub stop_signal: Signal,
    pub cgroup: CgroupPlan,
    pub log: LogPlan,
    pub network: Network,
    pub pid: Sharing,
    pub ipc: Sharing,
    pub cgroup_namespace: CgroupNamespace,
    /// Present for a container that only runs while it is told to.
    #[serde(skip)]
    pub lease: Option<LeasePlan>,
}

/// A container that cannot start before [`crate::Container::renew_lease`], and ends when its lease runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasePlan {
    /// From the stop signal at the lease's end to SIGKILL.
    pub stop_grace: Duration,
}

/// An overlay: image layers, and one writable folder of the container's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Topmost first; at least one.
    pub lower: Vec<PathBuf>,
    /// Created where missing, with the topmost layer's mode and owner.
    pub upper: PathBuf,
    /// Created where missing; same filesystem as `upper`.
    pub work: PathBuf,
    /// Mount point, created where missing. Mounted in the container's mount namespace only, so that nothing
    /// is left of it when the container ends, however it ends.
    pub merged: PathBuf,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    Bind(Bind),
    Tmpfs(Tmpfs),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute, on the host.
    pub source: PathBuf,
    /// Absolute, in the container; resolved inside its root, created where missing.
    pub target: String,
    /// Recursive, as in Docker 25 and later.
    pub read_only: bool,
    pub propagation: Propagation,
    /// What to do about a missing source.
    pub create: CreateSource,
    /// Named volumes: an empty source first gets the image's content, owner and mode at `target`.
    pub copy_up: bool,
}

impl Bind {
    /// A private, writable bind mount of something that exists.
    pub fn new(source: impl Into<PathBuf>, target: impl Into<String>) -> Self {
        Bind {
            source: source.into(),
            target: target.into(),
            read_only: false,
            propagation: Propagation::Private,
            create: CreateSource::No,
            copy_up: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CreateSource {
    No,
    Dir,
    File,
}

/// How mounts made later cross between host and container below this mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    Private,
    Slave,
    Shared,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub target: String,
    /// `None`: half of the memory, the kernel's default.
    pub size_bytes: Option<u64>,
    /// `None`: the mode of what it covers, else 1777.
    pub mode: Option<u32>,
    /// As after `--tmpfs target:`; noexec, nosuid and nodev hold unless they are undone here.
    pub options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    pub resource: Resource,
    /// `None` is unlimited.
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// The resources of getrlimit(2), by compose's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
    As,
}

impl Resource {
    const NAMES: [(&'static str, Resource); 16] = [
        ("as", Resource::As),
        ("core", Resource::Core),
        ("cpu", Resource::Cpu),
        ("data", Resource::Data),
        ("fsize", Resource::Fsize),
        ("locks", Resource::Locks),
        ("memlock", Resource::Memlock),
        ("msgqueue", Resource::Msgqueue),
        ("nice", Resource::Nice),
        ("nofile", Resource::Nofile),
        ("nproc", Resource::Nproc),
        ("rss", Resource::Rss),
        ("rtprio", Resource::Rtprio),
        ("rttime", Resource::Rttime),
        ("sigpending", Resource::Sigpending),
        ("stack", Resource::Stack),
    ];

    /// The resource that compose's `ulimits` calls `name`.
    pub fn parse(name: &str) -> Option<Resource> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, resource)| *resource)
    }

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, r)| *r == self).map_or("?", |(name, _)| name)
    }
}

/// A system-call filter, compiled by whoever makes the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    Unconfined,
    Filter(Vec<Instruction>),
}

impl Seccomp {
    /// Docker's profile for a container with `capabilities`, on this machine's architecture.
    pub fn docker_default(capabilities: u64) -> Result<Seccomp, SeccompError> {
        seccomp::compile(&seccomp::default_profile(), Arch::host(), capabilities).map(Seccomp::Filter)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute, in the container; usually below /dev.
    pub path: String,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    Char,
    Block,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// Absolute within each hierarchy, e.g. `/skep/containers`.
    pub parent: String,
    pub limits: Limits,
}

/// The json-file log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlan {
    pub path: PathBuf,
    pub rotation: RotationConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Joins the namespace pinned at this path.
    Path(PathBuf),
    Host,
    /// A fresh one with loopback only.
    New,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sharing {
    Private,
    Host,
}

/// Docker's default: private on cgroup v2, the host's on v1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupNamespace {
    Default,
    Private,
    Host,
}

impl Plan {
    /// A container with Docker's defaults but for the filter ([`Seccomp::docker_default`] needs the final capabilities),
    /// with a network namespace of its own and no limits.
    pub fn new(id: impl Into<String>, argv: Vec<String>, rootfs: Rootfs, cgroup: CgroupPlan, log: LogPlan) -> Plan {
        let thermal = defaults::masked_thermal_paths();
        let thermal = thermal.iter().map(|path| path.display().to_string());
        Plan {
            id: id.into(),
            argv,
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            groups: Vec::new(),
            hostname: Some("localhost".to_owned()),
            domainname: None,
            rootfs,
            mounts: Vec::new(),
            sysctls: Vec::new(),
            rlimits: Vec::new(),
            capabilities: caps::DOCKER_DEFAULT,
            seccomp: Seccomp::Unconfined,
            no_new_privileges: false,
            masked_paths: defaults::MASKED_PATHS.iter().map(|p| (*p).to_owned()).chain(thermal).collect(),
            read_only_paths: defaults::READ_ONLY_PATHS.iter().map(|p| (*p).to_owned()).collect(),
            devices: Vec::new(),
            privileged: false,
            shm_size_bytes: defaults::SHM_BYTES,
            oom_score_adj: 0,
            init: false,
            tty: false,
            open_stdin: false,
            stop_signal: Signal::TERM,
            cgroup,
            log,
            network: Network::New,
            pid: Sharing::Private,
            ipc: Sharing::Private,
            cgroup_namespace: CgroupNamespace::Default,
            lease: None,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = encode(self);
        if let Some(lease) = &self.lease {
            bytes[0] = LEASED_PLAN_FORMAT;
            bytes = postcard::to_extend(lease, bytes).expect("plain data into a growing buffer always encodes");
        }
        bytes
    }

    /// Reads a plan and checks what later steps rely on.
    pub fn decode(bytes: &[u8]) -> Result<Plan, Failure> {
        let plan = match bytes.split_first() {
            Some((&LEASED_PLAN_FORMAT, body)) => {
                let (plan, rest) = postcard::take_from_bytes::<Plan>(body).map_err(unreadable)?;
                Plan { lease: Some(postcard::from_bytes(rest).map_err(unreadable)?), ..plan }
            }
            _ => decode::<Plan>(bytes)?,
        };
        plan.validate()?;
        Ok(plan)
    }

    fn validate(&self) -> Result<(), Failure> {
        let bad = |message: String| Err(Failure::new("plan", message));
        if !is_valid_id(&self.id) {
            return bad(format!("invalid container id `{}`: use letters, digits, `_`, `.` and `-`", self.id));
        }
        if self.argv.first().is_none_or(String::is_empty) {
            return bad("no command specified".to_owned());
        }
        if self.rootfs.lower.is_empty() {
            return bad("the root filesystem has no layer".to_owned());
        }
        if !self.cwd.starts_with('/') {
            return bad(format!("the working directory `{}` is invalid, it needs to be an absolute path", self.cwd));
        }
        for (name, _) in &self.sysctls {
            if !self.is_own_sysctl(&name.replace('/', ".")) {
                return bad(format!(
                    "sysctl \"{name}\" is not in a separate kernel namespace: it is the whole machine's"
                ));
            }
        }
        for mount in &self.mounts {
            let target = match mount {
                Mount::Bind(bind) => &bind.target,
                Mount::Tmpfs(tmpfs) => &tmpfs.target,
            };
            if !target.starts_with('/') || target.trim_matches('/').is_empty() {
                return bad(format!("invalid mount target `{target}`: must be an absolute path other than `/`"));
            }
        }
        Ok(())
    }

    /// Whether a sysctl is a value of one of the container's own namespaces (ipc_namespaces(7); all of `net` is by
    /// network namespace). Any other would change the machine for everybody.
    fn is_own_sysctl(&self, dotted: &str) -> bool {
        const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
        let ipc =
            dotted.starts_with("fs.mqueue.") || dotted.strip_prefix("kernel.").is_some_and(|rest| IPC.contains(&rest));
        let net = dotted.starts_with("net.");
        (ipc && self.ipc == Sharing::Private) || (net && self.network != Network::Host)
    }
}

/// One more process in a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecPlan {
    pub argv: Vec<String>,
    /// Set on top of the container's own environment.
    pub env: Vec<String>,
    /// `None`: the container's working directory. Not created.
    pub cwd: Option<String>,
    /// `None`: the container's user.
    pub user: Option<String>,
    pub tty: bool,
    /// Hands out a pipe for standard input; else it is /dev/null. A terminal always has input.
    pub stdin: bool,
    /// Every capability and no system-call filter.
    pub privileged: bool,
}

impl ExecPlan {
    pub fn new<I: IntoIterator<Item = S>, S: Into<String>>(argv: I) -> Self {
        ExecPlan { argv: argv.into_iter().map(Into::into).collect(), ..ExecPlan::default() }
    }

    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<ExecPlan, Failure> {
        let plan: ExecPlan = decode(bytes)?;
        if plan.argv.first().is_none_or(String::is_empty) {
            return Err(Failure::new("plan", "no command specified".to_owned()));
        }
        Ok(plan)
    }
}

/// True for an id that is safe as the name of a folder and of a cgroup.
pub fn is_valid_id(id: &str) -> bool {
    id.len() <= 128
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![PLAN_FORMAT]).expect("plain data into a growing buffer always encodes")
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    match bytes.split_first() {
        Some((&PLAN_FORMAT, body)) => postcard::from_bytes(body).map_err(unreadable),
        Some((format, _)) => {
            let reads = format!("{PLAN_FORMAT} and {LEASED_PLAN_FORMAT}");
            Err(Failure::new("plan", format!("the plan has format {format}, this keeper reads {reads}")))
        }
        None => Err(Failure::new("plan", "the plan is empty".to_owned())),
    }
}

fn unreadable(error: postcard::Error) -> Failure {
    Failure::new("plan", format!("the plan cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_an_addition_that_plans_without_one_do_not_show() {
        let rootfs = Rootfs {
            lower: vec!["/l".into()],
            upper: "/u".into(),
            work: "/w".into(),
            merged: "/m".into(),
            read_only: true,
        };
        let cgroup = CgroupPlan { parent: "/skep".to_owned(), limits: Limits::default() };
        let log = LogPlan { path: "/log".into(), rotation: RotationConfig::default() };
        let mut plan = Plan::new("a", vec!["true".to_owned()], rootfs, cgroup, log);
        assert_eq!((plan.encode()[0], Plan::decode(&plan.encode()).unwrap()), (PLAN_FORMAT, plan.clone()));
        plan.lease = Some(LeasePlan { stop_grace: Duration::from_millis(1500) });
        assert_eq!((plan.encode()[0], Plan::decode(&plan.encode()).unwrap()), (LEASED_PLAN_FORMAT, plan.clone()));
    }

    #[test]
    fn another_format_is_refused_by_number() {
        let mut bytes = ExecPlan::new(["true"]).encode();
        bytes[0] = 9;
        let failure = ExecPlan::decode(&bytes).expect_err("format 9 is unknown");
        assert_eq!(failure.message, "the plan has format 9, this keeper reads 1 and 2");
    }

    #[test]
    fn ids_cannot_leave_their_folder() {
        for bad in ["", ".", "..", "a/b", "-x", "a b", "é"] {
            assert!(!is_valid_id(bad), "{bad}");
        }
        assert!(is_valid_id("web.1.x8f-2_y"));
    }
}
