//! Ids, units, specs, objects, task states, and [`Cluster`]: an in-memory value with `apply(Change)`.
//!
//! Everything that a manager decides on is a value of this crate, and everything that changes it is a
//! [`Change`].
//! The crate is pure: no clock, randomness, file system or async; time and ids arrive as arguments.
//! `spec` is what a user wrote and is never modified; `desired` is what we want now; `status` is what
//! an agent observed.

mod apply;
mod change;
mod check;
mod cluster;
mod config;
mod constraint;
mod content;
mod cron;
mod host_route;
mod id;
mod job;
pub mod lease;
mod level;
mod network;
mod network_driver;
mod network_reserved;
mod node;
mod service;
pub mod spec;
mod stack;
mod task;
mod tunnel;
mod units;
mod validate;

pub use change::{Change, Due, Kind, Rejection};
pub use check::Violation;
pub use cluster::{Cluster, LookupError};
pub use config::{ClusterConfig, ClusterSpec, JoinTokenHashes, TrustHistory};
pub use content::{Config, ContentDigest, ContentKind, ContentRevision, Contents, Secret};
pub use cron::{Cron, CronError, TimeZone};
pub use host_route::{Collision, HostRoute};
pub use id::{ClusterId, ConfigId, NetworkId, NodeId, SecretId, ServiceId, StackId, TaskId};
pub use id::{Id, IdSource, ParseIdError};
pub use job::JobStatus;
pub use level::{FEATURE_LEVEL, Feature};
pub use network::{Network, Twins};
pub use network_driver::{NetworkDriver, PARENT};
pub use node::{
    Availability, CertificateRecord, GenericResource, ManagerStatus, Membership, Node, NodeDescription, NodeResources,
    NodeSpec, NodeState, NodeStatus, Platform, Role,
};
pub use service::{Endpoint, Service, ServiceRevision, UpdateProgress, UpdateState, UpdateStatus, VirtualIp};
pub use spec::ParseConstraintError;
pub use spec::{
    Concurrency, Condition, ConfigRef, Constraint, ConstraintOp, ContainerSpec, Dependency, DependencyCondition,
    EndpointMode, EndpointSpec, FailureAction, FileTarget, GenericRequest, HealthCheck, HealthTest, Hook, Limits,
    LogDriver, Mode, Mount, MountKind, NetworkAttachment, NetworkSpec, Placement, PlacementStrategy, PlatformSpec,
    PortProtocol, PortSpec, Preference, Propagation, PublishMode, PullPolicy, Reservations, Resources, RestartPolicy,
    Schedule, Scheduling, SecretRef, ServiceSpec, SessionAffinity, TaskSpec, Ulimit, UpdateConfig, UpdateOrder,
    VolumePlacement, VolumeSource,
};
pub use stack::{Stack, StackRevision};
pub use task::{ContainerStatus, DesiredState, NetworkAddress, Slot, Task, TaskState, TaskStatus};
pub use tunnel::{NodeTunnel, TunnelKey, TunnelKeyError};
pub use units::{MemoryBytes, Meta, NanoCpus, Timestamp, Version};
pub use validate::{InvalidSpec, validate_content_name, validate_service_name};

/// Labels and other free-form maps: ordered, so that every walk over them is deterministic.
pub type Labels = std::collections::BTreeMap<String, String>;
