//! How a service is reached: its networks and published ports.

use skep_compose_spec::project::{self, At, Attachment, Port, PortMode, Protocol, Service, ServiceNetwork};
use skep_model::{
    EndpointMode, EndpointSpec, Mode, NetworkAttachment, PortProtocol, PortSpec, PublishMode, SessionAffinity,
};

use super::{Context, Published};

/// A range of published ports longer than this is a mistake more often than a wish.
const RANGE_MAX: u16 = 1_000;

pub(super) fn networks(cx: &mut Context<'_>, service: &Service, mode: Mode) -> Vec<NetworkAttachment> {
    let at = service.wrote("network_mode").unwrap_or(service.span);
    let named = match &service.attachment {
        Attachment::Networks(networks) => networks.clone(),
        Attachment::None => return Vec::new(),
        Attachment::Mode(mode) if matches!(mode.as_str(), "bridge" | "default") => {
            cx.no_effect(at, &format!("services.{}.network_mode: {mode}", service.name), "remove it, or use networks");
            Default::default()
        }
        Attachment::Host => return Vec::new(),
        Attachment::Mode(mode) => return refused(cx, service, mode),
    };
    if let Some(mode) = stands_for(cx, service) {
        let span = named.values().map(|network| network.span).next().unwrap_or(service.span);
        if named.len() > 1 {
            let problem = format!("services.{}: the external network `{mode}` cannot be one of several", service.name);
            cx.report.error(span, problem).with_help("remove the others, or this one");
        }
        return Vec::new();
    }
    let default = [("default".to_owned(), ServiceNetwork { span: service.span, ..ServiceNetwork::default() })];
    let named = if named.is_empty() { default.into() } else { named };
    let mut attachments: Vec<NetworkAttachment> =
        named.iter().map(|(key, network)| attachment(cx, service, mode, key, network)).collect();
    attachments.sort_by(|a, b| a.network.cmp(&b.network));
    attachments
}

/// The predefined network of Docker's that one of the service's networks stands for: `host` or `none`.
fn stands_for<'a>(cx: &Context<'a>, service: &Service) -> Option<&'a str> {
    let Attachment::Networks(networks) = &service.attachment else { return None };
    let declared = networks.keys().filter_map(|key| Some((key, cx.project.networks.get(key)?)));
    let external = declared.filter(|(_, network)| network.external);
    let mut names = external.map(|(key, network)| network.name.as_deref().unwrap_or(key));
    names.find_map(|name| ["host", "none"].into_iter().find(|predefined| *predefined == name))
}

/// Whether the service is in the network of its node itself.
pub(super) fn is_host(cx: &Context<'_>, service: &Service) -> bool {
    service.attachment == Attachment::Host || stands_for(cx, service) == Some("host")
}

fn refused(cx: &mut Context<'_>, service: &Service, mode: &str) -> Vec<NetworkAttachment> {
    let at = service.wrote("network_mode").unwrap_or(service.span);
    cx.report
        .error(at, format!("services.{}.network_mode: {mode} is not supported", service.name))
        .with_help("use networks, and ports with mode: host to publish on the task's own node");
    Vec::new()
}

fn attachment(
    cx: &mut Context<'_>,
    service: &Service,
    mode: Mode,
    key: &str,
    network: &ServiceNetwork,
) -> NetworkAttachment {
    let declared = cx.project.networks.get(key);
    let (name, external) = declared.map_or((None, false), |network| (network.name.as_deref(), network.external));
    let path = format!("services.{}.networks.{key}", service.name);
    let fixed = [
        network.ipv4_address.as_ref().map(|at| ("ipv4_address", at.span)),
        network.ipv6_address.as_ref().map(|at| ("ipv6_address", at.span)),
    ];
    for (setting, span) in fixed.into_iter().flatten().filter(|_| mode != (Mode::Replicated { replicas: 1 })) {
        cx.report
            .error(span, format!("{path}: one address cannot be given to several tasks"))
            .with_help(format!("remove {setting}, and reach the service by its name"));
    }
    // A service answers to its short name on each of its networks.
    let mut aliases = network.aliases.clone();
    if !aliases.contains(&service.name) {
        aliases.push(service.name.clone());
    }
    NetworkAttachment {
        network: cx.full_name(key, name, external),
        aliases,
        address: network.ipv4_address.as_ref().map(|at| at.value),
        address_v6: network.ipv6_address.as_ref().map(|at| at.value),
    }
}

pub(super) fn endpoint(cx: &mut Context<'_>, service: &Service) -> EndpointSpec {
    let mode = match service.deploy.endpoint_mode {
        Some(At { value: project::EndpointMode::Dnsrr, .. }) => EndpointMode::DnsRr,
        Some(At { value: project::EndpointMode::Vip, .. }) | None => EndpointMode::Vip,
    };
    if let Some(port) = service.ports.first().filter(|_| is_nowhere(cx, service)) {
        let (what, help) = match is_host(cx, service) {
            true => ("network_mode: host", "remove it: the container's ports are the node's own"),
            false => ("network_mode: none", "remove it, or give the service a network"),
        };
        cx.report
            .warning(port.span, format!("services.{}.ports has no effect with {what}", service.name))
            .with_help(help);
        return EndpointSpec { mode, ports: Vec::new(), session_affinity: None, prefer_local: false };
    }
    let mut ports = Vec::new();
    for port in &service.ports {
        for spec in self::ports(cx, service, port) {
            published_once(cx, service, port, &spec);
            if mode == EndpointMode::DnsRr && spec.mode == PublishMode::Ingress {
                let problem =
                    format!("services.{}: port {} cannot be published by the routing mesh", service.name, spec.target);
                cx.report
                    .error(port.span, format!("{problem} with endpoint_mode: dnsrr"))
                    .with_help("publish it with mode: host, or use endpoint_mode: vip");
            }
            ports.push(spec);
        }
    }
    ports.sort_by_key(|port| (port.published, port.target, port.protocol, port.mode, port.host_ip));
    let (session_affinity, prefer_local) = balancing(cx, service, mode);
    EndpointSpec { mode, ports, session_affinity, prefer_local }
}

/// `x-skep.session-affinity` and `x-skep.prefer-local`, which only those can honour who choose the task.
fn balancing(cx: &mut Context<'_>, service: &Service, mode: EndpointMode) -> (Option<SessionAffinity>, bool) {
    let project::Extension { session_affinity, prefer_local, .. } = &service.skep;
    let affinity = session_affinity.as_ref().filter(|at| at.value == project::SessionAffinity::ClientIp);
    let local = prefer_local.as_ref().filter(|at| at.value);
    let asked = [("session-affinity", affinity.map(|at| at.span)), ("prefer-local", local.map(|at| at.span))];
    for (name, span) in asked.into_iter().filter_map(|(name, span)| Some((name, span?))) {
        if mode == EndpointMode::DnsRr {
            let problem = format!("services.{}: x-skep.{name} has no effect with endpoint_mode: dnsrr", service.name);
            cx.report
                .error(span, problem)
                .with_help("with dnsrr clients choose a task themselves; use endpoint_mode: vip, or remove the line");
        }
    }
    (affinity.map(|_| SessionAffinity::ClientIp), local.is_some())
}

/// Whether no port can lead to its tasks.
fn is_nowhere(cx: &Context<'_>, service: &Service) -> bool {
    matches!(service.attachment, Attachment::Host | Attachment::None) || stands_for(cx, service).is_some()
}

/// The routing mesh has one owner for each port; on its own node a task must be alone with it, too.
fn published_once(cx: &mut Context<'_>, service: &Service, port: &Port, spec: &PortSpec) {
    if spec.published == 0 {
        return;
    }
    let meets = |other: &Published| {
        let overlap = other.port.host_ip.is_none() || spec.host_ip.is_none() || other.port.host_ip == spec.host_ip;
        let both_host = other.port.mode == PublishMode::Host && spec.mode == PublishMode::Host;
        let same = (other.port.published, other.port.protocol) == (spec.published, spec.protocol);
        same && overlap && (other.service == service.name || !both_host)
    };
    if let Some(other) = cx.published.iter().find(|other| meets(other)) {
        let (owner, place) = (other.service.clone(), cx.report.sources.place(other.span));
        let (number, protocol) = (spec.published, spec.protocol.word());
        cx.report
            .error(
                port.span,
                format!("services.{}: {owner} already publishes {number}/{protocol} ({place})", service.name),
            )
            .with_help("publish another port");
    }
    cx.published.push(Published { service: service.name.clone(), span: port.span, port: spec.clone() });
}

/// A range of published ports for one target becomes one port each, as in `docker stack deploy`.
fn ports(cx: &mut Context<'_>, service: &Service, port: &Port) -> Vec<PortSpec> {
    let protocol = match port.protocol {
        Protocol::Tcp => PortProtocol::Tcp,
        Protocol::Udp => PortProtocol::Udp,
        Protocol::Sctp => {
            cx.report.error(port.span, format!("services.{}: ports of sctp are not supported", service.name));
            return Vec::new();
        }
    };
    let (first, last) = port.published.unwrap_or((0, 0));
    if last - first >= RANGE_MAX {
        cx.report
            .error(port.span, format!("services.{}: {first}-{last} are more than {RANGE_MAX} ports", service.name))
            .with_help("publish the ports that are used");
        return Vec::new();
    }
    let one = |published| PortSpec {
        name: port.name.clone(),
        protocol,
        target: port.target,
        published,
        mode: match port.mode {
            PortMode::Ingress => PublishMode::Ingress,
            PortMode::Host => PublishMode::Host,
        },
        host_ip: port.host_ip,
    };
    (first..=last).map(one).collect()
}
