//! What a spec must satisfy before anything is written; the words are Swarm's where it has them.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::Ipv6Net;

use crate::{
    Concurrency, ContainerSpec, Cron, EndpointMode, EndpointSpec, GenericRequest, MemoryBytes, Mode, MountKind,
    NanoCpus, NetworkSpec, Placement, PublishMode, ServiceSpec, TimeZone, UpdateConfig, UpdateOrder, VolumeSource,
};

/// A spec that cannot be accepted, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {problem}")]
pub struct InvalidSpec {
    /// What is wrong: `service web`, `network back`.
    pub subject: String,
    pub problem: String,
}

const CPU_MIN: NanoCpus = NanoCpus(1_000_000);
const MEMORY_MIN: MemoryBytes = MemoryBytes(4 << 20);

/// A service's or network's name: `^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`, at most 63 characters.
pub fn validate_service_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("name must be provided".to_owned());
    }
    if name.len() > 63 {
        return Err(format!("name must be 63 characters or fewer, `{name}` has {}", name.len()));
    }
    let inner = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !inner || !alphanumeric_ends(name) {
        return Err(format!(
            "name must be valid as a DNS name component: `{name}` may have letters, digits, `-` and `_`, and starts and ends with a letter or digit"
        ));
    }
    Ok(())
}

/// A secret's or config's name: as a service's, with dots, at most 64 characters.
pub fn validate_content_name(name: &str) -> Result<(), String> {
    let inner = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if name.is_empty() || name.len() > 64 || !inner || !alphanumeric_ends(name) {
        return Err(format!(
            "invalid name `{name}`: use 1 to 64 letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit"
        ));
    }
    Ok(())
}

fn alphanumeric_ends(name: &str) -> bool {
    let ends = [name.as_bytes().first(), name.as_bytes().last()];
    ends.into_iter().flatten().all(u8::is_ascii_alphanumeric)
}

impl ServiceSpec {
    /// All that can be said without knowing the rest of the cluster.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        let wrong = |problem: String| InvalidSpec { subject: format!("service {}", self.name), problem };
        validate_service_name(&self.name).map_err(&wrong)?;
        self.validate_resources().map_err(&wrong)?;
        self.validate_ports().map_err(&wrong)?;
        self.task.container.validate().map_err(&wrong)?;
        validate_update("update", &self.update).map_err(&wrong)?;
        validate_update("rollback", &self.rollback).map_err(&wrong)?;
        self.validate_placement().map_err(&wrong)?;
        self.validate_at_most_one().map_err(&wrong)?;
        self.validate_networks().map_err(&wrong)?;
        self.validate_job().map_err(&wrong)?;
        self.validate_order().map_err(&wrong)
    }

    fn validate_resources(&self) -> Result<(), String> {
        let resources = &self.task.resources;
        for cpus in [resources.limits.nano_cpus, resources.reservations.nano_cpus].into_iter().flatten() {
            if cpus < CPU_MIN {
                let value = cpus.0 as f64 / 1e9;
                return Err(format!("invalid cpu value {value}: must be at least 0.001"));
            }
        }
        for memory in [resources.limits.memory, resources.reservations.memory].into_iter().flatten() {
            if memory < MEMORY_MIN {
                return Err(format!("invalid memory value {}: must be at least 4 MiB", memory.0));
            }
        }
        Ok(())
    }

    fn validate_ports(&self) -> Result<(), String> {
        let EndpointSpec { mode, ports: _, session_affinity, prefer_local } = &self.endpoint;
        let asked = [("session-affinity", session_affinity.is_some()), ("prefer-local", *prefer_local)];
        if let Some((name, _)) = asked.iter().find(|(_, asked)| *asked && *mode == EndpointMode::DnsRr) {
            return Err(format!(
                "{name} can't be used with dnsrr mode, where clients choose a task themselves; use vip"
            ));
        }
        let mut seen = BTreeSet::new();
        for port in &self.endpoint.ports {
            if port.target == 0 {
                return Err("a port's target must be 1 to 65535".to_owned());
            }
            if self.endpoint.mode == EndpointMode::DnsRr && port.mode == PublishMode::Ingress {
                return Err(format!(
                    "port {} published with ingress mode can't be used with dnsrr mode; publish it with mode: host",
                    port.target
                ));
            }
            if port.published != 0 && !seen.insert((port.protocol, port.published, port.mode, port.host_ip)) {
                return Err(format!("duplicate published port {}/{}", port.published, port.protocol.word()));
            }
        }
        Ok(())
    }
}

impl ServiceSpec {
    fn validate_job(&self) -> Result<(), String> {
        let plain = self.update == UpdateConfig::default() && self.rollback == UpdateConfig::default();
        if self.mode.is_job() && !plain {
            return Err("jobs may not have an update config".to_owned());
        }
        let Some(schedule) = &self.schedule else { return Ok(()) };
        if !self.mode.is_job() {
            return Err("only a job has a schedule; use mode replicated-job or global-job".to_owned());
        }
        if self.mode == Mode::GlobalJob && schedule.concurrency == Concurrency::Allow {
            return Err("a node has one task of a global job at a time; use concurrency forbid or replace".to_owned());
        }
        schedule.cron.parse::<Cron>().map_err(|error| format!("schedule: {error}"))?;
        TimeZone::named(&schedule.timezone).map(drop)
    }

    fn validate_order(&self) -> Result<(), String> {
        if self.progress_deadline.is_some_and(|deadline| deadline.is_zero()) {
            return Err("the progress deadline must be above 0".to_owned());
        }
        match self.depends_on.iter().any(|dependency| dependency.service.eq_ignore_ascii_case(&self.name)) {
            true => Err("it depends on itself".to_owned()),
            false => Ok(()),
        }
    }

    fn validate_placement(&self) -> Result<(), String> {
        let mut kinds = BTreeSet::new();
        for GenericRequest { kind, amount } in &self.task.resources.generic {
            if kind.is_empty() || kind.contains([' ', '=', ',']) {
                return Err(format!("invalid generic resource kind `{kind}`: write a word such as gpu"));
            }
            if *amount == 0 {
                return Err(format!("invalid generic resource {kind}: must be at least 1"));
            }
            if !kinds.insert(kind) {
                return Err(format!("generic resource {kind} is asked for twice"));
            }
        }
        let Placement { affinity, anti_affinity, .. } = &self.task.placement;
        if affinity.iter().chain(anti_affinity).any(|name| *name == self.name) {
            return Err(
                "affinity and anti-affinity are to other services; to keep a service's own tasks on different \
                        nodes use max_replicas_per_node: 1"
                    .to_owned(),
            );
        }
        if let Some(both) = affinity.iter().find(|name| anti_affinity.contains(name)) {
            return Err(format!("{both} cannot be in both affinity and anti-affinity"));
        }
        self.validate_min_available()
    }

    /// A drain that could never end is refused before it begins.
    fn validate_min_available(&self) -> Result<(), String> {
        let least = self.scheduling.min_available;
        let replicas = match self.mode {
            _ if least == 0 => return Ok(()),
            Mode::Replicated { replicas } => replicas,
            Mode::Global | Mode::ReplicatedJob { .. } | Mode::GlobalJob => {
                return Err(
                    "min-available is for replicated services: the tasks of others stay on their nodes, or end"
                        .to_owned(),
                );
            }
        };
        if self.update.order == UpdateOrder::StopFirst && replicas > 0 && least >= replicas {
            return Err(format!(
                "min-available {least} of {replicas} replicas leaves none that may stop: use fewer, more replicas, or \
                 update order start-first"
            ));
        }
        Ok(())
    }

    /// Whoever is in the network of its node is in no other; and an address has one task at a time.
    fn validate_networks(&self) -> Result<(), String> {
        if self.task.host_network && !self.task.networks.is_empty() {
            return Err("network_mode: host replaces the networks: remove one of the two".to_owned());
        }
        if let Some(port) = self.endpoint.ports.first().filter(|_| self.task.host_network) {
            return Err(format!(
                "port {} cannot be published: in the network of the node (network_mode: host) every port of the \
                 container is one of the node already",
                port.target
            ));
        }
        let Some(attachment) = self.task.networks.iter().find(|attachment| attachment.is_fixed()) else {
            return Ok(());
        };
        let network = &attachment.network;
        if !matches!(self.mode, Mode::Replicated { replicas: 0 | 1 }) {
            return Err(format!("one address of network {network} cannot be given to several tasks"));
        }
        let both = [("update", &self.update), ("rollback", &self.rollback)];
        match both.into_iter().find(|(_, config)| config.order == UpdateOrder::StartFirst) {
            Some((which, _)) => Err(format!(
                "{which} order start-first runs two tasks at a time, and its address of network {network} is for one; use \
                 stop-first"
            )),
            None => Ok(()),
        }
    }

    fn validate_at_most_one(&self) -> Result<(), String> {
        let both = [("update", &self.update), ("rollback", &self.rollback)];
        let doubling = both.into_iter().find(|(_, config)| config.order == UpdateOrder::StartFirst);
        match doubling.filter(|_| self.task.at_most_one) {
            Some((which, _)) => Err(format!(
                "at-most-one forbids {which} order start-first, which runs two tasks of a slot; use stop-first"
            )),
            None => Ok(()),
        }
    }
}

impl ContainerSpec {
    fn validate(&self) -> Result<(), String> {
        if self.image.is_empty() {
            return Err("an image must be given".to_owned());
        }
        let mut targets = BTreeSet::new();
        for mount in &self.mounts {
            if !mount.target.starts_with('/') {
                return Err(format!("invalid mount target `{}`: must be an absolute path", mount.target));
            }
            if !targets.insert(mount.target.trim_end_matches('/')) {
                return Err(format!("duplicate mount point: {}", mount.target));
            }
            if let MountKind::Volume { name, options, .. } = &mount.kind {
                let shown = name.as_deref().unwrap_or(&mount.target);
                VolumeSource::of(options).map_err(|problem| format!("volume {shown}: {problem}"))?;
                if name.is_none() && !options.is_empty() {
                    return Err(format!("the volume at {} has options and needs a name", mount.target));
                }
            }
        }
        let mut files = BTreeSet::new();
        let names =
            self.secrets.iter().map(|s| ("secret", &s.file)).chain(self.configs.iter().map(|c| ("config", &c.file)));
        for (kind, file) in names {
            if !files.insert((kind, &file.path)) {
                return Err(format!("two {kind} references have the conflicting target `{}`", file.path));
            }
        }
        for (what, signal) in [("stop_signal", &self.stop_signal), ("on-change", &self.on_change)] {
            if let Some(signal) = signal.as_ref().filter(|signal| !is_signal(signal)) {
                return Err(format!("{what} `{signal}` is no signal; use a name such as SIGHUP, or 1 to 64"));
            }
        }
        for (kind, hooks) in [("post_start", &self.post_start), ("pre_stop", &self.pre_stop)] {
            if hooks.iter().any(|hook| hook.command.first().is_none_or(String::is_empty)) {
                return Err(format!("a {kind} hook has no command"));
            }
            let relative = hooks.iter().filter_map(|hook| hook.working_dir.as_ref()).find(|dir| !dir.starts_with('/'));
            if let Some(relative) = relative {
                return Err(format!("the working_dir `{relative}` of a {kind} hook must be an absolute path"));
            }
        }
        if self.stop_grace_period.is_some_and(|period| period > Duration::from_secs(24 * 3600)) {
            return Err("stop_grace_period is above 24 h".to_owned());
        }
        Ok(())
    }
}

impl NetworkSpec {
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        let wrong = |problem: String| InvalidSpec { subject: format!("network {}", self.name), problem };
        validate_service_name(&self.name).map_err(&wrong)?;
        self.validate_driver().map_err(&wrong)?;
        self.validate_ranges().map_err(&wrong)?;
        if let Some(subnet) = self.subnet {
            if subnet.prefix_len() > 28 {
                return Err(wrong(format!(
                    "subnet {subnet} is too small: /28 is the smallest that can be shared by nodes"
                )));
            }
            if subnet.trunc() != subnet {
                return Err(wrong(format!("subnet {subnet} has host bits set; did you mean {}?", subnet.trunc())));
            }
            if self.gateway.is_some_and(|gateway| !subnet.contains(&gateway)) {
                return Err(wrong(format!("the gateway lies outside the subnet {subnet}")));
            }
        } else if self.gateway.is_some() {
            return Err(wrong("a gateway needs a subnet".to_owned()));
        }
        if let Some(subnet) = self.subnet_v6 {
            if self.ipv6 == Some(false) {
                return Err(wrong(format!("it has the IPv6 subnet {subnet}, and IPv6 switched off")));
            }
            if subnet.trunc() != subnet {
                return Err(wrong(format!("subnet {subnet} has host bits set; did you mean {}?", subnet.trunc())));
            }
            if !is_unicast(subnet) {
                return Err(wrong(format!("{subnet} is no range for containers; take a part of fd00::/8")));
            }
        }
        Ok(())
    }
}

/// `SIGHUP`, `hup`, `1`, `SIGRTMIN+3`, `RTMAX-1`: what Linux has, see signal(7).
fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 32] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM",
        "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| {
        rest.is_empty() || rest.strip_prefix(sign).is_some_and(|n| n.parse::<u8>().is_ok_and(|n| n <= 30))
    };
    let real_time = name.strip_prefix("RTMIN").is_some_and(|rest| offset(rest, '+'))
        || name.strip_prefix("RTMAX").is_some_and(|rest| offset(rest, '-'));
    NAMES.contains(&name) || real_time || text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number))
}

/// Local to a site or global: what routers pass on, to one.
fn is_unicast(range: Ipv6Net) -> bool {
    let first = range.network();
    range.prefix_len() >= 8 && (first.is_unique_local() || first.segments()[0] >> 13 == 1)
}

fn validate_update(which: &str, config: &UpdateConfig) -> Result<(), String> {
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return Err(format!(
            "{which}-max-failure-ratio cannot be less than 0 or bigger than 1, it is {}",
            config.max_failure_ratio
        ));
    }
    Ok(())
}
