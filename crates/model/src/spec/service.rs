//! What a user wrote of a service, around its container.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    ContainerSpec, Dependency, LogDriver, MountKind, Placement, Resources, RestartPolicy, Schedule, Scheduling,
    UpdateConfig,
};
use crate::Labels;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    pub name: String,
    pub labels: Labels,
    pub mode: Mode,
    pub task: TaskSpec,
    pub update: UpdateConfig,
    pub rollback: UpdateConfig,
    pub endpoint: EndpointSpec,
    pub scheduling: Scheduling,
    /// How long an update may go without another slot done; none is [`PROGRESS_DEADLINE`]. Swarm has none.
    pub progress_deadline: Option<Duration>,
    /// What must be there before a slot's first task of a revision may be placed.
    pub depends_on: Vec<Dependency>,
    /// When a job runs; without one it runs once for each revision.
    pub schedule: Option<Schedule>,
}

/// The progress deadline of a service that says nothing.
pub const PROGRESS_DEADLINE: Duration = Duration::from_secs(600);

impl ServiceSpec {
    /// One replica of an image, with Swarm's defaults in all else.
    pub fn new(name: impl Into<String>, image: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            labels: Labels::new(),
            mode: Mode::Replicated { replicas: 1 },
            task: TaskSpec::new(image),
            update: UpdateConfig::default(),
            rollback: UpdateConfig::default(),
            endpoint: EndpointSpec::default(),
            progress_deadline: None,
            depends_on: Vec::new(),
            schedule: None,
            scheduling: Scheduling::default(),
        }
    }

    /// How long an update may go without another slot done before it has failed.
    pub fn progress_deadline(&self) -> Duration {
        self.progress_deadline.unwrap_or(PROGRESS_DEADLINE)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    Replicated {
        replicas: u64,
    },
    /// One task on each node that satisfies the constraints.
    Global,
    /// Tasks that run until so many of them have ended well.
    ReplicatedJob {
        /// How many run at a time; 0 means all.
        max_concurrent: u64,
        total_completions: u64,
    },
    /// One task on each node that satisfies the constraints, until it has ended well.
    GlobalJob,
}

impl Mode {
    pub fn is_job(self) -> bool {
        match self {
            Mode::Replicated { .. } | Mode::Global => false,
            Mode::ReplicatedJob { .. } | Mode::GlobalJob => true,
        }
    }

    /// One task a node, whatever it runs.
    pub fn is_global(self) -> bool {
        match self {
            Mode::Replicated { .. } | Mode::ReplicatedJob { .. } => false,
            Mode::Global | Mode::GlobalJob => true,
        }
    }

    /// Docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Replicated { .. } => "replicated",
            Mode::Global => "global",
            Mode::ReplicatedJob { .. } => "replicated-job",
            Mode::GlobalJob => "global-job",
        }
    }
}

/// What each task of the service runs, and under which rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub container: ContainerSpec,
    pub resources: Resources,
    pub restart: RestartPolicy,
    pub placement: Placement,
    pub networks: Vec<NetworkAttachment>,
    /// In the network of its node itself, and in none of the cluster's.
    pub host_network: bool,
    /// The node's default (json-file, 10 MB × 3) when absent.
    pub log_driver: Option<LogDriver>,
    /// Counts `--force` updates: raising it replaces every task.
    pub force_update: u64,
    /// Never two live containers of a slot, partitions included: a container lives by leases (see [`crate::lease`]).
    pub at_most_one: bool,
    /// How long a task that is to stop may go on serving the connections that it has, once no new ones come; none is
    /// [`DRAIN`], zero stops it at once.
    pub drain: Option<Duration>,
}

/// The longest drain of a service that says nothing.
pub const DRAIN: Duration = Duration::from_secs(10);

impl TaskSpec {
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            container: ContainerSpec { image: image.into(), ..ContainerSpec::default() },
            resources: Resources::default(),
            restart: RestartPolicy::default(),
            placement: Placement::default(),
            networks: Vec::new(),
            host_network: false,
            log_driver: None,
            force_update: 0,
            at_most_one: false,
            drain: None,
        }
    }

    /// How long its connections are waited for.
    pub fn drain(&self) -> Duration {
        self.drain.unwrap_or(DRAIN)
    }

    /// Whether a task of this spec may live on as one of `other`, which has other contents of the same secrets and configs
    /// at the same places, other constraints, or both, and nothing else that is new.
    pub fn lives_on_as(&self, other: &TaskSpec) -> bool {
        let without = |spec: &TaskSpec| {
            let mut spec = spec.clone();
            spec.container.secrets.iter_mut().for_each(|secret| secret.digest = None);
            spec.container.configs.iter_mut().for_each(|config| config.digest = None);
            spec.placement.constraints.clear();
            spec
        };
        self != other && without(self) == without(other)
    }

    /// Names of its volumes that are folders of one node.
    pub fn local_volumes(&self) -> BTreeSet<&str> {
        let mounts = self.container.mounts.iter();
        let local = mounts.filter_map(|mount| match &mount.kind {
            MountKind::Volume { name: Some(name), driver, options, .. } => {
                let local = driver.as_deref().is_none_or(|driver| driver == "local") && options.is_empty();
                local.then_some(name.as_str())
            }
            MountKind::Volume { .. } | MountKind::Bind { .. } | MountKind::Tmpfs { .. } => None,
        });
        local.collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachment {
    /// Name of the network.
    pub network: String,
    /// Further names that the service answers to on this network.
    pub aliases: Vec<String>,
    pub address: Option<Ipv4Addr>,
    /// The twin of `address`, by which that may be meant (see [`crate::Twins`]).
    pub address_v6: Option<Ipv6Addr>,
}

impl NetworkAttachment {
    /// Whether it asks for one certain address.
    pub fn is_fixed(&self) -> bool {
        self.address.is_some() || self.address_v6.is_some()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndpointSpec {
    pub mode: EndpointMode,
    pub ports: Vec<PortSpec>,
    /// Which connections lead to one task, by virtual address and published port; none: each to any.
    pub session_affinity: Option<SessionAffinity>,
    /// A node leads to its own tasks, as long as one of them serves.
    pub prefer_local: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionAffinity {
    /// Those of one client address.
    ClientIp,
}

impl SessionAffinity {
    pub fn word(self) -> &'static str {
        match self {
            SessionAffinity::ClientIp => "client-ip",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum EndpointMode {
    /// The service's name stands for one virtual address.
    #[default]
    Vip,
    /// The service's name stands for the addresses of its tasks.
    DnsRr,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortSpec {
    pub name: Option<String>,
    pub protocol: PortProtocol,
    pub target: u16,
    /// 0 asks the allocator for a port of 30000–32767 (ingress) or the node for a free one (host).
    pub published: u16,
    pub mode: PublishMode,
    /// The address of the node to publish on; every address when absent.
    pub host_ip: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum PortProtocol {
    #[default]
    Tcp,
    Udp,
}

impl PortProtocol {
    pub fn word(self) -> &'static str {
        match self {
            PortProtocol::Tcp => "tcp",
            PortProtocol::Udp => "udp",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum PublishMode {
    /// On every node, through the routing mesh.
    #[default]
    Ingress,
    /// On the node of each task.
    Host,
}
