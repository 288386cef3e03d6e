//! Services and tasks for tests.

use std::sync::Arc;

use skep_model::{
    ContainerSpec, DesiredState, Endpoint, EndpointSpec, Labels, Meta, Mode, NodeId, Placement, Resources,
    RestartPolicy, Service, ServiceId, ServiceSpec, Slot, Task, TaskId, TaskSpec, TaskState, TaskStatus, Timestamp,
    UpdateConfig, Version,
};

pub fn service(name: &str, replicas: u64) -> Service {
    let spec = ServiceSpec {
        name: name.to_owned(),
        labels: Labels::new(),
        mode: Mode::Replicated { replicas },
        task: task_spec(),
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        endpoint: EndpointSpec::default(),
        progress_deadline: None,
        depends_on: Vec::new(),
        schedule: None,
        scheduling: Default::default(),
    };
    Service {
        id: ServiceId::from_u128(1),
        meta: Meta::default(),
        spec: Arc::new(spec),
        spec_version: Version(1),
        revisions: Vec::new(),
        endpoint: Endpoint::default(),
        update_status: None,
        job: None,
        rebalancing_since: None,
    }
}

pub fn task(service: &str, slot: u64, state: TaskState) -> Task {
    Task {
        id: TaskId::from_u128(u128::from(slot) + 100),
        meta: Meta::default(),
        service: ServiceId::from_u128(1),
        service_name: service.to_owned(),
        slot: Slot::Replica(slot),
        spec: Arc::new(task_spec()),
        spec_version: Version(1),
        networks: Vec::new(),
        host_ports: Vec::new(),
        node: Some(NodeId::from_u128(7)),
        desired: DesiredState::Running,
        status: TaskStatus::new(state, Timestamp(0), ""),
        not_before: None,
        failures_before: 0,
        iteration: None,
        running_since: None,
        withdrawn: false,
        generic: Vec::new(),
        stop_reason: None,
        home: None,
    }
}

fn task_spec() -> TaskSpec {
    TaskSpec {
        container: ContainerSpec { image: "docker.io/library/nginx:1.27".to_owned(), ..ContainerSpec::default() },
        resources: Resources::default(),
        restart: RestartPolicy::default(),
        placement: Placement::default(),
        networks: Vec::new(),
        log_driver: None,
        force_update: 0,
        at_most_one: false,
        drain: None,
    }
}
