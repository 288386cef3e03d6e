//! Rollbacks: planned on what this manager knows, and planned again when somebody was faster.

use skep_api::{Caller, Deployed, Refusal, RefusalKind, RollbackServiceRequest, RollbackStackRequest, Written};
use skep_model::{Change, Version};
use skep_store::ProposeError;

use super::write::{author, deployed};
use super::{ControlService, not_found};
use crate::clock::wall_clock;
use crate::refusal::not_written;
use crate::rollback;

impl<R> ControlService<R> {
    pub(super) async fn roll_service_back(&self, request: RollbackServiceRequest) -> Result<Written, Refusal> {
        // Whom it was decided for: a rollback of somebody else meanwhile must not be rolled back.
        let wanted = self.cluster().find_service(&request.service).map_err(not_found)?.clone();
        loop {
            let cluster = self.cluster();
            let service = cluster.find_service(&request.service).map_err(not_found)?;
            if service.spec_version != wanted.spec_version {
                let message = format!(
                    "service {} was changed by somebody else meanwhile; look at it, and repeat the rollback if it is still wanted",
                    service.name()
                );
                return Err(Refusal::new(RefusalKind::OutOfSequence, message));
            }
            let changes = rollback::service(&cluster, service, request.to, wall_clock())?;
            if let Some(version) = self.attempt(changes, cluster.version).await? {
                return Ok(Written { id: service.id.to_string(), version, warnings: Vec::new() });
            }
        }
    }

    pub(super) async fn roll_stack_back(
        &self,
        caller: Caller,
        request: RollbackStackRequest,
    ) -> Result<Deployed, Refusal> {
        let author = author(caller);
        let missing = || {
            let message = format!("stack `{}` not found; `skep stack ls` lists what is there", request.stack);
            Refusal::new(RefusalKind::NotFound, message)
        };
        loop {
            let cluster = self.cluster();
            let stack = cluster.stacks.get(&request.stack).ok_or_else(missing)?;
            let ids = &mut *self.ids.lock().await;
            let plan = rollback::stack(&cluster, stack, request.to, author.clone(), wall_clock(), ids)?;
            let objects = plan.objects.into_iter().map(deployed).collect();
            let revision = plan.revision;
            let version = match plan.changes.is_empty() {
                true => Some(cluster.version),
                false => self.attempt(plan.changes, cluster.version).await?,
            };
            if let Some(version) = version {
                return Ok(Deployed { revision, version, objects, warnings: Vec::new() });
            }
        }
    }

    /// The version that the changes made; `None` when they were decided on a picture that is past.
    async fn attempt(&self, changes: Vec<Change>, seen: Version) -> Result<Option<Version>, Refusal> {
        match self.store.propose(changes).await {
            Ok(committed) => Ok(Some(Version(committed.revision))),
            // Each round sees progress of others.
            Err(ProposeError::Rejected(rejection)) if self.cluster().version != seen => {
                tracing::debug!(%rejection, "a rollback was overtaken");
                Ok(None)
            }
            Err(error) => Err(not_written(error)),
        }
    }
}
