//! Rotating the CA.

use skep_api::{Refusal, RefusalKind, RotateCaRequest, RotatedCa};
use skep_model::{Change, Feature};

use super::ControlService;
use crate::trust::{self, RotateError, VALIDITY_MIN};

impl<R> ControlService<R> {
    pub(super) async fn rotate_authority(&self, request: RotateCaRequest) -> Result<RotatedCa, Refusal> {
        if let Some(behind) = self.clock.behind() {
            return Err(Refusal::new(RefusalKind::Unavailable, format!("this manager makes no CA now: {behind}")));
        }
        let config = self.cluster().config.clone();
        let config =
            config.ok_or_else(|| Refusal::new(RefusalKind::Unavailable, "the cluster is not initialised yet"))?;
        if request.given.is_some() && !self.cluster().has(Feature::GivenCa) {
            let message =
                "some managers of this cluster are too old for a CA that was made elsewhere; upgrade them first";
            return Err(Refusal::new(RefusalKind::Unsupported, message));
        }
        let rotated = trust::rotate(&config, request.given.as_ref(), self.clock.now());
        let mut rotated = rotated.map_err(|error| match error {
            RotateError::Given(error) => Refusal { kind: RefusalKind::Invalid, ..Refusal::internal(&error) },
            error => Refusal::internal(&error),
        })?;
        if let Some(validity) = request.certificate_validity {
            if validity < VALIDITY_MIN {
                let message = "certificates must be valid for an hour at least";
                return Err(Refusal::new(RefusalKind::Invalid, message));
            }
            rotated.config.spec.node_certificate_validity = validity;
        }
        let reply = RotatedCa {
            certificate: rotated.config.ca_certificate.clone(),
            issuer: trust::issuer(&rotated.config).map_err(|error| Refusal::internal(&error))?,
            worker_token: rotated.worker.to_string(),
            manager_token: rotated.manager.to_string(),
        };
        let expected = Some(config.meta.version);
        self.propose(vec![Change::SetClusterConfig { config: Box::new(rotated.config), expected }]).await?;
        tracing::info!(issuer = reply.issuer, "the CA was rotated; nodes renew their certificates");
        Ok(reply)
    }
}
