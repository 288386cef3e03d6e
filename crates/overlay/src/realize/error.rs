//! Why the kernel could not be changed: one variant a step, with its subject.

use std::io;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::helper::HelperError;
use crate::ipam::IpamError;
use crate::netlink::NetlinkError;
use crate::plan;

/// Why the kernel could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum RealizeError {
    #[error("failed to prepare the folder `{path}`")]
    Folder { path: PathBuf, source: io::Error },
    #[error("failed to open a netlink socket; the daemon must run as root, with CAP_NET_ADMIN")]
    Open(#[source] NetlinkError),
    #[error("failed to set /proc/sys/net/{key}")]
    Setting { key: String, source: io::Error },
    #[error("failed to list the node's interfaces")]
    List(#[source] NetlinkError),
    #[error("failed to set up the bridge `{bridge}` of network {network}")]
    Bridge { bridge: String, network: String, source: NetlinkError },
    #[error("failed to route {to} in table {table}")]
    Route { to: IpNet, table: u32, source: NetlinkError },
    #[error("failed to route {to}: there is no interface `{interface}`")]
    NoInterface { interface: String, to: IpNet },
    #[error("failed to set up routing rules")]
    Policy(#[source] NetlinkError),
    #[error("failed to {step} the interface `{}`", plan::INGRESS)]
    Ingress { step: &'static str, source: NetlinkError },
    #[error("failed to remove the interface `{interface}`")]
    Remove { interface: String, source: NetlinkError },
    #[error("failed to set up the tunnel's interface `sk-tunnel`")]
    Tunnel { source: NetlinkError },
    #[error("failed to tell the kernel's WireGuard of its peers")]
    Peers(#[source] NetlinkError),
    #[error("failed to ask the kernel's WireGuard for its peers")]
    Stats(#[source] NetlinkError),
    #[error("failed to make the TUN device `sk-tunnel`; it needs the kernel's `tun` module and /dev/net/tun")]
    TunDevice(#[source] io::Error),
    #[error(
        "the data plane is set to `kernel`, and this kernel makes no WireGuard device; install its module (Debian and \
         Ubuntu: the package linux-modules-extra of this kernel, or `modprobe wireguard`), or set it to `auto`"
    )]
    NoKernelWireguard(#[source] io::Error),
    #[error(
        "failed to set up the nftables tables `ip skep` and `ip6 skep`; the kernel needs nf_tables with nat, fib and numgen"
    )]
    Table(#[source] NetlinkError),
    #[error("failed to look at other programs' firewall rules")]
    Foreign(#[source] NetlinkError),
    #[error("failed to make, enter or release the network namespace `{path}`")]
    Namespace { path: PathBuf, source: io::Error },
    #[error("failed to {step} sandbox {id}")]
    Sandbox { id: String, step: &'static str, source: NetlinkError },
    #[error(
        "network {network} is behind the interface `{parent}`, and this node has none of that name; make it here, name \
         another as `parent`, or keep the service's tasks away by a constraint"
    )]
    NoParent { network: String, parent: String },
    #[error("failed to keep the node's addresses in `{path}`")]
    AddressBook { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Ipam(#[from] IpamError),
    #[error("failed to forget connections of removed containers")]
    Forget(#[source] NetlinkError),
    #[error("failed to count connections")]
    Count(#[source] NetlinkError),
    #[error("`{0}` cannot name a sandbox: it must be 1 to 64 letters, digits, `-`, `_` or `.`, and not begin with `.`")]
    Name(String),
}

/// Why whoever carries the tunnel did not say what it knows.
#[derive(Debug, thiserror::Error)]
pub enum TunnelStatsError {
    #[error(transparent)]
    Kernel(#[from] RealizeError),
    #[error(transparent)]
    Helper(#[from] HelperError),
}
