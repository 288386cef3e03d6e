//! A service: what runs, with what, and how many.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::{
    At, DependsOn, Deploy, FileReference, Healthcheck, Hook, Logging, Mount, Port, PullPolicy, Restart, Strings, Ulimit,
};
use crate::source::Span;

#[derive(Debug, Clone, Default)]
pub struct Service {
    pub name: String,
    /// The service's key.
    pub span: Span,
    /// Where each attribute that was written stands, by its name.
    pub written: BTreeMap<String, Span>,

    pub image: Option<String>,
    pub pull_policy: Option<PullPolicy>,
    /// `os[/arch[/variant]]`.
    pub platform: Option<String>,
    /// The folder that the image is built from; how to build is not read.
    pub build_context: Option<String>,
    pub container_name: Option<String>,

    /// `None` keeps the image's; empty clears it.
    pub command: Option<Vec<String>>,
    /// `None` keeps the image's; empty clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Environment files included; `None` unsets what the image sets.
    pub environment: BTreeMap<String, Option<String>>,
    pub user: Option<String>,
    pub group_add: Vec<String>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub init: Option<bool>,
    pub tty: bool,
    pub stdin_open: bool,
    pub stop_signal: Option<String>,
    pub stop_grace_period: Option<Duration>,
    pub healthcheck: Option<Healthcheck>,
    pub post_start: Vec<Hook>,
    pub pre_stop: Vec<Hook>,
    pub labels: Strings,
    pub annotations: Strings,
    pub logging: Option<Logging>,
    pub restart: Option<At<Restart>>,
    pub depends_on: BTreeMap<String, DependsOn>,
    pub profiles: Vec<String>,

    pub read_only: bool,
    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security_opt: Vec<At<String>>,
    pub sysctls: Strings,
    pub ulimits: BTreeMap<String, Ulimit>,
    pub devices: Vec<At<Device>>,
    /// Size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    pub oom_score_adj: Option<i32>,

    pub attachment: Attachment,
    pub ports: Vec<Port>,
    /// `port[/protocol]`: documentation only.
    pub expose: Vec<String>,
    /// `(name, address)`, in order.
    pub extra_hosts: Vec<(String, String)>,
    pub dns: Vec<At<String>>,
    pub dns_search: Vec<String>,
    pub dns_opt: Vec<String>,

    /// `volumes`.
    pub mounts: Vec<Mount>,
    /// `tmpfs`, all of them of this kind.
    pub tmpfs: Vec<Mount>,
    pub secrets: Vec<FileReference>,
    pub configs: Vec<FileReference>,

    /// With `scale`, `cpus`, `mem_limit`, `mem_reservation` and `pids_limit` folded in.
    pub deploy: Deploy,
    /// `x-skep`.
    pub skep: Extension,
}

/// What skep adds to the format, under `x-skep`, which other tools pass over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extension {
    pub at_most_one: Option<At<bool>>,
    /// How long a task that is to stop may go on serving the connections that it has.
    pub drain: Option<Duration>,
    /// How long an update may go without another slot done.
    pub progress_deadline: Option<At<Duration>>,
    /// When the service runs, as a job: cron's five fields, or six with seconds first.
    pub schedule: Option<At<String>>,
    /// Whose clocks `schedule` means.
    pub timezone: Option<At<String>>,
    pub concurrency: Option<At<Concurrency>>,
    /// The signal that tells a task of new contents of its secrets and configs.
    pub on_change: Option<At<String>>,
    /// `placement`: which of the nodes that fit is taken first.
    pub placement: Option<At<PlacementStrategy>>,
    /// Keys of services of the file, or whole names of others.
    pub affinity: Vec<At<String>>,
    pub anti_affinity: Vec<At<String>>,
    pub priority: Option<i32>,
    pub min_available: Option<At<u64>>,
    /// `rebalance: on-join`.
    pub rebalance: Option<At<Rebalance>>,
    /// `volume`: how far tasks follow their data.
    pub volume: Option<At<VolumeRule>>,
    /// `session-affinity`: which connections lead to one task.
    pub session_affinity: Option<At<SessionAffinity>>,
    /// Whether a node's own tasks are taken first.
    pub prefer_local: Option<At<bool>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionAffinity {
    /// Those of one client address.
    ClientIp,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlacementStrategy {
    Spread,
    BinPack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebalance {
    OnJoin,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeRule {
    /// Where the data is, while that node can be waited for.
    Follow,
    Free,
    Stay,
}

/// What becomes of a run that is due while the last one goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    Forbid,
    Allow,
    Replace,
}

/// `networks` and `network_mode` exclude each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// By key of the project's networks; `default` alone when the file says nothing.
    Networks(BTreeMap<String, ServiceNetwork>),
    /// `network_mode: none`: loopback only.
    None,
    /// `network_mode: host`.
    Host,
    /// `network_mode: service:…`, `container:…`, or a network's name.
    Mode(String),
}

impl Default for Attachment {
    fn default() -> Self {
        Attachment::Networks(BTreeMap::new())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceNetwork {
    pub span: Span,
    pub aliases: Vec<String>,
    pub ipv4_address: Option<At<Ipv4Addr>>,
    pub ipv6_address: Option<At<Ipv6Addr>>,
}

/// A host device in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub source: String,
    pub target: String,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

impl Service {
    pub fn wrote(&self, attribute: &str) -> Option<Span> {
        self.written.get(attribute).copied()
    }
}
