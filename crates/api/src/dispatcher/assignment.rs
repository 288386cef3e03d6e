//! What a node needs to run its tasks, and nothing of anybody else's.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use ipnet::{Ipv4Net, Ipv6Net};
use skep_model::{
    ContentDigest, EndpointMode, NetworkAddress, NetworkId, NetworkSpec, NodeId, PortSpec, ServiceId, SessionAffinity,
    Slot, Task, TaskId, TunnelKey,
};

use crate::wire::{choice, message};

/// A full set, or the difference to one that the agent has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignments {
    /// The revision that this is a difference to; absent for a full set, which replaces everything.
    pub base: Option<u64>,
    /// The revision that the agent has afterwards.
    pub revision: u64,
    /// New or changed.
    pub set: Vec<Assignment>,
    pub removed: Vec<AssignmentKey>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assignment {
    Task(Box<Task>),
    Secret(AssignedContent),
    Config(AssignedContent),
    Network(AssignedNetwork),
    Endpoint(ServiceEndpoint),
    Place(AssignedPlace),
    Peer(AssignedPeer),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AssignmentKey {
    Task(TaskId),
    Secret(ContentDigest),
    Config(ContentDigest),
    Network(NetworkId),
    Endpoint(ServiceId),
    Place(()),
    Peer(NodeId),
}

/// One content of a secret or config: tasks refer to it by its digest.
#[derive(Clone, PartialEq, Eq)]
pub struct AssignedContent {
    pub digest: ContentDigest,
    pub name: String,
    pub data: Bytes,
}

impl std::fmt::Debug for AssignedContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // May be a secret: its bytes stay out of logs.
        write!(f, "AssignedContent({:?}, {}, {} bytes)", self.name, self.digest, self.data.len())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedNetwork {
    pub id: NetworkId,
    pub spec: NetworkSpec,
    pub subnet: Ipv4Net,
    pub gateway: Ipv4Addr,
    /// The blocks that this node hands out addresses from.
    pub blocks: Vec<Ipv4Net>,
    /// Where the IPv6 twins of its addresses are; absent: IPv4 alone.
    pub subnet_v6: Option<Ipv6Net>,
    /// Addresses that only a task gets which asks for it by name.
    pub reserved: Vec<Ipv4Addr>,
}

/// The node itself in the tunnel between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssignedPlace {
    /// Its own address there.
    pub address: Ipv4Addr,
    /// The range that nodes' own addresses come from.
    pub nodes: Ipv4Net,
    /// The range of the cluster's networks, which `nodes` is a part of.
    pub pool: Ipv4Net,
    /// The cluster's own IPv6 range; older managers say none.
    pub prefix: Option<Ipv6Net>,
    /// The key that the others know the node by; none: nobody has said it, and the node must not change its own.
    pub key: Option<TunnelKey>,
}

/// Another node in the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedPeer {
    pub node: NodeId,
    pub key: TunnelKey,
    /// Where it listens, if anybody knows.
    pub endpoint: Option<SocketAddr>,
    /// Its own address in the tunnel.
    pub address: Ipv4Addr,
    /// Its blocks of the networks that this node has.
    pub blocks: Vec<Ipv4Net>,
}

/// Where a service answers, and which of its tasks stand behind it: what names, virtual addresses and published ports
/// are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEndpoint {
    pub service: ServiceId,
    pub name: String,
    pub mode: EndpointMode,
    pub networks: Vec<EndpointNetwork>,
    /// Published ports, every number filled in.
    pub ports: Vec<PortSpec>,
    /// Tasks that take connections now: running, and healthy if they have a health check.
    pub backends: Vec<Backend>,
    /// Tasks that are to stop and take no connections any more, but still have those of before.
    pub draining: Vec<Backend>,
    pub session_affinity: Option<SessionAffinity>,
    pub prefer_local: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointNetwork {
    pub network: NetworkId,
    /// Absent in DNS round-robin mode.
    pub virtual_ip: Option<Ipv4Addr>,
    pub aliases: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub task: TaskId,
    pub slot: Slot,
    pub node: NodeId,
    pub addresses: Vec<NetworkAddress>,
    /// The container's host name, where the spec gives one.
    pub hostname: Option<String>,
}

impl Assignment {
    pub fn key(&self) -> AssignmentKey {
        match self {
            Assignment::Task(task) => AssignmentKey::Task(task.id),
            Assignment::Secret(secret) => AssignmentKey::Secret(secret.digest.clone()),
            Assignment::Config(config) => AssignmentKey::Config(config.digest.clone()),
            Assignment::Network(network) => AssignmentKey::Network(network.id),
            Assignment::Endpoint(endpoint) => AssignmentKey::Endpoint(endpoint.service),
            Assignment::Place(_) => AssignmentKey::Place(()),
            Assignment::Peer(peer) => AssignmentKey::Peer(peer.node),
        }
    }
}

message!(Assignments = Assignments { base, revision, set, removed });
choice!(Assignment = Assignment in assignment { Task, Secret, Config, Network, Endpoint, Place, Peer });
choice!(AssignmentKey = AssignmentKey in assignment_key { Task, Secret, Config, Network, Endpoint, Place, Peer });
message!(AssignedContent = AssignedContent { digest, name, data });
message!(AssignedNetwork = AssignedNetwork { id, spec, subnet, gateway, blocks, subnet_v6, reserved });
message!(AssignedPlace = AssignedPlace { address, nodes, pool, prefix, key });
message!(AssignedPeer = AssignedPeer { node, key, endpoint, address, blocks });
message!(
    ServiceEndpoint =
        ServiceEndpoint { service, name, mode, networks, ports, backends, draining, session_affinity, prefer_local }
);
message!(EndpointNetwork = EndpointNetwork { network, virtual_ip, aliases });
message!(Backend = Backend { task, slot, node, addresses, hostname });
