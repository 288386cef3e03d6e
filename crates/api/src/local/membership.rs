//! What a node is, and becoming or ceasing to be a member of a cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::Ipv4Net;
use skep_model::{Availability, ClusterId, Labels, NodeId, Role};

use crate::wire::message;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalInfo {
    /// Version of the running daemon.
    pub version: String,
    pub hostname: String,
    pub kernel: String,
    pub data_dir: String,
    pub run_dir: String,
    /// Absent while the node is not a member of a cluster; so are `cluster` and `role`.
    pub node: Option<NodeId>,
    pub cluster: Option<ClusterId>,
    pub role: Option<Role>,
    /// `host:port` of the managers that the node knows.
    pub managers: Vec<String>,
    /// Whether its session with a manager is up.
    pub manager_reachable: bool,
    pub listen_address: String,
    pub advertise_address: String,
    pub containers_running: u64,
    /// What this machine cannot do, in words for its operator.
    pub warnings: Vec<String>,
    /// Whether this is a manager that waits for the unlock key.
    pub locked: bool,
    /// The UDP port that other nodes reach this one's networks at.
    pub tunnel_port: u16,
    /// Who carries the tunnel to other nodes (`kernel`, `userspace`); absent while the node is not a member.
    pub carrier: Option<String>,
    /// The other nodes in the tunnel.
    pub peers: Vec<TunnelPeer>,
}

/// Another node, as this one's tunnel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelPeer {
    pub node: NodeId,
    /// Its own address in the tunnel.
    pub address: Ipv4Addr,
    /// Where its last packet came from, or where it is thought to be.
    pub endpoint: Option<SocketAddr>,
    /// Since the last handshake; absent if there was none, or nobody counts.
    pub handshake_age: Option<Duration>,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InitRequest {
    /// Address that other nodes reach this one under; the one of the default route when absent.
    pub advertise_address: Option<String>,
    /// `host:port` to listen on; every address, port 7377, when absent.
    pub listen_address: Option<String>,
    /// Where networks without a subnet of their own get one from.
    pub address_pool: Option<Ipv4Net>,
    pub subnet_prefix: Option<u8>,
    /// Makes a cluster of one out of what this manager has, when the others are lost for good.
    pub force_new_cluster: bool,
    pub node_labels: Labels,
    /// Whether managers that start wait for an unlock key.
    pub autolock: bool,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Initialized {
    pub node: NodeId,
    pub cluster: ClusterId,
    pub advertise_address: String,
    /// The only time that the tokens are shown; later ones come from a rotation.
    pub worker_token: String,
    pub manager_token: String,
    /// With autolock: what managers are unlocked with.
    pub unlock_key: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct JoinRequest {
    pub token: String,
    /// `host:port` of managers, tried in this order.
    pub managers: Vec<String>,
    pub advertise_address: Option<String>,
    pub listen_address: Option<String>,
    pub availability: Availability,
    /// Finds the cluster again that the node is a member of, at other addresses; no token is needed.
    pub reconnect: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub node: NodeId,
    pub cluster: ClusterId,
    pub role: Role,
    /// What its operator should know, in words.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaveRequest {
    /// Also as a manager, whose leaving may cost the quorum.
    pub force: bool,
    /// Named volumes go as well.
    pub remove_volumes: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    pub kept_volumes: Vec<String>,
    /// Why the cluster could not be told, if it could not.
    pub untold: Option<String>,
}

message!(
    LocalInfo = LocalInfo {
        version,
        hostname,
        kernel,
        data_dir,
        run_dir,
        node,
        cluster,
        role,
        managers,
        manager_reachable,
        listen_address,
        advertise_address,
        containers_running,
        warnings,
        locked,
        tunnel_port,
        carrier,
        peers,
    }
);
message!(TunnelPeer = TunnelPeer { node, address, endpoint, handshake_age, received_bytes, sent_bytes });
message!(
    InitRequest = InitRequest {
        advertise_address,
        listen_address,
        address_pool,
        subnet_prefix,
        force_new_cluster,
        node_labels,
        autolock,
    }
);
message!(Initialized = Initialized { node, cluster, advertise_address, worker_token, manager_token, unlock_key });
message!(JoinRequest = JoinRequest { token, managers, advertise_address, listen_address, availability, reconnect });
message!(Joined = Joined { node, cluster, role, warnings });
message!(LeaveRequest = LeaveRequest { force, remove_volumes });
message!(Left = Left { kept_volumes, untold });
