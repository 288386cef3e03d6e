//! What the net helper serves, as one value: names for every sandbox's resolver and the published ports it holds.
//!
//! `plan` makes it, the daemon sends it over `<run>/net.sock`, the helper (`skep net`) serves it until the next one,
//! also while no daemon runs. It is written to disk by the helper, so a build reads its own format and the previous.
//! This file does no IO: it is the contract between two processes, and nothing else is shared between them.
//!
//! Wire: a unix stream socket; each message is a `u32` length in big endian, then that many bytes of JSON
//! ([`Request`] towards the helper, [`Reply`] back, one reply per request, in order).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::tunnel::{PeerStats, PublicKey, Tunnel};

/// Format of a [`Snapshot`] without a tunnel; it changes with every change that an older reader would misunderstand.
pub const FORMAT: u32 = 1;

/// Format of a [`Snapshot`] with a tunnel: a helper that could not carry it must refuse, so that another takes over.
pub const FORMAT_WITH_TUNNEL: u32 = 2;

/// Format of a [`Snapshot`] with a tunnel that carries IPv6 too.
pub const FORMAT_WITH_IPV6: u32 = 3;

/// Where every container finds its resolver, on port 53, as in Docker.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The port on [`RESOLVER`] that the helper binds (UDP and TCP) inside each sandbox.
///
/// A rule inside the sandbox sends port 53 here, so that a DNS server in a container may itself bind port 53.
/// It lies above Linux's default range of ephemeral ports (32768–60999).
pub const RESOLVER_PORT: u16 = 61053;

/// The longest message that either side accepts, in bytes.
pub const MESSAGE_BYTES_MAX: u32 = 64 << 20;

/// Everything the net helper serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`FORMAT`], [`FORMAT_WITH_TUNNEL`] or [`FORMAT_WITH_IPV6`]; a reader refuses what it does not know.
    pub format: u32,
    /// The port to bind on [`RESOLVER`] in every sandbox.
    pub resolver_port: u16,
    /// Where names outside the cluster are asked for, from the node's own network namespace.
    /// Empty: such names are answered with SERVFAIL.
    pub upstreams: Vec<SocketAddr>,
    /// The names of each network, by network id.
    pub zones: BTreeMap<String, Zone>,
    /// One resolver view per sandbox, by sandbox (task) id.
    pub sandboxes: BTreeMap<String, View>,
    /// Published ports that the helper holds with a socket in the node's own network namespace.
    pub listeners: Vec<Listener>,
    /// What the helper carries between the nodes, behind the TUN device that is there; none where the kernel does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
}

impl Snapshot {
    /// The snapshot with something to carry.
    pub fn with_tunnel(self, tunnel: Option<Tunnel>) -> Self {
        let format = match &tunnel {
            None => FORMAT,
            Some(tunnel) if tunnel.address_v6.is_none() => FORMAT_WITH_TUNNEL,
            Some(_) => FORMAT_WITH_IPV6,
        };
        Self { format, tunnel, ..self }
    }
}

/// The names that every container on one network sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// The network's name: `NAME.<network>` is answered like `NAME`.
    pub name: String,
    /// Lower case, without a trailing dot. A key may have several labels (`web.1`, `web.shop`).
    /// Every key is known: another record type than A and AAAA is NOERROR without an answer, never NXDOMAIN.
    pub names: BTreeMap<String, Name>,
    /// For PTR questions: the name that an address of this network answers with, without a trailing dot.
    pub reverse: BTreeMap<IpAddr, String>,
}

/// What one name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Decides the time to live and the order of the answers.
    pub kind: NameKind,
    /// May be empty: the service exists and none of its tasks serves (NOERROR without an answer).
    pub addresses: Vec<IpAddr>,
}

/// Where a [`Name`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameKind {
    /// A service's virtual address: stable for the service's life. Answered with 30 s to live.
    Vip,
    /// The addresses of the tasks that serve: shuffled for each answer, 5 s to live.
    Tasks,
    /// One container: its name, slot name, host name or alias. 5 s to live.
    Container,
}

impl NameKind {
    /// How long an answer of this kind may be kept, in seconds.
    pub const fn ttl_s(self) -> u32 {
        match self {
            Self::Vip => 30,
            Self::Tasks | Self::Container => 5,
        }
    }
}

/// One sandbox's resolver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The pinned network namespace in which the resolver's sockets are bound.
    pub netns: PathBuf,
    /// The networks whose zones are asked, in this order; the first that knows the name answers.
    pub networks: Vec<String>,
    /// Whether names that no zone knows are asked upstream.
    pub outside: Outside,
    /// The search domains in the container's `resolv.conf`. Only when there are some is an unknown name of a single
    /// label asked upstream; else it is NXDOMAIN at once, for no upstream could know it.
    pub search: Vec<String>,
}

/// What happens to a name that no zone of a view knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outside {
    /// Ask the upstream resolvers.
    Forward,
    /// The sandbox is on internal networks only: NXDOMAIN.
    Deny,
}

/// A transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A published port as the helper holds it.
///
/// nftables redirects what arrives for the node's own addresses before any socket sees it; the helper's socket gets the
/// rest: the loopback and link-local addresses, and IPv6 where no task behind the port has it. It also makes the port visibly taken (`ss`, EADDRINUSE).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listener {
    pub protocol: Protocol,
    /// The address to bind; `None` is every address, IPv4 and IPv6.
    pub bind: Option<IpAddr>,
    pub port: u16,
    /// Connections are spread over these. Empty: hold the port, close what arrives.
    pub backends: Vec<SocketAddr>,
    /// One client's connections lead to one of them. A helper of a build before it spreads them as ever.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_client: bool,
}

/// Daemon to helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Serve this from now on. The helper writes it to `<run>/net/snapshot.json` before it replies.
    Apply {
        /// Chosen by the daemon and given back in [`Reply::Applied`]; it grows within one daemon's life.
        version: u64,
        snapshot: Snapshot,
    },
    /// What is known of the tunnel's peers. A helper of a build before it refuses it, and has no tunnel.
    TunnelStats { version: u64 },
}

/// Helper to daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The snapshot is served, but for the listeners and resolvers in `errors`.
    Applied { version: u64, errors: Vec<ServeError> },
    /// By public key; empty if nothing is carried.
    TunnelStats { version: u64, peers: BTreeMap<PublicKey, PeerStats> },
    /// The snapshot was not taken: its format is unknown or the message made no sense.
    Refused { version: u64, message: String },
}

/// A part of a snapshot that the helper could not serve; it tries again with each snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServeError {
    /// A published port could not be bound. The message names the program that has it, where it can be known.
    Listener { listener: Listener, message: String },
    /// A sandbox's resolver could not be started.
    Resolver { sandbox: String, message: String },
    /// The tunnel is not carried yet, or not whole.
    Tunnel { message: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden bytes of format 1: a helper of another build has this on disk.
    #[test]
    fn format_1_reads_and_writes_as_released() {
        let snapshot = Snapshot {
            format: FORMAT,
            resolver_port: RESOLVER_PORT,
            upstreams: vec!["192.0.2.53:53".parse().unwrap()],
            zones: BTreeMap::from([(
                "n1".into(),
                Zone {
                    name: "shop_back".into(),
                    names: BTreeMap::from([(
                        "web".into(),
                        Name { kind: NameKind::Vip, addresses: vec!["10.64.56.1".parse().unwrap()] },
                    )]),
                    reverse: BTreeMap::from([("10.64.0.2".parse().unwrap(), "shop_web.1".into())]),
                },
            )]),
            sandboxes: BTreeMap::from([(
                "t1".into(),
                View {
                    netns: "/run/skep/net/ns/t1".into(),
                    networks: vec!["n1".into()],
                    outside: Outside::Forward,
                    search: vec![],
                },
            )]),
            listeners: vec![Listener {
                protocol: Protocol::Tcp,
                bind: None,
                port: 8080,
                backends: vec!["10.64.0.2:80".parse().unwrap()],
                by_client: false,
            }],
            tunnel: None,
        };
        let golden = concat!(
            r#"{"format":1,"resolver_port":61053,"upstreams":["192.0.2.53:53"],"#,
            r#""zones":{"n1":{"name":"shop_back","names":{"web":{"kind":"vip","addresses":["10.64.56.1"]}},"#,
            r#""reverse":{"10.64.0.2":"shop_web.1"}}},"#,
            r#""sandboxes":{"t1":{"netns":"/run/skep/net/ns/t1","networks":["n1"],"outside":"forward","search":[]}},"#,
            r#""listeners":[{"protocol":"tcp","bind":null,"port":8080,"backends":["10.64.0.2:80"]}]}"#
        );
        assert_eq!(serde_json::to_string(&snapshot).unwrap(), golden);
        assert_eq!(serde_json::from_str::<Snapshot>(golden).unwrap(), snapshot);
    }
}
