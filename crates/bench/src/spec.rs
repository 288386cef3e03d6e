//! The services that are placed and deployed: as small as a service can be.

use skep_model::{Mode, ServiceSpec};

/// Pinned, so that no registry is asked.
const IMAGE: &str = "registry.example/app@sha256:9c1185a5c5e9fc54612808977ee8f548b2258d31e36ba2df5a1c2f8bd3d1a3b0";

/// A service for workers.
pub fn service(name: &str, replicas: u64) -> ServiceSpec {
    let workers = "node.role == worker".parse().expect("a constraint of ours parses");
    let mut spec = ServiceSpec { mode: Mode::Replicated { replicas }, ..ServiceSpec::new(name, IMAGE) };
    spec.task.placement.constraints.push(workers);
    spec
}
