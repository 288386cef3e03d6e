//! What a user wrote of a network.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::Labels;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkSpec {
    pub name: String,
    pub labels: Labels,
    /// `overlay` unless the user named another; see [`crate::NetworkDriver`].
    pub driver: String,
    pub driver_options: Labels,
    /// No way out of the network.
    pub internal: bool,
    /// Containers outside services may attach.
    pub attachable: bool,
    pub subnet: Option<Ipv4Net>,
    pub gateway: Option<Ipv4Addr>,
    /// Whether its containers have IPv6 addresses too; they do where nobody says otherwise.
    pub ipv6: Option<bool>,
    pub subnet_v6: Option<Ipv6Net>,
    /// The part of the subnet that tasks get their addresses of; the whole of it where nobody says otherwise.
    pub ip_range: Option<Ipv4Net>,
    /// Addresses that somebody else has, by name: no task gets one.
    pub aux_addresses: BTreeMap<String, Ipv4Addr>,
}
