//! One node's network: plan (pure), realize (netlink, nftables), the tunnel to other nodes, and the net helper (DNS,
//! localhost proxies).

pub mod echo;
pub mod helper;
pub mod ipam;
mod netlink;
pub mod plan;
pub mod ports;
mod realize;
pub mod snapshot;
mod sys;
pub mod tunnel;

pub use realize::{
    Applied, Attachment, Config, HostRoute, Overlay, RealizeError, Sandbox, TableChange, TunnelStatsError, Warning,
    host_routes, namespaces_dir,
};
