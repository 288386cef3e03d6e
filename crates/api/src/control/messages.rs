//! Requests and replies of the control service.

use std::time::Duration;

use bytes::Bytes;
use skep_model::{
    ClusterId, ClusterSpec, ConfigId, ContentKind, Kind, Labels, Meta, NetworkSpec, NodeId, NodeSpec, Role, SecretId,
    ServiceId, ServiceSpec, Version,
};

use super::Readable;
use crate::pb;
use crate::streams::{ExecInput, ExecSpec, LogOptions};
use crate::wire::{DecodeError, Element, choice, enumeration, message, message_field};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    pub id: ClusterId,
    pub meta: Meta,
    pub spec: ClusterSpec,
    /// PEM of the root certificate.
    pub ca_certificate: String,
    /// The node that leads; none while there is no quorum.
    pub leader: Option<NodeId>,
    pub nodes: u64,
    pub managers: u64,
}

/// Whether what this manager knows is current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    /// Why later reads may be old, in words; absent when they are not.
    pub stale: Option<String>,
}

/// What a listing is restricted to; an absent part restricts nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Name of a stack.
    pub stack: Option<String>,
    /// Name or id of a service (tasks only).
    pub service: Option<String>,
    /// Name or id of a node (tasks only).
    pub node: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    pub kind: Kind,
    pub filter: Filter,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectList {
    /// The cluster's version that the list shows.
    pub version: Version,
    pub objects: Vec<Readable>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetRequest {
    pub kind: Kind,
    /// Whole id, name, or unambiguous prefix of an id.
    pub wanted: String,
}

/// A secret or config to be made.
#[derive(Clone, PartialEq, Eq)]
pub struct NewContent {
    pub name: String,
    pub labels: Labels,
    pub data: Bytes,
    pub template: ContentKind,
}

impl std::fmt::Debug for NewContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // May be a secret: its bytes stay out of logs.
        write!(f, "NewContent({:?}, {} bytes)", self.name, self.data.len())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateRequest {
    Service(Box<ServiceSpec>),
    Network(NetworkSpec),
    Secret(NewContent),
    Config(NewContent),
    /// A service whose image is taken as it is written: no registry is asked for its digest.
    ServiceAsGiven(Box<ServiceSpec>),
}

/// Each update is refused when the object is no longer at the `expected` version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateRequest {
    Service(Box<ServiceUpdate>),
    Node(NodeUpdate),
    Secret(SecretUpdate),
    Config(ConfigUpdate),
    Cluster(ClusterUpdate),
}

/// Settings of the whole cluster; what is absent stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClusterUpdate {
    /// Finished tasks kept for each slot.
    pub task_history_limit: Option<u32>,
    /// Between two heartbeats of a node.
    pub heartbeat_period: Option<Duration>,
    /// How long a node's certificate is valid; an hour at least.
    pub certificate_validity: Option<Duration>,
    /// Whether services that do not say fill one node before the next.
    pub bin_pack: Option<bool>,
}

/// A spec without registry credentials (they are never read back) keeps those that the service has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUpdate {
    pub id: ServiceId,
    pub expected: Version,
    pub spec: ServiceSpec,
    /// Take the image as it is written: no registry is asked for its digest.
    pub as_given: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeUpdate {
    pub id: NodeId,
    pub expected: Version,
    pub spec: NodeSpec,
}

#[derive(Clone, PartialEq, Eq)]
pub struct SecretUpdate {
    pub id: SecretId,
    pub expected: Version,
    pub labels: Labels,
    /// Absent keeps the content.
    pub data: Option<Bytes>,
}

impl std::fmt::Debug for SecretUpdate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretUpdate").field("id", &self.id).field("expected", &self.expected).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigUpdate {
    pub id: ConfigId,
    pub expected: Version,
    pub labels: Labels,
    /// Absent keeps the content.
    pub data: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The object's id, in text.
    pub id: String,
    pub version: Version,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveRequest {
    pub kind: Kind,
    pub wanted: String,
    /// Also what would be refused: a node that is not down.
    pub force: bool,
}

/// Everything that went with the object, in the order of its removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    pub objects: Vec<RemovedObject>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedObject {
    pub kind: Kind,
    pub id: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleRequest {
    /// Name or id.
    pub service: String,
    pub replicas: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotateJoinTokenRequest {
    pub role: Role,
}

#[derive(Clone, PartialEq, Eq)]
pub struct JoinTokenText {
    pub token: String,
}

/// `after` a version that the reader already has: an event comes at once if the cluster is past it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatchRequest {
    pub after: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchEvent {
    pub version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogSource {
    /// Name or id of a service: all its tasks that are still known.
    Service(String),
    /// Id of a task, or `service.slot`.
    Task(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogsRequest {
    pub source: LogSource,
    pub options: LogOptions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecRequest {
    Start(ExecTarget),
    Input(ExecInput),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecTarget {
    /// Id of a task, or `service.slot`.
    pub task: String,
    pub spec: ExecSpec,
}

message!(ClusterInfo = ClusterInfo { id, meta, spec, ca_certificate, leader, nodes, managers });
message!(Confirmed = Confirmed { stale });
message!(ObjectList = ObjectList { version, objects });
message!(GetRequest = GetRequest { kind, wanted });
message!(NewContent = NewContent { name, labels, data, template });
choice!(CreateRequest = CreateRequest in create_request { Service, Network, Secret, Config, ServiceAsGiven });
choice!(UpdateRequest = UpdateRequest in update_request { Service, Node, Secret, Config, Cluster });
message!(ClusterUpdate = ClusterUpdate { task_history_limit, heartbeat_period, certificate_validity, bin_pack });
message!(ServiceUpdate = ServiceUpdate { id, expected, spec, as_given });
message!(NodeUpdate = NodeUpdate { id, expected, spec });
message!(SecretUpdate = SecretUpdate { id, expected, labels, data });
message!(ConfigUpdate = ConfigUpdate { id, expected, labels, data });
message!(Written = Written { id, version, warnings });
message!(RemoveRequest = RemoveRequest { kind, wanted, force });
message!(Removed = Removed { objects });
message!(RemovedObject = RemovedObject { kind, id, name });
message!(ScaleRequest = ScaleRequest { service, replicas });
message!(RotateJoinTokenRequest = RotateJoinTokenRequest { role });
message!(JoinTokenText = JoinTokenText { token });
message!(WatchRequest = WatchRequest { after });
message!(WatchEvent = WatchEvent { version });
choice!(LogSource = LogSource in log_source { Service, Task });
message!(LogsRequest = LogsRequest { source, options });
choice!(ExecRequest = ExecRequest in exec_request { Start, Input });
message!(ExecTarget = ExecTarget { task, spec });
enumeration!(Kind = ObjectKind { Cluster, Node, Service, Task, Network, Secret, Config, Stack });

message_field!(ListRequest);

impl Element for ListRequest {
    type Proto = pb::ListRequest;

    fn to_element(&self) -> pb::ListRequest {
        let ListRequest { kind, filter: Filter { stack, service, node } } = self;
        pb::ListRequest { kind: kind.to_element(), stack: stack.clone(), service: service.clone(), node: node.clone() }
    }

    fn from_element(proto: pb::ListRequest, _: &'static str) -> Result<Self, DecodeError> {
        let pb::ListRequest { kind, stack, service, node } = proto;
        let kind = Kind::from_element(kind, "ListRequest.kind")?;
        Ok(ListRequest { kind, filter: Filter { stack, service, node } })
    }
}
