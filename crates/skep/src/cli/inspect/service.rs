//! A service in the Engine's shape.

use serde_json::{Value, json};
use skep_model::{
    Condition, Dependency, DependencyCondition, EndpointMode, EndpointSpec, FailureAction, JobStatus, Mode, PortSpec,
    PublishMode, RestartPolicy, Scheduling, Service, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder, UpdateState,
    UpdateStatus,
};

use super::{container, head, labels, nanos, present, unless_empty};
use crate::cli::output::time;

pub fn inspected(service: &Service) -> Value {
    let mut object = head(service.id.to_string(), service.meta);
    object.insert("Spec".to_owned(), spec(&service.spec));
    if let Some(previous) = service.previous_spec() {
        object.insert("PreviousSpec".to_owned(), spec(previous));
    }
    let virtual_ips = service.endpoint.virtual_ips.iter();
    let virtual_ips: Vec<Value> =
        virtual_ips.map(|ip| json!({ "NetworkID": ip.network.to_string(), "Addr": ip.address.to_string() })).collect();
    let endpoint = present([
        ("Spec", Some(endpoint_spec(&service.spec))),
        ("Ports", unless_empty(&ports(&service.endpoint.ports))),
        ("VirtualIPs", unless_empty(&virtual_ips)),
    ]);
    object.insert("Endpoint".to_owned(), endpoint);
    if let Some(status) = &service.update_status {
        object.insert("UpdateStatus".to_owned(), update_status(status));
    }
    if let Some(job) = &service.job {
        object.insert("JobStatus".to_owned(), job_status(job));
    }
    Value::Object(object)
}

fn job_status(job: &JobStatus) -> Value {
    present([
        ("JobIteration", Some(json!({ "Index": job.iteration }))),
        ("LastExecution", Some(json!(time::rfc3339(job.last_execution)))),
        ("Message", (!job.message.is_empty()).then(|| json!(job.message))),
    ])
}

fn spec(spec: &ServiceSpec) -> Value {
    let ServiceSpec {
        name,
        labels,
        mode,
        task,
        update,
        rollback,
        endpoint: _,
        progress_deadline,
        depends_on,
        schedule,
        scheduling,
    } = spec;
    let mut object = json!({
        "Name": name,
        "Labels": labels,
        "TaskTemplate": task_template(task),
        "Mode": match mode {
            Mode::Replicated { replicas } => json!({ "Replicated": { "Replicas": replicas } }),
            Mode::Global => json!({ "Global": {} }),
            Mode::ReplicatedJob { max_concurrent, total_completions } => json!({
                "ReplicatedJob": { "MaxConcurrent": max_concurrent, "TotalCompletions": total_completions }
            }),
            Mode::GlobalJob => json!({ "GlobalJob": {} }),
        },
        "UpdateConfig": update_config(update),
        "RollbackConfig": update_config(rollback),
        "EndpointSpec": endpoint_spec(spec),
    });
    // Not Docker's, so only where they say something.
    if let Some(deadline) = progress_deadline {
        object["ProgressDeadline"] = nanos(*deadline);
    }
    if !depends_on.is_empty() {
        object["DependsOn"] = depends_on.iter().map(dependency).collect();
    }
    if let Some(schedule) = schedule {
        object["Schedule"] = json!({
            "Cron": schedule.cron,
            "TimeZone": schedule.timezone,
            "Concurrency": schedule.concurrency.word(),
        });
    }
    if *scheduling != Scheduling::default() {
        let Scheduling { priority, min_available, rebalance_on_join } = scheduling;
        object["Scheduling"] =
            json!({ "Priority": priority, "MinAvailable": min_available, "RebalanceOnJoin": rebalance_on_join });
    }
    object
}

fn dependency(dependency: &Dependency) -> Value {
    let condition = match dependency.condition {
        DependencyCondition::Started => "service_started",
        DependencyCondition::Healthy => "service_healthy",
        DependencyCondition::Completed => "service_completed_successfully",
    };
    json!({
        "Service": dependency.service,
        "Condition": condition,
        "Required": dependency.required,
        "Restart": dependency.restart,
    })
}

fn task_template(task: &TaskSpec) -> Value {
    let TaskSpec {
        container,
        resources,
        restart,
        placement,
        networks,
        host_network,
        log_driver,
        force_update,
        at_most_one,
        drain,
    } = task;
    let of_node = host_network.then(|| json!({ "Target": "host" }));
    let networks: Vec<Value> = networks
        .iter()
        .map(|network| {
            present([
                ("Target", Some(json!(network.network))),
                ("Aliases", unless_empty(&network.aliases)),
                ("Address", network.address.map(|address| json!(address.to_string()))),
            ])
        })
        .chain(of_node)
        .collect();
    let generic = resources.generic.iter();
    let generic: Vec<Value> = generic
        .map(|request| json!({ "DiscreteResourceSpec": { "Kind": request.kind, "Value": request.amount } }))
        .collect();
    let limits = &resources.limits;
    let reservations = &resources.reservations;
    let resources = json!({
        "Limits": present([
            ("NanoCPUs", limits.nano_cpus.map(|cpus| json!(cpus.0))),
            ("MemoryBytes", limits.memory.map(|memory| json!(memory.0))),
            ("Pids", limits.pids.map(|pids| json!(pids))),
        ]),
        "Reservations": present([
            ("NanoCPUs", reservations.nano_cpus.map(|cpus| json!(cpus.0))),
            ("MemoryBytes", reservations.memory.map(|memory| json!(memory.0))),
            ("GenericResources", unless_empty(&generic)),
        ]),
    });
    let constraints: Vec<String> = placement.constraints.iter().map(ToString::to_string).collect();
    let spreads = placement.preferences.iter();
    let spreads: Vec<Value> =
        spreads.map(|preference| json!({ "Spread": { "SpreadDescriptor": preference.spread } })).collect();
    let platforms = placement.platforms.iter();
    let platforms: Vec<Value> =
        platforms.map(|platform| json!({ "Architecture": platform.architecture, "OS": platform.os })).collect();
    let most = placement.max_replicas_per_node;
    let placement = present([
        ("Constraints", unless_empty(&constraints)),
        ("Preferences", unless_empty(&spreads)),
        ("MaxReplicas", (most > 0).then(|| json!(most))),
        ("Platforms", unless_empty(&platforms)),
        ("Strategy", placement.strategy.map(|strategy| json!(strategy))),
        ("Affinity", unless_empty(&placement.affinity)),
        ("AntiAffinity", unless_empty(&placement.anti_affinity)),
        ("Volumes", placement.volumes.map(|volumes| json!(volumes))),
    ]);
    let log_driver = log_driver.as_ref();
    present([
        ("ContainerSpec", Some(container::spec(container))),
        ("Resources", Some(resources)),
        ("RestartPolicy", Some(restart_policy(restart))),
        ("Placement", Some(placement)),
        ("Networks", unless_empty(&networks)),
        (
            "LogDriver",
            log_driver.map(|log| present([("Name", Some(json!(log.name))), ("Options", labels(&log.options))])),
        ),
        ("ForceUpdate", Some(json!(force_update))),
        // Not one of Docker's, so only where it says something.
        ("AtMostOne", at_most_one.then(|| json!(true))),
        ("Drain", drain.map(|drain| json!(u64::try_from(drain.as_nanos()).unwrap_or(u64::MAX)))),
        ("Runtime", Some(json!("container"))),
    ])
}

fn restart_policy(policy: &RestartPolicy) -> Value {
    json!({
        "Condition": match policy.condition {
            Condition::None => "none",
            Condition::OnFailure => "on-failure",
            Condition::Any => "any",
        },
        "Delay": nanos(policy.delay),
        "MaxAttempts": policy.max_attempts,
        "Window": nanos(policy.window),
    })
}

fn update_config(config: &UpdateConfig) -> Value {
    json!({
        "Parallelism": config.parallelism,
        "Delay": nanos(config.delay),
        "FailureAction": action_word(config.failure_action),
        "Monitor": nanos(config.monitor),
        "MaxFailureRatio": config.max_failure_ratio,
        "Order": order_word(config.order),
    })
}

pub fn action_word(action: FailureAction) -> &'static str {
    match action {
        FailureAction::Pause => "pause",
        FailureAction::Continue => "continue",
        FailureAction::Rollback => "rollback",
    }
}

pub fn order_word(order: UpdateOrder) -> &'static str {
    match order {
        UpdateOrder::StopFirst => "stop-first",
        UpdateOrder::StartFirst => "start-first",
    }
}

pub fn state_word(state: UpdateState) -> &'static str {
    match state {
        UpdateState::Updating => "updating",
        UpdateState::Paused => "paused",
        UpdateState::Completed => "completed",
        UpdateState::RollbackStarted => "rollback_started",
        UpdateState::RollbackPaused => "rollback_paused",
        UpdateState::RollbackCompleted => "rollback_completed",
    }
}

fn endpoint_spec(spec: &ServiceSpec) -> Value {
    let mode = match spec.endpoint.mode {
        EndpointMode::Vip => "vip",
        EndpointMode::DnsRr => "dnsrr",
    };
    let EndpointSpec { mode: _, ports: published, session_affinity, prefer_local } = &spec.endpoint;
    present([
        ("Mode", Some(json!(mode))),
        ("Ports", unless_empty(&ports(published))),
        ("SessionAffinity", session_affinity.map(|affinity| json!(affinity.word()))),
        ("PreferLocal", prefer_local.then(|| json!(true))),
    ])
}

fn ports(ports: &[PortSpec]) -> Vec<Value> {
    let port = |port: &PortSpec| {
        let mode = match port.mode {
            PublishMode::Ingress => "ingress",
            PublishMode::Host => "host",
        };
        present([
            ("Name", port.name.as_ref().map(|name| json!(name))),
            ("Protocol", Some(json!(port.protocol.word()))),
            ("TargetPort", Some(json!(port.target))),
            ("PublishedPort", Some(json!(port.published))),
            ("PublishMode", Some(json!(mode))),
            ("HostIP", port.host_ip.map(|address| json!(address.to_string()))),
        ])
    };
    ports.iter().map(port).collect()
}

fn update_status(status: &UpdateStatus) -> Value {
    present([
        ("State", Some(json!(state_word(status.state)))),
        ("StartedAt", Some(json!(time::rfc3339(status.started_at)))),
        ("CompletedAt", status.completed_at.map(|at| json!(time::rfc3339(at)))),
        ("Message", Some(json!(status.message))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::format::Template;
    use crate::cli::wait::fixture;

    #[test]
    fn dockers_templates_find_what_they_look_for() {
        let service = inspected(&fixture::service("web", 3));
        let show = |template: &str| Template::parse(template).unwrap().render(&service).unwrap();
        assert_eq!(show("{{.Spec.Name}} {{.Spec.Mode.Replicated.Replicas}}"), "web 3");
        assert_eq!(show("{{.Spec.TaskTemplate.ContainerSpec.Image}}"), "docker.io/library/nginx:1.27");
        assert_eq!(show("{{.Spec.TaskTemplate.RestartPolicy.Delay}}"), "5000000000");
    }
}
