//! A node: what its operator wants of it, what it says of itself, and whether it is reachable.

use serde::{Deserialize, Serialize};

use crate::{Labels, MemoryBytes, Meta, NanoCpus, NodeId, NodeTunnel};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub meta: Meta,
    pub spec: NodeSpec,
    /// What the agent said of its machine; absent until its first session.
    pub description: Option<NodeDescription>,
    pub status: NodeStatus,
    /// Present on managers.
    pub manager: Option<ManagerStatus>,
    pub certificate: CertificateRecord,
    /// Absent until its agent has said its key.
    pub tunnel: Option<NodeTunnel>,
}

/// What the cluster issued to a node last. SHA-256, 64 lower-case hexadecimal digits each; empty if not known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// The CA's certificate.
    pub issuer: String,
    /// The node's public key, which it keeps for its whole membership.
    pub key: String,
}

/// What an operator wants of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeSpec {
    /// An optional name; the host name of the description is what listings show.
    pub name: Option<String>,
    pub labels: Labels,
    pub role: Role,
    pub membership: Membership,
    pub availability: Availability,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Role {
    #[default]
    Worker,
    Manager,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Membership {
    Pending,
    #[default]
    Accepted,
}

/// Whether a node takes tasks: `Pause` keeps those that it has, `Drain` moves them away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Availability {
    #[default]
    Active,
    Pause,
    Drain,
}

/// What a node says of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeDescription {
    pub hostname: String,
    /// Platforms that its processor runs, best first.
    pub platforms: Vec<Platform>,
    pub resources: NodeResources,
    /// Version of the skep binary.
    pub engine_version: String,
    pub engine_labels: Labels,
    pub kernel: String,
    /// Limits that this kernel cannot hold, in words for its operator ("memory controller is off: …").
    pub missing_features: Vec<String>,
    /// The feature level of its skep; 0 of builds that knew none.
    pub level: u32,
    /// Platforms that its binfmt handlers run besides: slowly.
    pub emulated: Vec<Platform>,
    /// What its operator configured it to have, by kind.
    pub generic: Vec<GenericResource>,
}

/// Things of one kind that a node has, or that a task was given of it: named ones, or so many alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct GenericResource {
    pub kind: String,
    pub amount: u64,
    /// As many as `amount`, or none.
    pub ids: Vec<String>,
}

/// An operating system and processor in Go's names (`linux`, `amd64`, `arm64`, `arm` with `v7`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeResources {
    pub nano_cpus: NanoCpus,
    pub memory: MemoryBytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    pub state: NodeState,
    /// Why it is in this state, where there is more to say.
    pub message: String,
    /// The address that managers see it under.
    pub address: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NodeState {
    #[default]
    Unknown,
    Down,
    Ready,
    Disconnected,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatus {
    /// Drawn from [`crate::ClusterConfig::next_raft_id`] and never used twice.
    pub raft_id: u64,
    /// `host:port` of its gRPC endpoint.
    pub address: String,
}

impl Node {
    /// The name that listings and `--hostname` constraints use.
    pub fn hostname(&self) -> &str {
        self.description.as_ref().map_or("", |description| &description.hostname)
    }
}
