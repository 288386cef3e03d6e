//! The worker: holds the node's assignments and keeps one driver running for each task among them.
//!
//! Assignments come as a full set and then as deltas; while no manager answers, the worker goes on with
//! what it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use skep_api::{Assignment, AssignmentKey, Assignments};
use skep_model::{ContentDigest, DesiredState, Task, TaskId};
use skep_runtime::{Container, Liveness, Signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::network::NetworkHandle;
use crate::network_view::ClusterView;
use crate::node::{Node, chain};
use crate::reporter::Reporter;
use crate::task::driver::{self, DriverSetup, Wish};

pub struct Worker {
    node: Arc<Node>,
    network: NetworkHandle,
    reporter: Reporter,
    revision: u64,
    cluster: ClusterView,
    secrets: BTreeMap<ContentDigest, Bytes>,
    configs: BTreeMap<ContentDigest, Bytes>,
    tasks: BTreeMap<TaskId, watch::Sender<Wish>>,
    drivers: JoinSet<()>,
}

/// A delta that does not continue what the agent has: the session must begin again.
#[derive(Debug, thiserror::Error)]
#[error("assignments {base} were to be continued, this agent has {have}")]
pub struct OutOfStep {
    base: u64,
    have: u64,
}

impl Worker {
    pub fn new(node: Arc<Node>, network: NetworkHandle, reporter: Reporter) -> Self {
        Self {
            node,
            network,
            reporter,
            revision: 0,
            cluster: ClusterView::default(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            tasks: BTreeMap::new(),
            drivers: JoinSet::new(),
        }
    }

    /// Takes a set or a delta; the drivers do the rest.
    pub async fn assign(&mut self, assignments: Assignments) -> Result<(), OutOfStep> {
        let Assignments { base, revision, set, removed } = assignments;
        let mut assigned: Vec<Arc<Task>> = Vec::new();
        let full = base.is_none();
        match base {
            None => {
                self.cluster = ClusterView::default();
                (self.secrets, self.configs) = (BTreeMap::new(), BTreeMap::new());
            }
            Some(base) if base == self.revision => {}
            Some(base) => return Err(OutOfStep { base, have: self.revision }),
        }
        let before = self.revision;
        self.revision = revision;
        for assignment in set {
            match assignment {
                Assignment::Task(task) => assigned.push(Arc::from(task)),
                Assignment::Secret(secret) => drop(self.secrets.insert(secret.digest, secret.data)),
                Assignment::Config(config) => drop(self.configs.insert(config.digest, config.data)),
                Assignment::Network(network) => drop(self.cluster.networks.insert(network.id, network)),
                Assignment::Endpoint(endpoint) => drop(self.cluster.endpoints.insert(endpoint.service, endpoint)),
            }
        }
        if full {
            let kept: Vec<TaskId> = assigned.iter().map(|task| task.id).collect();
            let gone: Vec<TaskId> = self.tasks.keys().copied().filter(|task| !kept.contains(task)).collect();
            gone.into_iter().for_each(|task| self.forget(task));
            if before == 0 {
                self.clear_leftovers(&kept).await;
            }
        }
        removed.into_iter().for_each(|key| self.remove(key));
        // The first picture of the network is realized with every container that lives: adopt before.
        if full && before == 0 {
            self.network.expect(assigned.iter().map(|task| task.id).collect()).await;
        }
        self.network.set_cluster(self.cluster.clone()).await;
        assigned.into_iter().for_each(|task| self.drive(task));
        while self.drivers.try_join_next().is_some() {}
        Ok(())
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn drive(&mut self, task: Arc<Task>) {
        // A daemon that lost what it reported last may run a task whose end is known: that one is to stop.
        let ended = task.status.state.is_terminal();
        let wish = Wish::Be(if ended { task.desired.max(DesiredState::Shutdown) } else { task.desired });
        if let Some(driver) = self.tasks.get(&task.id) {
            driver.send_if_modified(|known| std::mem::replace(known, wish) != wish);
            return;
        }
        let (sender, receiver) = watch::channel(wish);
        self.tasks.insert(task.id, sender);
        let setup = DriverSetup {
            node: Arc::clone(&self.node),
            network: self.network.clone(),
            reporter: self.reporter.clone(),
            secrets: Arc::new(self.contents_of(&task, &self.secrets)),
            configs: Arc::new(self.contents_of(&task, &self.configs)),
            task,
        };
        self.drivers.spawn(driver::run(setup, receiver));
    }

    /// Only what the task refers to: a driver keeps its own copy for as long as it may need it.
    fn contents_of(&self, task: &Task, known: &BTreeMap<ContentDigest, Bytes>) -> BTreeMap<ContentDigest, Bytes> {
        let container = &task.spec.container;
        let secrets = container.secrets.iter().filter_map(|reference| reference.digest.as_ref());
        let configs = container.configs.iter().filter_map(|reference| reference.digest.as_ref());
        secrets.chain(configs).filter_map(|digest| Some((digest.clone(), known.get(digest)?.clone()))).collect()
    }

    fn remove(&mut self, key: AssignmentKey) {
        match key {
            AssignmentKey::Task(task) => self.forget(task),
            AssignmentKey::Secret(digest) => drop(self.secrets.remove(&digest)),
            AssignmentKey::Config(digest) => drop(self.configs.remove(&digest)),
            AssignmentKey::Network(network) => drop(self.cluster.networks.remove(&network)),
            AssignmentKey::Endpoint(service) => drop(self.cluster.endpoints.remove(&service)),
        }
    }

    fn forget(&mut self, task: TaskId) {
        if let Some(driver) = self.tasks.remove(&task) {
            // A driver that is already gone has nothing left to forget.
            let _ = driver.send(Wish::Forget);
        }
    }

    /// Containers, folders and secrets of tasks that are no longer this node's: left by a daemon that was
    /// away when they were taken from it.
    async fn clear_leftovers(&self, kept: &[TaskId]) {
        let node = Arc::clone(&self.node);
        let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
        let cleared = tokio::task::spawn_blocking(move || clear(&node, &kept)).await;
        match cleared.expect("clearing leftovers does not panic") {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "leftover containers removed"),
            Err(error) => tracing::warn!(%error, "leftover containers were not all removed"),
        }
    }

    /// Stops every task and waits for their clean-up.
    pub async fn stop_all(&mut self) {
        let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
        tasks.into_iter().for_each(|task| self.forget(task));
        while self.drivers.join_next().await.is_some() {}
        // Those that no manager has told this daemon of.
        self.clear_leftovers(&[]).await;
    }
}

fn clear(node: &Node, kept: &[String]) -> std::io::Result<usize> {
    let mut count = 0;
    for lost in skep_runtime::recover_lost(node.run_dir(), &node.containers_cgroup()).unwrap_or_default() {
        tracing::warn!(task.id = lost.id, "a container had lost its supervisor and was ended");
    }
    for (id, liveness) in skep_runtime::list(node.run_dir())? {
        if kept.contains(&id) || liveness == Liveness::Lost {
            continue;
        }
        count += 1;
        let ended = Container::open(node.run_dir(), &id).and_then(|container| {
            if let Err(error) = container.signal(Signal::KILL) {
                tracing::debug!(task.id = id, error = chain(&error), "not killed; it has ended, or its events tell");
            }
            let events = container.subscribe()?;
            events.wait_event()?;
            container.release()
        });
        if let Err(error) = ended {
            tracing::warn!(task.id = id, error = chain(&error), "a leftover container was not removed");
        }
    }
    let leftover = |name: &String| !kept.contains(name);
    let folders = std::fs::read_dir(node.containers_dir())?.filter_map(Result::ok);
    for folder in folders.filter(|folder| leftover(&folder.file_name().to_string_lossy().into_owned())) {
        std::fs::remove_dir_all(folder.path())?;
    }
    for task in node.secrets.tasks()?.into_iter().filter(leftover) {
        node.secrets.forget(&task)?;
    }
    Ok(count)
}
