//! Everything that changes a [`crate::Cluster`], and why a change may be refused.
//!
//! Changes are intents with preconditions: an update names the version that it was decided on, and is
//! refused when the object has moved on.
//! A proposal is a list of them and is applied whole or not at all.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{
    CertificateRecord, ClusterConfig, Config, ConfigId, ContentDigest, DesiredState, Endpoint, Labels, ManagerStatus,
    Network, NetworkId, Node, NodeDescription, NodeId, NodeSpec, NodeStatus, Secret, SecretId, Service, ServiceId,
    ServiceSpec, Stack, Task, TaskId, TaskSpec, TaskStatus, Timestamp, TunnelKey, UpdateStatus, Version,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The cluster's settings: `expected` is `None` for the first write.
    SetClusterConfig {
        config: Box<ClusterConfig>,
        expected: Option<Version>,
    },

    CreateNode {
        node: Box<Node>,
    },
    UpdateNodeSpec {
        node: NodeId,
        expected: Version,
        spec: NodeSpec,
        at: Timestamp,
    },
    /// What the node's agent or the managers' watch over it observed; `None` keeps the description.
    ReportNode {
        node: NodeId,
        description: Option<Box<NodeDescription>>,
        status: NodeStatus,
        at: Timestamp,
    },
    /// Makes a node a manager under a new Raft id, which must be the cluster's next; moves a manager to
    /// another address; or, with `None`, says that it is a manager no more.
    SetNodeManager {
        node: NodeId,
        manager: Option<ManagerStatus>,
        at: Timestamp,
    },
    /// A certificate was issued to the node.
    RecordCertificate {
        node: NodeId,
        certificate: CertificateRecord,
    },
    /// The node's key for the tunnel, and where it is reached. Its address there is the one that it has, else the lowest
    /// that is free. Refused when another node has the key.
    SetNodeTunnel {
        node: NodeId,
        key: TunnelKey,
        endpoint: Option<SocketAddr>,
        at: Timestamp,
    },
    RemoveNode {
        node: NodeId,
    },

    CreateService {
        service: Box<Service>,
    },
    /// Replaces the spec; the old one becomes the newest revision unless only the number of replicas differs.
    UpdateService {
        service: ServiceId,
        expected: Version,
        spec: Arc<ServiceSpec>,
        at: Timestamp,
    },
    SetServiceEndpoint {
        service: ServiceId,
        endpoint: Endpoint,
    },
    SetUpdateStatus {
        service: ServiceId,
        status: Option<UpdateStatus>,
    },
    /// A time that a job's schedule named has come: a run begins, or is left out, for the reason that is given.
    FollowSchedule {
        service: ServiceId,
        expected: Version,
        /// Up to when the schedule is followed now.
        due: Timestamp,
        outcome: Due,
        /// What became of it, in words.
        message: String,
        at: Timestamp,
    },
    /// Tasks are to be spread anew since then, or, with `None`, no longer.
    SetRebalancing {
        service: ServiceId,
        since: Option<Timestamp>,
    },
    RemoveService {
        service: ServiceId,
    },

    CreateTask {
        task: Box<Task>,
    },
    /// Networks and ports are allocated: the task waits for the scheduler. Also replaces the reason it waits for.
    SetTaskPending {
        task: TaskId,
        reason: Option<String>,
        at: Timestamp,
    },
    /// The task is new and waits for another service; the scheduler does not see it yet.
    SetTaskWaiting {
        task: TaskId,
        reason: String,
        at: Timestamp,
    },
    /// Only a pending task of a node that is there can be assigned.
    AssignTask {
        task: TaskId,
        node: NodeId,
        at: Timestamp,
    },
    /// Only forward; the same state again is no change and no error.
    SetTaskDesired {
        task: TaskId,
        desired: DesiredState,
        at: Timestamp,
        /// Why it is to stop, for who looks at it later.
        reason: Option<String>,
    },
    /// From the agent of `node`, or from a manager that gave the node up; refused when it would go back.
    ReportTask {
        task: TaskId,
        node: NodeId,
        status: TaskStatus,
    },
    /// The task lives on with other contents of its secrets and configs, or other constraints; refused for anything else.
    RefreshTask {
        task: TaskId,
        spec: Arc<TaskSpec>,
        spec_version: Version,
    },
    RemoveTask {
        task: TaskId,
    },

    CreateNetwork {
        network: Box<Network>,
    },
    AssignBlock {
        network: NetworkId,
        block: Ipv4Net,
        node: NodeId,
    },
    ReleaseBlock {
        network: NetworkId,
        block: Ipv4Net,
    },
    RemoveNetwork {
        network: NetworkId,
    },

    CreateSecret {
        secret: Box<Secret>,
    },
    UpdateSecret {
        secret: SecretId,
        expected: Version,
        labels: Labels,
        digest: ContentDigest,
        data: Arc<[u8]>,
        at: Timestamp,
    },
    RemoveSecret {
        secret: SecretId,
    },

    CreateConfig {
        config: Box<Config>,
    },
    UpdateConfig {
        config: ConfigId,
        expected: Version,
        labels: Labels,
        digest: ContentDigest,
        data: Arc<[u8]>,
        at: Timestamp,
    },
    RemoveConfig {
        config: ConfigId,
    },

    /// Creates or replaces the stack of that name.
    PutStack {
        stack: Box<Stack>,
    },
    RemoveStack {
        name: String,
    },
}

/// What becomes of a job's run that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Due {
    Run,
    Skip,
}

/// A kind of object, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Cluster,
    Node,
    Service,
    Task,
    Network,
    Secret,
    Config,
    Stack,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Cluster => "cluster",
            Kind::Node => "node",
            Kind::Service => "service",
            Kind::Task => "task",
            Kind::Network => "network",
            Kind::Secret => "secret",
            Kind::Config => "config",
            Kind::Stack => "stack",
        })
    }
}

/// Why a change was refused: nothing of its proposal was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    #[error("{kind} {id} does not exist")]
    NotFound { kind: Kind, id: String },
    #[error("{kind} {name} already exists")]
    AlreadyExists { kind: Kind, name: String },
    #[error(
        "update out of sequence: {kind} {id} is at version {actual}, the update was made for {expected}; read it again and repeat"
    )]
    OutOfSequence { kind: Kind, id: String, expected: u64, actual: u64 },
    #[error("{kind} {name} is in use by {user}")]
    InUse { kind: Kind, name: String, user: String },
    #[error("task {task} is {state} and cannot become {wanted}")]
    Backwards { task: String, state: String, wanted: String },
    #[error("network {network} has no room: {reason}")]
    BlockTaken { network: String, reason: String },
    #[error("{what} is taken by {by}")]
    Taken { what: String, by: String },
    #[error("there is no address left for node {node} in {range}, the part of the pool for nodes' own addresses")]
    NoNodeAddress { node: String, range: String },
}
