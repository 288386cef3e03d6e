//! Nodes.

use skep_model::{
    Availability, CertificateRecord, GenericResource, ManagerStatus, Membership, Node, NodeDescription, NodeResources,
    NodeSpec, NodeState, NodeStatus, NodeTunnel, Platform, Role,
};

use super::{enumeration, message};

message!(Node = Node { id, meta, spec, description, status, manager, certificate, tunnel });
message!(NodeTunnel = NodeTunnel { key, address, endpoint });
message!(CertificateRecord = CertificateRecord { issuer, key });
message!(NodeSpec = NodeSpec { name, labels, role, membership, availability });
enumeration!(Role = Role { Worker, Manager });
enumeration!(Membership = Membership { Pending, Accepted });
enumeration!(Availability = Availability { Active, Pause, Drain });
message!(
    NodeDescription = NodeDescription {
        hostname,
        platforms,
        resources,
        engine_version,
        engine_labels,
        kernel,
        missing_features,
        level,
        emulated,
        generic,
    }
);
message!(GenericResource = GenericResource { kind, amount, ids });
message!(Platform = Platform { os, architecture, variant });
message!(NodeResources = NodeResources { nano_cpus, memory });
message!(NodeStatus = NodeStatus { state, message, address });
enumeration!(NodeState = NodeState { Unknown, Down, Ready, Disconnected });
message!(ManagerStatus = ManagerStatus { raft_id, address });
