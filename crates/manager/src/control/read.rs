//! Reading the cluster.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use skep_api::{
    ClusterInfo, Confirmed, Filter, GetRequest, ListRequest, Messages, Object, ObjectList, Readable, Refusal,
    RefusalKind, WatchEvent, WatchRequest,
};
use skep_model::{Cluster, Kind, Labels, Node, Stack, Task};
use skep_store::Leadership;
use tokio_stream::wrappers::WatchStream;

use super::{ControlService, not_found};

/// How long a read waits for an election before it answers with what is known.
const CONFIRM_WAIT: Duration = Duration::from_millis(1500);

impl<R> ControlService<R> {
    pub(super) fn cluster_info(&self) -> Result<ClusterInfo, Refusal> {
        let cluster = self.cluster();
        let config = cluster.config.clone();
        let config =
            config.ok_or_else(|| Refusal::new(RefusalKind::Unavailable, "the cluster is not initialised yet"))?;
        let managers = || cluster.nodes.values().filter_map(|node| Some((node.id, node.manager.as_ref()?.raft_id)));
        let leader_raft_id = match *self.store.leadership().borrow() {
            Leadership::Leader { .. } => Some(self.store.raft_id()),
            Leadership::Follower { leader } => leader,
            Leadership::Stopped { .. } => None,
        };
        Ok(ClusterInfo {
            id: config.id,
            meta: config.meta,
            spec: config.spec.clone(),
            ca_certificate: config.ca_certificate.clone(),
            leader: managers().find(|(_, raft_id)| Some(*raft_id) == leader_raft_id).map(|(node, _)| node),
            nodes: cluster.nodes.len() as u64,
            managers: managers().count() as u64,
        })
    }

    pub(super) async fn confirm_state(&self) -> Confirmed {
        match tokio::time::timeout(CONFIRM_WAIT, self.store.linearizable()).await {
            Ok(Ok(_)) => Confirmed { stale: None },
            Ok(Err(_)) | Err(_) => Confirmed { stale: Some(self.why_stale()) },
        }
    }

    /// Who is missing, by the names of their nodes.
    fn why_stale(&self) -> String {
        let Some(lost) = self.store.quorum() else {
            return "no leader confirmed the state in time: what is shown may be old".to_owned();
        };
        let cluster = self.cluster();
        let name = |raft_id: u64, address: &str| {
            let of = |node: &&Arc<Node>| node.manager.as_ref().is_some_and(|manager| manager.raft_id == raft_id);
            let hostname = cluster.nodes.values().find(of).map(|node| node.hostname().to_owned()).unwrap_or_default();
            if hostname.is_empty() { address.to_owned() } else { format!("{hostname} ({address})") }
        };
        let missing: Vec<_> = lost.missing.iter().map(|missing| name(missing.raft_id, &missing.address)).collect();
        format!(
            "too few managers answer, since {} s: no word from {}; what is shown is this manager's last knowledge",
            lost.age().as_secs(),
            missing.join(", ")
        )
    }

    pub(super) fn list_objects(&self, request: ListRequest) -> Result<ObjectList, Refusal> {
        let cluster = self.cluster();
        let objects = self.objects(&cluster, request.kind, &request.filter)?;
        Ok(ObjectList { version: cluster.version, objects: objects.into_iter().map(Readable::from).collect() })
    }

    fn objects(&self, cluster: &Cluster, kind: Kind, filter: &Filter) -> Result<Vec<Object>, Refusal> {
        let of_stack = |labels: &Labels| match &filter.stack {
            Some(stack) => labels.get(Stack::LABEL) == Some(stack),
            None => true,
        };
        Ok(match kind {
            Kind::Cluster => cluster.config.iter().cloned().map(Object::Cluster).collect(),
            Kind::Node => cluster.nodes.values().cloned().map(Object::Node).collect(),
            Kind::Service => {
                let services = cluster.services.values().filter(|service| of_stack(&service.spec.labels));
                services.cloned().map(Object::Service).collect()
            }
            Kind::Task => self.tasks(cluster, filter)?.into_iter().map(Object::Task).collect(),
            Kind::Network => {
                let networks = cluster.networks.values().filter(|network| of_stack(&network.spec.labels));
                networks.cloned().map(Object::Network).collect()
            }
            Kind::Secret => cluster
                .secrets
                .values()
                .filter(|secret| of_stack(&secret.labels))
                .cloned()
                .map(Object::Secret)
                .collect(),
            Kind::Config => cluster
                .configs
                .values()
                .filter(|config| of_stack(&config.labels))
                .cloned()
                .map(Object::Config)
                .collect(),
            Kind::Stack => cluster.stacks.values().cloned().map(Object::Stack).collect(),
        })
    }

    fn tasks(&self, cluster: &Cluster, filter: &Filter) -> Result<Vec<Arc<Task>>, Refusal> {
        let service =
            filter.service.as_ref().map(|wanted| cluster.find_service(wanted)).transpose().map_err(not_found)?;
        let node = filter.node.as_ref().map(|wanted| cluster.find_node(wanted)).transpose().map_err(not_found)?;
        let of_stack = |task: &Task| match &filter.stack {
            Some(stack) => {
                let owner = cluster.services.get(&task.service);
                owner.is_some_and(|service| service.spec.labels.get(Stack::LABEL) == Some(stack))
            }
            None => true,
        };
        let tasks = cluster.tasks.values().filter(|task| {
            service.is_none_or(|service| service.id == task.service)
                && node.is_none_or(|node| Some(node.id) == task.node)
                && of_stack(task)
        });
        Ok(tasks.map(|task| self.with_progress(task)).collect())
    }

    /// A task with the state that its agent reported last, where the replicated one lags behind on purpose.
    fn with_progress(&self, task: &Arc<Task>) -> Arc<Task> {
        match self.reach.sessions.progress(task.id) {
            Some(status) if status.state > task.status.state => Arc::new(Task { status, ..(**task).clone() }),
            _ => Arc::clone(task),
        }
    }

    pub(super) fn get_object(&self, request: GetRequest) -> Result<Readable, Refusal> {
        let cluster = self.cluster();
        let wanted = request.wanted.as_str();
        let object = match request.kind {
            Kind::Cluster => {
                let config = cluster.config.clone();
                Object::Cluster(
                    config
                        .ok_or_else(|| Refusal::new(RefusalKind::Unavailable, "the cluster is not initialised yet"))?,
                )
            }
            Kind::Node => Object::Node(cluster.find_node(wanted).map_err(not_found)?.clone()),
            Kind::Service => Object::Service(cluster.find_service(wanted).map_err(not_found)?.clone()),
            Kind::Task => Object::Task(self.with_progress(cluster.find_task(wanted).map_err(not_found)?)),
            Kind::Network => Object::Network(cluster.find_network(wanted).map_err(not_found)?.clone()),
            Kind::Secret => Object::Secret(cluster.find_secret(wanted).map_err(not_found)?.clone()),
            Kind::Config => Object::Config(cluster.find_config(wanted).map_err(not_found)?.clone()),
            Kind::Stack => {
                let missing = || {
                    Refusal::new(
                        RefusalKind::NotFound,
                        format!("stack `{wanted}` not found; `skep stack ls` lists what is there"),
                    )
                };
                Object::Stack(cluster.stacks.get(wanted).ok_or_else(missing)?.clone())
            }
        };
        Ok(Readable::from(object))
    }

    pub(super) fn watch_cluster(&self, request: WatchRequest) -> Messages<WatchEvent> {
        let newer = move |cluster: &Arc<Cluster>| std::future::ready(cluster.version > request.after);
        WatchStream::new(self.store.watch())
            .filter(newer)
            .map(|cluster| Ok(WatchEvent { version: cluster.version }))
            .boxed()
    }
}
