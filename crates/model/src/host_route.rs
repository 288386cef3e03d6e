//! Networks that a machine has a route to of its own, and those of the cluster's ranges that they collide with.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::Cluster;

/// A route that is not skep's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRoute {
    pub to: Ipv4Net,
    pub interface: String,
    /// The machine's own address there, where it has one.
    pub source: Option<Ipv4Addr>,
}

impl HostRoute {
    /// Whether containers in `range` and what is behind this route hide each other. A wider route does not matter, for
    /// the narrower one wins, unless the machine itself has an address in the range.
    pub fn collides(&self, range: &Ipv4Net) -> bool {
        let is_default = self.to.prefix_len() == 0;
        range.contains(&self.to) || (!is_default && self.source.is_some_and(|source| range.contains(&source)))
    }
}

/// A range of the cluster's that collides with a machine's route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collision {
    pub route: HostRoute,
    pub range: Ipv4Net,
    /// The network that has the range; none: it is the address pool.
    pub network: Option<String>,
}

impl std::fmt::Display for Collision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { route: HostRoute { to, interface, .. }, range, network } = self;
        write!(f, "the route to {to} by {interface} collides with {range}, ")?;
        match network {
            Some(network) => write!(f, "the subnet of network {network}"),
            None => f.write_str("the cluster's address pool"),
        }
    }
}

impl Cluster {
    /// The first of the cluster's ranges that collides with one of `routes`; a network's is told rather than the pool.
    pub fn collision(&self, routes: &[HostRoute]) -> Option<Collision> {
        let networks = self.networks.values().map(|network| (network.subnet, Some(network.spec.name.clone())));
        let pool = self.config.as_ref().map(|config| (config.spec.address_pool, None));
        networks.chain(pool).find_map(|(range, network)| {
            let route = routes.iter().find(|route| route.collides(&range))?.clone();
            Some(Collision { route, range, network })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collides(to: &str, source: Option<&str>, range: &str) -> bool {
        let source = source.map(|source| source.parse().unwrap());
        let route = HostRoute { to: to.parse().unwrap(), interface: "eth1".to_owned(), source };
        route.collides(&range.parse().unwrap())
    }

    #[test]
    fn what_lies_within_collides_and_what_is_wider_does_where_the_machine_itself_is() {
        assert!(collides("10.100.0.0/24", None, "10.64.0.0/10"));
        assert!(collides("10.64.0.0/10", None, "10.64.0.0/10"));
        assert!(!collides("10.0.0.0/8", None, "10.64.0.0/10"), "a VPN's: the cluster's range is narrower");
        assert!(!collides("10.0.0.0/8", Some("10.1.2.3"), "10.64.0.0/10"));
        assert!(collides("10.0.0.0/8", Some("10.70.2.3"), "10.64.0.0/10"));
        assert!(!collides("0.0.0.0/0", Some("10.70.2.3"), "10.64.0.0/10"), "its network has a route of its own");
        assert!(!collides("192.168.1.0/24", Some("192.168.1.2"), "10.64.0.0/10"));
    }
}
