//! What contradicts itself in a node's network, in words for whoever can change it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::Protocol;

/// A contradiction in a [`NodeNetwork`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    SubnetsOverlap {
        network: String,
        subnet: IpNet,
        other: String,
        other_subnet: IpNet,
    },
    AddressOutside {
        network: String,
        subnet: Ipv4Net,
        address: Ipv4Addr,
        what: String,
    },
    AddressTwice {
        network: String,
        address: Ipv4Addr,
        first: String,
        second: String,
    },
    NetworkUnknown {
        network: String,
        what: String,
    },
    NetworkIdsCollide {
        network: String,
        other: String,
        interface: String,
    },
    PortTwice {
        protocol: Protocol,
        port: u16,
        bind: Option<IpAddr>,
    },
    TunnelKeyTwice {
        node: String,
        other: String,
    },
    TunnelRangeTaken {
        node: String,
        range: Ipv4Net,
        other: String,
        other_range: Ipv4Net,
    },
    /// `node` is none for this one.
    NodeOutside {
        node: Option<String>,
        address: Ipv4Addr,
        nodes: Ipv4Net,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SubnetsOverlap { network, subnet, other, other_subnet } => write!(
                f,
                "network {network} is left out: its subnet {subnet} overlaps {other_subnet} of network {other}; \
                 give one of them another subnet"
            ),
            Self::AddressOutside { network, subnet, address, what } => {
                write!(f, "{what} is left out: {address} lies outside the subnet {subnet} of network {network}")
            }
            Self::AddressTwice { network, address, first, second } => {
                write!(f, "{second} is left out: {first} has {address} on network {network} already")
            }
            Self::NetworkUnknown { network, what } => {
                write!(f, "{what} is left out: this node has no network {network}")
            }
            Self::NetworkIdsCollide { network, other, interface } => write!(
                f,
                "network {network} is left out: its interface name {interface} is that of network {other}; \
                 remove it and create it again to give it another id"
            ),
            Self::PortTwice { protocol, port, bind } => {
                write!(f, "port {port}/{protocol}")?;
                if let Some(bind) = bind {
                    write!(f, " on {bind}")?;
                }
                write!(f, " is published twice; the second is left out")
            }
            Self::TunnelKeyTwice { node, other } => write!(
                f,
                "node {node} is left out of the tunnel: it says the same key as {other}, so one is a copy of the \
                 other's disk; let one of them leave and join again"
            ),
            Self::TunnelRangeTaken { node, range, other, other_range } => {
                write!(f, "{range} of node {node} is left out of the tunnel: it overlaps {other_range} of {other}")
            }
            Self::NodeOutside { node: None, address, nodes } => {
                write!(f, "the node is left alone: its own address {address} is none of the first 65536 of {nodes}")
            }
            Self::NodeOutside { node: Some(node), address, nodes } => {
                write!(f, "node {node} is left out: its address {address} is none of the first 65536 of {nodes}")
            }
        }
    }
}
