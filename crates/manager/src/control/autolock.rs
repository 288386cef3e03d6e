//! Turning autolock on and off, and changing its key. Each manager then locks its own files.

use skep_api::{AutolockChange, AutolockRequest, AutolockState, Refusal, RefusalKind};
use skep_identity::UnlockKey;
use skep_model::{Change, ClusterConfig, ClusterSpec, Feature};

use super::ControlService;

impl<R> ControlService<R> {
    pub(super) async fn change_autolock(&self, request: AutolockRequest) -> Result<AutolockState, Refusal> {
        let cluster = self.cluster();
        let Some(config) = cluster.config.clone() else {
            return Err(Refusal::new(RefusalKind::Unavailable, "the cluster is not initialised yet"));
        };
        let current = config.unlock_key.clone().filter(|_| config.spec.autolock);
        let unlock_key = match (request.change, current) {
            (None, current) => return Ok(AutolockState { unlock_key: current }),
            (Some(AutolockChange::On), Some(current)) => return Ok(AutolockState { unlock_key: Some(current) }),
            (Some(AutolockChange::Off), None) => return Ok(AutolockState { unlock_key: None }),
            (Some(AutolockChange::Rotate), None) => {
                let message = "autolock is off: there is no unlock key; `skep swarm update --autolock` makes one";
                return Err(Refusal::new(RefusalKind::Conflict, message));
            }
            (Some(AutolockChange::Off), Some(_)) => None,
            (Some(AutolockChange::On), None) | (Some(AutolockChange::Rotate), Some(_)) => {
                if !cluster.has(Feature::Autolock) {
                    let message = "not every manager runs a version of skep that knows autolock; upgrade all of them first \
                                   (`skep node ls` shows their versions)";
                    return Err(Refusal::new(RefusalKind::Unsupported, message));
                }
                Some(UnlockKey::generate().map_err(|error| Refusal::internal(&error))?.to_string())
            }
        };
        let spec = ClusterSpec { autolock: unlock_key.is_some(), ..config.spec.clone() };
        let expected = Some(config.meta.version);
        let config = ClusterConfig { spec, unlock_key: unlock_key.clone(), ..(*config).clone() };
        self.propose(vec![Change::SetClusterConfig { config: Box::new(config), expected }]).await?;
        Ok(AutolockState { unlock_key })
    }
}
