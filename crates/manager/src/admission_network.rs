//! Admission of what a service asks of its networks: addresses by name, and published ports that can lead to it.

use skep_model::{Cluster, NetworkDriver, Service};
use skep_orchestrator::addresses;

use crate::admission::Refusal;

/// Pure, as all of admission.
pub fn check(cluster: &Cluster, service: &Service) -> Result<(), Refusal> {
    let name = service.name();
    if let Some(conflict) = addresses::conflict(cluster, service) {
        return Err(Refusal::Conflict(format!("service {name}: {conflict}")));
    }
    let Some(port) = service.spec.endpoint.ports.first() else { return Ok(()) };
    let networks = service.spec.task.networks.iter();
    let drivers: Vec<_> = networks
        .filter_map(|attachment| cluster.network_named(&attachment.network))
        .map(|network| network.spec.driver())
        .collect();
    let is_station = !drivers.is_empty() && drivers.iter().all(|driver| *driver == NetworkDriver::Macvlan);
    match is_station {
        true => Err(Refusal::Invalid(format!(
            "service {name}: port {} cannot be published: its tasks are stations of the local network (driver macvlan), \
             where each answers under its own address; remove the port, or add a network of another driver",
            port.target
        ))),
        false => Ok(()),
    }
}
