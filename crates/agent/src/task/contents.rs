//! What a task's secrets and configs hold, templates among them rendered: delivered before its container is made, and
//! where the service says which signal tells of it, replaced while it runs.
//!
//! Files are replaced in place, since a container has them mounted one by one: who reads while they are written may see
//! the end of the old content behind the beginning of the new one, and the signal comes after.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use skep_model::{ContentDigest, ContentKind, Task, TaskState};
use skep_runtime::Signal;

use super::driver::{Driver, blocking};
use super::files::{Delivered, Delivery};
use super::step::Observed;
use super::template::{self, NodeFacts};
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
        let facts = &node.settings.facts;
        let of_secrets = spec.secrets.iter().map(|reference| {
            let data = self.rendered("secret", &reference.secret, reference.digest.as_ref(), task, facts)?;
            Ok(Delivery { target: &reference.file, data })
        });
        let of_configs = spec.configs.iter().map(|reference| {
            let data = self.rendered("config", &reference.config, reference.digest.as_ref(), task, facts)?;
            Ok(Delivery { target: &reference.file, data })
        });
        let of_secrets: Vec<_> = of_secrets.collect::<Result<_, String>>()?;
        let of_configs: Vec<_> = of_configs.collect::<Result<_, String>>()?;
        let delivered = node.secrets.deliver(&task.id.to_string(), &of_secrets, &of_configs);
        delivered.map_err(|error| format!("failed to deliver secrets and configs: {error}"))
    }

    /// The bytes that the task is to find.
    fn rendered(
        &self,
        kind: &str,
        name: &str,
        digest: Option<&ContentDigest>,
        task: &Task,
        facts: &NodeFacts,
    ) -> Result<Cow<'_, [u8]>, String> {
        let data = self.get(kind, name, digest)?;
        if digest.map(ContentDigest::kind) != Some(ContentKind::Template) {
            return Ok(Cow::Borrowed(data));
        }
        let template = std::str::from_utf8(data).map_err(|error| {
            format!("{kind} {name} is a template, and no UTF-8 text: byte {} is wrong", error.valid_up_to() + 1)
        })?;
        let outside = |function: &str, wanted: &str| match function {
            "env" => environment_value(wanted, task, facts),
            of_kind => self.of_target(of_kind, wanted, task),
        };
        let rendered = template::render(template, task, facts, &outside);
        rendered
            .map(|text| Cow::Owned(text.into_bytes()))
            .map_err(|error| format!("{kind} {name} is a template: {error}"))
    }

    fn get(&self, kind: &str, name: &str, digest: Option<&ContentDigest>) -> Result<&[u8], String> {
        let known = if kind == "secret" { &self.secrets } else { &self.configs };
        let found = digest.and_then(|digest| known.get(digest)).map(|data| &data[..]);
        found.ok_or_else(|| {
            format!("{kind} {name} did not come with the task; it was removed, or its manager runs another version")
        })
    }

    /// `{{secret "target"}}`: of the task's own secrets, by the file that it finds it in.
    fn of_target(&self, kind: &str, target: &str, task: &Task) -> Result<String, String> {
        let spec = &task.spec.container;
        let mut references: Vec<(&str, &str, Option<&ContentDigest>)> = match kind {
            "secret" => spec.secrets.iter().map(|it| (&*it.file.path, &*it.secret, it.digest.as_ref())).collect(),
            _ => spec.configs.iter().map(|it| (&*it.file.path, &*it.config, it.digest.as_ref())).collect(),
        };
        references.sort_unstable();
        let found = references.iter().find(|(path, ..)| *path == target);
        let (_, name, digest) = found.ok_or_else(|| {
            let targets: Vec<&str> = references.iter().map(|(path, ..)| *path).collect();
            let there = if targets.is_empty() { "none".to_owned() } else { targets.join(", ") };
            format!("the service has no {kind} with the target `{target}`; there is {there}")
        })?;
        if digest.map(ContentDigest::kind) == Some(ContentKind::Template) {
            return Err(format!("{kind} {name} is a template itself, and a template cannot be put into another"));
        }
        let text = std::str::from_utf8(self.get(kind, name, *digest)?);
        text.map(str::to_owned).map_err(|_| format!("{kind} {name} is no text, and cannot be put into a template"))
    }
}

/// Of the service's own variables, as in Swarm; one that is not there is empty.
fn environment_value(name: &str, task: &Task, facts: &NodeFacts) -> Result<String, String> {
    let entries = task.spec.container.env.iter().rev();
    let found = entries.filter_map(|entry| entry.split_once('=')).find(|(key, _)| *key == name);
    found.map_or(Ok(String::new()), |(_, value)| template::expand(value, task, facts))
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
