//! Which sessions a write concerns: of a thousand nodes, one assigned task wakes one.
//!
//! Each session has a picture of the cluster of its own, which follows the store's when a write may have changed what
//! the node is to have. What changed is found by comparing pictures, which share all that did not.
//! Too many nodes are better than too few: a session that is woken in vain finds no difference and sends nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use imbl::ordmap::DiffItem;
use skep_model::{Cluster, Node, NodeId, PublishMode, Service, ServiceId, Task, Version};
use skep_store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Writes are gathered this long for each node that was told of the last: what a node is to have is computed for each.
const PAUSE_PER_NODE: Duration = Duration::from_micros(20);

/// Hands out pictures to sessions.
#[derive(Debug)]
pub struct Fanout {
    inner: Mutex<Inner>,
    published: watch::Sender<Version>,
}

#[derive(Debug)]
struct Inner {
    /// What every session was told of.
    seen: Arc<Cluster>,
    sessions: HashMap<NodeId, Vec<watch::Sender<Arc<Cluster>>>>,
}

/// Whom a write concerns.
#[derive(Debug, PartialEq, Eq)]
pub enum Concerned {
    All,
    Nodes(BTreeSet<NodeId>),
}

impl Fanout {
    pub fn new(store: &Store) -> Self {
        Self::of(store.cluster())
    }

    fn of(seen: Arc<Cluster>) -> Self {
        let published = watch::Sender::new(seen.version);
        Self { inner: Mutex::new(Inner { seen, sessions: HashMap::new() }), published }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// The cluster as it concerns `node`. It may be a moment behind the store, and then changes soon.
    pub fn watch(&self, node: NodeId) -> watch::Receiver<Arc<Cluster>> {
        let mut inner = self.lock();
        let (sender, receiver) = watch::channel(Arc::clone(&inner.seen));
        let of_node = inner.sessions.entry(node).or_default();
        of_node.retain(|session| !session.is_closed());
        of_node.push(sender);
        receiver
    }

    /// Waits until sessions have been given what a version of the cluster changes for them.
    pub async fn published(&self, version: Version) {
        // The sender lives as long as this does.
        let _ = self.published.subscribe().wait_for(|published| *published >= version).await;
    }

    /// The version of the picture that the node's newest session was given last.
    pub fn given(&self, node: NodeId) -> Option<Version> {
        let inner = self.lock();
        let session = inner.sessions.get(&node)?.last()?;
        Some(session.borrow().version)
    }

    /// Tells those concerned; returns how many they are.
    fn publish(&self, next: Arc<Cluster>) -> usize {
        let mut inner = self.lock();
        let concerned = concerned(&inner.seen, &next);
        inner.seen = Arc::clone(&next);
        let mut told = 0;
        inner.sessions.retain(|node, sessions| {
            sessions.retain(|session| !session.is_closed());
            if concerned.has(*node) {
                told += sessions.len();
                sessions.iter().for_each(|session| drop(session.send_replace(Arc::clone(&next))));
            }
            !sessions.is_empty()
        });
        self.published.send_replace(next.version);
        told
    }
}

/// Follows the store until `stop`.
pub async fn run(store: Store, fanout: Arc<Fanout>, stop: CancellationToken) {
    let mut cluster = store.watch();
    loop {
        let next = cluster.borrow_and_update().clone();
        let told = u32::try_from(fanout.publish(next)).unwrap_or(u32::MAX);
        tokio::select! {
            () = tokio::time::sleep(PAUSE_PER_NODE.saturating_mul(told)) => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            changed = cluster.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

impl Concerned {
    fn has(&self, node: NodeId) -> bool {
        match self {
            Concerned::All => true,
            Concerned::Nodes(nodes) => nodes.contains(&node),
        }
    }
}

/// The nodes whose assignments may differ between two pictures, and those that came, went or changed.
pub fn concerned(before: &Cluster, after: &Cluster) -> Concerned {
    let shared = before.config == after.config
        && before.networks.ptr_eq(&after.networks)
        && before.secrets.ptr_eq(&after.secrets)
        && before.configs.ptr_eq(&after.configs);
    if !shared {
        return Concerned::All;
    }
    let services = before.services.diff(&after.services).all(|item| match item {
        DiffItem::Add(_, service) | DiffItem::Remove(_, service) => !is_seen_elsewhere(service),
        DiffItem::Update { old: (_, old), new: (_, new) } => !is_seen_elsewhere(old) && !is_seen_elsewhere(new),
    });
    if !services {
        return Concerned::All;
    }
    let mut nodes = BTreeSet::new();
    for item in before.nodes.diff(&after.nodes) {
        match item {
            DiffItem::Add(id, node) | DiffItem::Remove(id, node) if is_nobodys_peer(node) => drop(nodes.insert(*id)),
            // Every agent knows the managers, and its peers.
            DiffItem::Add(..) | DiffItem::Remove(..) => return Concerned::All,
            DiffItem::Update { old: (id, old), new: (_, new) } if same_place(old, new) => drop(nodes.insert(*id)),
            DiffItem::Update { .. } => return Concerned::All,
        }
    }
    let seen_elsewhere = |service: ServiceId| after.services.get(&service).is_some_and(|it| is_seen_elsewhere(it));
    for item in before.tasks.diff(&after.tasks) {
        let (old, new) = match item {
            DiffItem::Add(_, new) => (None, Some(new)),
            DiffItem::Remove(_, old) => (Some(old), None),
            DiffItem::Update { old: (_, old), new: (_, new) } => (Some(old), Some(new)),
        };
        let either = old.or(new).map(|task| task.service);
        if old.map(|task| backend(task)) != new.map(|task| backend(task)) && either.is_some_and(seen_elsewhere) {
            return Concerned::All;
        }
        nodes.extend([old, new].into_iter().flatten().filter_map(|task| task.node));
    }
    Concerned::Nodes(nodes)
}

/// Whether nodes without a task of the service know where it answers.
fn is_seen_elsewhere(service: &Service) -> bool {
    !service.spec.task.networks.is_empty()
        || service.endpoint.ports.iter().any(|port| port.mode == PublishMode::Ingress)
}

/// Nothing changed that others are told of the node.
fn same_place(old: &Node, new: &Node) -> bool {
    old.status.address == new.status.address
        && old.manager == new.manager
        && old.tunnel == new.tunnel
        && old.spec.membership == new.spec.membership
}

/// Other nodes' agents are not told of it.
fn is_nobodys_peer(node: &Node) -> bool {
    node.manager.is_none() && node.tunnel.is_none()
}

/// What others see of a task.
fn backend(task: &Task) -> impl PartialEq + '_ {
    (task.node, task.status.state, task.desired, &task.status.addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::{Change, IdSource, Meta, NodeSpec, NodeStatus, Timestamp};

    fn with_node(cluster: &Cluster, ids: &mut IdSource) -> (Cluster, NodeId) {
        let id = ids.next_id();
        let node = Node {
            id,
            meta: Meta::new(Timestamp(0)),
            spec: NodeSpec::default(),
            description: None,
            status: NodeStatus::default(),
            manager: None,
            certificate: Default::default(),
            tunnel: None,
        };
        let mut next = cluster.clone();
        next.apply(&Change::CreateNode { node: Box::new(node) }, cluster.version.0 + 1).unwrap();
        (next, id)
    }

    #[test]
    fn a_write_to_one_node_concerns_that_node() {
        let mut ids = IdSource::from_seed(1);
        let (one, first) = with_node(&Cluster::default(), &mut ids);
        let (two, second) = with_node(&one, &mut ids);
        assert_eq!(concerned(&one, &two), Concerned::Nodes(BTreeSet::from([second])));
        assert_eq!(concerned(&two, &two), Concerned::Nodes(BTreeSet::new()));
        let fanout = Fanout::of(Arc::new(one));
        let (mut told, untold) = (fanout.watch(second), fanout.watch(first));
        assert_eq!(fanout.publish(Arc::new(two)), 1);
        assert_eq!((told.has_changed().ok(), untold.has_changed().ok()), (Some(true), Some(false)));
        assert!(told.borrow_and_update().nodes.contains_key(&second));
    }

    #[test]
    fn a_node_in_the_tunnel_concerns_all_when_it_comes_moves_or_goes() {
        let mut ids = IdSource::from_seed(1);
        let (before, id) = with_node(&Cluster::default(), &mut ids);
        let after = |cluster: &Cluster, change: Change| {
            let mut next = cluster.clone();
            next.apply(&change, cluster.version.0 + 1).unwrap();
            next
        };
        let at = Timestamp(1);
        let place = |port: u16| Change::SetNodeTunnel {
            node: id,
            key: skep_model::TunnelKey([1; 32]),
            endpoint: Some(([192, 0, 2, 1], port).into()),
            at,
        };
        let placed = after(&before, place(1));
        let moved = after(&placed, place(2));
        let gone = after(&moved, Change::RemoveNode { node: id });
        for (old, new) in [(&before, &placed), (&placed, &moved), (&moved, &gone)] {
            assert_eq!(concerned(old, new), Concerned::All);
        }
        assert_eq!(concerned(&before, &after(&before, Change::RemoveNode { node: id })), Concerned::Nodes([id].into()));
    }
}
