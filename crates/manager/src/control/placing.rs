//! Where tasks are and why, and what is asked of it: explanations, rebalancing, what a drain leaves behind.

use skep_api::{ExplainRequest, Explanation, NodeVerdict, RebalanceRequest, Refusal, RefusalKind, TaskPlace, Written};
use skep_model::{Availability, Change, Cluster, Feature, Mode, Node, NodeSpec, Service, Slot, Task, VolumePlacement};
use skep_scheduler::{explain_service, explain_task, grounds};

use super::{ControlService, not_found};
use crate::clock::wall_clock;

impl<R> ControlService<R> {
    pub(super) fn explain_places(&self, request: ExplainRequest) -> Result<Explanation, Refusal> {
        let (cluster, now) = (self.cluster(), wall_clock());
        let wanted = request.wanted.as_str();
        // A service's name comes first: `web` is the service, `web.1` a task.
        let (service, tasks, found) = match cluster.find_service(wanted) {
            Ok(service) => {
                let mut tasks: Vec<&Task> = cluster.tasks_of_service(service.id).map(|task| &**task).collect();
                tasks.retain(|task| task.is_live());
                tasks.sort_by_key(|task| (task.slot, task.meta.created_at));
                (service.name().to_owned(), tasks, explain_service(&cluster, service, now))
            }
            Err(missing) => {
                let task = cluster.find_task(wanted).map_err(|_| not_found(missing))?;
                (task.service_name.clone(), vec![&**task], explain_task(&cluster, task, now))
            }
        };
        let nodes = found.nodes.into_iter().map(|verdict| NodeVerdict {
            id: verdict.node.to_string(),
            hostname: verdict.hostname,
            refused_by: verdict.refused_by.unwrap_or_default().to_owned(),
            why: verdict.why,
            service_tasks: verdict.service_tasks,
            tasks: verdict.tasks,
        });
        Ok(Explanation {
            service,
            tasks: tasks.into_iter().map(|task| place(&cluster, task)).collect(),
            nodes: nodes.collect(),
            hints: found.hints,
        })
    }

    pub(super) async fn rebalance_service(&self, request: RebalanceRequest) -> Result<Written, Refusal> {
        let cluster = self.cluster();
        let service = cluster.find_service(&request.service).map_err(not_found)?;
        let name = service.name();
        if !cluster.has(Feature::Services) {
            let message = "rebalancing needs managers that know it; upgrade skep on every manager".to_owned();
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        if service.spec.mode.is_job() {
            let message = format!("service {name} is a job: what it has left to run is placed anew by itself");
            return Err(Refusal::new(RefusalKind::Invalid, message));
        }
        if service.spec.mode == Mode::Global {
            let message = format!("service {name} is global: it runs once on each node, nothing can be spread");
            return Err(Refusal::new(RefusalKind::Invalid, message));
        }
        let warnings = settled_by_data(service).into_iter().collect();
        let change = Change::SetRebalancing { service: service.id, since: Some(wall_clock()) };
        let committed = self.propose(vec![change]).await?;
        Ok(Written { id: service.id.to_string(), version: skep_model::Version(committed.revision), warnings })
    }
}

fn place(cluster: &Cluster, task: &Task) -> TaskPlace {
    let node = task.node.and_then(|node| cluster.nodes.get(&node));
    let why = match (&task.status.error, node) {
        (Some(error), _) => error.clone(),
        (None, Some(_)) => grounds(cluster, task),
        (None, None) => String::new(),
    };
    TaskPlace {
        id: task.id.to_string(),
        name: task.name(),
        state: task.status.state.word().to_owned(),
        node: node.map(|node| node.hostname().to_owned()).unwrap_or_default(),
        why,
    }
}

fn settled_by_data(service: &Service) -> Option<String> {
    let spec = &service.spec.task;
    let volumes: Vec<&str> = spec.local_volumes().into_iter().collect();
    let holds = !volumes.is_empty() && spec.placement.volumes != Some(VolumePlacement::Free);
    holds.then(|| {
        let (name, volumes) = (service.name(), volumes.join(", "));
        format!("service {name}: its tasks stay where their data is (volumes {volumes}); x-skep: {{volume: free}} lets them go")
    })
}

/// What a user should know before a node is drained: data that stays on it.
pub fn left_behind(cluster: &Cluster, node: &Node, spec: &NodeSpec) -> Vec<String> {
    if spec.availability != Availability::Drain || node.spec.availability == Availability::Drain {
        return Vec::new();
    }
    let tasks = cluster.tasks_of_node(node.id).filter(|task| task.is_live() && matches!(task.slot, Slot::Replica(_)));
    let name = node.hostname();
    let warning = |task: &std::sync::Arc<Task>| {
        let volumes: Vec<&str> = task.spec.local_volumes().into_iter().collect();
        let (task_name, volumes) = (task.name(), (!volumes.is_empty()).then(|| volumes.join(", "))?);
        match task.spec.placement.volumes {
            Some(VolumePlacement::Free) => None,
            Some(VolumePlacement::Stay) => Some(format!(
                "{task_name} waits until {name} is active again: its data is there (volume {volumes}, x-skep: {{volume: stay}})"
            )),
            None => Some(format!(
                "{task_name} leaves its data on {name} (volume {volumes}) and starts elsewhere with an empty one"
            )),
        }
    };
    tasks.filter_map(warning).collect()
}
