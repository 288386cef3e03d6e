//! Several nodes, each a network namespace with an overlay and a net helper of its own.
//!
//! ```text
//! node k: 10.64.0.k, 198.51.k.2 ── 198.51.k.1 outside, which routes between nodes
//! ```
//! Nodes reach each other, but only the first one's default route leads outside.

mod dual;
mod ingress;
mod keys;
mod lifecycle;
mod reach;
mod wire;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use ipnet::Ipv4Net;
use skep_overlay::plan::{Mesh, MeshPeer, NodeNetwork};
use skep_overlay::tunnel::{DataPlane, PrivateKey};
use skep_overlay::{Applied, Attachment, Config, Overlay, Sandbox};

use crate::guest;
use crate::helper::{Daemon, config_at};
use crate::lab::{self, Lab, Outside, Place, ip, within};

/// What fits between nodes.
const MTU: u16 = 1420;

/// One node.
pub struct Peer {
    /// From 1.
    pub number: u8,
    pub overlay: Overlay,
    pub wanted: NodeNetwork,
    namespace: OwnedFd,
    pub daemon: Option<Daemon>,
}

impl Place for Peer {
    fn namespace(&self) -> OwnedFd {
        self.namespace.try_clone().unwrap()
    }
}

/// A node's address towards the outside.
pub fn uplink(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, number, 2)
}

/// Where a client outside comes from when it asks that node.
pub fn client(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, number, 1)
}

/// The same of IPv6.
pub fn uplink_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 51, number.into(), 0, 0, 0, 2)
}

pub fn client_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 51, number.into(), 0, 0, 0, 1)
}

/// A node's address in the tunnel.
pub fn tunneled(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 64, 0, number)
}

/// A node's block of a network.
pub fn block(network: u8, node: u8) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::new(10, 64, network * 16, (node - 1) * 64), 26).unwrap()
}

/// The second node's block of a network whose subnet a user chose, outside of the pool.
pub fn block_of_a_user() -> Ipv4Net {
    "172.30.4.0/26".parse().unwrap()
}

/// An address in a node's block.
pub fn host(network: u8, node: u8, place: u8) -> Ipv4Addr {
    lab::host(network, (node - 1) * 64 + place)
}

/// `count` nodes that know each other and the networks 1, 2 and 9, with blocks of each.
pub fn nodes<const COUNT: usize>(lab: &Lab) -> ([Peer; COUNT], Outside) {
    let (thread, outside) = lab::namespace();
    within(&outside, || {
        ip("link set lo up");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    });
    let numbers = 1..=COUNT as u8;
    let mut peers: Vec<Peer> = numbers.clone().map(|number| peer(lab, number, thread)).collect();
    for number in numbers.clone() {
        within(&outside, || {
            ip(&format!("addr add {}/24 dev out{number}", client(number)));
            ip(&format!("addr add {}/64 dev out{number} nodad", client_v6(number)));
            ip(&format!("link set out{number} up"));
        });
    }
    for peer in &mut peers {
        peer.wanted.mesh = Some(mesh(peer.number, numbers.clone()));
        peer.run(|| {
            for other in numbers.clone().filter(|other| *other != peer.number) {
                ip(&format!("route add {} via {}", uplink(other), client(peer.number)));
            }
        });
        peer.apply();
    }
    let Ok(peers) = <[Peer; COUNT]>::try_from(peers) else { unreachable!("as many as were asked for") };
    (peers, Outside(outside))
}

fn peer(lab: &Lab, number: u8, outside: std::num::NonZeroI32) -> Peer {
    let (_, namespace) = lab::namespace();
    let config = config(lab, number);
    let (overlay, daemon) = within(&namespace, || {
        ip("link set lo up");
        ip(&format!("link add up0 type veth peer name out{number} netns {outside}"));
        ip(&format!("addr add {}/24 dev up0", uplink(number)));
        ip(&format!("addr add {}/64 dev up0 nodad", uplink_v6(number)));
        ip("link set up0 up");
        match number {
            1 => {
                ip(&format!("route add default via {}", client_v6(1)));
                ip(&format!("route add default via {}", client(1)))
            }
            // Nobody has it.
            _ => ip(&format!("route add default via 198.51.{number}.99")),
        };
        (Overlay::open(&config).unwrap(), Daemon::with(config_at(&config.run_dir)))
    });
    let networks = [1, 2, 9].map(|network| {
        let blocks = vec![block(network, number)];
        skep_overlay::plan::Network { blocks, ..lab::network(network) }
    });
    let wanted = NodeNetwork { networks: networks.to_vec(), ..lab::empty() };
    Peer { number, overlay, wanted, namespace, daemon: Some(daemon) }
}

fn config(lab: &Lab, number: u8) -> Config {
    let folder = |kind: &std::path::Path| kind.join(format!("node{number}"));
    Config {
        run_dir: folder(&lab.config.run_dir),
        data_dir: folder(&lab.config.data_dir),
        data_plane: data_plane(number),
    }
}

/// In the guest the second node's tunnel is ours and the others' the kernel's, so both kinds of neighbours meet.
fn data_plane(number: u8) -> DataPlane {
    if guest::is_here() && number != 2 { DataPlane::Kernel } else { DataPlane::Userspace }
}

fn key(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number; 32])
}

pub fn mesh(own: u8, numbers: impl Iterator<Item = u8>) -> Mesh {
    let peer = |number| MeshPeer {
        node: format!("node{number}"),
        key: key(number).public(),
        endpoint: Some(SocketAddr::from((uplink(number), skep_overlay::tunnel::PORT))),
        address: tunneled(number),
        blocks: [1, 2, 9].map(|network| block(network, number)).to_vec(),
        keepalive_s: None,
    };
    Mesh {
        key: key(own),
        port: skep_overlay::tunnel::PORT,
        address: tunneled(own),
        nodes: "10.64.0.0/20".parse().unwrap(),
        mtu: MTU,
        path: None,
        peers: numbers.filter(|number| *number != own).map(peer).collect(),
    }
}

impl Peer {
    /// As the agent does it: the helper knows first.
    pub fn apply(&self) -> Applied {
        self.run(|| {
            let plan = self.overlay.plan(&self.wanted);
            assert_eq!(plan.problems, []);
            if let Some(daemon) = &self.daemon {
                daemon.serve(&plan.snapshot);
            }
            self.overlay.apply(&self.wanted).unwrap()
        })
    }

    /// A container on some networks, each with a place in this node's block.
    pub fn start(&mut self, id: &str, places: &[(u8, u8)]) -> Sandbox {
        let place = |(network, place): &(u8, u8)| Attachment {
            network: lab::network(*network),
            address: host(*network, self.number, *place),
        };
        self.start_on(id, &places.iter().map(place).collect::<Vec<_>>())
    }

    pub fn start_on(&mut self, id: &str, places: &[Attachment]) -> Sandbox {
        let Self { overlay, wanted, namespace, .. } = self;
        let sandbox = within(namespace, || lab::start_on(overlay, wanted, id, places));
        self.apply();
        sandbox
    }

    /// Another daemon takes over.
    pub fn restart(&mut self, lab: &Lab) {
        let config = config(lab, self.number);
        self.overlay = within(&self.namespace, || Overlay::open(&config).unwrap());
        self.apply();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let daemon = self.daemon.take();
        within(&self.namespace, || drop(daemon));
    }
}
