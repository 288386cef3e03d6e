//! The networks that the stack's services are attached to.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use skep_compose_spec::project::{At, Attachment, Network};
use skep_model::NetworkSpec;

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
    if let Some(At { span, value: true }) = network.enable_ipv6 {
        cx.report.warning(span, format!("networks.{key}: IPv6 is not supported yet"));
    }
    let (subnet, gateway) = addresses(cx, key, network);
    NetworkSpec {
        name,
        labels: cx.labels(&network.labels),
        driver: "overlay".to_owned(),
        driver_options: network.driver_opts.clone(),
        internal: network.internal,
        attachable: network.attachable,
        subnet,
        gateway,
    }
}

/// The IPv4 range of the network and its gateway; of several ranges the first.
fn addresses(cx: &mut Context<'_>, key: &str, network: &Network) -> (Option<Ipv4Net>, Option<Ipv4Addr>) {
    let mut found = (None, None);
    for (index, config) in network.ipam.iter().enumerate() {
        let path = format!("networks.{key}.ipam.config.{index}");
        if let Some(at) = &config.ip_range {
            cx.report.warning(at.span, format!("{path}.ip_range is not supported yet: the whole subnet is used"));
        }
        let Some(At { span, value }) = &config.subnet else { continue };
        match value.parse::<IpNet>() {
            Ok(IpNet::V6(_)) => {
                cx.report.warning(*span, format!("{path}: IPv6 is not supported yet; the subnet is left out"));
            }
            Ok(IpNet::V4(subnet)) if found.0.is_none() => {
                found = (Some(subnet), gateway(cx, &path, config.gateway.as_ref()));
            }
            Ok(IpNet::V4(_)) => {
                cx.report.error(*span, format!("{path}: a network has one IPv4 subnet, and this is the second"));
            }
            Err(_) => {
                cx.report
                    .error(*span, format!("{path}.subnet: `{value}` is not a subnet"))
                    .with_help("write an address and its prefix length: 10.9.0.0/24");
            }
        }
    }
    found
}

fn gateway(cx: &mut Context<'_>, path: &str, written: Option<&At<String>>) -> Option<Ipv4Addr> {
    let At { span, value } = written?;
    let parsed = value.parse().ok();
    if parsed.is_none() {
        cx.report.error(*span, format!("{path}.gateway: `{value}` is not an IPv4 address"));
    }
    parsed
}
