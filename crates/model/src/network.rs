//! A network: one address range of the cluster, carved into blocks that nodes hand out addresses from.
//!
//! Beside it may be an IPv6 range, of which nothing is handed out: each IPv4 address has a *twin* there, at the same
//! place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{Meta, NetworkDriver, NetworkId, NetworkSpec, NodeId, PARENT};

/// Prefix length of the block that a node gets of a network: 64 addresses.
const BLOCK_PREFIX: u8 = 26;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub meta: Meta,
    pub spec: NetworkSpec,
    /// The whole range: the user's, or one that the allocator chose from the cluster's pool.
    pub subnet: Ipv4Net,
    /// The address that every node's bridge answers under.
    pub gateway: Ipv4Addr,
    /// Which node hands out addresses of which block. A *single*, a block of one address, may lie within another: the
    /// address is kept for one task, wherever that is.
    pub blocks: BTreeMap<Ipv4Net, NodeId>,
    /// Where the twins of `subnet`'s addresses are, at least as long as it; absent: IPv4 alone, as all networks were
    /// before feature level 3.
    pub subnet_v6: Option<Ipv6Net>,
}

/// A network's ranges, in which each IPv4 address and its twin have the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twins {
    pub v4: Ipv4Net,
    pub v6: Ipv6Net,
}

impl Twins {
    /// The IPv6 address that goes with an IPv4 address; none: it is not of this network.
    pub fn of(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let place = address.to_bits().checked_sub(self.v4.network().to_bits())?;
        let twin = Ipv6Addr::from_bits(self.v6.network().to_bits() + u128::from(place));
        self.v4.contains(&address).then_some(twin)
    }

    /// The IPv4 address that an IPv6 address goes with.
    pub fn behind(&self, twin: Ipv6Addr) -> Option<Ipv4Addr> {
        let place = twin.to_bits().checked_sub(self.v6.network().to_bits())?;
        let address = self.v4.network().to_bits().checked_add(u32::try_from(place).ok()?)?;
        Some(Ipv4Addr::from_bits(address)).filter(|address| self.v4.contains(address))
    }
}

impl Network {
    /// Why it is not the network that `wanted` asks for, in words for the user; none: it is.
    ///
    /// One without IPv6 is taken for one that asks for it: so are those that were made before there was any.
    pub fn differs_from(&self, wanted: &NetworkSpec) -> Option<String> {
        let NetworkSpec { internal, subnet, ipv6, subnet_v6, ip_range, .. } = wanted;
        let has_another = |range: Ipv6Net| *ipv6 == Some(false) || subnet_v6.is_some_and(|wanted| wanted != range);
        let differs = self.spec.internal != *internal
            || subnet.is_some_and(|subnet| subnet != self.subnet)
            || self.subnet_v6.is_some_and(has_another)
            || self.spec.driver() != wanted.driver()
            || self.spec.driver_options.get(PARENT) != wanted.driver_options.get(PARENT)
            || self.spec.ip_range != *ip_range;
        differs.then(|| {
            let subnets = [Some(self.subnet.to_string()), self.subnet_v6.map(|range| range.to_string())];
            format!(
                "network {} exists with other settings (driver: {}, internal: {}, subnet: {}), and a network cannot be \
                 changed; remove the stack first, or give the network another name",
                wanted.name,
                self.spec.driver().word(),
                self.spec.internal,
                subnets.into_iter().flatten().collect::<Vec<_>>().join(" and ")
            )
        })
    }

    /// Its two ranges, if it has two.
    pub fn twins(&self) -> Option<Twins> {
        self.subnet_v6.map(|v6| Twins { v4: self.subnet, v6 })
    }

    /// The part of the range that virtual addresses of services come from: its last eighth.
    pub fn vip_range(&self) -> Ipv4Net {
        let range = self.range();
        let prefix = (range.prefix_len() + 3).min(32);
        range.subnets(prefix).expect("a longer prefix splits the range").last().expect("a range has a last part")
    }

    /// Where its tasks' addresses come from.
    pub fn range(&self) -> Ipv4Net {
        self.spec.ip_range.unwrap_or(self.subnet)
    }

    /// Prefix length of this network's blocks; small networks have smaller blocks.
    ///
    /// A local network is short of addresses and routes none of them: there each is given to a node by itself.
    pub fn block_prefix(&self) -> u8 {
        match self.spec.driver() {
            NetworkDriver::Macvlan => 32,
            NetworkDriver::Overlay | NetworkDriver::Bridge => BLOCK_PREFIX.max(self.range().prefix_len() + 1).min(32),
        }
    }

    /// The first address that no node holds and that is nobody's; `kept` are those that tasks ask for by name.
    pub fn free_single(&self, kept: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Net> {
        let range = self.range();
        let all = (range.network().to_bits()..=range.broadcast().to_bits()).map(Ipv4Addr::from_bits);
        let is_free = |address: &Ipv4Addr| {
            !kept.contains(address)
                && !self.is_reserved(*address)
                && !self.blocks.contains_key(&Ipv4Net::from(*address))
        };
        all.into_iter().find(is_free).map(Ipv4Net::from)
    }

    /// Whether it is no task's whatever is asked for: the subnet's first and last address, the gateway, what the user
    /// says that others have.
    pub fn is_reserved(&self, address: Ipv4Addr) -> bool {
        let own = [self.subnet.network(), self.gateway, self.subnet.broadcast()];
        own.contains(&address) || self.spec.aux_addresses.values().any(|other| *other == address)
    }

    /// The first block that no node holds and that lies outside the virtual addresses' part.
    pub fn free_block(&self) -> Option<Ipv4Net> {
        let vips = self.vip_range();
        let blocks = self.range().subnets(self.block_prefix()).expect("a longer prefix splits the range");
        blocks
            .into_iter()
            .find(|block| !self.blocks.contains_key(block) && !block.contains(&vips) && !vips.contains(block))
    }

    /// The blocks of one node, in ascending order.
    pub fn blocks_of(&self, node: NodeId) -> impl Iterator<Item = Ipv4Net> + '_ {
        self.blocks.iter().filter(move |(_, owner)| **owner == node).map(|(block, _)| *block)
    }

    /// How many addresses a block gives to tasks: without the network's own first (its name and the
    /// gateway) and last address, where they lie in the block.
    pub fn usable_addresses(&self, block: Ipv4Net) -> usize {
        let own = [self.subnet.network(), self.gateway, self.subnet.broadcast()];
        let size = 1usize << (32 - block.prefix_len());
        let mut distinct: Vec<Ipv4Addr> = own.into_iter().chain(self.spec.aux_addresses.values().copied()).collect();
        distinct.sort();
        distinct.dedup();
        size - distinct.iter().filter(|address| block.contains(*address)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_its_twin_have_the_same_place() {
        let twins = |v4: &str, v6: &str| Twins { v4: v4.parse().unwrap(), v6: v6.parse().unwrap() };
        let users = twins("10.1.0.0/24", "fd00:1::/64");
        assert_eq!(users.of([10, 1, 0, 16].into()), "fd00:1::10".parse().ok());
        assert_eq!(users.behind("fd00:1::10".parse().unwrap()), Some([10, 1, 0, 16].into()));
        assert_eq!(users.behind("fd00:1::1:0".parse().unwrap()), None, "the IPv4 range has no such place");
        assert_eq!(users.behind("fd00::1".parse().unwrap()), None);
        assert_eq!(users.of([10, 1, 1, 0].into()), None);
        assert_eq!(users.of([10, 0, 0, 1].into()), None);
        let own = twins("10.64.64.0/18", "fd12:3456:789a::a40:4000/114");
        assert_eq!(own.of([10, 64, 64, 1].into()), "fd12:3456:789a::a40:4001".parse().ok());
    }
}
