//! Random specs of services: every policy and mode, on a cluster that is sometimes too small.

use skep_model::{
    Condition, ContainerSpec, Dependency, DependencyCondition, EndpointSpec, FailureAction, FileTarget, Labels,
    MemoryBytes, Mode, Mount, MountKind, NanoCpus, NetworkAttachment, Placement, PortProtocol, PortSpec, PublishMode,
    Reservations, Resources, RestartPolicy, Scheduling, SecretRef, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder,
    VolumePlacement,
};

use crate::chance::Chance;
use crate::users::seconds;

pub fn image(chance: &mut Chance) -> &'static str {
    const IMAGES: [&str; 10] = [
        "app:good",
        "app:good1",
        "app:good2",
        "app:good3",
        "app:flaky",
        "app:flaky",
        "app:bad",
        "app:missing",
        "app:once",
        "app:good4",
    ];
    IMAGES[chance.below(IMAGES.len() as u64) as usize]
}

pub fn disk(chance: &mut Chance) -> &'static str {
    if chance.one_in(2) { "ssd" } else { "hdd" }
}

pub fn update(chance: &mut Chance) -> UpdateConfig {
    let actions = [FailureAction::Pause, FailureAction::Continue, FailureAction::Rollback];
    UpdateConfig {
        parallelism: chance.below(4),
        delay: seconds([0, 0, 1, 10][chance.below(4) as usize]),
        failure_action: actions[chance.below(3) as usize],
        monitor: seconds([0, 1, 5, 15][chance.below(4) as usize]),
        max_failure_ratio: [0.0, 0.0, 0.3, 1.0][chance.below(4) as usize],
        order: if chance.one_in(2) { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst },
    }
}

fn restart(chance: &mut Chance) -> RestartPolicy {
    let condition = match chance.below(6) {
        0 => Condition::None,
        1 => Condition::OnFailure,
        _ => Condition::Any,
    };
    RestartPolicy {
        condition,
        delay: seconds([0, 1, 5, 5, 20][chance.below(5) as usize]),
        max_attempts: [0, 0, 0, 3][chance.below(4) as usize],
        window: seconds([0, 30][chance.below(2) as usize]),
    }
}

pub fn service(name: String, chance: &mut Chance) -> ServiceSpec {
    let mode = match chance.below(8) {
        0 | 1 => Mode::Global,
        2 => Mode::ReplicatedJob { max_concurrent: chance.below(3), total_completions: chance.below(5) },
        _ => Mode::Replicated { replicas: chance.below(6) },
    };
    let mut placement = Placement::default();
    if chance.one_in(3) {
        let op = if chance.one_in(2) { "==" } else { "!=" };
        let text = format!("node.labels.disk {op} {}", disk(chance));
        placement.constraints.extend(text.parse());
    }
    placement.max_replicas_per_node = if chance.one_in(5) { chance.between(1, 2) } else { 0 };
    let reservations = match chance.below(3) {
        0 => Reservations {
            nano_cpus: Some(NanoCpus(chance.between(1, 15) * 200_000_000)),
            memory: Some(MemoryBytes(chance.between(64, 900) << 20)),
        },
        _ => Reservations::default(),
    };
    let grace = [0, 1, 10, 10, 30][chance.below(5) as usize];
    let uses_secret = chance.one_in(3);
    let file = FileTarget { path: "key".to_owned(), uid: 0, gid: 0, mode: 0o444 };
    let secret = SecretRef { secret: "key".to_owned(), digest: None, file };
    let attachment =
        NetworkAttachment { network: "back".to_owned(), aliases: Vec::new(), address: None, address_v6: None };
    let at_most_one = chance.one_in(4);
    let updates = |chance: &mut Chance| match at_most_one {
        true => UpdateConfig { order: UpdateOrder::StopFirst, ..update(chance) },
        false => update(chance),
    };
    let (mut update, mut rollback) = (updates(chance), updates(chance));
    if mode.is_job() {
        (update, rollback) = (UpdateConfig::default(), UpdateConfig::default());
    }
    let depends_on = if chance.one_in(4) { vec![dependency(chance)] } else { Vec::new() };
    let mounts = if chance.one_in(4) { vec![volume()] } else { Vec::new() };
    placement.volumes = [None, Some(VolumePlacement::Free), Some(VolumePlacement::Stay)][chance.below(3) as usize];
    let scheduling = Scheduling {
        priority: chance.below(3) as i32,
        min_available: match mode {
            Mode::Replicated { replicas: 3.. } => chance.below(2),
            Mode::Replicated { .. } | Mode::Global | Mode::ReplicatedJob { .. } | Mode::GlobalJob => 0,
        },
        rebalance_on_join: chance.one_in(4),
    };
    ServiceSpec {
        name,
        labels: Labels::new(),
        mode,
        task: TaskSpec {
            container: ContainerSpec {
                image: image(chance).to_owned(),
                stop_grace_period: Some(seconds(grace)),
                secrets: if uses_secret { vec![secret] } else { Vec::new() },
                mounts,
                ..ContainerSpec::default()
            },
            resources: Resources { reservations, ..Resources::default() },
            restart: restart(chance),
            placement,
            networks: if chance.one_in(2) { vec![attachment] } else { Vec::new() },
            host_network: false,
            log_driver: None,
            force_update: 0,
            at_most_one,
            drain: None,
        },
        update,
        rollback,
        endpoint: EndpointSpec { ports: ports(chance), ..EndpointSpec::default() },
        scheduling,
        progress_deadline: None,
        depends_on,
        schedule: None,
    }
}

/// On one of the first services, or on one that never comes.
fn dependency(chance: &mut Chance) -> Dependency {
    let conditions = [DependencyCondition::Started, DependencyCondition::Healthy, DependencyCondition::Completed];
    Dependency {
        service: format!("s{}", chance.between(1, 4)),
        condition: conditions[chance.below(3) as usize],
        required: chance.one_in(2),
        restart: chance.one_in(3),
    }
}

fn volume() -> Mount {
    let kind = MountKind::Volume {
        name: Some("data".to_owned()),
        no_copy: false,
        subpath: None,
        driver: None,
        options: Labels::new(),
        labels: Labels::new(),
    };
    Mount { target: "/data".to_owned(), read_only: false, kind }
}

fn ports(chance: &mut Chance) -> Vec<PortSpec> {
    let mode = match chance.below(5) {
        0 => PublishMode::Host,
        1 => PublishMode::Ingress,
        _ => return Vec::new(),
    };
    let published = if chance.one_in(2) { 0 } else { 8000 + chance.below(4) as u16 };
    vec![PortSpec { name: None, protocol: PortProtocol::Tcp, target: 80, published, mode, host_ip: None }]
}
