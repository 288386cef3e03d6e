//! IPv6 beside IPv4. A network's IPv6 range is at least as long as its IPv4 range, and an address's place in one is its
//! *twin's* place in the other. So nothing is allocated, stored or sent a second time: blocks, service addresses,
//! gateways, routes and rules of IPv6 are those of IPv4, seen through this file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Network, NodeNetwork};

/// Every pair of ranges that a node knows, and who in them has no IPv6 address though.
#[derive(Debug, Clone, Default)]
pub(super) struct Twins {
    /// Without overlap, by the IPv4 range's first address.
    ranges: BTreeMap<Ipv4Addr, (Ipv4Net, Ipv6Net)>,
    without: BTreeSet<Ipv4Addr>,
}

impl Network {
    /// The IPv6 address that goes with an IPv4 address of the network; none: the network has no IPv6.
    pub fn twin(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        twin(self.subnet, self.subnet_v6?, address)
    }
}

/// The address in `other` that has the place of `address` in `range`.
fn twin(range: Ipv4Net, other: Ipv6Net, address: Ipv4Addr) -> Option<Ipv6Addr> {
    let place = u128::from(u32::from(address) - u32::from(range.network()).min(u32::from(address)));
    let twin = Ipv6Addr::from(u128::from(other.network()).checked_add(place)?);
    (range.contains(&address) && other.contains(&twin)).then_some(twin)
}

/// The part of the cluster's own IPv6 range that an IPv4 range is found in, address by address.
pub(super) fn embedded(prefix: Ipv6Net, range: Ipv4Net) -> Option<Ipv6Net> {
    let first = u128::from(prefix.network()) | u128::from(u32::from(range.network()));
    Ipv6Net::new(first.into(), 96 + range.prefix_len()).ok().filter(|twin| prefix.contains(twin))
}

impl Twins {
    /// None while no network of the node has IPv6: then nothing else needs it.
    pub fn of(node: &NodeNetwork) -> Option<Self> {
        let networks = node.networks.iter().filter_map(|network| Some((network.subnet.trunc(), network.subnet_v6?)));
        let mut ranges: BTreeMap<_, _> = networks.map(|pair| (pair.0.network(), pair)).collect();
        if ranges.is_empty() {
            return None;
        }
        if let (Some(mesh), Some(prefix)) = (&node.mesh, node.prefix) {
            let nodes = mesh.nodes.trunc();
            ranges.extend(embedded(prefix, nodes).map(|twin| (nodes.network(), (nodes, twin))));
        }
        let mut without = node.v4_only.clone();
        // An address that would lead to nobody is better not known: clients then ask the other at once.
        let lonely = node.services.iter().filter(|service| {
            let backends = &service.backends;
            !backends.is_empty() && backends.iter().all(|backend| without.contains(&backend.address))
        });
        let lonely: Vec<_> = lonely.filter_map(|service| service.vip).collect();
        without.extend(lonely);
        Some(Self { ranges, without })
    }

    pub fn address(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let (_, (range, other)) = self.ranges.range(..=address).next_back()?;
        twin(*range, *other, address).filter(|_| !self.without.contains(&address))
    }

    /// A whole network's is the whole of its IPv6 range, which may be longer.
    pub fn range(&self, part: Ipv4Net) -> Option<Ipv6Net> {
        let (_, (range, other)) = self.ranges.range(..=part.network()).next_back()?;
        if part.trunc() == *range {
            return Some(*other);
        }
        let first = twin(*range, *other, part.network()).filter(|_| range.contains(&part))?;
        Ipv6Net::new(first, 96 + part.prefix_len()).ok()
    }

    pub fn address_of(&self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(address) => self.address(address).map(IpAddr::V6),
            IpAddr::V6(_) => None,
        }
    }

    pub fn range_of(&self, range: IpNet) -> Option<IpNet> {
        match range {
            IpNet::V4(range) => self.range(range).map(IpNet::V6),
            IpNet::V6(_) => None,
        }
    }
}

/// The addresses, and the twins of those that have one.
pub(super) fn both<T: Ord + Copy>(some: impl IntoIterator<Item = T>, twin: impl Fn(T) -> Option<T>) -> BTreeSet<T> {
    some.into_iter().flat_map(|one| [Some(one), twin(one)]).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Driver;

    fn network(subnet: &str, subnet_v6: Option<&str>) -> Network {
        let subnet: Ipv4Net = subnet.parse().unwrap();
        Network {
            id: subnet.to_string(),
            name: subnet.to_string(),
            subnet,
            subnet_v6: subnet_v6.map(|range| range.parse().unwrap()),
            gateway: subnet.hosts().next().unwrap(),
            blocks: vec![],
            internal: false,
            driver: Driver::Overlay,
        }
    }

    fn found<T: ToString>(twin: Option<T>) -> String {
        twin.map(|twin| twin.to_string()).unwrap_or_default()
    }

    #[test]
    fn an_address_has_the_same_place_in_both_ranges() {
        let own = network("10.64.64.0/18", Some("fd12:3456:789a::a40:4000/114"));
        assert_eq!(found(own.twin([10, 64, 64, 1].into())), "fd12:3456:789a::a40:4001");
        let users = network("10.1.0.0/24", Some("fd00:1::/64"));
        assert_eq!(found(users.twin([10, 1, 0, 16].into())), "fd00:1::10");
        assert_eq!(users.twin([10, 1, 1, 0].into()), None, "outside");
        assert_eq!(users.twin([10, 0, 0, 1].into()), None, "before");
        assert_eq!(network("10.1.0.0/24", None).twin([10, 1, 0, 16].into()), None);
        let short = network("10.1.0.0/24", Some("fd00:1::/126"));
        assert_eq!(short.twin([10, 1, 0, 16].into()), None, "no room");
    }

    #[test]
    fn ranges_have_twins_of_their_length_and_a_network_its_whole_range() {
        let networks = vec![network("10.1.0.0/24", Some("fd00:1::/64")), network("10.2.0.0/24", None)];
        let node = NodeNetwork {
            v4_only: BTreeSet::from([[10, 1, 0, 9].into()]),
            networks,
            ..NodeNetwork::nothing("10.64.0.0/10".parse().unwrap())
        };
        let twins = Twins::of(&node).unwrap();
        let range = |text: &str| found(twins.range(text.parse().unwrap()));
        assert_eq!(range("10.1.0.64/26"), "fd00:1::40/122");
        assert_eq!(range("10.1.0.7/32"), "fd00:1::7/128");
        assert_eq!(range("10.1.0.0/24"), "fd00:1::/64");
        assert_eq!(range("10.2.0.64/26"), "");
        assert_eq!(range("10.0.0.0/8"), "");
        assert_eq!(found(twins.address([10, 1, 0, 8].into())), "fd00:1::8");
        assert_eq!(twins.address([10, 1, 0, 9].into()), None, "its node has no IPv6");
        assert!(Twins::of(&NodeNetwork { networks: vec![], ..node }).is_none());
    }

    #[test]
    fn nodes_addresses_are_found_in_the_clusters_range() {
        let prefix: Ipv6Net = "fd12:3456:789a::/48".parse().unwrap();
        let nodes = "10.127.240.0/20".parse().unwrap();
        assert_eq!(found(embedded(prefix, nodes)), "fd12:3456:789a::a7f:f000/116");
    }
}
