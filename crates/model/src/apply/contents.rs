//! Changes of secrets and configs: a content is kept while somebody runs with it or could be rolled back to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{check_version, in_use, not_found};
use crate::change::Kind;
use crate::{
    Cluster, Config, ConfigId, ContainerSpec, ContentDigest, Contents, Feature, Labels, Meta, Rejection, Secret,
    SecretId, Timestamp, Version,
};

/// The new content of a secret or config.
pub(super) struct Rewrite<'c> {
    pub expected: Version,
    pub labels: &'c Labels,
    pub digest: &'c ContentDigest,
    pub data: &'c Arc<[u8]>,
    pub at: Timestamp,
}

impl Rewrite<'_> {
    /// `used` are the contents that stay beside it; all do without.
    fn apply(
        &self,
        (meta, labels, contents): (&mut Meta, &mut Labels, &mut Contents),
        used: Option<&BTreeSet<ContentDigest>>,
        version: Version,
    ) {
        labels.clone_from(self.labels);
        contents.set_current(self.digest.clone(), Arc::clone(self.data), self.at);
        if let Some(used) = used {
            contents.keep(used);
        }
        (meta.version, meta.updated_at) = (version, self.at);
    }
}

impl Cluster {
    pub(super) fn update_secret(&mut self, id: SecretId, new: &Rewrite<'_>, version: Version) -> Result<(), Rejection> {
        let used = self.contents_in_use();
        let secret = self.secrets.get_mut(&id).ok_or_else(|| not_found(Kind::Secret, &id))?;
        check_version(Kind::Secret, &id, new.expected, secret.meta.version)?;
        let Secret { meta, labels, contents, .. } = Arc::make_mut(secret);
        new.apply((meta, labels, contents), used.as_ref(), version);
        Ok(())
    }

    pub(super) fn update_config(&mut self, id: ConfigId, new: &Rewrite<'_>, version: Version) -> Result<(), Rejection> {
        let used = self.contents_in_use();
        let config = self.configs.get_mut(&id).ok_or_else(|| not_found(Kind::Config, &id))?;
        check_version(Kind::Config, &id, new.expected, config.meta.version)?;
        let Config { meta, labels, contents, .. } = Arc::make_mut(config);
        new.apply((meta, labels, contents), used.as_ref(), version);
        Ok(())
    }

    pub(super) fn remove_secret(&mut self, id: SecretId) -> Result<(), Rejection> {
        let name = self.secrets.get(&id).ok_or_else(|| not_found(Kind::Secret, &id))?.name.clone();
        let uses = |container: &ContainerSpec| container.secrets.iter().any(|it| it.secret.eq_ignore_ascii_case(&name));
        self.check_unused(Kind::Secret, &name, uses)?;
        self.secrets.remove(&id);
        self.index.secrets.remove(&name.to_lowercase());
        Ok(())
    }

    pub(super) fn remove_config(&mut self, id: ConfigId) -> Result<(), Rejection> {
        let name = self.configs.get(&id).ok_or_else(|| not_found(Kind::Config, &id))?.name.clone();
        let uses = |container: &ContainerSpec| container.configs.iter().any(|it| it.config.eq_ignore_ascii_case(&name));
        self.check_unused(Kind::Config, &name, uses)?;
        self.configs.remove(&id);
        self.index.configs.remove(&name.to_lowercase());
        Ok(())
    }

    fn check_unused(&self, kind: Kind, name: &str, uses: impl Fn(&ContainerSpec) -> bool) -> Result<(), Rejection> {
        match self.services.values().find(|service| uses(&service.spec.task.container)) {
            Some(service) => Err(in_use(kind, &name, format!("service {}", service.name()))),
            None => Ok(()),
        }
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
