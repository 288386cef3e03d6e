//! The services that are placed and deployed: as small as a service can be.

use skep_model::{
    ContainerSpec, EndpointSpec, Labels, Mode, Placement, Resources, RestartPolicy, ServiceSpec, TaskSpec, UpdateConfig,
};

/// Pinned, so that no registry is asked.
const IMAGE: &str = "registry.example/app@sha256:9c1185a5c5e9fc54612808977ee8f548b2258d31e36ba2df5a1c2f8bd3d1a3b0";

/// A service for workers.
pub fn service(name: &str, replicas: u64) -> ServiceSpec {
    let workers = "node.role == worker".parse().expect("a constraint of ours parses");
    let task = TaskSpec {
        container: ContainerSpec { image: IMAGE.to_owned(), ..ContainerSpec::default() },
        resources: Resources::default(),
        restart: RestartPolicy::default(),
        placement: Placement { constraints: vec![workers], ..Placement::default() },
        networks: Vec::new(),
        log_driver: None,
        force_update: 0,
        at_most_one: false,
        drain: None,
    };
    ServiceSpec {
        name: name.to_owned(),
        labels: Labels::new(),
        mode: Mode::Replicated { replicas },
        task,
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        endpoint: EndpointSpec::default(),
        progress_deadline: None,
        depends_on: Vec::new(),
        schedule: None,
        scheduling: Default::default(),
    }
}
