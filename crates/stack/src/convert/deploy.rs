//! `deploy`: mode, resources, restarts, placement, updates, with Swarm's defaults.

use skep_compose_spec::project::{self, At, Restart, Service};
use skep_model::{
    Condition, FailureAction, GenericRequest, Limits, MemoryBytes, Mode, NanoCpus, Placement, PlacementStrategy,
    PlatformSpec, Preference, Reservations, Resources, RestartPolicy, Scheduling, UpdateConfig, UpdateOrder,
    VolumePlacement,
};

use super::Context;

/// What runs by a schedule is a job, whether or not its mode says so.
pub(super) fn mode(cx: &mut Context<'_>, service: &Service) -> Mode {
    let replicas = service.deploy.replicas.as_ref().map_or(1, |at| at.value);
    let written = service.deploy.mode.as_ref().map(|at| at.value);
    let scheduled = service.skep.schedule.is_some();
    let mode = match written {
        None | Some(project::Mode::Replicated) if !scheduled => Mode::Replicated { replicas },
        Some(project::Mode::Global) if !scheduled => Mode::Global,
        None | Some(project::Mode::Replicated | project::Mode::ReplicatedJob) => {
            // Docker's files have no word for how many run at a time: all do.
            Mode::ReplicatedJob { max_concurrent: replicas, total_completions: replicas }
        }
        Some(project::Mode::Global | project::Mode::GlobalJob) => Mode::GlobalJob,
    };
    if mode.is_job() {
        for (name, config) in
            [("update_config", &service.deploy.update_config), ("rollback_config", &service.deploy.rollback_config)]
        {
            if let Some(config) = config {
                cx.report
                    .error(config.span, format!("services.{}.deploy.{name}: jobs may not have one", service.name))
                    .with_help("a job whose file changes runs again: remove it");
            }
        }
    }
    mode
}

/// `x-skep.progress-deadline`.
pub(super) fn progress_deadline(cx: &mut Context<'_>, service: &Service) -> Option<std::time::Duration> {
    let At { span, value } = service.skep.progress_deadline.as_ref()?;
    if value.is_zero() {
        cx.report
            .error(*span, format!("services.{}.x-skep.progress-deadline must be above 0", service.name))
            .with_help("10m is the default");
    }
    Some(*value)
}

pub(super) fn resources(cx: &mut Context<'_>, service: &Service) -> Resources {
    let project::Deploy { limits, reservations, generic_resources, .. } = &service.deploy;
    let cpus = |resources: &project::Resources| resources.nano_cpus.as_ref().map(|at| NanoCpus(at.value));
    let memory = |resources: &project::Resources| resources.memory.as_ref().map(|at| MemoryBytes(at.value));
    // Zero is Docker's word for no limit.
    let given = |cpus: Option<NanoCpus>| cpus.filter(|cpus| cpus.0 > 0);
    let mut generic: Vec<GenericRequest> = Vec::new();
    for At { span, value: project::GenericResource { kind, value } } in generic_resources {
        match u64::try_from(*value).ok().filter(|amount| *amount > 0) {
            Some(amount) => generic.push(GenericRequest { kind: kind.clone(), amount }),
            None => {
                cx.report
                    .error(*span, format!("services.{}: generic resource {kind} must be at least 1", service.name));
            }
        }
    }
    for (what, resources) in [("limits", limits), ("reservations", reservations)] {
        smallest(cx, service, what, resources);
    }
    more_than_allowed(cx, service);
    Resources {
        limits: Limits {
            nano_cpus: given(cpus(limits)),
            memory: memory(limits).filter(|memory| memory.0 > 0),
            pids: limits.pids.as_ref().and_then(|at| u64::try_from(at.value).ok()).filter(|pids| *pids > 0),
        },
        reservations: Reservations {
            nano_cpus: given(cpus(reservations)),
            memory: memory(reservations).filter(|memory| memory.0 > 0),
        },
        generic,
    }
}

/// Swarm's smallest amounts: 0.001 cores, 4 MiB.
fn smallest(cx: &mut Context<'_>, service: &Service, what: &str, resources: &project::Resources) {
    let path = format!("services.{}.deploy.resources.{what}", service.name);
    if let Some(At { span, .. }) = resources.nano_cpus.as_ref().filter(|at| (1..1_000_000).contains(&at.value)) {
        cx.report.error(*span, format!("{path}.cpus must be at least 0.001"));
    }
    if let Some(At { span, .. }) = resources.memory.as_ref().filter(|at| (1..4 << 20).contains(&at.value)) {
        cx.report.error(*span, format!("{path}.memory must be at least 4M"));
    }
}

/// What is set aside and may never be used is most often a mistake.
fn more_than_allowed(cx: &mut Context<'_>, service: &Service) {
    let project::Deploy { limits, reservations, .. } = &service.deploy;
    let pairs =
        [("cpus", &limits.nano_cpus, &reservations.nano_cpus), ("memory", &limits.memory, &reservations.memory)];
    for (what, limit, reserved) in pairs {
        let (Some(limit), Some(reserved)) = (limit, reserved) else { continue };
        if limit.value > 0 && reserved.value > limit.value {
            let path = format!("services.{}.deploy.resources", service.name);
            cx.report
                .warning(reserved.span, format!("{path}: more {what} is reserved than the limit allows to use"))
                .with_help("reserve what the service needs, and limit it at that or above");
        }
    }
}

/// `deploy.restart_policy`; without one, what `restart` of `docker run` amounts to.
pub(super) fn restart(service: &Service) -> RestartPolicy {
    let swarm = RestartPolicy::default();
    if let Some(policy) = &service.deploy.restart_policy {
        let project::RestartPolicy { span: _, condition, delay, max_attempts, window } = *policy;
        return RestartPolicy {
            condition: match condition {
                Some(project::Condition::None) => Condition::None,
                Some(project::Condition::OnFailure) => Condition::OnFailure,
                Some(project::Condition::Any) | None => Condition::Any,
            },
            delay: delay.unwrap_or(swarm.delay),
            max_attempts: max_attempts.unwrap_or(swarm.max_attempts),
            window: window.unwrap_or(swarm.window),
        };
    }
    match service.restart.as_ref().map(|at| at.value) {
        None | Some(Restart::Always | Restart::UnlessStopped) => swarm,
        Some(Restart::No) => RestartPolicy { condition: Condition::None, ..swarm },
        Some(Restart::OnFailure { max_attempts }) => RestartPolicy {
            condition: Condition::OnFailure,
            max_attempts: max_attempts.unwrap_or(swarm.max_attempts),
            ..swarm
        },
    }
}

pub(super) fn placement(cx: &mut Context<'_>, service: &Service) -> Placement {
    let written = &service.deploy.placement;
    let mut placement =
        Placement { max_replicas_per_node: written.max_replicas_per_node.unwrap_or(0), ..Placement::default() };
    for At { span, value } in &written.constraints {
        match value.parse() {
            Ok(constraint) => placement.constraints.push(constraint),
            Err(problem) => {
                cx.report.error(*span, format!("services.{}: {problem}", service.name));
            }
        }
    }
    for At { span, value } in &written.preferences {
        let label = ["node.labels.", "engine.labels."].iter().any(|p| value.len() > p.len() && value.starts_with(p));
        match label {
            true => placement.preferences.push(Preference { spread: value.clone() }),
            false => {
                cx.report
                    .error(*span, format!("services.{}: cannot spread over `{value}`", service.name))
                    .with_help("spread over a label: node.labels.zone, or engine.labels.zone");
            }
        }
    }
    let project::Extension { placement: strategy, affinity, anti_affinity, volume, .. } = &service.skep;
    placement.strategy = strategy.as_ref().map(|at| match at.value {
        project::PlacementStrategy::Spread => PlacementStrategy::Spread,
        project::PlacementStrategy::BinPack => PlacementStrategy::BinPack,
    });
    placement.volumes = volume.as_ref().and_then(|at| match at.value {
        project::VolumeRule::Follow => None,
        project::VolumeRule::Free => Some(VolumePlacement::Free),
        project::VolumeRule::Stay => Some(VolumePlacement::Stay),
    });
    placement.affinity = affinity.iter().map(|at| cx.service_name(&at.value)).collect();
    placement.anti_affinity = anti_affinity.iter().map(|at| cx.service_name(&at.value)).collect();
    if let Some(platform) = &service.platform {
        let mut parts = platform.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        placement.platforms.push(PlatformSpec { os: next(), architecture: next(), variant: next() });
    }
    placement
}

/// What of `x-skep` is asked of those who place and move the tasks.
pub(super) fn scheduling(service: &Service) -> Scheduling {
    let asked = &service.skep;
    Scheduling {
        priority: asked.priority.unwrap_or(0),
        min_available: asked.min_available.as_ref().map_or(0, |at| at.value),
        rebalance_on_join: asked.rebalance.as_ref().is_some_and(|at| at.value == project::Rebalance::OnJoin),
    }
}

/// `x-skep.at-most-one`; what would run two tasks of a slot for a while contradicts it.
pub(super) fn at_most_one(cx: &mut Context<'_>, service: &Service) -> bool {
    let asked = service.skep.at_most_one.as_ref().is_some_and(|at| at.value);
    let deploy = &service.deploy;
    for (name, config) in [("update_config", &deploy.update_config), ("rollback_config", &deploy.rollback_config)] {
        let order = config.as_ref().and_then(|config| config.order.as_ref()).filter(|_| asked);
        if let Some(At { span, .. }) = order.filter(|order| order.value == project::Order::StartFirst) {
            let problem = format!(
                "services.{}.deploy.{name}.order: start-first runs two tasks of a slot, at-most-one forbids it",
                service.name
            );
            cx.report.error(*span, problem).with_help("use order: stop-first, or remove x-skep.at-most-one");
        }
    }
    asked
}

/// Swarm's defaults for what is not written, whether or not the block is there.
pub(super) fn update(written: Option<&project::UpdateConfig>) -> UpdateConfig {
    let swarm = UpdateConfig::default();
    let Some(written) = written else { return swarm };
    let project::UpdateConfig { span: _, parallelism, delay, failure_action, monitor, max_failure_ratio, ref order } =
        *written;
    UpdateConfig {
        parallelism: parallelism.unwrap_or(swarm.parallelism),
        delay: delay.unwrap_or(swarm.delay),
        failure_action: match failure_action {
            Some(project::FailureAction::Continue) => FailureAction::Continue,
            Some(project::FailureAction::Rollback) => FailureAction::Rollback,
            Some(project::FailureAction::Pause) | None => FailureAction::Pause,
        },
        // Zero stands for the default, as in Swarm.
        monitor: monitor.filter(|monitor| !monitor.is_zero()).unwrap_or(swarm.monitor),
        max_failure_ratio: max_failure_ratio.unwrap_or(swarm.max_failure_ratio),
        order: match order.as_ref().map(|at| at.value) {
            Some(project::Order::StartFirst) => UpdateOrder::StartFirst,
            Some(project::Order::StopFirst) | None => UpdateOrder::StopFirst,
        },
    }
}
