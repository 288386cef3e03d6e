//! What a node finds out about itself and its way to the others, and what managers collect of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use skep_model::{NodeId, Timestamp};

use crate::wire::{choice, enumeration, message};

/// From an agent to whoever asked: `Began` at once, `Examined` as the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbePart {
    Began {
        /// The agent's clock.
        time: Timestamp,
    },
    Examined(Examined),
}

/// All that a node found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// What is wrong on the node itself.
    pub complaints: Vec<Complaint>,
    /// Every other node that it knows in the tunnel.
    pub peers: Vec<PeerProbe>,
    /// The managers that it was asked to reach.
    pub managers: Vec<ManagerProbe>,
    /// The firewall that is in force there.
    pub firewall: Option<Firewall>,
    /// The UDP port that it listens on.
    pub tunnel_port: u16,
    /// The longest packet that its tunnel takes now.
    pub mtu: u16,
    /// The longest that its own interfaces would let through.
    pub interface_mtu: u16,
    /// Whether somebody sets its clock; absent where the kernel does not say.
    pub clock_synchronised: Option<bool>,
}

/// What is wrong on a node, and the one thing that mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    pub what: String,
    pub mend: String,
}

/// A program that keeps a node's firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firewall {
    Ufw,
    Firewalld,
}

/// The way through the tunnel to another node, there and back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerProbe {
    pub node: NodeId,
    /// Its own address in the tunnel.
    pub address: Ipv4Addr,
    /// Where it listens, as far as is known.
    pub endpoint: Option<SocketAddr>,
    pub sent: u32,
    pub answered: u32,
    /// The middle one of all.
    pub round_trip: Option<Duration>,
    /// The longest packet that passes; absent where none did, or none could be judged.
    pub passes: Option<u16>,
    /// Bytes that came from there meanwhile.
    pub received_bytes: u64,
    /// Since the last handshake; absent if there was none.
    pub handshake_age: Option<Duration>,
}

/// Where a manager listens for other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerTarget {
    /// Absent where only its address is known.
    pub node: Option<NodeId>,
    /// `host:port`.
    pub address: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerProbe {
    pub manager: ManagerTarget,
    pub reached: Reached,
    pub connected_in: Option<Duration>,
}

/// How a TCP connection went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    Open,
    /// Something there said no.
    Refused,
    /// Nothing came back in time.
    Silent,
    /// No route, or no such name.
    NoWay,
}

/// What a manager collected of all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    pub nodes: Vec<NodeFindings>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFindings {
    pub node: NodeId,
    pub hostname: String,
    pub is_manager: bool,
    /// Where other nodes reach it, as far as managers know.
    pub address: String,
    pub clock: Option<ProbeClock>,
    pub examined: Option<Examined>,
    /// Why there is nothing to tell of it.
    pub silent: Option<String>,
    /// The level of its skep, where that cannot examine itself.
    pub older_level: Option<u32>,
}

/// What a node's clock said between two times of the manager's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeClock {
    pub asked: Timestamp,
    pub told: Timestamp,
    pub heard: Timestamp,
}

choice!(ProbePart = ProbePart in probe_part {
    Examined;
    Began(ProbeBegan) { time },
});
message!(
    Examined = Examined { complaints, peers, managers, firewall, tunnel_port, mtu, interface_mtu, clock_synchronised }
);
message!(Complaint = Complaint { what, mend });
enumeration!(Firewall = Firewall { Ufw, Firewalld });
message!(
    PeerProbe =
        PeerProbe { node, address, endpoint, sent, answered, round_trip, passes, received_bytes, handshake_age }
);
message!(ManagerTarget = ManagerTarget { node, address });
message!(ManagerProbe = ManagerProbe { manager, reached, connected_in });
enumeration!(Reached = Reached { Open, Refused, Silent, NoWay });
message!(Diagnosis = Diagnosis { nodes });
message!(NodeFindings = NodeFindings { node, hostname, is_manager, address, clock, examined, silent, older_level });
message!(ProbeClock = ProbeClock { asked, told, heard });
