//! The networks that the stack's services are attached to.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use skep_compose_spec::project::{At, Attachment, Network};
use skep_model::{NetworkSpec, Twins};

use super::Context;

/// Networks that Docker has on every node; here there are none of these.
const NODE_NETWORKS: [&str; 5] = ["host", "bridge", "none", "default", "ingress"];

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
        } else if NODE_NETWORKS.contains(&name.as_str()) {
            cx.report
                .error(network.span, format!("networks.{key}: there is no external network `{name}` in a cluster"))
                .with_help("use a network of the stack, or one made with `skep network create`");
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
    if let Some(At { span, value }) = network.driver.as_ref().filter(|at| !matches!(at.value.as_str(), "overlay" | ""))
    {
        cx.no_effect(*span, &format!("networks.{key}.driver: {value}"), "every network is an overlay over all nodes");
    }
    if let Some(At { span, value }) = network.ipam_driver.as_ref().filter(|at| at.value != "default") {
        cx.no_effect(*span, &format!("networks.{key}.ipam.driver: {value}"), "remove it");
    }
    let Ranges { subnet, gateway, subnet_v6 } = ranges(cx, key, network);
    NetworkSpec {
        name,
        labels: cx.labels(&network.labels),
        driver: "overlay".to_owned(),
        driver_options: network.driver_opts.clone(),
        internal: network.internal,
        attachable: network.attachable,
        subnet,
        gateway,
        ipv6: network.enable_ipv6.as_ref().map(|at| at.value),
        subnet_v6,
    }
}

/// What a network's `ipam` says.
#[derive(Default)]
struct Ranges {
    subnet: Option<Ipv4Net>,
    gateway: Option<Ipv4Addr>,
    subnet_v6: Option<Ipv6Net>,
}

/// The network's ranges and its gateway. There is one range of each family, and the IPv6 gateway follows from the other.
fn ranges(cx: &mut Context<'_>, key: &str, network: &Network) -> Ranges {
    let mut found = Ranges::default();
    let mut gateway_v6 = None;
    for (index, config) in network.ipam.iter().enumerate() {
        let path = format!("networks.{key}.ipam.config.{index}");
        if let Some(at) = &config.ip_range {
            cx.report.warning(at.span, format!("{path}.ip_range is not supported yet: the whole subnet is used"));
        }
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
