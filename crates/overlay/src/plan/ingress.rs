//! The way of published traffic from the node that a client spoke to, to a container on another node, and back by
//! the same node, with the client's address kept.
//!
//! ```text
//! client ─▶ node A: to a container of B? ─▶ sk-ingress ═ VXLAN in the tunnel ═▶ sk-ingress: which node sent it? ─▶ container
//!        ◀─        original sender       ◀─ sk-ingress ◀══════════════════════ sk-ingress ◀─ its mark's route   ◀─
//! ```
//! The tunnel itself takes a packet only with an address of the sending node, and a client's is none. So such packets,
//! and nothing else, travel as Ethernet frames between the nodes' own addresses. The sender's hardware address holds
//! its number; the receiver keeps it in the connection's mark, and answers follow the mark.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::peers::Mesh;
use super::twins::{Twins, both};

/// The interface that published traffic takes between nodes.
pub const INGRESS: &str = "sk-ingress";
/// The UDP port of its VXLAN, inside of the tunnel and refused outside of it.
pub const INGRESS_PORT: u16 = 7378;
/// The VXLAN's network.
pub const INGRESS_NETWORK: u32 = 7377;
/// What a frame within UDP takes off the longest packet: IPv4, UDP, VXLAN and Ethernet headers, in bytes.
const OVERHEAD: u16 = 50;
/// The kernel has no IPv6 on an interface whose longest packet is shorter (RFC 8200, section 5).
pub(super) const MTU_MIN_V6: u16 = 1280;

/// Mark of a connection that came for a published port, and of its packets on their way to the container.
pub const PUBLISHED_MARK: u32 = 0x100;
/// Mark of a published connection that another node has sent here, and of its answers; the node's number is beside it.
pub const BACK_MARK: u32 = 0x200;
/// All bits that the way of an answer is chosen by. Those of Tailscale (0x00ff0000), Kubernetes (0xc000) and podman
/// (0x2000) are left alone.
pub const BACK_MASK: u32 = 0xff00_02ff;

/// What a node's `sk-ingress` should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingress {
    /// The node's own address in the tunnel, here too.
    pub address: Ipv4Addr,
    pub number: Number,
    /// The range of nodes' own addresses.
    pub nodes: Ipv4Net,
    /// The longest packet, in bytes.
    pub mtu: u16,
    /// The longest that was seen to reach every other node, where that is less.
    pub path: Option<u16>,
    /// Whether IPv6 goes there too.
    pub has_v6: bool,
    /// The other nodes: their addresses in the tunnel, and their blocks.
    pub peers: BTreeMap<Number, (Ipv4Addr, BTreeSet<IpNet>)>,
}

/// A node's place in the range of nodes' addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(pub u16);

impl Number {
    /// None: the address lies outside the range, or too far in it to be told by a mark.
    pub fn of(address: Ipv4Addr, nodes: Ipv4Net) -> Option<Self> {
        let place = u32::from(address).checked_sub(u32::from(nodes.network()))?;
        u16::try_from(place).ok().filter(|_| nodes.contains(&address)).map(Self)
    }

    /// Locally administered.
    pub fn hardware_address(self) -> [u8; 6] {
        let [high, low] = self.0.to_be_bytes();
        [0x02, b's', b'k', 0, high, low]
    }

    /// The address that IPv6 routes know the node by on `sk-ingress`: the kernel takes no gateway that it has a route to
    /// by another interface, but asks nothing of one that is the link's own.
    pub fn link_address(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x736b, self.0)
    }

    /// The mark of answers that go back by this node. The lower byte, all that small clusters need, is where hardly
    /// any other program's marks are.
    pub fn mark(self) -> u32 {
        let [high, low] = self.0.to_be_bytes();
        BACK_MARK | u32::from(low) << 24 | u32::from(high)
    }
}

/// Where a frame to a node goes, for packets of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    pub number: Number,
    /// The gateway of routes by that node.
    pub gateway: IpAddr,
}

impl Ingress {
    /// The longest packet that goes on to `to`, where that is less than the interface takes.
    pub fn path_to(&self, to: IpAddr) -> Option<u16> {
        self.path.map(|path| if to.is_ipv4() { path } else { path.max(MTU_MIN_V6) })
    }

    /// Each other node by its gateway: one for each family that goes there.
    pub fn ways(&self) -> impl Iterator<Item = Way> + '_ {
        self.peers.iter().flat_map(|(number, (address, _))| {
            let v6 = self.has_v6.then(|| number.link_address().into());
            let gateways = [Some(IpAddr::V4(*address)), v6].into_iter().flatten();
            gateways.map(|gateway| Way { number: *number, gateway })
        })
    }
}

pub(super) fn ingress(mesh: &Mesh, twins: Option<&Twins>) -> Option<Ingress> {
    let number = |address| Number::of(address, mesh.nodes);
    let mtu = mesh.mtu.saturating_sub(OVERHEAD);
    let twins = twins.filter(|_| mtu >= MTU_MIN_V6);
    let peer = |peer: &super::MeshPeer| {
        let blocks = both(peer.blocks.iter().copied().map(IpNet::V4), |block| twins?.range_of(block));
        Some((number(peer.address)?, (peer.address, blocks)))
    };
    Some(Ingress {
        address: mesh.address,
        number: number(mesh.address)?,
        nodes: mesh.nodes.trunc(),
        mtu,
        path: mesh.path.map(|path| path.saturating_sub(OVERHEAD)),
        has_v6: twins.is_some(),
        peers: mesh.peers.iter().filter_map(peer).collect(),
    })
}
