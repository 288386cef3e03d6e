//! The helper's snapshot: which names each network has, and which ports are held.
//!
//! Services' names win over containers', for a service is what users name in their files.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use super::twins::Twins;
use super::{Choice, NodeNetwork, Service};
use crate::snapshot::{FORMAT, Listener, Name, NameKind, Outside, RESOLVER_PORT, Snapshot, View, Zone};

pub(super) fn snapshot(node: &NodeNetwork, twins: Option<&Twins>, namespaces: &Path) -> Snapshot {
    Snapshot {
        format: FORMAT,
        resolver_port: RESOLVER_PORT,
        upstreams: node.upstreams.clone(),
        zones: node
            .networks
            .iter()
            .map(|network| (network.id.clone(), with_twins(zone(node, &network.id, &network.name), twins)))
            .collect(),
        sandboxes: views(node, namespaces),
        listeners: listeners(node),
        // Whether the helper carries one is the node's to say.
        tunnel: None,
    }
}

/// Whoever has an IPv6 address has it under the same names.
fn with_twins(mut zone: Zone, twins: Option<&Twins>) -> Zone {
    let Some(twins) = twins else { return zone };
    for name in zone.names.values_mut() {
        let more: Vec<_> = name.addresses.iter().filter_map(|address| twins.address_of(*address)).collect();
        name.addresses.extend(more);
    }
    let more = zone.reverse.iter().filter_map(|(address, name)| Some((twins.address_of(*address)?, name.clone())));
    let more: Vec<_> = more.collect();
    zone.reverse.extend(more);
    zone
}

fn zone(node: &NodeNetwork, network: &str, name: &str) -> Zone {
    let mut zone = Zone { name: canonical(name), ..Zone::default() };
    let endpoints = node.endpoints.iter().filter(|endpoint| endpoint.network == network);
    let here = endpoints.map(|endpoint| (endpoint.address, &endpoint.names, endpoint.serving));
    let elsewhere = node.elsewhere.iter().filter(|container| container.network == network);
    // What other nodes say of their containers is that they serve.
    let elsewhere = elsewhere.map(|container| (container.address, &container.names, true));
    let mut holders: BTreeMap<String, Vec<(Ipv4Addr, bool)>> = BTreeMap::new();
    for (address, names, serving) in here.chain(elsewhere) {
        for name in names {
            holders.entry(canonical(name)).or_default().push((address, serving));
        }
        if let Some(first) = names.first() {
            zone.reverse.insert(address.into(), format!("{}.{}", canonical(first), zone.name));
        }
    }
    for (name, holders) in holders {
        zone.names.insert(name, shared(&holders));
    }
    for service in node.services.iter().filter(|service| service.network == network) {
        add_service(&mut zone, service);
    }
    zone
}

/// A name that one container has resolves from its start, so that members of a cluster find each other before they
/// are ready; a name that several share leads to those that serve, as long as one does.
fn shared(holders: &[(Ipv4Addr, bool)]) -> Name {
    let some_serve = holders.iter().any(|(_, serving)| *serving);
    let chosen: BTreeSet<IpAddr> =
        holders.iter().filter(|(_, serving)| *serving || !some_serve).map(|(address, _)| (*address).into()).collect();
    let kind = if holders.len() > 1 { NameKind::Tasks } else { NameKind::Container };
    Name { kind, addresses: chosen.into_iter().collect() }
}

fn add_service(zone: &mut Zone, service: &Service) {
    let serving: BTreeSet<IpAddr> =
        service.backends.iter().filter(|backend| backend.serving).map(|backend| backend.address.into()).collect();
    let tasks = Name { kind: NameKind::Tasks, addresses: serving.into_iter().collect() };
    let own = match service.vip {
        Some(vip) => Name { kind: NameKind::Vip, addresses: vec![vip.into()] },
        None => tasks.clone(),
    };
    for name in service.names.iter().map(|name| canonical(name)) {
        merge(zone, format!("tasks.{name}"), tasks.clone());
        merge(zone, name, own.clone());
    }
    if let (Some(vip), Some(first)) = (service.vip, service.names.first()) {
        zone.reverse.insert(vip.into(), format!("{}.{}", canonical(first), zone.name));
    }
}

/// Two services may share an alias: both answer. A container's name that equals a service's gives way.
fn merge(zone: &mut Zone, name: String, add: Name) {
    match zone.names.get_mut(&name) {
        Some(known) if known.kind == add.kind && known.kind != NameKind::Container => {
            known.addresses.extend(add.addresses);
            known.addresses.sort();
            known.addresses.dedup();
        }
        _ => {
            zone.names.insert(name, add);
        }
    }
}

fn views(node: &NodeNetwork, namespaces: &Path) -> BTreeMap<String, View> {
    let internal: BTreeMap<&str, bool> = node.networks.iter().map(|n| (n.id.as_str(), n.internal)).collect();
    let mut views: BTreeMap<String, View> = BTreeMap::new();
    for endpoint in &node.endpoints {
        let view = views.entry(endpoint.sandbox.clone()).or_insert_with(|| View {
            netns: namespaces.join(&endpoint.sandbox),
            networks: Vec::new(),
            outside: Outside::Deny,
            search: node.search.clone(),
        });
        if !view.networks.contains(&endpoint.network) {
            view.networks.push(endpoint.network.clone());
        }
        if internal.get(endpoint.network.as_str()) == Some(&false) {
            view.outside = Outside::Forward;
        }
    }
    views
}

fn listeners(node: &NodeNetwork) -> Vec<Listener> {
    let here = node.here();
    let mut listeners: Vec<Listener> = node
        .published
        .iter()
        .map(|port| {
            let chosen = port.balance.chosen(port.backends.iter().copied(), &here).into_iter();
            Listener {
                protocol: port.protocol,
                bind: port.bind,
                port: port.published,
                backends: chosen.map(|address| SocketAddr::new(address.into(), port.target)).collect(),
                by_client: port.balance.choice == Choice::ByClient,
            }
        })
        .collect();
    listeners.sort();
    listeners
}

/// Lower case, without the trailing dot.
fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
