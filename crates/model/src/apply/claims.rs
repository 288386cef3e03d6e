//! What one alone may have: the ranges of networks, and ports on every node.
//!
//! Whoever writes has looked before, but at a picture that may be older than what is written now: two who ask at once
//! are then given the same. The second is refused, and asks again or is told.

use crate::{Cluster, Feature, Network, PortSpec, PublishMode, Rejection, Service};

impl Cluster {
    /// The first network whose range overlaps one of these.
    pub fn network_overlapping(&self, wanted: &Network) -> Option<&Network> {
        let overlaps = |other: &Network| {
            let v4 = other.subnet.contains(&wanted.subnet) || wanted.subnet.contains(&other.subnet);
            let pair = other.subnet_v6.zip(wanted.subnet_v6);
            v4 || pair.is_some_and(|(other, wanted)| other.contains(&wanted) || wanted.contains(&other))
        };
        self.networks.values().map(|network| &**network).find(|other| overlaps(other))
    }

    /// A port of every node that the service names and another has, and whose it is.
    pub fn port_of_another<'a>(&'a self, service: &'a Service) -> Option<(&'a PortSpec, &'a Service)> {
        let named = |port: &&PortSpec| port.mode == PublishMode::Ingress && port.published != 0;
        let same = |a: &PortSpec, b: &PortSpec| (a.protocol, a.published) == (b.protocol, b.published);
        let has = |other: &Service, port| {
            other.endpoint.ports.iter().chain(&other.spec.endpoint.ports).any(|p| same(p, port))
        };
        let others = || self.services.values().map(|other| &**other).filter(|other| other.id != service.id);
        let mut ports = service.spec.endpoint.ports.iter().filter(named);
        ports.find_map(|port| others().find(|other| has(other, port)).map(|other| (port, other)))
    }

    pub(super) fn keep_ranges_apart(&self, network: &Network) -> Result<(), Rejection> {
        match self.network_overlapping(network).filter(|_| self.has(Feature::Claims)) {
            None => Ok(()),
            Some(other) => {
                let what = format!("a part of {}, the subnet of network {},", network.subnet, network.spec.name);
                Err(Rejection::Taken { what, by: format!("network {}", other.spec.name) })
            }
        }
    }

    /// Of a new service alone: an update may be a rollback to what ran, which nothing must hold up.
    pub(super) fn keep_ports_apart(&self, service: &Service) -> Result<(), Rejection> {
        match self.port_of_another(service).filter(|_| self.has(Feature::Claims)) {
            None => Ok(()),
            Some((port, other)) => {
                let what = format!("port {} of service {}", port.published, service.name());
                Err(Rejection::Taken { what, by: format!("service {}", other.name()) })
            }
        }
    }
}
