//! One service.

use std::net::IpAddr;

use super::{Decoded, EnvFile, Fields, attachments, deploy, fields, mounts, process};
use crate::diagnostic::Report;
use crate::project::{
    At, Concurrency, Device, Extension, PlacementStrategy, Rebalance, Service, SessionAffinity, VolumeRule,
};
use crate::value::{Entry, Map};

/// Attributes of the format that nothing here acts on yet.
const UNSUPPORTED: [&str; 28] = [
    "attach",
    "blkio_config",
    "cgroup",
    "cgroup_parent",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpu_shares",
    "cpuset",
    "credential_spec",
    "device_cgroup_rules",
    "gpus",
    "ipc",
    "isolation",
    "mac_address",
    "mem_swappiness",
    "memswap_limit",
    "models",
    "oom_kill_disable",
    "pid",
    "runtime",
    "storage_opt",
    "use_api_socket",
    "userns_mode",
    "uts",
];

/// Attributes that people look for at the service itself.
const MISPLACED: [(&str, &[&str]); 6] = [
    (
        "deploy:",
        &[
            "replicas",
            "mode",
            "placement",
            "resources",
            "restart_policy",
            "update_config",
            "rollback_config",
            "endpoint_mode",
        ],
    ),
    ("deploy: placement:", &["constraints", "preferences", "max_replicas_per_node"]),
    ("deploy: resources:", &["limits", "reservations"]),
    ("deploy: resources: limits:", &["memory", "pids"]),
    ("healthcheck:", &["test", "interval", "timeout", "retries", "start_period", "start_interval"]),
    ("networks: NAME:", &["aliases", "ipv4_address"]),
];

/// Sub-attributes of `build`.
const BUILD: [&str; 24] = [
    "additional_contexts",
    "args",
    "cache_from",
    "cache_to",
    "dockerfile",
    "dockerfile_inline",
    "entitlements",
    "extra_hosts",
    "isolation",
    "labels",
    "network",
    "no_cache",
    "no_cache_filter",
    "platforms",
    "privileged",
    "provenance",
    "pull",
    "sbom",
    "secrets",
    "shm_size",
    "ssh",
    "tags",
    "target",
    "ulimits",
];

pub(super) fn decode(entry: &Entry, decoded: &mut Decoded, report: &mut Report) {
    let name = entry.key.clone();
    let path = format!("services.{name}");
    let Some(mut f) = Fields::open(&entry.value, path, report) else { return };
    let mut service = Service { name: name.clone(), span: entry.key_span, ..Service::default() };
    if let Some(map) = entry.value.as_map() {
        service.written = written(map);
    }
    identity(&mut f, &mut service);
    process::decode(&mut f, &mut service);
    confinement(&mut f, &mut service);
    attachments::decode(&mut f, &mut service);
    mounts::decode(&mut f, &mut service);
    deploy::decode(&mut f, &mut service);
    service.skep = extension(&mut f);
    decoded.env_files.insert(name.clone(), env_files(&mut f));
    let label_files = f.strings_at("label_file").into_iter();
    let label_files = label_files.map(|path| EnvFile { path, required: true, raw: false });
    decoded.label_files.insert(name.clone(), label_files.collect());
    // Followed while the files were put together.
    f.nullable("extends");
    f.unsupported(&UNSUPPORTED, None);
    f.unsupported(&["links", "external_links"], Some("services of one network reach each other by name"));
    f.belongs(&MISPLACED);
    f.unsupported(&["develop"], Some("it is for `docker compose watch`"));
    f.unsupported(&["pull_refresh_after"], Some("use pull_policy"));
    f.unsupported(&["pre_start"], Some("do it in the image's entry point, or in a job that the service depends_on"));
    f.refused("volumes_from", "name the volumes in both services");
    f.refused("provider", "a cluster runs containers only; run the provider's service as one");
    f.finish();
    decoded.project.services.insert(name, service);
}

fn written(map: &Map) -> std::collections::BTreeMap<String, crate::source::Span> {
    map.entries.iter().map(|entry| (entry.key.clone(), entry.key_span)).collect()
}

fn identity(f: &mut Fields<'_, '_>, service: &mut Service) {
    service.image = f.filled("image");
    service.pull_policy = process::pull_policy(f);
    service.platform = f.filled("platform");
    service.build_context = build_context(f);
    service.container_name = f.filled("container_name");
    service.labels = f.string_map("labels");
    service.annotations = f.string_map("annotations");
    service.profiles = f.strings("profiles");
}

/// `x-skep` is ours: what is not known in it is refused like any other attribute.
fn extension(f: &mut Fields<'_, '_>) -> Extension {
    let Some(mut x) = f.child("x-skep") else { return Extension::default() };
    let at_most_one = x.node("at-most-one").map(|node| node.span).zip(x.bool("at-most-one"));
    let at_most_one = at_most_one.map(|(span, value)| At { span, value });
    let deadline = x.node("progress-deadline").map(|node| node.span).zip(x.duration("progress-deadline"));
    let words = [("forbid", Concurrency::Forbid), ("allow", Concurrency::Allow), ("replace", Concurrency::Replace)];
    let on_change = x.node("on-change").map(|node| node.span).zip(x.string("on-change"));
    let on_change = on_change.map(|(span, value)| At { span, value });
    let prefer_local = x.node("prefer-local").map(|node| node.span).zip(x.bool("prefer-local"));
    let affinities = [("client-ip", SessionAffinity::ClientIp), ("none", SessionAffinity::None)];
    let strategies = [("spread", PlacementStrategy::Spread), ("binpack", PlacementStrategy::BinPack)];
    let rules = [("follow", VolumeRule::Follow), ("free", VolumeRule::Free), ("stay", VolumeRule::Stay)];
    let extension = Extension {
        at_most_one,
        drain: x.duration("drain"),
        on_change,
        placement: x.choice("placement", &strategies),
        affinity: x.strings_at("affinity"),
        anti_affinity: x.strings_at("anti-affinity"),
        priority: x.whole("priority"),
        min_available: x.whole_at("min-available"),
        rebalance: x.choice("rebalance", &[("on-join", Rebalance::OnJoin), ("never", Rebalance::Never)]),
        volume: x.choice("volume", &rules),
        progress_deadline: deadline.map(|(span, value)| At { span, value }),
        schedule: x.string_at("schedule"),
        timezone: x.string_at("timezone"),
        concurrency: x.choice("concurrency", &words),
        session_affinity: x.choice("session-affinity", &affinities),
        prefer_local: prefer_local.map(|(span, value)| At { span, value }),
    };
    x.finish();
    extension
}

/// Only that there is something to build, and where; the rest is for the tool that builds.
fn build_context(f: &mut Fields<'_, '_>) -> Option<String> {
    let mut build = f.child("build")?;
    let context = build.string("context").unwrap_or_else(|| ".".to_owned());
    build.ignored(&BUILD);
    build.finish();
    Some(context)
}

fn confinement(f: &mut Fields<'_, '_>, service: &mut Service) {
    service.read_only = f.bool("read_only").unwrap_or(false);
    service.privileged = f.bool("privileged").unwrap_or(false);
    service.cap_add = f.strings("cap_add");
    service.cap_drop = f.strings("cap_drop");
    service.security_opt = f.strings_at("security_opt");
    service.sysctls = f.string_map("sysctls");
    service.ulimits = process::ulimits(f);
    service.devices = devices(f);
    service.shm_size = f.bytes("shm_size").map(|at| at.value);
    service.oom_score_adj = oom_score_adj(f);
}

fn oom_score_adj(f: &mut Fields<'_, '_>) -> Option<i32> {
    let At { span, value } = f.whole_at::<i32>("oom_score_adj")?;
    if !(-1000..=1000).contains(&value) {
        let path = f.at("oom_score_adj");
        f.report.error(span, format!("{path} must be -1000 to 1000, not {value}"));
        return None;
    }
    Some(value)
}

fn devices(f: &mut Fields<'_, '_>) -> Vec<At<Device>> {
    let path = f.at("devices");
    let mut devices = Vec::new();
    for (index, item) in f.items("devices").iter().enumerate() {
        let Some(mut d) = Fields::open(item, format!("{path}.{index}"), f.report) else { continue };
        let (source, target, permissions) = (d.string("source"), d.string("target"), d.string("permissions"));
        let permissions = permissions.unwrap_or_else(|| "rwm".to_owned());
        if !permissions.bytes().all(|b| b"rwm".contains(&b)) {
            d.report
                .error(item.span, format!("{path}.{index}: permissions `{permissions}` must be of r, w and m"))
                .with_help("write /dev/source:/dev/target:rwm");
        }
        d.finish();
        let Some(source) = source else { continue };
        let target = target.unwrap_or_else(|| source.clone());
        devices.push(At { span: item.span, value: Device { source, target, permissions } });
    }
    devices
}

fn env_files(f: &mut Fields<'_, '_>) -> Vec<EnvFile> {
    let path = f.at("env_file");
    let mut files = Vec::new();
    for (index, item) in f.items("env_file").iter().enumerate() {
        let Some(mut file) = Fields::open(item, format!("{path}.{index}"), f.report) else { continue };
        let name = file.string_at("path");
        let required = file.bool("required").unwrap_or(true);
        let raw = file.choice("format", &[("raw", true)]).is_some();
        file.finish();
        files.extend(name.map(|path| EnvFile { path, required, raw }));
    }
    files
}

/// `name=address` or `name:address`; the address may stand in brackets.
pub(super) fn extra_hosts(f: &mut Fields<'_, '_>) -> Vec<(String, String)> {
    let path = f.at("extra_hosts");
    let mut hosts = Vec::new();
    for (index, item) in f.items("extra_hosts").iter().enumerate() {
        let Some(line) = fields::string(item, &format!("{path}.{index}"), f.report) else { continue };
        let Some((name, address)) = line.split_once(['=', ':']) else {
            f.report
                .error(item.span, format!("{path}.{index}: `{line}` has no address"))
                .with_help("write \"name=10.0.0.1\"");
            continue;
        };
        let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
        if name.is_empty() || name.contains(char::is_whitespace) {
            f.report.error(item.span, format!("{path}.{index}: `{name}` is not a host's name"));
        } else if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
            f.report
                .error(item.span, format!("{path}.{index}: `{address}` is not an IP address"))
                .with_help("write \"name=10.0.0.1\", or \"name=host-gateway\" for the node itself");
        } else {
            hosts.push((name.to_owned(), address.to_owned()));
        }
    }
    hosts
}
