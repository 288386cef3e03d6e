//! The worker: holds the node's assignments and keeps one driver running for each task among them.
//!
//! Assignments come as a full set and then as deltas; while no manager answers, the worker goes on with
//! what it has, and after a start with what the disk remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_api::{AssignedContent, Assignment, AssignmentKey, Assignments};
use skep_model::{ContentDigest, DesiredState, Task, TaskId};
use skep_runtime::{Container, Liveness, Signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::drains::Drains;
use crate::leases::Leases;
use crate::network::NetworkHandle;
use crate::network_view::ClusterView;
use crate::node::{Node, chain};
use crate::remembered::Picture;
use crate::reporter::Reporter;
use crate::task::contents::{Contents, Refreshed};
use crate::task::driver::{self, DriverSetup, Wish};

pub struct Worker {
    node: Arc<Node>,
    network: NetworkHandle,
    reporter: Reporter,
    leases: Leases,
    drains: Drains,
    revision: u64,
    cluster: ClusterView,
    secrets: BTreeMap<ContentDigest, AssignedContent>,
    configs: BTreeMap<ContentDigest, AssignedContent>,
    tasks: BTreeMap<TaskId, Driven>,
    drivers: JoinSet<()>,
    /// What the disk remembers, until it is used or a manager speaks.
    last: Option<Assignments>,
    /// The network's owner has been told of containers that may live.
    expected: bool,
    /// Told after every change.
    pictures: watch::Sender<Option<Arc<Picture>>>,
}

struct Driven {
    task: Arc<Task>,
    wish: watch::Sender<Wish>,
    refreshed: watch::Sender<Option<Arc<Refreshed>>>,
}

/// A delta that does not continue what the agent has: the session must begin again.
#[derive(Debug, thiserror::Error)]
#[error("assignments {base} were to be continued, this agent has {have}")]
pub struct OutOfStep {
    base: u64,
    have: u64,
}

impl Worker {
    /// `last` is what the disk remembers.
    pub fn new(
        node: Arc<Node>,
        network: NetworkHandle,
        reporter: Reporter,
        leases: Leases,
        drains: Drains,
        last: Option<Assignments>,
    ) -> Self {
        Self {
            node,
            network,
            reporter,
            leases,
            drains,
            revision: 0,
            cluster: ClusterView::default(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            tasks: BTreeMap::new(),
            drivers: JoinSet::new(),
            last,
            expected: false,
            pictures: watch::Sender::new(None),
        }
    }

    /// What the node has, whenever it changes; `None` until it is known.
    pub fn pictures(&self) -> watch::Receiver<Option<Arc<Picture>>> {
        self.pictures.subscribe()
    }

    /// Whether [`Worker::restore`] has something to start from.
    pub fn remembers(&self) -> bool {
        self.last.is_some()
    }

    /// A manager knows better than the disk.
    pub fn forget_last(&mut self) {
        self.last = None;
    }

    /// Starts what the node had when its daemon ended: no manager tells what it is to have now. The next full set
    /// confirms or corrects it.
    pub async fn restore(&mut self) {
        let Some(last) = self.last.take() else { return };
        let mut assigned: Vec<Arc<Task>> =
            last.set.into_iter().filter_map(|assignment| self.take(assignment)).collect();
        let known: BTreeSet<String> = assigned.iter().map(|task| task.id.to_string()).collect();
        let unknown = self.living().await.into_iter().filter(|id| !known.contains(id)).count();
        if unknown > 0 {
            // The daemon ended before it wrote these down. Nothing has to be started after a mere crash, and a network
            // without them would cut them off.
            tracing::warn!(unknown, "containers of unknown tasks live: waiting for a manager");
            return self.reset();
        }
        assigned.sort_by_key(|task| task.id);
        tracing::info!(tasks = assigned.len(), "no manager answers: starting the last assignments");
        let ids: BTreeSet<TaskId> = assigned.iter().map(|task| task.id).collect();
        self.expected = true;
        self.network.expect(ids.clone()).await;
        self.cluster.unconfirmed = Some(ids);
        self.network.set_cluster(self.cluster.clone()).await;
        for task in assigned {
            if task.status.state.is_terminal() {
                // Perhaps no manager has heard of this end.
                self.reporter.report(&task, &task.status, None);
            }
            self.drive(task);
        }
        self.tell();
    }

    /// Takes a set or a delta; the drivers do the rest.
    pub async fn assign(&mut self, assignments: Assignments) -> Result<(), OutOfStep> {
        let Assignments { base, revision, set, removed } = assignments;
        let full = base.is_none();
        match base {
            None => self.reset(),
            Some(base) if base == self.revision => {}
            Some(base) => return Err(OutOfStep { base, have: self.revision }),
        }
        let first = self.revision == 0;
        self.last = None;
        self.revision = revision;
        let assigned: Vec<Arc<Task>> = set.into_iter().filter_map(|assignment| self.take(assignment)).collect();
        if full {
            let kept: BTreeSet<TaskId> = assigned.iter().map(|task| task.id).collect();
            // Those that have a driver are its to clear.
            let driven: Vec<TaskId> = self.tasks.keys().copied().collect();
            driven.iter().filter(|task| !kept.contains(task)).for_each(|task| self.forget(*task));
            if first {
                self.clear_leftovers(kept.iter().chain(&driven)).await;
            }
            // The first picture of the network is realized with every container that lives: adopt before.
            if !std::mem::replace(&mut self.expected, true) {
                self.network.expect(kept).await;
            }
        }
        removed.into_iter().for_each(|key| self.remove(key));
        self.network.set_cluster(self.cluster.clone()).await;
        assigned.into_iter().for_each(|task| self.drive(task));
        while self.drivers.try_join_next().is_some() {}
        self.tell();
        Ok(())
    }

    fn reset(&mut self) {
        self.cluster = ClusterView::default();
        (self.secrets, self.configs) = (BTreeMap::new(), BTreeMap::new());
    }

    /// Keeps what is not a task, and hands that on.
    fn take(&mut self, assignment: Assignment) -> Option<Arc<Task>> {
        match assignment {
            Assignment::Task(task) => return Some(Arc::from(task)),
            Assignment::Secret(secret) => drop(self.secrets.insert(secret.digest.clone(), secret)),
            Assignment::Config(config) => drop(self.configs.insert(config.digest.clone(), config)),
            Assignment::Network(network) => drop(self.cluster.networks.insert(network.id, network)),
            Assignment::Endpoint(endpoint) => drop(self.cluster.endpoints.insert(endpoint.service, endpoint)),
            Assignment::Place(place) => self.cluster.place = Some(place),
            Assignment::Peer(peer) => drop(self.cluster.peers.insert(peer.node, peer)),
        }
        None
    }

    fn tell(&self) {
        let picture = Picture {
            tasks: self.tasks.values().map(|driven| Arc::clone(&driven.task)).collect(),
            secrets: self.secrets.values().cloned().collect(),
            configs: self.configs.values().cloned().collect(),
            cluster: self.cluster.clone(),
        };
        self.pictures.send_replace(Some(Arc::new(picture)));
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn drive(&mut self, task: Arc<Task>) {
        // A daemon that lost what it reported last may run a task whose end is known: that one is to stop.
        let ended = task.status.state.is_terminal();
        let wish = Wish::Be(if ended { task.desired.max(DesiredState::Shutdown) } else { task.desired });
        let has_others = |driven: &&Driven| {
            let (known, told) = (&driven.task.spec, &task.spec);
            known.container != told.container && known.lives_on_as(told)
        };
        let refreshed = self.tasks.get(&task.id).filter(has_others).map(|_| {
            let contents = self.contents_of(&task);
            Arc::new(Refreshed { task: Arc::clone(&task), contents })
        });
        if let Some(driven) = self.tasks.get_mut(&task.id) {
            if refreshed.is_some() {
                driven.refreshed.send_replace(refreshed);
            }
            driven.wish.send_if_modified(|known| std::mem::replace(known, wish) != wish);
            driven.task = task;
            return;
        }
        let (sender, receiver) = watch::channel(wish);
        let (refreshed, refreshes) = watch::channel(None);
        self.tasks.insert(task.id, Driven { task: Arc::clone(&task), wish: sender, refreshed });
        let setup = DriverSetup {
            node: Arc::clone(&self.node),
            network: self.network.clone(),
            reporter: self.reporter.clone(),
            drains: self.drains.clone(),
            lease: task.spec.at_most_one.then(|| self.leases.of(task.id)),
            contents: Arc::new(self.contents_of(&task)),
            refreshed: refreshes,
            task,
        };
        self.drivers.spawn(driver::run(setup, receiver));
    }

    /// Only what the task refers to: a driver keeps its own copy for as long as it may need it.
    fn contents_of(&self, task: &Task) -> Contents {
        let container = &task.spec.container;
        let secrets = container.secrets.iter().filter_map(|reference| reference.digest.as_ref());
        let configs = container.configs.iter().filter_map(|reference| reference.digest.as_ref());
        let of = |known: &BTreeMap<ContentDigest, AssignedContent>, digest: &ContentDigest| {
            Some((digest.clone(), known.get(digest)?.data.clone()))
        };
        Contents {
            secrets: secrets.filter_map(|digest| of(&self.secrets, digest)).collect(),
            configs: configs.filter_map(|digest| of(&self.configs, digest)).collect(),
        }
    }

    fn remove(&mut self, key: AssignmentKey) {
        match key {
            AssignmentKey::Task(task) => self.forget(task),
            AssignmentKey::Secret(digest) => drop(self.secrets.remove(&digest)),
            AssignmentKey::Config(digest) => drop(self.configs.remove(&digest)),
            AssignmentKey::Network(network) => drop(self.cluster.networks.remove(&network)),
            AssignmentKey::Endpoint(service) => drop(self.cluster.endpoints.remove(&service)),
            AssignmentKey::Place(()) => self.cluster.place = None,
            AssignmentKey::Peer(node) => drop(self.cluster.peers.remove(&node)),
        }
    }

    fn forget(&mut self, task: TaskId) {
        if let Some(driven) = self.tasks.remove(&task) {
            // A driver that is already gone has nothing left to forget.
            let _ = driven.wish.send(Wish::Forget);
        }
    }

    /// Containers, folders and secrets of tasks that are no longer this node's: left by a daemon that was
    /// away when they were taken from it.
    async fn clear_leftovers(&self, kept: impl Iterator<Item = &TaskId>) {
        let node = Arc::clone(&self.node);
        let kept: BTreeSet<String> = kept.map(ToString::to_string).collect();
        let cleared = tokio::task::spawn_blocking(move || clear(&node, &kept)).await;
        match cleared.expect("clearing leftovers does not panic") {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "leftover containers removed"),
            Err(error) => tracing::warn!(%error, "leftover containers were not all removed"),
        }
    }

    /// Ids of containers that have not ended, whoever started them. Those that lost their supervisor are ended.
    async fn living(&self) -> Vec<String> {
        let node = Arc::clone(&self.node);
        let look = move || {
            end_lost(&node);
            skep_runtime::list(node.run_dir())
        };
        let found = tokio::task::spawn_blocking(look).await.expect("looking for containers does not panic");
        let found = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "the node's containers could not be listed");
            Vec::new()
        });
        found.into_iter().filter(|(_, liveness)| *liveness != Liveness::Lost).map(|(id, _)| id).collect()
    }

    /// Stops every task and waits for their clean-up.
    pub async fn stop_all(&mut self) {
        let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
        tasks.into_iter().for_each(|task| self.forget(task));
        while self.drivers.join_next().await.is_some() {}
        // Those that no manager has told this daemon of.
        self.clear_leftovers([].iter()).await;
    }
}

fn end_lost(node: &Node) {
    for lost in skep_runtime::recover_lost(node.run_dir(), &node.containers_cgroup()).unwrap_or_default() {
        tracing::warn!(task.id = lost.id, "a container had lost its supervisor and was ended");
    }
}

fn clear(node: &Node, kept: &BTreeSet<String>) -> std::io::Result<usize> {
    let mut count = 0;
    end_lost(node);
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
    for task in node.volumes.users()?.into_iter().filter(leftover) {
        node.volumes.give_back(&task)?;
    }
    for task in node.secrets.tasks()?.into_iter().filter(leftover) {
        node.secrets.forget(&task)?;
    }
    Ok(count)
}
