//! Leases of at-most-one tasks: granted on the cluster's word, and waited out when a node falls silent.
//!
//! ```text
//! session: heartbeat ─▶ ask ─▶ authority: one linearizable read for all that asked before it began
//!          grant ◀── tasks of the node that are wanted running, in the state that the read confirmed
//! fence:   task is to stop, its node is silent ─▶ a lease, a grace and a margin later ─▶ orphaned
//! ```
//! The read begins after the heartbeat was heard, so what it confirms was true after the heartbeat was sent, and the
//! lease counts from there: no clock of a manager is in it, and a manager that was stopped or cut off in between grants
//! nothing. Whoever can make such a read may grant, leader or not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use skep_api::LeaseGrant;
use skep_model::{Cluster, DesiredState, NodeId, TaskId, lease};
use skep_orchestrator::Fence;
use skep_store::{Leadership, ProposeError, Store};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::wall_clock;

/// Between the begins of two reads; a heartbeat waits that much longer for its answer at most.
const READ_GAP: Duration = Duration::from_millis(200);
/// A read that takes longer is given up: the heartbeats that follow ask again.
const READ_MAX: Duration = Duration::from_secs(3);
/// Before the ends of tasks that could not be written are written again.
const RETRY: Duration = Duration::from_millis(200);
/// Heartbeats of one session that wait for a read; the oldest are the least worth.
const WAITING_MAX: usize = 8;

/// Confirms, for all sessions together, that this manager may speak for the cluster.
pub struct LeaseAuthority {
    store: Store,
    asked: AtomicU64,
    wanted: Notify,
    /// The greatest number of [`LeaseAuthority::ask`] that a read began after.
    confirmed: watch::Sender<u64>,
}

impl LeaseAuthority {
    pub fn new(store: Store) -> Arc<Self> {
        let confirmed = watch::channel(0).0;
        Arc::new(Self { store, asked: AtomicU64::new(0), wanted: Notify::new(), confirmed })
    }

    /// Reads for those who ask, until `stop`; without them it does nothing.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let reading = async {
            loop {
                self.wanted.notified().await;
                let covers = self.asked.load(Ordering::SeqCst);
                let next = tokio::time::Instant::now() + READ_GAP;
                match tokio::time::timeout(READ_MAX, self.store.linearizable()).await {
                    Ok(Ok(_)) => drop(self.confirmed.send_replace(covers)),
                    Ok(Err(error)) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "no lease can be granted here");
                    }
                    Err(_) => tracing::debug!("no lease can be granted: the managers do not answer"),
                }
                tokio::time::sleep_until(next).await;
            }
        };
        tokio::select! {
            () = reading => {}
            () = stop.cancelled() => {}
        }
    }

    /// Asks for a read that begins after now; it is done when `confirmed` reaches the number.
    fn ask(&self) -> u64 {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.wanted.notify_one();
        number
    }
}

/// One session's heartbeats that wait for their grants.
pub struct Grants {
    authority: Arc<LeaseAuthority>,
    confirmed: watch::Receiver<u64>,
    node: NodeId,
    /// `(number of the read, when the heartbeat was sent)`, oldest first.
    waiting: VecDeque<(u64, u64)>,
    last_heard: Option<u64>,
    /// The tasks that the last state had.
    leased: Vec<TaskId>,
}

impl Grants {
    pub fn new(authority: Arc<LeaseAuthority>, node: NodeId) -> Self {
        let confirmed = authority.confirmed.subscribe();
        Self { authority, confirmed, node, waiting: VecDeque::new(), last_heard: None, leased: Vec::new() }
    }

    /// Takes a heartbeat in; `sent` is zero from agents that know no leases.
    pub fn note_heartbeat(&mut self, sent: u64) {
        self.last_heard = (sent > 0).then_some(sent);
        self.leased = leased_tasks(&self.authority.store.cluster(), self.node);
        if !self.leased.is_empty() {
            self.ask();
        }
    }

    /// A task that has just come need not wait for the next heartbeat: the last one serves.
    pub fn note_cluster(&mut self, cluster: &Cluster) {
        let leased = leased_tasks(cluster, self.node);
        let new = leased.iter().any(|task| !self.leased.contains(task));
        self.leased = leased;
        if new {
            self.ask();
        }
    }

    fn ask(&mut self) {
        let Some(sent) = self.last_heard else { return };
        self.waiting.push_back((self.authority.ask(), sent));
        while self.waiting.len() > WAITING_MAX {
            self.waiting.pop_front();
        }
    }

    /// The next grant; may be dropped and called again.
    pub async fn next(&mut self) -> LeaseGrant {
        let Some((first, _)) = self.waiting.front().copied() else { return std::future::pending().await };
        let Ok(confirmed) = self.confirmed.wait_for(|confirmed| *confirmed >= first).await.map(|number| *number) else {
            return std::future::pending().await;
        };
        let mut sent = 0;
        while let Some((_, heartbeat)) = self.waiting.pop_front_if(|(number, _)| *number <= confirmed) {
            sent = heartbeat;
        }
        // Of now, not of the read: a task that was to stop since then is not granted any more.
        let tasks = leased_tasks(&self.authority.store.cluster(), self.node);
        LeaseGrant { sent, granted_for: lease::DURATION, tasks }
    }
}

/// The node's tasks that may live on.
fn leased_tasks(cluster: &Cluster, node: NodeId) -> Vec<TaskId> {
    let tasks = cluster.tasks_of_node(node).filter(|task| task.spec.at_most_one);
    tasks.filter(|task| task.is_live() && task.desired == DesiredState::Running).map(|task| task.id).collect()
}

/// Frees the slots of tasks whose node is silent, as leader; as follower it only watches, so that a new leader need not
/// begin to count.
pub async fn fence(store: Store, stop: CancellationToken) {
    let began = Instant::now();
    let mut fence = Fence::default();
    let mut cluster = store.watch();
    let mut leadership = store.leadership();
    loop {
        let leads = matches!(*leadership.borrow_and_update(), Leadership::Leader { .. });
        let current = cluster.borrow_and_update().clone();
        let clock = began.elapsed();
        fence.observe(&current, clock);
        let ends = if leads { fence.ends(&current, clock, wall_clock()) } else { Vec::new() };
        let pause = if ends.is_empty() {
            fence.next_end(&current).filter(|_| leads).map(|at| at.saturating_sub(clock))
        } else {
            tracing::info!(count = ends.len(), "tasks on silent nodes have surely ended");
            match store.propose_here(ends).await {
                Ok(_) => continue,
                Err(ProposeError::Rejected(rejection)) => tracing::debug!(%rejection, "an end was told meanwhile"),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the ends of tasks could not be written, it will be tried again"
                    );
                }
            }
            Some(RETRY)
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = cluster.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
            () = sleep_or_forever(pause) => {}
        }
    }
}

async fn sleep_or_forever(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use skep_model::{
        Change, IdSource, Meta, Mode, Node, NodeSpec, NodeState, NodeStatus, Service, ServiceId, ServiceSpec, Slot,
        Task, TaskState, TaskStatus, Timestamp, Version,
    };
    use skep_store::{DataKey, StoreConfig};

    use super::*;

    const AT: Timestamp = Timestamp(1_700_000_000_000_000_000);

    fn service(id: ServiceId) -> Service {
        let mut spec = ServiceSpec { mode: Mode::Replicated { replicas: 2 }, ..ServiceSpec::new("db", "db:1") };
        spec.task.at_most_one = true;

        Service::new(id, spec, AT)
    }

    fn task(ids: &mut IdSource, service: &Service, slot: u64) -> Task {
        Task {
            id: ids.next_id(),
            meta: Meta::new(AT),
            service: service.id,
            service_name: "db".into(),
            slot: Slot::Replica(slot),
            spec: Arc::new(service.spec.task.clone()),
            spec_version: Version(0),
            networks: Vec::new(),
            host_ports: Vec::new(),
            node: None,
            desired: DesiredState::Running,
            status: TaskStatus::new(TaskState::Pending, AT, ""),
            not_before: None,
            failures_before: 0,
            iteration: None,
            running_since: None,
            withdrawn: false,
            generic: Vec::new(),
            stop_reason: None,
            service_labels: Default::default(),
            home: None,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_tasks_that_are_wanted_running_are_granted() {
        let dir = tempfile::TempDir::new().unwrap();
        let store = Store::open(StoreConfig::new(dir.path(), 1, "", DataKey::from_bytes([1; 32]))).await.unwrap();
        let mut ids = IdSource::from_seed(1);
        let service = service(ids.next_id());
        let tasks = [1, 2].map(|slot| task(&mut ids, &service, slot));
        let [kept, stopped] = [&tasks[0], &tasks[1]].map(|task| task.id);
        let status = NodeStatus { state: NodeState::Ready, ..NodeStatus::default() };
        let (id, meta, spec) = (ids.next_id(), Meta::new(AT), NodeSpec::default());
        let certificate = Default::default();
        let node = Node { id, meta, spec, description: None, status, manager: None, certificate, tunnel: None };
        let node_id = node.id;
        let mut changes =
            vec![Change::CreateNode { node: Box::new(node) }, Change::CreateService { service: Box::new(service) }];
        for task in tasks {
            let id = task.id;
            changes.push(Change::CreateTask { task: Box::new(task) });
            changes.push(Change::AssignTask { task: id, node: node_id, at: AT });
        }
        store.initialize(changes).await.unwrap();

        let stop = CancellationToken::new();
        let authority = LeaseAuthority::new(store.clone());
        let running = tokio::spawn(Arc::clone(&authority).run(stop.clone()));
        let mut grants = Grants::new(authority, node_id);
        grants.note_heartbeat(77);
        let granted = grants.next().await;
        assert_eq!((granted.sent, granted.granted_for), (77, lease::DURATION));
        assert_eq!(granted.tasks.iter().collect::<std::collections::BTreeSet<_>>(), [&kept, &stopped].into());

        let unwanted = Change::SetTaskDesired { task: stopped, desired: DesiredState::Shutdown, at: AT, reason: None };
        store.propose(vec![unwanted]).await.unwrap();
        grants.note_heartbeat(78);
        grants.note_heartbeat(79);
        let granted = grants.next().await;
        assert!(matches!(granted.sent, 78 | 79));
        assert_eq!(granted.tasks, [kept]);

        stop.cancel();
        running.await.unwrap();
        store.shutdown().await;
    }
}
