//! Top-level networks, volumes, secrets and configs.

use super::Fields;
use crate::diagnostic::Report;
use crate::project::{At, IpamConfig, Network, Strings, Volume};
use crate::source::Span;
use crate::value::{Entry, Value};

pub(super) fn network(entry: &Entry, report: &mut Report) -> Network {
    let mut network = Network { span: entry.key_span, ..Network::default() };
    let Some(mut n) = open(entry, "networks", report) else { return network };
    network.external = n.bool("external").unwrap_or(false);
    network.name = n.string("name");
    network.driver = n.string_at("driver");
    network.driver_opts = n.string_map("driver_opts");
    network.internal = n.bool("internal").unwrap_or(false);
    network.attachable = n.bool("attachable").unwrap_or(false);
    network.enable_ipv6 = n.node("enable_ipv6").map(|node| node.span).and_then(|span| {
        let value = n.bool("enable_ipv6")?;
        Some(At { span, value })
    });
    network.labels = n.string_map("labels");
    if let Some(mut ipam) = n.child("ipam") {
        network.ipam_driver = ipam.string_at("driver");
        network.ipam = ipam_configs(&mut ipam);
        ipam.unsupported(&["options"], None);
        ipam.finish();
    }
    n.unsupported(&["enable_ipv4"], None);
    only_external(&mut n, entry, network.external);
    n.finish();
    network
}

fn ipam_configs(ipam: &mut Fields<'_, '_>) -> Vec<IpamConfig> {
    let path = ipam.at("config");
    let mut configs = Vec::new();
    for (index, item) in ipam.items("config").iter().enumerate() {
        let Some(mut c) = Fields::open(item, format!("{path}.{index}"), ipam.report) else { continue };
        configs.push(IpamConfig {
            span: item.span,
            subnet: c.string_at("subnet"),
            gateway: c.string_at("gateway"),
            ip_range: c.string_at("ip_range"),
            aux_addresses: c.string_map("aux_addresses"),
        });
        c.finish();
    }
    configs
}

pub(super) fn volume(entry: &Entry, report: &mut Report) -> Volume {
    let mut volume = Volume { span: entry.key_span, ..Volume::default() };
    let Some(mut v) = open(entry, "volumes", report) else { return volume };
    volume.external = v.bool("external").unwrap_or(false);
    volume.name = v.string("name");
    volume.driver = v.string("driver");
    volume.driver_opts = v.string_map("driver_opts");
    volume.labels = v.string_map("labels");
    only_external(&mut v, entry, volume.external);
    v.finish();
    volume
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Secret,
    Config,
}

/// A secret or config whose bytes are still to be read.
pub(crate) struct RawContent {
    pub span: Span,
    pub name: Option<String>,
    pub labels: Strings,
    pub template_driver: Option<At<String>>,
    pub source: RawSource,
}

pub(crate) enum RawSource {
    External,
    File(At<String>),
    Environment(At<String>),
    Inline(String),
}

pub(super) fn content(entry: &Entry, kind: Kind, report: &mut Report) -> Option<RawContent> {
    let section = match kind {
        Kind::Secret => "secrets",
        Kind::Config => "configs",
    };
    if entry.value.value == Value::Null {
        report
            .error(entry.key_span, format!("{section}.{} says nothing", entry.key))
            .with_help("give it file:, environment: or external: true");
        return None;
    }
    let mut c = open(entry, section, report)?;
    let path = c.path.clone();
    let external = c.bool("external").unwrap_or(false);
    let name = c.string("name");
    let labels = c.string_map("labels");
    let template_driver = c.string_at("template_driver");
    let file = c.string_at("file");
    let environment = c.string_at("environment");
    let inline = match kind {
        Kind::Config => c.string("content"),
        Kind::Secret => {
            c.refused("driver", "secrets come from file:, environment:, or external: true");
            c.nullable("driver_opts");
            None
        }
    };
    only_external(&mut c, entry, external);
    let choices: &str = match kind {
        Kind::Secret => "file or environment",
        Kind::Config => "file, environment or content",
    };
    let given = [file.is_some(), environment.is_some(), inline.is_some()].iter().filter(|given| **given).count();
    let source = match (external, file, environment, inline) {
        (true, ..) => Some(RawSource::External),
        _ if given > 1 => {
            c.report.error(entry.key_span, format!("{path} must have only one of {choices}"));
            None
        }
        (_, Some(file), ..) => Some(RawSource::File(file)),
        (_, _, Some(variable), _) => Some(RawSource::Environment(variable)),
        (_, _, _, Some(text)) => Some(RawSource::Inline(text)),
        (false, None, None, None) => {
            let wrong_type = entry.value.as_map().is_some_and(|map| {
                ["file", "environment", "content", "driver"].iter().any(|key| map.get(key).is_some())
            });
            if !wrong_type {
                c.report
                    .error(entry.key_span, format!("{path} has none of {choices}"))
                    .with_help("say where its bytes come from, or external: true for one that the cluster has");
            }
            None
        }
    };
    c.finish();
    Some(RawContent { span: entry.key_span, name, labels, template_driver, source: source? })
}

fn open<'n, 'r>(entry: &'n Entry, section: &str, report: &'r mut Report) -> Option<Fields<'n, 'r>> {
    if entry.value.value == Value::Null {
        return None;
    }
    Fields::open(&entry.value, format!("{section}.{}", entry.key), report)
}

/// What the project does not make it cannot describe either.
fn only_external(f: &mut Fields<'_, '_>, entry: &Entry, external: bool) {
    let Some(map) = entry.value.as_map().filter(|_| external) else { return };
    for other in &map.entries {
        if !matches!(other.key.as_str(), "external" | "name") && !other.key.starts_with("x-") {
            let path = f.path.clone();
            f.report
                .error(other.key_span, format!("{path} is external, so `{}` cannot be set here", other.key))
                .with_help("remove it, or remove external: true");
        }
    }
}
