//! Raft's list of managers, kept to what the cluster wants: the leader's work.
//!
//! ```text
//!  spec says manager, enrolled ─▶ learner ─▶ has caught up ─▶ voter
//!  spec says worker, or node gone ─▶ out of Raft's list ─▶ no manager in the cluster's state
//! ```
//! One step at a time, each decided from the state and the list as they are: who leads next goes on where
//! the last one stopped. A leader that is to go hands over first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_model::{Change, Cluster, ManagerStatus, NodeId, Role, Timestamp};
use skep_store::{Leadership, Members, Store};
use tokio_util::sync::CancellationToken;

use crate::clock::wall_clock;

/// How far behind the log's end a learner may be to become a voter: what a slow link has under way.
const LAG_MAX: u64 = 200;
/// Between two looks while something is under way.
const ROUND: Duration = Duration::from_millis(200);
/// Between two looks for managers whose address changed: nothing tells of it.
const MOVED_ROUND: Duration = Duration::from_secs(2);
/// After a step that failed.
const RETRY: Duration = Duration::from_secs(1);

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A manager that Raft does not know yet gets the log.
    Learn { raft_id: u64, address: String },
    /// It has moved.
    Move { raft_id: u64, address: String },
    /// A learner waits until it has caught up.
    Wait,
    /// Raft's voters from now on.
    Vote { voters: BTreeSet<u64> },
    /// This manager is to go; another one must lead first.
    HandOver,
    /// A learner goes that nobody wants any more.
    Forget { raft_id: u64 },
    /// Raft's list no longer has the node: it is a manager no more.
    Unmake { node: NodeId },
}

/// The next step, if there is one. `progress`: how much of the log each member has; `end`: the log's last index.
pub fn next_step(
    cluster: &Cluster,
    members: &Members,
    progress: &BTreeMap<u64, Option<u64>>,
    end: u64,
    own: u64,
) -> Option<Step> {
    let enrolled = || cluster.nodes.values().filter_map(|node| Some((node, node.manager.as_ref()?)));
    let wanted: BTreeMap<u64, &str> = enrolled()
        .filter(|(node, _)| node.spec.role == Role::Manager)
        .map(|(_, manager)| (manager.raft_id, manager.address.as_str()))
        .collect();
    let known = |raft_id: &u64| members.voters.get(raft_id).or_else(|| members.learners.get(raft_id));
    for (raft_id, address) in &wanted {
        let (raft_id, address) = (*raft_id, (*address).to_owned());
        match known(&raft_id) {
            None => return Some(Step::Learn { raft_id, address }),
            Some(known) if *known != address => return Some(Step::Move { raft_id, address }),
            Some(_) => {}
        }
    }
    let caught_up = |raft_id: &u64| progress.get(raft_id).copied().flatten().is_some_and(|at| at + LAG_MAX >= end);
    let voters = members.voters.keys().copied();
    let mut next: BTreeSet<u64> = voters.filter(|raft_id| wanted.contains_key(raft_id)).collect();
    let ready = members.learners.keys().find(|raft_id| wanted.contains_key(raft_id) && caught_up(raft_id));
    next.extend(ready);
    if next.len() != members.voters.len() || ready.is_some() {
        // The last manager stays, whatever the cluster's state says: without it nobody could say otherwise.
        if !next.contains(&own) && !next.is_empty() {
            if next.iter().any(|raft_id| members.voters.contains_key(raft_id)) {
                return Some(Step::HandOver);
            }
            // Only who votes can take over: the learner votes first, and this manager still.
            next.insert(own);
        }
        if !next.is_empty() {
            return Some(Step::Vote { voters: next });
        }
    }
    if let Some(raft_id) = members.learners.keys().find(|raft_id| !wanted.contains_key(raft_id)) {
        return Some(Step::Forget { raft_id: *raft_id });
    }
    let gone =
        enrolled().find(|(_, manager)| !wanted.contains_key(&manager.raft_id) && known(&manager.raft_id).is_none());
    if let Some((node, _)) = gone {
        return Some(Step::Unmake { node: node.id });
    }
    members.learners.keys().any(|raft_id| wanted.contains_key(raft_id)).then_some(Step::Wait)
}

/// Runs until `stop`; idle while another manager leads.
pub async fn keep(store: Store, stop: CancellationToken) {
    let mut leadership = store.leadership();
    let mut cluster = store.watch();
    loop {
        let leads = matches!(*leadership.borrow_and_update(), Leadership::Leader { .. });
        let current = cluster.borrow_and_update().clone();
        if leads {
            list_moved(&store, &current).await;
        }
        let step = match leads {
            true => next_step(
                &current,
                &store.members(),
                &store.progress(),
                store.metrics().last_log_index.unwrap_or(0),
                store.raft_id(),
            ),
            false => None,
        };
        let idle = step.is_none();
        let pause = match step {
            Some(Step::Wait) => Some(ROUND),
            Some(step) => Some(perform(&store, step).await),
            None => leads.then_some(MOVED_ROUND),
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_or_forever(pause) => {}
            changed = cluster.changed(), if idle => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

/// A manager that answers elsewhere than it is listed is listed there from now on.
async fn list_moved(store: &Store, cluster: &Cluster) {
    for (raft_id, address) in store.moved() {
        let of = |manager: &ManagerStatus| manager.raft_id == raft_id && manager.address != address;
        let Some(node) = cluster.nodes.values().find(|node| node.manager.as_ref().is_some_and(of)) else { continue };
        tracing::info!(node.id = %node.id, address, "a manager has moved");
        let manager = Some(ManagerStatus { raft_id, address: address.clone() });
        let change = Change::SetNodeManager { node: node.id, manager, at: wall_clock() };
        if let Err(error) = store.propose_here(vec![change]).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "its address was not written, it will be tried again");
        }
    }
}

/// Does a step; answers how long to wait before the next look.
async fn perform(store: &Store, step: Step) -> Duration {
    tracing::info!(?step, "the list of managers changes");
    let done = match &step {
        Step::Learn { raft_id, address } => {
            store.add_learner(*raft_id, address).await.map_err(|error| error.to_string())
        }
        Step::Move { raft_id, address } => {
            store.update_address(*raft_id, address).await.map_err(|error| error.to_string())
        }
        Step::Vote { voters } => store.set_voters(voters.clone()).await.map_err(|error| error.to_string()),
        Step::HandOver => store.hand_over(None).await.map_err(|error| error.to_string()),
        Step::Forget { raft_id } => store.remove(*raft_id).await.map_err(|error| error.to_string()),
        Step::Unmake { node } => unmake(store, *node, wall_clock()).await,
        Step::Wait => Ok(()),
    };
    match done {
        Ok(()) => ROUND,
        Err(error) => {
            tracing::warn!(?step, error, "the list of managers could not be changed, it will be tried again");
            RETRY
        }
    }
}

async fn unmake(store: &Store, node: NodeId, at: Timestamp) -> Result<(), String> {
    let change = Change::SetNodeManager { node, manager: None, at };
    store.propose_here(vec![change]).await.map(drop).map_err(|error| error.to_string())
}

async fn sleep_or_forever(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use skep_model::{IdSource, Meta, Node, NodeSpec, NodeStatus};

    use super::*;

    fn cluster(managers: &[(u64, Role)]) -> Cluster {
        let mut cluster = Cluster::default();
        for (raft_id, role) in managers {
            let id = IdSource::from_seed(u128::from(*raft_id)).next_id();
            let node = Node {
                id,
                meta: Meta::new(Timestamp(0)),
                spec: NodeSpec { role: *role, ..NodeSpec::default() },
                description: None,
                status: NodeStatus::default(),
                manager: Some(ManagerStatus { raft_id: *raft_id, address: format!("m{raft_id}:7377") }),
                certificate: Default::default(),
                tunnel: None,
            };
            cluster.nodes.insert(id, Arc::new(node));
        }
        cluster
    }

    fn members(voters: &[u64], learners: &[u64]) -> Members {
        let all = |ids: &[u64]| ids.iter().map(|id| (*id, format!("m{id}:7377"))).collect();
        Members { voters: all(voters), learners: all(learners) }
    }

    fn step(cluster: &Cluster, members: &Members, at: &[(u64, u64)]) -> Option<Step> {
        let progress = at.iter().map(|(id, index)| (*id, Some(*index))).collect();
        next_step(cluster, members, &progress, 1000, 1)
    }

    const M: Role = Role::Manager;

    #[test]
    fn a_new_manager_learns_and_votes_only_when_it_has_caught_up() {
        let two = cluster(&[(1, M), (2, M)]);
        let address = "m2:7377".to_owned();
        assert_eq!(step(&two, &members(&[1], &[]), &[]), Some(Step::Learn { raft_id: 2, address }));
        assert_eq!(step(&two, &members(&[1], &[2]), &[]), Some(Step::Wait));
        assert_eq!(step(&two, &members(&[1], &[2]), &[(2, 700)]), Some(Step::Wait));
        assert_eq!(step(&two, &members(&[1], &[2]), &[(2, 900)]), Some(Step::Vote { voters: [1, 2].into() }));
        assert_eq!(step(&two, &members(&[1, 2], &[]), &[]), None);
    }

    #[test]
    fn a_demoted_manager_leaves_the_list_before_it_is_none() {
        let demoted = cluster(&[(1, M), (2, Role::Worker), (3, M)]);
        assert_eq!(step(&demoted, &members(&[1, 2, 3], &[]), &[]), Some(Step::Vote { voters: [1, 3].into() }));
        let node = demoted.nodes.values().find(|node| node.spec.role == Role::Worker).unwrap().id;
        assert_eq!(step(&demoted, &members(&[1, 3], &[]), &[]), Some(Step::Unmake { node }));
        // As a learner it is not yet out.
        assert_eq!(step(&demoted, &members(&[1, 3], &[2]), &[]), Some(Step::Forget { raft_id: 2 }));
    }

    #[test]
    fn a_leader_that_is_to_go_hands_over_and_the_last_one_stays() {
        assert_eq!(step(&cluster(&[(1, Role::Worker), (2, M)]), &members(&[1, 2], &[]), &[]), Some(Step::HandOver));
        assert_eq!(step(&cluster(&[(1, Role::Worker)]), &members(&[1], &[]), &[]), None);
    }

    #[test]
    fn a_leader_that_is_to_go_lets_a_learner_vote_where_nobody_else_could_take_over() {
        let demoted = cluster(&[(1, Role::Worker), (2, M), (3, M)]);
        assert_eq!(step(&demoted, &members(&[1], &[2, 3]), &[]), Some(Step::Wait));
        let at = [(2, 1000), (3, 1000)];
        assert_eq!(step(&demoted, &members(&[1], &[2, 3]), &at), Some(Step::Vote { voters: [1, 2].into() }));
        assert_eq!(step(&demoted, &members(&[1, 2], &[3]), &at), Some(Step::HandOver));
    }

    #[test]
    fn a_node_that_was_removed_leaves_the_list_too() {
        assert_eq!(step(&cluster(&[(1, M)]), &members(&[1, 2], &[]), &[]), Some(Step::Vote { voters: [1].into() }));
    }

    #[test]
    fn a_manager_that_moved_is_known_at_its_new_address() {
        let mut moved = members(&[1, 2], &[]);
        moved.voters.insert(2, "elsewhere:7377".to_owned());
        let address = "m2:7377".to_owned();
        assert_eq!(step(&cluster(&[(1, M), (2, M)]), &moved, &[]), Some(Step::Move { raft_id: 2, address }));
    }
}
