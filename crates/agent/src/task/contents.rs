//! What a task's secrets and configs hold: delivered before its container is made, and where the service says which signal
//! tells of it, replaced while it runs.
//!
//! Files are replaced in place, since a container has them mounted one by one: who reads while they are written may see
//! the end of the old content behind the beginning of the new one, and the signal comes after.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use skep_model::{ContentDigest, Task, TaskState};
use skep_runtime::Signal;

use super::driver::{Driver, blocking};
use super::files::{Delivered, Delivery};
use super::step::Observed;
use crate::node::{Node, chain};

/// The secrets and configs of one task, as far as this node was given them.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    pub secrets: BTreeMap<ContentDigest, Bytes>,
    pub configs: BTreeMap<ContentDigest, Bytes>,
}

/// A task that lives on with other contents.
#[derive(Debug)]
pub struct Refreshed {
    pub task: Arc<Task>,
    pub contents: Contents,
}

impl Contents {
    /// Writes the task's files, those that are there with another content too. The error is for the task's status.
    pub fn deliver(&self, node: &Node, task: &Task) -> Result<Delivered, String> {
        let spec = &task.spec.container;
        let of_secrets = spec.secrets.iter().map(|reference| {
            let data = content(&self.secrets, reference.digest.as_ref(), "secret", &reference.secret)?;
            Ok(Delivery { target: &reference.file, data })
        });
        let of_configs = spec.configs.iter().map(|reference| {
            let data = content(&self.configs, reference.digest.as_ref(), "config", &reference.config)?;
            Ok(Delivery { target: &reference.file, data })
        });
        let of_secrets: Vec<_> = of_secrets.collect::<Result<_, String>>()?;
        let of_configs: Vec<_> = of_configs.collect::<Result<_, String>>()?;
        let delivered = node.secrets.deliver(&task.id.to_string(), &of_secrets, &of_configs);
        delivered.map_err(|error| format!("failed to deliver secrets and configs: {error}"))
    }
}

fn content<'a>(
    known: &'a BTreeMap<ContentDigest, Bytes>,
    digest: Option<&ContentDigest>,
    kind: &str,
    name: &str,
) -> Result<&'a [u8], String> {
    let found = digest.and_then(|digest| known.get(digest)).map(|data| &data[..]);
    found.ok_or_else(|| {
        format!("{kind} {name} did not come with the task; it was removed, or its manager runs another version")
    })
}

impl Driver {
    /// What the managers have told since the last look.
    pub(super) fn take_refreshed(&mut self) {
        let Some(refreshed) = self.setup.refreshed.borrow_and_update().clone() else { return };
        self.setup.task = Arc::clone(&refreshed.task);
        self.setup.contents = Arc::new(refreshed.contents.clone());
    }

    /// Replaces the files of a container that is there, where they are other ones, and tells it if it runs.
    pub(super) async fn refresh(&mut self) {
        let task = Arc::clone(&self.setup.task);
        let Some(signal) = task.spec.container.on_change.clone() else { return };
        let Some(running) = &self.container else { return };
        let (node, contents, container) =
            (Arc::clone(&self.setup.node), Arc::clone(&self.setup.contents), running.container.clone());
        let runs = matches!(self.observed, Observed::Running { .. });
        let replaced = blocking(move || -> Result<bool, String> {
            let changed = contents.deliver(&node, &task)?.changed;
            if changed && runs {
                let parsed = Signal::parse(&signal).ok_or_else(|| format!("on-change `{signal}` is no signal"))?;
                container.signal(parsed).map_err(|error| chain(&error))?;
            }
            Ok(changed)
        });
        match replaced.await {
            Ok(false) => {}
            Ok(true) => tracing::info!(task.id = self.id(), "contents of secrets and configs replaced"),
            // It goes on with what it has, and whoever looks at it is told.
            Err(error) => {
                tracing::warn!(task.id = self.id(), error, "contents of secrets and configs were not replaced");
                if runs {
                    self.complain(format!("its secrets and configs are not the latest: {error}"));
                }
            }
        }
    }

    /// What is wrong with a task that runs all the same.
    fn complain(&mut self, error: String) {
        self.status.error = Some(error);
        if self.status.state == TaskState::Running {
            self.report(TaskState::Running, "started");
        }
    }
}
