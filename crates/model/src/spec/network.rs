//! What a user wrote of a network.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::Labels;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkSpec {
    pub name: String,
    pub labels: Labels,
    /// `overlay` unless the user named another.
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
}
