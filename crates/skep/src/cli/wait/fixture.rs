//! Services and tasks for tests.

use std::sync::Arc;

use skep_model::{
    DesiredState, Meta, Mode, NodeId, Service, ServiceId, ServiceSpec, Slot, Task, TaskId, TaskSpec, TaskState,
    TaskStatus, Timestamp, Version,
};

const IMAGE: &str = "docker.io/library/nginx:1.27";

pub fn service(name: &str, replicas: u64) -> Service {
    let spec = ServiceSpec { mode: Mode::Replicated { replicas }, ..ServiceSpec::new(name, IMAGE) };
    Service { spec_version: Version(1), ..Service::new(ServiceId::from_u128(1), spec, Timestamp::default()) }
}

pub fn task(service: &str, slot: u64, state: TaskState) -> Task {
    Task {
        id: TaskId::from_u128(u128::from(slot) + 100),
        meta: Meta::default(),
        service: ServiceId::from_u128(1),
        service_name: service.to_owned(),
        slot: Slot::Replica(slot),
        spec: Arc::new(TaskSpec::new(IMAGE)),
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
        service_labels: Default::default(),
    }
}
