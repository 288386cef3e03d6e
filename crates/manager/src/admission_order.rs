//! What a service's order may ask of the cluster: dependencies without circles.

use skep_model::{Cluster, ServiceSpec};

use crate::admission::Refusal;

/// Refuses services that would wait for each other.
pub fn check(cluster: &Cluster, spec: &ServiceSpec) -> Result<(), Refusal> {
    let name = &spec.name;
    match circle(cluster, spec) {
        Some(circle) => Err(Refusal::Invalid(format!(
            "service {name}: services depend on each other in a circle: {}; remove one of these dependencies",
            circle.join(" -> ")
        ))),
        None => Ok(()),
    }
}

/// The way from the service back to itself, by what the others of the cluster depend on.
fn circle(cluster: &Cluster, spec: &ServiceSpec) -> Option<Vec<String>> {
    // Each way is followed to services that were not on any before.
    let mut ways: Vec<Vec<String>> = vec![vec![spec.name.clone()]];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(way) = ways.pop() {
        let at = way.last()?;
        let first = way.len() == 1;
        let known = cluster.service_named(at);
        let next = if first { Some(&spec.depends_on) } else { known.map(|service| &service.spec.depends_on) };
        for dependency in next.into_iter().flatten() {
            let longer: Vec<String> = way.iter().chain([&dependency.service]).cloned().collect();
            if dependency.service.eq_ignore_ascii_case(&spec.name) {
                return Some(longer);
            }
            if seen.insert(dependency.service.to_lowercase()) {
                ways.push(longer);
            }
        }
    }
    None
}
