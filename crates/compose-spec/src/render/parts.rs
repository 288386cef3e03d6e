//! The nested parts of a service in their long forms.

use std::collections::BTreeMap;

use super::emit::Tree;
use crate::project::{
    At, Concurrency, Condition, DependencyCondition, DependsOn, Deploy, Device, EndpointMode, Extension, FailureAction,
    FileReference, HealthTest, Healthcheck, Hook, Logging, Mode, Mount, MountKind, Order, PlacementStrategy, Port,
    PortMode, Protocol, PullPolicy, Rebalance, Resources, Restart, RestartPolicy, ServiceNetwork, SessionAffinity,
    Ulimit, UpdateConfig, VolumeRule,
};
use crate::units;

pub(super) fn references(references: &[FileReference], default_folder: Option<&str>) -> Tree {
    Tree::list(references.iter().map(|reference| {
        let mut tree = Tree::map();
        tree.set("source", Tree::text(&reference.source));
        let default = default_folder.map(|folder| format!("{folder}{}", reference.source));
        tree.set("target", Tree::optional(reference.target.as_ref().or(default.as_ref())));
        tree.set("uid", Tree::optional(reference.uid.as_ref()));
        tree.set("gid", Tree::optional(reference.gid.as_ref()));
        if let Some(mode) = reference.mode {
            tree.set("mode", Tree::text(&format!("0{mode:o}")));
        }
        tree
    }))
}

pub(super) fn environment(environment: &BTreeMap<String, Option<String>>) -> Tree {
    Tree::map_of(environment.iter().map(|(key, value)| (key, value.as_deref().map_or(Tree::null(), Tree::text))))
}

pub(super) fn hook(hook: &Hook) -> Tree {
    let Hook { span: _, command, user, working_dir, environment, privileged } = hook;
    let mut tree = Tree::map();
    tree.set("command", Tree::strings(command));
    tree.set("environment", self::environment(environment));
    tree.flag("privileged", *privileged);
    tree.set("user", Tree::optional(user.as_ref()));
    tree.set("working_dir", Tree::optional(working_dir.as_ref()));
    tree
}

pub(super) fn concurrency(concurrency: Concurrency) -> &'static str {
    match concurrency {
        Concurrency::Forbid => "forbid",
        Concurrency::Allow => "allow",
        Concurrency::Replace => "replace",
    }
}

pub(super) fn depends_on(all: &BTreeMap<String, DependsOn>) -> Tree {
    Tree::map_of(all.iter().map(|(name, dependency)| {
        let condition = match dependency.condition {
            DependencyCondition::Started => "service_started",
            DependencyCondition::Healthy => "service_healthy",
            DependencyCondition::CompletedSuccessfully => "service_completed_successfully",
        };
        let mut tree = Tree::map();
        tree.set("condition", Tree::text(condition));
        tree.flag("restart", dependency.restart);
        tree.set("required", Tree::raw(dependency.required));
        (name, tree)
    }))
}

pub(super) fn devices(devices: &[At<Device>]) -> Tree {
    Tree::list(devices.iter().map(|At { value: device, .. }| {
        Tree::map_of([
            ("source", Tree::text(&device.source)),
            ("target", Tree::text(&device.target)),
            ("permissions", Tree::text(&device.permissions)),
        ])
    }))
}

pub(super) fn deploy(deploy: &Deploy) -> Tree {
    let mut tree = Tree::map();
    let mode = deploy.mode.as_ref().map(|at| match at.value {
        Mode::Replicated => "replicated",
        Mode::Global => "global",
        Mode::ReplicatedJob => "replicated-job",
        Mode::GlobalJob => "global-job",
    });
    tree.set("mode", Tree::optional(mode));
    if let Some(replicas) = &deploy.replicas {
        tree.set("replicas", Tree::raw(replicas.value));
    }
    tree.set("labels", Tree::strings_map(&deploy.labels));
    tree.set("update_config", deploy.update_config.as_ref().map_or(Tree::map(), update_config));
    tree.set("rollback_config", deploy.rollback_config.as_ref().map_or(Tree::map(), update_config));
    let mut resources = Tree::map();
    resources.set("limits", amounts(&deploy.limits));
    let mut reservations = amounts(&deploy.reservations);
    reservations.set(
        "generic_resources",
        Tree::list(deploy.generic_resources.iter().map(|At { value, .. }| {
            let spec = [("kind", Tree::text(&value.kind)), ("value", Tree::raw(value.value))];
            Tree::map_of([("discrete_resource_spec", Tree::map_of(spec))])
        })),
    );
    resources.set("reservations", reservations);
    tree.set("resources", resources);
    tree.set("restart_policy", deploy.restart_policy.as_ref().map_or(Tree::map(), restart_policy));
    let mut placement = Tree::map();
    placement.set("constraints", Tree::strings(deploy.placement.constraints.iter().map(|at| &at.value)));
    let spread = |at: &At<String>| Tree::map_of([("spread", Tree::text(&at.value))]);
    placement.set("preferences", Tree::list(deploy.placement.preferences.iter().map(spread)));
    if let Some(most) = deploy.placement.max_replicas_per_node {
        placement.set("max_replicas_per_node", Tree::raw(most));
    }
    tree.set("placement", placement);
    let endpoint_mode = deploy.endpoint_mode.as_ref().map(|at| match at.value {
        EndpointMode::Vip => "vip",
        EndpointMode::Dnsrr => "dnsrr",
    });
    tree.set("endpoint_mode", Tree::optional(endpoint_mode));
    tree
}

fn amounts(resources: &Resources) -> Tree {
    let mut tree = Tree::map();
    if let Some(cpus) = &resources.nano_cpus {
        tree.set("cpus", Tree::raw(units::cpus_text(cpus.value)));
    }
    if let Some(memory) = &resources.memory {
        tree.set("memory", Tree::text(&memory.value.to_string()));
    }
    if let Some(pids) = &resources.pids {
        tree.set("pids", Tree::raw(pids.value));
    }
    tree
}

fn restart_policy(policy: &RestartPolicy) -> Tree {
    let mut tree = Tree::map();
    let condition = policy.condition.map(|condition| match condition {
        Condition::None => "none",
        Condition::OnFailure => "on-failure",
        Condition::Any => "any",
    });
    tree.set("condition", Tree::optional(condition));
    tree.set("delay", Tree::optional(policy.delay.map(units::duration_text)));
    if let Some(most) = policy.max_attempts {
        tree.set("max_attempts", Tree::raw(most));
    }
    tree.set("window", Tree::optional(policy.window.map(units::duration_text)));
    tree
}

fn update_config(config: &UpdateConfig) -> Tree {
    let mut tree = Tree::map();
    if let Some(parallelism) = config.parallelism {
        tree.set("parallelism", Tree::raw(parallelism));
    }
    tree.set("delay", Tree::optional(config.delay.map(units::duration_text)));
    let action = config.failure_action.map(|action| match action {
        FailureAction::Pause => "pause",
        FailureAction::Continue => "continue",
        FailureAction::Rollback => "rollback",
    });
    tree.set("failure_action", Tree::optional(action));
    tree.set("monitor", Tree::optional(config.monitor.map(units::duration_text)));
    if let Some(ratio) = config.max_failure_ratio {
        tree.set("max_failure_ratio", Tree::raw(ratio));
    }
    let order = config.order.as_ref().map(|at| match at.value {
        Order::StopFirst => "stop-first",
        Order::StartFirst => "start-first",
    });
    tree.set("order", Tree::optional(order));
    tree
}

pub(super) fn healthcheck(check: &Healthcheck) -> Tree {
    let mut tree = Tree::map();
    match &check.test {
        Some(HealthTest::Disabled) => tree.flag("disable", true),
        Some(HealthTest::Exec(words)) => {
            tree.set("test", Tree::strings(["CMD"].into_iter().chain(words.iter().map(String::as_str))));
        }
        Some(HealthTest::Shell(line)) => tree.set("test", Tree::strings(["CMD-SHELL", line])),
        None => {}
    }
    tree.set("timeout", Tree::optional(check.timeout.map(units::duration_text)));
    tree.set("interval", Tree::optional(check.interval.map(units::duration_text)));
    if let Some(retries) = check.retries {
        tree.set("retries", Tree::raw(retries));
    }
    tree.set("start_period", Tree::optional(check.start_period.map(units::duration_text)));
    tree.set("start_interval", Tree::optional(check.start_interval.map(units::duration_text)));
    tree
}

pub(super) fn logging(logging: &Logging) -> Tree {
    let mut tree = Tree::map();
    tree.set("driver", Tree::optional(logging.driver.as_ref()));
    tree.set("options", Tree::strings_map(&logging.options));
    tree
}

pub(super) fn networks(networks: &BTreeMap<String, ServiceNetwork>) -> Tree {
    if networks.is_empty() {
        return Tree::map_of([("default", Tree::null())]);
    }
    Tree::map_of(networks.iter().map(|(key, network)| {
        let mut tree = Tree::map();
        tree.set("aliases", Tree::strings(&network.aliases));
        tree.set("ipv4_address", Tree::optional(network.ipv4_address.as_ref().map(|at| at.value.to_string())));
        tree.set("ipv6_address", Tree::optional(network.ipv6_address.as_ref().map(|at| at.value.to_string())));
        let empty = matches!(&tree, Tree::Map(entries) if entries.is_empty());
        (key, if empty { Tree::null() } else { tree })
    }))
}

pub(super) fn port(port: &Port) -> Tree {
    let mut tree = Tree::map();
    tree.set("name", Tree::optional(port.name.as_ref()));
    tree.set(
        "mode",
        Tree::text(match port.mode {
            PortMode::Ingress => "ingress",
            PortMode::Host => "host",
        }),
    );
    tree.set("host_ip", Tree::optional(port.host_ip.map(|address| address.to_string())));
    tree.set("target", Tree::raw(port.target));
    let published = port.published.map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    tree.set("published", Tree::optional(published));
    tree.set(
        "protocol",
        Tree::text(match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }),
    );
    tree
}

pub(super) fn pull_policy(policy: &PullPolicy) -> String {
    match policy {
        PullPolicy::Always => "always".to_owned(),
        PullPolicy::Never => "never".to_owned(),
        PullPolicy::Missing => "missing".to_owned(),
        PullPolicy::Build => "build".to_owned(),
        PullPolicy::Every(words) => words.clone(),
    }
}

pub(super) fn restart(restart: Restart) -> String {
    match restart {
        Restart::No => "no".to_owned(),
        Restart::Always => "always".to_owned(),
        Restart::UnlessStopped => "unless-stopped".to_owned(),
        Restart::OnFailure { max_attempts: None } => "on-failure".to_owned(),
        Restart::OnFailure { max_attempts: Some(most) } => format!("on-failure:{most}"),
    }
}

pub(super) fn ulimits(limits: &BTreeMap<String, Ulimit>) -> Tree {
    Tree::map_of(limits.iter().map(|(name, limit)| {
        let both = [("soft", Tree::raw(limit.soft)), ("hard", Tree::raw(limit.hard))];
        (name, if limit.soft == limit.hard { Tree::raw(limit.soft) } else { Tree::map_of(both) })
    }))
}

pub(super) fn mount(mount: &Mount) -> Tree {
    let mut tree = Tree::map();
    let mut options = Tree::map();
    let (kind, source) = match &mount.kind {
        MountKind::Bind(bind) => {
            options.set("propagation", Tree::optional(bind.propagation.as_ref()));
            options.set("create_host_path", Tree::raw(bind.create_host_path));
            if bind.non_recursive {
                options.set("recursive", Tree::text("disabled"));
            }
            ("bind", Some(&bind.source))
        }
        MountKind::Volume { key, no_copy, subpath, labels } => {
            options.flag("nocopy", *no_copy);
            options.set("subpath", Tree::optional(subpath.as_ref()));
            options.set("labels", Tree::strings_map(labels));
            ("volume", key.as_ref())
        }
        MountKind::Tmpfs { size, mode, options: _ } => {
            options.set("size", Tree::optional(size.map(|bytes| bytes.to_string())));
            if let Some(mode) = mode {
                options.set("mode", Tree::raw(mode));
            }
            ("tmpfs", None)
        }
    };
    tree.set("type", Tree::text(kind));
    tree.set("source", Tree::optional(source));
    tree.set("target", Tree::text(&mount.target));
    tree.flag("read_only", mount.read_only);
    tree.set(kind, options);
    tree
}

/// The short form, which alone has room for mount options.
pub(super) fn tmpfs(mount: &Mount) -> String {
    let MountKind::Tmpfs { size, mode, options } = &mount.kind else {
        unreachable!("the attribute `tmpfs` makes no other mounts")
    };
    let size = size.map(|bytes| format!("size={bytes}"));
    let mode = mode.map(|bits| format!("mode={bits:o}"));
    let read_only = mount.read_only.then(|| "ro".to_owned());
    let all: Vec<String> = size.into_iter().chain(mode).chain(read_only).chain(options.iter().cloned()).collect();
    if all.is_empty() { mount.target.clone() } else { format!("{}:{}", mount.target, all.join(",")) }
}

/// What of `x-skep` says where tasks go.
pub(super) fn skep_placement(skep: &mut Tree, written: &Extension) {
    let texts = |names: &[At<String>]| Tree::strings(names.iter().map(|at| at.value.clone()));
    skep.set("affinity", texts(&written.affinity));
    skep.set("anti-affinity", texts(&written.anti_affinity));
    if let Some(at) = &written.min_available {
        skep.set("min-available", Tree::raw(at.value));
    }
    let placement = written.placement.as_ref().map(|at| match at.value {
        PlacementStrategy::Spread => "spread",
        PlacementStrategy::BinPack => "binpack",
    });
    skep.set("placement", Tree::optional(placement));
    if let Some(priority) = written.priority {
        skep.set("priority", Tree::raw(priority));
    }
    let rebalance = written.rebalance.as_ref().map(|at| match at.value {
        Rebalance::OnJoin => "on-join",
        Rebalance::Never => "never",
    });
    skep.set("rebalance", Tree::optional(rebalance));
    let volume = written.volume.as_ref().map(|at| match at.value {
        VolumeRule::Follow => "follow",
        VolumeRule::Free => "free",
        VolumeRule::Stay => "stay",
    });
    skep.set("volume", Tree::optional(volume));
}

/// What of `x-skep` says where connections go.
pub(super) fn skep_balancing(skep: &mut Tree, written: &Extension) {
    if let Some(at) = &written.prefer_local {
        skep.set("prefer-local", Tree::raw(at.value));
    }
    let affinity = written.session_affinity.as_ref().map(|at| match at.value {
        SessionAffinity::ClientIp => "client-ip",
        SessionAffinity::None => "none",
    });
    skep.set("session-affinity", Tree::optional(affinity));
}
