//! Services that must share their nodes, or must not.
//!
//! Affinity looks at the tasks that are placed, so the service that is to be followed comes first; of two that follow
//! each other the one that is asked first does.
//! Anti-affinity holds both ways: who is avoided keeps away too.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::{Cluster, Service, ServiceId};

/// What one service's tasks may find on a node.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Company {
    pub with: Vec<Followed>,
    /// With their names.
    pub without: BTreeMap<ServiceId, String>,
}

impl Company {
    /// Every service that is looked at.
    pub fn services(&self) -> impl Iterator<Item = ServiceId> {
        self.with.iter().filter_map(|followed| followed.service).chain(self.without.keys().copied())
    }
}

/// A service whose tasks are to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    pub name: String,
    /// `None` when there is no such service.
    pub service: Option<ServiceId>,
    /// It waits for this one as well: whoever is first may go anywhere.
    pub mutual: bool,
}

/// The company of each of `services` that minds it.
pub fn companies(cluster: &Cluster, services: &BTreeSet<ServiceId>) -> BTreeMap<ServiceId, Company> {
    let mut companies: BTreeMap<ServiceId, Company> = BTreeMap::new();
    let minds = |service: &&std::sync::Arc<Service>| {
        let placement = &service.spec.task.placement;
        !placement.affinity.is_empty() || !placement.anti_affinity.is_empty()
    };
    for service in cluster.services.values().filter(minds) {
        let placement = &service.spec.task.placement;
        let avoided = placement.anti_affinity.iter().filter_map(|name| cluster.service_named(name));
        for avoided in avoided {
            for (one, other) in [(service, avoided), (avoided, service)] {
                if services.contains(&one.id) {
                    companies.entry(one.id).or_default().without.insert(other.id, other.name().to_owned());
                }
            }
        }
        if services.contains(&service.id) && !placement.affinity.is_empty() {
            let followed = placement.affinity.iter().map(|name| followed(cluster, service, name));
            companies.entry(service.id).or_default().with = followed.collect();
        }
    }
    companies
}

fn followed(cluster: &Cluster, service: &Service, name: &str) -> Followed {
    let other = cluster.service_named(name);
    let names = |other: &Service| other.spec.task.placement.affinity.iter().any(|name| name == service.name());
    Followed { name: name.to_owned(), service: other.map(|other| other.id), mutual: other.is_some_and(|it| names(it)) }
}
