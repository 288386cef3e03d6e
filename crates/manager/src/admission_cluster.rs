//! Admission of settings of the whole cluster.

use std::time::Duration;

use skep_api::ClusterUpdate;
use skep_model::{Change, Cluster, ClusterConfig, ClusterSpec, Feature};

use crate::admission::Refusal;
use crate::trust::VALIDITY_MIN;

/// Silence counts in seconds: a node must be heard several times before it is given up.
const HEARTBEAT_MAX: Duration = Duration::from_secs(1);
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);

/// The cluster's id in text, and the change that gives it the settings.
pub fn cluster_update(cluster: &Cluster, update: ClusterUpdate) -> Result<(String, Change), Refusal> {
    let missing = || Refusal::Conflict("the cluster is not initialised yet".to_owned());
    let config = cluster.config.as_ref().ok_or_else(missing)?;
    let ClusterUpdate { task_history_limit, heartbeat_period, certificate_validity, bin_pack } = update;
    if bin_pack.is_some() && !cluster.has(Feature::Services) {
        let message = "bin-packing needs managers that know it; upgrade skep on every manager".to_owned();
        return Err(Refusal::Conflict(message));
    }
    if let Some(period) = heartbeat_period.filter(|period| !(HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(period)) {
        let message = format!("a heartbeat every {period:?} is not possible; it must be 100 ms to 1 s");
        return Err(Refusal::Invalid(message));
    }
    if let Some(validity) = certificate_validity.filter(|validity| *validity < VALIDITY_MIN) {
        let message = format!("certificates for {validity:?} are too short-lived; give them {VALIDITY_MIN:?} at least");
        return Err(Refusal::Invalid(message));
    }
    let spec = &config.spec;
    let spec = ClusterSpec {
        task_history_limit: task_history_limit.unwrap_or(spec.task_history_limit),
        heartbeat_period: heartbeat_period.unwrap_or(spec.heartbeat_period),
        node_certificate_validity: certificate_validity.unwrap_or(spec.node_certificate_validity),
        bin_pack: bin_pack.unwrap_or(spec.bin_pack),
        ..spec.clone()
    };
    let expected = Some(config.meta.version);
    let config = ClusterConfig { spec, ..(**config).clone() };
    Ok((config.id.to_string(), Change::SetClusterConfig { config: Box::new(config), expected }))
}
