//! Admission of what is asked of nodes: another role, or removal.
//!
//! Pure, as all of admission.

use std::sync::Arc;

use skep_model::{Change, Cluster, Node, NodeState, Role, Task, TaskState, TaskStatus, Timestamp};

use crate::admission::Refusal;

/// Whether a node may get a role, and what its operator should know of the result.
pub fn role_change(cluster: &Cluster, node: &Node, role: Role) -> Result<Option<String>, Refusal> {
    if role == node.spec.role {
        return Ok(None);
    }
    let is_manager = |other: &Node| other.id != node.id && other.spec.role == Role::Manager;
    let others = cluster.nodes.values().filter(|other| is_manager(other));
    let (up, down): (Vec<_>, Vec<_>) = others.partition(|other| other.status.state == NodeState::Ready);
    let managers = match role {
        Role::Manager => {
            if node.status.state != NodeState::Ready {
                let name = name_of(node);
                return Err(Refusal::Conflict(format!(
                    "node {name} is not ready and cannot become a manager now; `skep node ls` shows its state"
                )));
            }
            up.len() + down.len() + 1
        }
        Role::Worker => {
            let rest = up.len() + down.len();
            if rest == 0 {
                return Err(Refusal::Conflict(format!(
                    "node {} is the last manager and must stay one; promote another node first",
                    name_of(node)
                )));
            }
            if up.len() * 2 <= rest {
                return Err(Refusal::Conflict(format!(
                    "without node {} only {} of {rest} managers would be up, and the cluster would have no quorum; \
                     bring back or remove {} first",
                    name_of(node),
                    up.len(),
                    down.iter().map(|node| name_of(node)).collect::<Vec<_>>().join(", "),
                )));
            }
            rest
        }
    };
    Ok(managers.is_multiple_of(2).then(|| even_number(managers)))
}

/// Two managers lose their quorum with either of them, four with two, as three do.
pub fn even_number(managers: usize) -> String {
    format!(
        "{managers} managers outlive the loss of {}, as many as {} would; an odd number is better",
        match (managers - 1) / 2 {
            0 => "none".to_owned(),
            lost => lost.to_string(),
        },
        match managers - 1 {
            1 => "1".to_owned(),
            fewer => fewer.to_string(),
        }
    )
}

/// The changes that remove a node. Its tasks are given up: whoever forces it says that they are gone.
pub fn node_removal(
    cluster: &Cluster,
    node: &Node,
    wanted: &str,
    force: bool,
    at: Timestamp,
) -> Result<Vec<Change>, Refusal> {
    let is_manager = node.spec.role == Role::Manager || node.manager.is_some();
    if is_manager && !(force && node.status.state == NodeState::Down) {
        let rest = match node.status.state {
            NodeState::Down => "; `--force` removes it from Raft's list as well",
            _ => "",
        };
        let message = format!("node {wanted} is a manager; run `skep node demote {wanted}` first{rest}");
        return Err(Refusal::Conflict(message));
    }
    if is_manager {
        role_change(cluster, node, Role::Worker)?;
    }
    if node.status.state != NodeState::Down && !force {
        let message = format!(
            "node {wanted} is not down and can't be removed; stop it or run `skep leave` on it first, or use --force"
        );
        return Err(Refusal::Conflict(message));
    }
    let leased = |task: &&Arc<Task>| task.spec.at_most_one && !task.status.state.is_terminal();
    if let Some(task) = cluster.tasks_of_node(node.id).find(leased) {
        let message = format!(
            "task {} of node {wanted} is of an at-most-one service and may still run there until its lease is over; \
             try again in a minute",
            task.name()
        );
        return Err(Refusal::Conflict(message));
    }
    let lost = cluster.tasks_of_node(node.id).filter(|task| !task.status.state.is_terminal());
    let mut changes: Vec<Change> = lost
        .map(|task| {
            let status = TaskStatus::new(TaskState::Orphaned, at, "its node was removed");
            Change::ReportTask { task: task.id, node: node.id, status }
        })
        .collect();
    changes.push(Change::RemoveNode { node: node.id });
    Ok(changes)
}

fn name_of(node: &Node) -> String {
    match node.hostname() {
        "" => node.id.short().to_string(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use skep_model::{IdSource, Meta, NodeDescription, NodeSpec, NodeStatus};

    use super::*;

    fn cluster(nodes: &[(Role, NodeState)]) -> (Cluster, Vec<Arc<Node>>) {
        let mut ids = IdSource::from_seed(7);
        let mut cluster = Cluster::default();
        let mut all = Vec::new();
        for (number, (role, state)) in nodes.iter().enumerate() {
            let node = Arc::new(Node {
                id: ids.next_id(),
                meta: Meta::new(Timestamp(0)),
                spec: NodeSpec { role: *role, ..NodeSpec::default() },
                description: Some(NodeDescription { hostname: format!("n{}", number + 1), ..Default::default() }),
                status: NodeStatus { state: *state, ..NodeStatus::default() },
                manager: None,
                certificate: Default::default(),
                tunnel: None,
            });
            cluster.nodes.insert(node.id, Arc::clone(&node));
            all.push(node);
        }
        (cluster, all)
    }

    const M: Role = Role::Manager;
    const W: Role = Role::Worker;
    use NodeState::{Down, Ready};

    #[test]
    fn an_even_number_of_managers_is_warned_about() {
        let (two, nodes) = cluster(&[(M, Ready), (W, Ready), (W, Ready)]);
        let warning = role_change(&two, &nodes[1], M).unwrap().unwrap();
        assert_eq!(warning, "2 managers outlive the loss of none, as many as 1 would; an odd number is better");
        let (three, nodes) = cluster(&[(M, Ready), (M, Ready), (W, Ready)]);
        assert_eq!(role_change(&three, &nodes[2], M).unwrap(), None);
    }

    #[test]
    fn a_demotion_that_costs_the_quorum_is_refused() {
        let (one, nodes) = cluster(&[(M, Ready), (W, Ready)]);
        assert!(role_change(&one, &nodes[0], W).unwrap_err().to_string().contains("last manager"));
        let (shaky, nodes) = cluster(&[(M, Ready), (M, Ready), (M, Down)]);
        let refusal = role_change(&shaky, &nodes[0], W).unwrap_err().to_string();
        assert!(refusal.contains("only 1 of 2") && refusal.contains("n3"), "{refusal}");
        // The one that is down may go.
        role_change(&shaky, &nodes[2], W).unwrap();
    }

    #[test]
    fn a_manager_is_removed_only_when_it_is_down_and_by_force() {
        let (three, nodes) = cluster(&[(M, Ready), (M, Ready), (M, Down)]);
        let remove = |node: &Node, force| node_removal(&three, node, "x", force, Timestamp(1));
        assert!(remove(&nodes[0], true).unwrap_err().to_string().contains("skep node demote x"));
        assert!(remove(&nodes[2], false).is_err());
        assert_eq!(remove(&nodes[2], true).unwrap(), vec![Change::RemoveNode { node: nodes[2].id }]);
    }
}
