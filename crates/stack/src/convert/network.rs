//! The networks that the stack's services are attached to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use skep_compose_spec::project::{At, Attachment, IpamConfig, Network};
use skep_model::{Labels, NetworkDriver, NetworkSpec, Twins};

use super::Context;

/// Networks that Docker has on every node; here there are none of these.
const NODE_NETWORKS: [&str; 3] = ["bridge", "default", "ingress"];
/// Those that are not networks, but stand for the node's own and for none at all.
const MODES: [&str; 2] = ["host", "none"];

pub(super) fn convert(cx: &mut Context<'_>) {
    for key in used(cx) {
        let network = cx.project.networks.get(&key).cloned().unwrap_or_default();
        let name = cx.full_name(&key, network.name.as_deref(), network.external);
        if !network.external {
            let spec = spec(cx, &key, name, &network);
            if let Err(invalid) = spec.validate() {
                cx.invalid(network.span, &invalid);
            }
            cx.spec.networks.push(spec);
        } else if MODES.contains(&name.as_str()) {
            continue;
        } else if NODE_NETWORKS.contains(&name.as_str()) {
            cx.report
                .error(network.span, format!("networks.{key}: there is no external network `{name}` in a cluster"))
                .with_help("use a network of the stack (driver: bridge for one of each node), or one made with `skep network create`");
        } else {
            cx.spec.external.networks.insert(name);
        }
    }
}

/// Keys of the networks that a service is attached to, `default` included.
fn used(cx: &Context<'_>) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for service in cx.project.services.values() {
        match &service.attachment {
            Attachment::Networks(networks) if !networks.is_empty() => used.extend(networks.keys().cloned()),
            Attachment::Networks(_) => {
                used.insert("default".to_owned());
            }
            Attachment::Mode(mode) if matches!(mode.as_str(), "bridge" | "default") => {
                used.insert("default".to_owned());
            }
            Attachment::None | Attachment::Host | Attachment::Mode(_) => {}
        }
    }
    used
}

fn spec(cx: &mut Context<'_>, key: &str, name: String, network: &Network) -> NetworkSpec {
    let driver = driver(cx, key, network);
    if let Some(At { span, value }) = network.ipam_driver.as_ref().filter(|at| at.value != "default") {
        cx.no_effect(*span, &format!("networks.{key}.ipam.driver: {value}"), "remove it");
    }
    let Ranges { subnet, gateway, subnet_v6, ip_range, aux_addresses } = ranges(cx, key, network);
    NetworkSpec {
        name,
        labels: cx.labels(&network.labels),
        driver: driver.word().to_owned(),
        driver_options: driver_options(cx, key, driver, network),
        internal: network.internal,
        attachable: network.attachable,
        subnet,
        gateway,
        ipv6: network.enable_ipv6.as_ref().map(|at| at.value),
        subnet_v6,
        ip_range,
        aux_addresses,
    }
}

fn driver(cx: &mut Context<'_>, key: &str, network: &Network) -> NetworkDriver {
    let Some(At { span, value }) = &network.driver else { return NetworkDriver::Overlay };
    if value == NetworkDriver::Bridge.word() {
        // Files for one machine say so, and mean no more than a network.
        cx.report
            .warning(*span, format!("networks.{key}.driver: bridge keeps tasks of different nodes apart"))
            .with_help("remove it for a network over all nodes");
    }
    NetworkDriver::named(value).unwrap_or_else(|| {
        cx.report.error(*span, format!("networks.{key}.driver: `{value}` is not supported")).with_help(
            "use overlay (over all nodes), bridge (on each node one of its own) or macvlan (the local network)",
        );
        NetworkDriver::Overlay
    })
}

/// Options of Docker's bridges are the ones that files have; they say how a Linux bridge is made, and there is none.
fn driver_options(cx: &mut Context<'_>, key: &str, driver: NetworkDriver, network: &Network) -> Labels {
    let mut options = network.driver_opts.clone();
    let docker = |option: &String| option.starts_with("com.docker.network.");
    let span = network.driver.as_ref().map_or(network.span, |at| at.span);
    for option in network.driver_opts.keys().filter(|option| docker(option) && driver == NetworkDriver::Bridge) {
        cx.no_effect(span, &format!("networks.{key}.driver_opts.{option}"), "remove it");
        options.remove(option);
    }
    options
}

/// What a network's `ipam` says.
#[derive(Default)]
struct Ranges {
    subnet: Option<Ipv4Net>,
    gateway: Option<Ipv4Addr>,
    subnet_v6: Option<Ipv6Net>,
    ip_range: Option<Ipv4Net>,
    aux_addresses: BTreeMap<String, Ipv4Addr>,
}

/// The network's ranges and its gateway. There is one range of each family, and the IPv6 gateway follows from the other.
fn ranges(cx: &mut Context<'_>, key: &str, network: &Network) -> Ranges {
    let mut found = Ranges::default();
    let mut gateway_v6 = None;
    for (index, config) in network.ipam.iter().enumerate() {
        let path = format!("networks.{key}.ipam.config.{index}");
        parts(cx, &path, config, &mut found);
        let Some(At { span, value }) = &config.subnet else { continue };
        match value.parse::<IpNet>() {
            Ok(IpNet::V4(subnet)) if found.subnet.is_none() => {
                (found.subnet, found.gateway) = (Some(subnet), gateway(cx, &path, config.gateway.as_ref()));
            }
            Ok(IpNet::V6(subnet)) if found.subnet_v6.is_none() => {
                found.subnet_v6 = Some(subnet);
                gateway_v6 = config.gateway.as_ref().map(|at| (path, at));
            }
            Ok(subnet) => {
                let family = if subnet.addr().is_ipv4() { "IPv4" } else { "IPv6" };
                cx.report.error(*span, format!("{path}: a network has one {family} subnet, and this is the second"));
            }
            Err(_) => {
                cx.report
                    .error(*span, format!("{path}.subnet: `{value}` is not a subnet"))
                    .with_help("write an address and its prefix length: 10.9.0.0/24, fd00:9::/64");
            }
        }
    }
    if let Some((path, written)) = gateway_v6 {
        check_gateway_v6(cx, &path, written, &found);
    }
    found
}

/// What is said of parts of the range, for IPv4: an IPv6 address follows from that.
fn parts(cx: &mut Context<'_>, path: &str, config: &IpamConfig, found: &mut Ranges) {
    if let Some(At { span, value }) = &config.ip_range {
        match value.parse::<IpNet>() {
            Ok(IpNet::V4(range)) => found.ip_range = Some(range),
            Ok(IpNet::V6(_)) => {
                let what = format!("{path}.ip_range: {value}");
                cx.report
                    .warning(*span, format!("{what} has no effect: IPv6 addresses have the places of the IPv4 ones"))
                    .with_help("give an ip_range beside the IPv4 subnet");
            }
            Err(_) => {
                cx.report
                    .error(*span, format!("{path}.ip_range: `{value}` is not a range"))
                    .with_help("write a part of the subnet: 10.9.0.128/25");
            }
        }
    }
    for (name, value) in &config.aux_addresses {
        match value.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => drop(found.aux_addresses.insert(name.clone(), address)),
            Ok(IpAddr::V6(_)) => {}
            Err(_) => {
                cx.report.error(config.span, format!("{path}.aux_addresses.{name}: `{value}` is not an address"));
            }
        }
    }
}

/// Docker lets the IPv6 gateway be any address of the subnet; here it goes with the IPv4 one.
fn check_gateway_v6(cx: &mut Context<'_>, path: &str, written: &At<String>, ranges: &Ranges) {
    let At { span, value } = written;
    // Of any IPv4 subnet that may be chosen the first address is the gateway.
    let v4 = ranges.subnet.unwrap_or(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 18));
    let gateway = ranges.gateway.unwrap_or(Ipv4Addr::from_bits(v4.network().to_bits() + 1));
    let Some(right) = ranges.subnet_v6.and_then(|v6| Twins { v4, v6 }.of(gateway)) else { return };
    if value.parse::<IpAddr>() != Ok(right.into()) {
        cx.report
            .error(*span, format!("{path}.gateway: the gateway of this subnet is {right}, not `{value}`"))
            .with_help("leave it out, or write the address that has the place of the IPv4 gateway");
    }
}

fn gateway(cx: &mut Context<'_>, path: &str, written: Option<&At<String>>) -> Option<Ipv4Addr> {
    let At { span, value } = written?;
    let parsed = value.parse().ok();
    if parsed.is_none() {
        cx.report.error(*span, format!("{path}.gateway: `{value}` is not an IPv4 address"));
    }
    parsed
}
