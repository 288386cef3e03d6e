//! Changes of secrets and configs: a content is kept while somebody runs with it or could be rolled back to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{check_version, in_use, not_found};
use crate::change::Kind;
use crate::{
    Cluster, ConfigId, ContainerSpec, ContentDigest, Feature, Labels, Rejection, SecretId, Service, Timestamp, Version,
};

impl Cluster {
    #[expect(clippy::too_many_arguments, reason = "the fields of one change")]
    pub(super) fn update_secret(
        &mut self,
        id: SecretId,
        expected: Version,
        labels: &Labels,
        digest: &ContentDigest,
        data: &Arc<[u8]>,
        at: Timestamp,
        version: Version,
    ) -> Result<(), Rejection> {
        let used = self.contents_in_use();
        let secret = self.secrets.get_mut(&id).ok_or_else(|| not_found(Kind::Secret, &id))?;
        check_version(Kind::Secret, &id, expected, secret.meta.version)?;
        let secret = Arc::make_mut(secret);
        secret.labels = labels.clone();
        secret.contents.set_current(digest.clone(), Arc::clone(data), at);
        if let Some(used) = used {
            secret.contents.keep(&used);
        }
        (secret.meta.version, secret.meta.updated_at) = (version, at);
        Ok(())
    }

    pub(super) fn remove_secret(&mut self, id: SecretId) -> Result<(), Rejection> {
        let name = self.secrets.get(&id).ok_or_else(|| not_found(Kind::Secret, &id))?.name.clone();
        let uses =
            |s: &&Arc<Service>| s.spec.task.container.secrets.iter().any(|r| r.secret.eq_ignore_ascii_case(&name));
        if let Some(service) = self.services.values().find(uses) {
            return Err(in_use(Kind::Secret, &name, format!("service {}", service.name())));
        }
        self.secrets.remove(&id);
        self.index.secrets.remove(&name.to_lowercase());
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one change")]
    pub(super) fn update_config(
        &mut self,
        id: ConfigId,
        expected: Version,
        labels: &Labels,
        digest: &ContentDigest,
        data: &Arc<[u8]>,
        at: Timestamp,
        version: Version,
    ) -> Result<(), Rejection> {
        let used = self.contents_in_use();
        let config = self.configs.get_mut(&id).ok_or_else(|| not_found(Kind::Config, &id))?;
        check_version(Kind::Config, &id, expected, config.meta.version)?;
        let config = Arc::make_mut(config);
        config.labels = labels.clone();
        config.contents.set_current(digest.clone(), Arc::clone(data), at);
        if let Some(used) = used {
            config.contents.keep(&used);
        }
        (config.meta.version, config.meta.updated_at) = (version, at);
        Ok(())
    }

    pub(super) fn remove_config(&mut self, id: ConfigId) -> Result<(), Rejection> {
        let name = self.configs.get(&id).ok_or_else(|| not_found(Kind::Config, &id))?.name.clone();
        let uses =
            |s: &&Arc<Service>| s.spec.task.container.configs.iter().any(|r| r.config.eq_ignore_ascii_case(&name));
        if let Some(service) = self.services.values().find(uses) {
            return Err(in_use(Kind::Config, &name, format!("service {}", service.name())));
        }
        self.configs.remove(&id);
        self.index.configs.remove(&name.to_lowercase());
        Ok(())
    }

    /// Contents that a service, one of its kept revisions, a kept revision of a stack or a task refers to. `None` as long
    /// as a manager may not know that the others go.
    fn contents_in_use(&self) -> Option<BTreeSet<ContentDigest>> {
        if !self.has(Feature::Services) {
            return None;
        }
        let services = self.services.values().map(|service| &service.spec.task);
        let revisions = self.services.values().flat_map(|service| &service.revisions).map(|old| &old.spec.task);
        let stacks = self.stacks.values().flat_map(|stack| &stack.revisions).flat_map(|revision| &revision.services);
        let specs = services.chain(revisions).chain(stacks.map(|spec| &spec.task));
        let tasks = self.tasks.values().map(|task| &*task.spec);
        Some(specs.chain(tasks).flat_map(|spec| digests(&spec.container)).cloned().collect())
    }
}

fn digests(container: &ContainerSpec) -> impl Iterator<Item = &ContentDigest> {
    let secrets = container.secrets.iter().filter_map(|reference| reference.digest.as_ref());
    secrets.chain(container.configs.iter().filter_map(|reference| reference.digest.as_ref()))
}
