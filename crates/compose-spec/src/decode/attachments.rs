//! How a service is reached: networks, ports, names.

use std::collections::BTreeMap;

use super::{Fields, service};
use crate::canonical::port_range;
use crate::project::{At, Attachment, Port, PortMode, Protocol, Service, ServiceNetwork};
use crate::value::{Entry, Value};

pub(super) fn decode(f: &mut Fields<'_, '_>, out: &mut Service) {
    out.attachment = attachment(f);
    out.ports = ports(f);
    out.expose = f.strings("expose");
    out.extra_hosts = service::extra_hosts(f);
    out.dns = f.strings_at("dns").into_iter().filter(|at| !at.value.is_empty()).collect();
    out.dns_search = f.strings("dns_search");
    out.dns_opt = f.strings("dns_opt");
}

fn attachment(f: &mut Fields<'_, '_>) -> Attachment {
    let networks = networks(f);
    let Some(At { span, value: mode }) = f.string_at("network_mode") else {
        return Attachment::Networks(networks);
    };
    if !networks.is_empty() {
        let path = f.path.clone();
        f.report
            .error(span, format!("{path} has both network_mode and networks"))
            .with_help("network_mode replaces the networks: remove one of the two");
    }
    match mode.as_str() {
        "none" => Attachment::None,
        "host" => Attachment::Host,
        _ => Attachment::Mode(mode),
    }
}

fn networks(f: &mut Fields<'_, '_>) -> BTreeMap<String, ServiceNetwork> {
    let path = f.at("networks");
    let mut networks = BTreeMap::new();
    for Entry { key, key_span, value } in f.entries("networks") {
        let mut network = ServiceNetwork { span: *key_span, ..ServiceNetwork::default() };
        if value.value != Value::Null {
            let Some(mut n) = Fields::open(value, format!("{path}.{key}"), f.report) else { continue };
            network.aliases = n.strings("aliases");
            network.ipv4_address = address(&mut n, "ipv4_address", "an IPv4 address");
            network.ipv6_address = address(&mut n, "ipv6_address", "an IPv6 address");
            n.unsupported(&["driver_opts", "interface_name", "link_local_ips", "mac_address"], None);
            n.unsupported(&["priority", "gw_priority"], Some("every network of a service is equal"));
            n.finish();
        }
        networks.insert(key.clone(), network);
    }
    networks
}

fn address<T: std::str::FromStr>(n: &mut Fields<'_, '_>, name: &'static str, what: &str) -> Option<At<T>> {
    let At { span, value } = n.string_at(name)?;
    let path = n.at(name);
    match value.parse() {
        Ok(value) => Some(At { span, value }),
        Err(_) => {
            n.report.error(span, format!("{path} must be {what}, not `{value}`"));
            None
        }
    }
}

fn ports(f: &mut Fields<'_, '_>) -> Vec<Port> {
    let path = f.at("ports");
    let mut ports = Vec::new();
    for (index, item) in f.items("ports").iter().enumerate() {
        let Some(mut p) = Fields::open(item, format!("{path}.{index}"), f.report) else { continue };
        let target = p.whole_at::<u16>("target");
        let published = published(&mut p);
        let host_ip = address(&mut p, "host_ip", "an IP address").map(|at| at.value);
        let protocol =
            p.choice("protocol", &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)]);
        let mode = p.choice("mode", &[("ingress", PortMode::Ingress), ("host", PortMode::Host)]);
        let name = p.string("name");
        // Says what speaks behind the port, to tools that read the file.
        p.string("app_protocol");
        match target {
            Some(At { span, value: 0 }) => {
                p.report.error(span, format!("{path}.{index}.target must be 1 to 65535"));
            }
            Some(At { value: target, .. }) => ports.push(Port {
                span: item.span,
                name,
                target,
                published,
                host_ip,
                protocol: protocol.map_or(Protocol::Tcp, |at| at.value),
                mode: mode.map_or(PortMode::Ingress, |at| at.value),
            }),
            None if item.as_map().is_some_and(|map| map.get("target").is_none()) => {
                p.report
                    .error(item.span, format!("{path}.{index} has no target"))
                    .with_help("target: is the container's port, published: the one outside");
            }
            None => {}
        }
        p.finish();
    }
    ports
}

fn published(p: &mut Fields<'_, '_>) -> Option<(u16, u16)> {
    let span = p.node("published")?.span;
    let text = p.text("published")?;
    if text.is_empty() || text == "0" {
        return None;
    }
    match port_range(&text) {
        Ok(range) => Some(range),
        Err(problem) => {
            let path = p.at("published");
            p.report
                .error(span, format!("{path}: {problem}"))
                .with_help("write 8080, or \"8080-8090\" for one of several");
            None
        }
    }
}
