//! One container's network namespace: its interfaces, addresses, routes and resolver rule.
//!
//! ```text
//!   node's namespace                        sandbox
//!   10.64.0.2/32 dev skv-… ─ skv-… ════════ eth0 10.64.0.2/18   10.64.0.0/18 via 10.64.0.1, default via 10.64.0.1
//!   10.64.0.0/26 dev skb-… 10.64.0.1/18     lo   127.0.0.11:53 -> the net helper's port
//! ```
//! The same with the twins of these addresses, where the network has IPv6.
//!
//! Links are routed, not bridged, so that one node is like many: the whole network lies behind the gateway, also
//! neighbours; every packet passes the rules, and so does every answer, which they may have to rewrite; there is no
//! ARP to spoof, and it makes no difference whether another program (Docker) switched bridge-nf-call-iptables on,
//! which turns a rewritten packet between two ports of a bridge into a bridged one.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::family::Family;
use super::route::{self, MAIN, Route};
use super::sysctl::Ipv6;
use super::{RealizeError, link, namespace, nft, sysctl};
use crate::netlink::{self, Message, NetlinkError, Socket};
use crate::plan::{Driver, Network, link_group, link_name};

/// A network that a sandbox is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub network: Network,
    /// The container's address.
    pub address: std::net::Ipv4Addr,
}

impl Attachment {
    /// The interface of the node that it is a station behind; none: the node routes to it.
    fn parent(&self) -> Option<&str> {
        match &self.network.driver {
            Driver::Macvlan { parent } => Some(parent),
            Driver::Overlay | Driver::Bridge => None,
        }
    }

    fn ipv6(&self) -> Ipv6 {
        if self.network.twin(self.address).is_some() { Ipv6::On } else { Ipv6::Off }
    }

    /// The container's address and the gateway's, for each family that the network has.
    fn hops(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let Self { network, address } = self;
        let v6 = network.twin(*address).zip(network.twin(network.gateway));
        let v6 = v6.map(|(address, gateway)| (address.into(), gateway.into()));
        [Some(((*address).into(), network.gateway.into())), v6].into_iter().flatten()
    }
}

/// Makes or completes the sandbox pinned at `path`. Works on a thread of its own, for it changes namespaces.
pub fn realize(id: &str, path: &Path, attachments: &[Attachment]) -> Result<(), RealizeError> {
    let work = || realize_on_this_thread(id, path, attachments);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("skep-sandbox".to_owned()).spawn_scoped(scope, work);
        let thread = thread.map_err(|source| RealizeError::Namespace { path: path.to_owned(), source })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn realize_on_this_thread(id: &str, path: &Path, attachments: &[Attachment]) -> Result<(), RealizeError> {
    let failed = |step: &'static str| {
        let id = id.to_owned();
        move |source: NetlinkError| RealizeError::Sandbox { id, step, source }
    };
    let setting = |interface: &str| {
        let interface = interface.to_owned();
        move |source: io::Error| RealizeError::Setting { key: format!("*/conf/{interface}"), source }
    };
    let mut node = Socket::open(netlink::Family::Route).map_err(failed("open a socket for"))?;
    let links: Vec<String> = attachments.iter().map(|a| link_name(id, &a.network.id)).collect();
    let own_namespace = namespace::open(Path::new("/proc/thread-self/ns/net"));
    let own_namespace = own_namespace.map_err(|source| RealizeError::Namespace { path: path.to_owned(), source })?;
    let (namespace, age) =
        namespace::enter_or_create(path).map_err(|source| RealizeError::Namespace { path: path.to_owned(), source })?;
    let mut inside = Socket::open(netlink::Family::Route).map_err(failed("open a socket in"))?;

    let mut pairs = Vec::new();
    for (place, (attachment, name)) in attachments.iter().zip(&links).enumerate() {
        let peer = interface(place);
        // A crash between the two ends' set-up, or another order of networks, leaves what must be made again.
        let is_inside = link::find(&mut inside, &peer).map_err(failed("look into"))?.is_some();
        if let Some(parent) = attachment.parent() {
            if !is_inside {
                let found = link::find(&mut node, parent).map_err(failed("look for the parent of"))?;
                let network = attachment.network.name.clone();
                let none = RealizeError::NoParent { network, parent: parent.to_owned() };
                let (parent, namespace) = (found.ok_or(none)?.index, namespace.as_fd());
                pairs.push(link::new_station(&link::Station {
                    name: &peer,
                    parent,
                    address: attachment.address,
                    namespace,
                }));
            }
            continue;
        }
        let complete = is_inside && link::find(&mut node, name).map_err(failed("look for the link of"))?.is_some();
        if !complete {
            pairs.push(link::delete(name));
            pairs.push(link::new_pair(&link::Pair {
                name,
                group: link_group(&attachment.network.id),
                gateway: attachment.network.gateway,
                peer: &peer,
                address: attachment.address,
                namespace: namespace.as_fd(),
            }));
        }
    }
    for (request, answer) in pairs.iter().zip(node.each(&pairs).map_err(failed("link"))?) {
        match answer {
            Err(error) if error.errno() == Some(libc::ENODEV) && is_deletion(request) => {}
            answer => answer.map_err(failed("link"))?,
        }
    }
    for (place, attachment) in attachments.iter().enumerate() {
        sysctl::set_ipv6(&interface(place), attachment.ipv6()).map_err(setting(&interface(place)))?;
        if attachment.parent().is_some() {
            sysctl::announce_addresses(&interface(place)).map_err(setting(&interface(place)))?;
        }
    }
    let indexes = inside_indexes(&mut inside, attachments).map_err(failed("look into"))?;
    inside.all(&requests_inside(&indexes, attachments)).map_err(failed("set up addresses and routes in"))?;
    let mut netfilter = Socket::open(netlink::Family::Netfilter).map_err(failed("open a socket in"))?;
    nft::realize_resolver(&mut netfilter, age).map_err(failed("set up the resolver of"))?;

    rustix::thread::move_into_link_name_space(own_namespace.as_fd(), None)
        .map_err(|source| RealizeError::Namespace { path: path.to_owned(), source: source.into() })?;
    let routed = || attachments.iter().zip(&links).filter(|(attachment, _)| attachment.parent().is_none());
    for (attachment, name) in routed() {
        sysctl::set_ipv6(name, attachment.ipv6()).map_err(setting(name))?;
        sysctl::loosen_reverse_path(name).map_err(setting(name))?;
    }
    let name_and_raise =
        |(attachment, name): (&Attachment, &String)| link::name_and_raise(name, &alias(id, &attachment.network.id));
    node.all(&routed().map(name_and_raise).collect::<Vec<_>>()).map_err(failed("raise the links of"))?;
    let mut routes = Vec::new();
    for (attachment, name) in routed() {
        let link = link::find(&mut node, name).map_err(failed("look for the link of"))?;
        let Some(index) = link.map(|link| link.index) else { continue };
        for (address, gateway) in attachment.hops() {
            let (to, source) = (IpNet::from(address), Some(gateway));
            // The link's own address is what a masqueraded source becomes, and what loose reverse path filtering wants.
            routes.push(link::new_address(index, IpNet::from(gateway)));
            routes.push(link::new_neighbour(index, address, attachment.address));
            routes.push(route::new(&Route { table: MAIN, to, gateway: None, source, index, mtu: None }));
        }
    }
    node.all(&routes).map_err(failed("route to"))
}

fn interface(place: usize) -> String {
    format!("eth{place}")
}

/// What a link is called for people, and how a later daemon knows whose it is.
fn alias(sandbox: &str, network: &str) -> String {
    format!("skep {sandbox} {network}")
}

/// The sandbox that a link's alias names.
pub fn owner(alias: &str) -> Option<&str> {
    let mut words = alias.split(' ');
    (words.next() == Some("skep")).then(|| words.next()).flatten()
}

fn is_deletion(request: &Message) -> bool {
    request.flags == 0
}

fn inside_indexes(inside: &mut Socket, attachments: &[Attachment]) -> Result<Vec<u32>, NetlinkError> {
    let links = link::list(inside)?;
    Ok((0..attachments.len()).filter_map(|place| links.get(&interface(place)).map(|link| link.index)).collect())
}

/// What it is on the local network: neighbours are asked for there, and only what is beyond goes to the gateway.
fn station(index: u32, attachment: &Attachment) -> Vec<Message> {
    let Attachment { network, address } = attachment;
    let own = network.own(*address);
    let near = Route {
        table: MAIN,
        to: network.subnet.into(),
        gateway: None,
        source: Some((*address).into()),
        index,
        mtu: None,
    };
    // Up last: what comes up with an address tells the neighbours of it.
    own.into_iter().map(|own| link::new_address(index, own)).chain([link::up(index), route::new(&near)]).collect()
}

fn requests_inside(indexes: &[u32], attachments: &[Attachment]) -> Vec<Message> {
    let mut requests = vec![link::up(link::LOOPBACK)];
    // One for each family: it leaves by the first network that has the family and a way out.
    let mut ways_out: BTreeMap<Family, Message> = BTreeMap::new();
    for (index, attachment) in indexes.iter().zip(attachments) {
        let Attachment { network, address } = attachment;
        if attachment.parent().is_some() {
            requests.extend(station(*index, attachment));
            if !network.internal {
                let gateway = Some(network.gateway.into());
                let way = Route {
                    table: MAIN,
                    to: Ipv4Net::default().into(),
                    gateway,
                    source: None,
                    index: *index,
                    mtu: None,
                };
                ways_out.entry(Family::V4).or_insert_with(|| route::new(&way));
            }
            continue;
        }
        // First up: an interface that is down would lose IPv6's addresses when it goes up.
        requests.push(link::up(*index));
        requests.extend(network.own(*address).into_iter().map(|own| link::new_address(*index, own)));
        for (_, gateway) in attachment.hops() {
            let route =
                |to, gateway| route::new(&Route { table: MAIN, to, gateway, source: None, index: *index, mtu: None });
            requests.push(link::new_neighbour(*index, gateway, network.gateway));
            requests.push(route(IpNet::from(gateway), None));
            let (whole, anywhere) = match network.subnet_v6.filter(|_| gateway.is_ipv6()) {
                Some(subnet) => (IpNet::V6(subnet), Ipv6Net::default().into()),
                None => (IpNet::V4(network.subnet), Ipv4Net::default().into()),
            };
            requests.push(route(whole, Some(gateway)));
            if !network.internal {
                ways_out.entry(Family::of(gateway)).or_insert_with(|| route(anywhere, Some(gateway)));
            }
        }
    }
    requests.extend(ways_out.into_values());
    requests
}
