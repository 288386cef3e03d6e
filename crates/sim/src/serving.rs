//! A manager's side of sessions: hello, assignments and their deltas, heartbeats, reports.

use skep_api::{Assignment, Assignments};
use skep_manager::{AssignmentSet, assignments_for, delta};
use skep_model::{Change, Cluster, NodeId, NodeState, NodeStatus, TaskId, TaskStatus, TunnelKey};

use crate::check::Violation;
use crate::clock::{MILLI, Nanos};
use crate::liveness::leased_tasks;
use crate::log::Plan;
use crate::manager::{Purpose, Reports, Served};
use crate::sabotage::Sabotage;
use crate::session::{SessionId, ToAgent, ToManager};
use crate::world::{Answer, Event, World};

impl World {
    pub fn manager_tick(&mut self, m: usize) -> Result<(), Violation> {
        if !self.managers[m].up {
            return Ok(());
        }
        let leader = self.log.leader.filter(|leader| self.managers[*leader].up);
        if let Some(leader) = leader.filter(|leader| *leader != m) {
            // Its leader's heartbeat carries how far the log is committed.
            if self.network.reach_each_other(leader, m) {
                let upto = self.log.committed();
                self.replicate(m, upto)?;
            }
            let now = self.now;
            let heard = self.managers[m].heard.iter();
            let nodes = heard.map(|(node, heard)| (*node, now - heard.at, heard.leaving)).collect();
            if let Some(delay) = self.network.carry(m, leader, &mut self.chance) {
                self.after(delay, Event::Heard { to: leader, nodes });
            }
        }
        let broken: Vec<(NodeId, SessionId)> =
            self.managers[m].sessions.iter().map(|(node, served)| (*node, served.session)).collect();
        for (node, session) in broken {
            if self.sessions.is_broken(session) && self.chance.one_in(8) {
                self.end_served(m, node);
            }
        }
        self.watch_nodes(m);
        self.watch_leases(m);
        Ok(())
    }

    fn end_served(&mut self, m: usize, node: NodeId) {
        self.managers[m].sessions.remove(&node);
    }

    pub fn take_heard(&mut self, to: usize, nodes: Vec<(NodeId, Nanos, bool)>) {
        if !self.managers[to].up {
            return;
        }
        for (node, age, leaving) in nodes {
            self.managers[to].note_heard(node, self.now.saturating_sub(age), leaving);
        }
    }

    pub fn at_manager(&mut self, session: SessionId, message: ToManager) -> Result<(), Violation> {
        let Some(known) = self.sessions.all.get(&session) else { return Ok(()) };
        let (m, node) = (known.manager, self.agents[known.machine].node);
        if !self.managers[m].up {
            return Ok(());
        }
        if matches!(message, ToManager::Hello) {
            self.confirm(session, m);
            return Ok(());
        }
        if self.managers[m].sessions.get(&node).is_none_or(|served| served.session != session) {
            self.send_down(session, ToAgent::Closed);
            return Ok(());
        }
        let now = self.now;
        let leaving = matches!(message, ToManager::Leaving);
        self.managers[m].note_heard(node, now, leaving);
        match message {
            ToManager::Report(tasks) => {
                for (task, status) in tasks {
                    self.take_report(m, node, task, status);
                }
            }
            ToManager::Leaving | ToManager::Closed => self.end_served(m, node),
            ToManager::Heartbeat { sent } => self.ask_for_leases(m, node, session, sent),
            ToManager::Hello => {}
        }
        Ok(())
    }

    /// A session begins with a linearizable read: a manager that lags must not take from a node what it was
    /// given since.
    fn confirm(&mut self, session: SessionId, m: usize) {
        let epoch = self.managers[m].epoch;
        let read = match self.sabotage {
            Some(Sabotage::SessionsFromStaleReplica) => Some((0, 0)),
            _ => self.linearizable(m),
        };
        match read {
            Some((delay, upto)) => self.after(delay, Event::Confirmed { manager: m, epoch, session, upto }),
            None => self.send_down(session, ToAgent::Closed),
        }
    }

    /// How long a linearizable read takes, and which index it waits for; `None` when nobody confirms it.
    fn linearizable(&mut self, m: usize) -> Option<(Nanos, u64)> {
        let leader = self.log.leader.filter(|leader| self.has_quorum(*leader))?;
        let asked = self.network.carry(m, leader, &mut self.chance)?;
        let told = self.network.carry(leader, m, &mut self.chance)?;
        Some((asked + told, self.log.committed()))
    }

    /// A heartbeat renews the leases of the node's at-most-one tasks, once the cluster confirms them.
    fn ask_for_leases(&mut self, m: usize, node: NodeId, session: SessionId, sent: Nanos) {
        if leased_tasks(&self.managers[m].cluster, node).is_empty() {
            return;
        }
        let epoch = self.managers[m].epoch;
        let read = match self.sabotage {
            Some(Sabotage::LeasesUnconfirmed) => Some((0, 0)),
            _ => self.linearizable(m),
        };
        if let Some((delay, upto)) = read {
            self.after(delay, Event::Granted { manager: m, epoch, session, sent, upto });
        }
    }

    pub fn granted(&mut self, m: usize, session: SessionId, sent: Nanos, upto: u64) -> Result<(), Violation> {
        self.replicate(m, upto)?;
        if let Some(machine) = self.sessions.all.get(&session).map(|session| session.machine) {
            let tasks = leased_tasks(&self.managers[m].cluster, self.agents[machine].node);
            self.send_down(session, ToAgent::Lease { sent, tasks });
        }
        Ok(())
    }

    pub fn confirmed(&mut self, m: usize, session: SessionId, upto: u64) -> Result<(), Violation> {
        self.replicate(m, upto)?;
        if let Some(machine) = self.sessions.all.get(&session).map(|session| session.machine) {
            self.hello(session, m, self.agents[machine].node);
        }
        Ok(())
    }

    fn hello(&mut self, session: SessionId, m: usize, node: NodeId) {
        let Some(machine) = self.sessions.all.get(&session).map(|session| session.machine) else { return };
        let Some(known) = self.managers[m].cluster.nodes.get(&node) else {
            self.send_down(session, ToAgent::Closed);
            return;
        };
        let address = format!("10.0.0.{}", machine + 1);
        let endpoint = format!("{address}:7377").parse().ok();
        let status = NodeStatus { state: NodeState::Ready, message: String::new(), address };
        let description = self.agents[machine].description.clone();
        let at = self.managers[m].wall.read(self.now);
        let is_known = known.status == status && known.description.as_ref() == Some(&description);
        let key = tunnel_key(node);
        if known.tunnel.is_none_or(|known| (known.key, known.endpoint) != (key, endpoint)) {
            let change = Change::SetNodeTunnel { node, key, endpoint, at };
            self.propose(m, Plan::Any, vec![change], Purpose::Tunnel);
        }
        if is_known {
            self.open_served(m, session);
            return;
        }
        let change = Change::ReportNode { node, description: Some(Box::new(description)), status, at };
        self.propose(m, Plan::Any, vec![change], Purpose::Ready(session));
    }

    fn open_served(&mut self, m: usize, session: SessionId) {
        let Some(machine) = self.sessions.all.get(&session).map(|session| session.machine) else { return };
        let node = self.agents[machine].node;
        let served = Served { session, sent: AssignmentSet::new(), revision: 0 };
        if let Some(older) = self.managers[m].sessions.insert(node, served) {
            self.send_down(older.session, ToAgent::Closed);
        }
        let now = self.now;
        self.managers[m].note_heard(node, now, false);
        self.managers[m].dispatch_due = false;
        self.dispatch_soon(m);
    }

    pub fn dispatch_soon(&mut self, m: usize) {
        if !std::mem::replace(&mut self.managers[m].dispatch_due, true) {
            let epoch = self.managers[m].epoch;
            self.after(MILLI, Event::Dispatch { manager: m, epoch });
        }
    }

    /// Sends each node what it lacks.
    pub fn dispatch(&mut self, m: usize) -> Result<(), Violation> {
        self.managers[m].dispatch_due = false;
        let cluster = std::sync::Arc::clone(&self.managers[m].cluster);
        let nodes: Vec<NodeId> = self.managers[m].sessions.keys().copied().collect();
        for node in nodes {
            let Some(session) = self.managers[m].sessions.get(&node).map(|served| served.session) else { continue };
            if !cluster.nodes.contains_key(&node) {
                self.end_served(m, node);
                self.send_down(session, ToAgent::Closed);
                continue;
            }
            let wanted = assigned(&cluster, node, self.sabotage);
            self.checker.assignments(&cluster, node, &wanted)?;
            let Some(served) = self.managers[m].sessions.get_mut(&node) else { continue };
            let next = if served.revision == 0 {
                let set = wanted.values().cloned().collect();
                Some(Assignments { base: None, revision: 1, set, removed: Vec::new() })
            } else {
                delta(served.revision, &served.sent, &wanted)
            };
            let Some(mut next) = next else { continue };
            if self.sabotage == Some(Sabotage::DeltaForgetsRemoval) {
                next.removed.clear();
            }
            (served.sent, served.revision) = (wanted.clone(), next.revision);
            self.send_down(session, ToAgent::Assignments { delta: next, result: wanted });
        }
        Ok(())
    }

    pub fn send_down(&mut self, session: SessionId, message: ToAgent) {
        if let Some(at) = self.sessions.send_down(session, self.now, &self.network, &mut self.chance) {
            self.at(at, Event::ToAgent { session, message });
        }
    }

    pub fn take_answer(&mut self, m: usize, purpose: Purpose, answer: Answer) {
        match purpose {
            Purpose::Decision => self.decision_answered(m, &answer),
            Purpose::Liveness => self.managers[m].liveness_waits = false,
            Purpose::Fence => self.managers[m].fence_waits = false,
            Purpose::Reports => self.reports_answered(m, &answer),
            Purpose::Ready(session) => match answer {
                Answer::Applied => self.open_served(m, session),
                Answer::Rejected | Answer::Unknown => self.send_down(session, ToAgent::Closed),
            },
            Purpose::Tunnel | Purpose::User(_) => {}
        }
    }

    fn take_report(&mut self, m: usize, node: NodeId, task: TaskId, status: TaskStatus) {
        let lost = self.sabotage == Some(Sabotage::ReportsLost) && task.as_u128().is_multiple_of(3);
        if lost || !skep_manager::must_be_written(&self.managers[m].cluster, task, status.state) {
            return;
        }
        let reports = &mut self.managers[m].reports;
        reports.queue.push((node, task, status));
        self.gather(m, 20 * MILLI);
    }

    fn gather(&mut self, m: usize, pause: Nanos) {
        let epoch = self.managers[m].epoch;
        let reports = &mut self.managers[m].reports;
        let idle = reports.queue.is_empty() && reports.pending.is_empty();
        if !idle && !std::mem::replace(&mut reports.busy, true) {
            self.after(pause, Event::Gather { manager: m, epoch });
        }
    }

    /// One proposal for all that was reported; what the cluster has moved past is left out.
    pub fn write_reports(&mut self, m: usize) {
        let manager = &mut self.managers[m];
        let Reports { queue, pending, .. } = &mut manager.reports;
        if pending.is_empty() {
            pending.extend(queue.drain(..).map(|(node, task, status)| (task, (node, status))));
        }
        let cluster = &manager.cluster;
        let news = pending.iter().filter_map(|(task, (node, status))| news(cluster, *task, *node, status));
        let changes: Vec<Change> = news.collect();
        if changes.is_empty() {
            manager.reports.pending.clear();
            manager.reports.busy = false;
            self.gather(m, 0);
            return;
        }
        self.propose(m, Plan::Any, changes, Purpose::Reports);
    }

    fn reports_answered(&mut self, m: usize, answer: &Answer) {
        let reports = &mut self.managers[m].reports;
        reports.busy = false;
        match answer {
            Answer::Applied => {
                reports.pending.clear();
                self.gather(m, 0);
            }
            Answer::Rejected => self.gather(m, MILLI),
            Answer::Unknown => self.gather(m, 200 * MILLI),
        }
    }
}

/// Each membership of a machine has a key of its own.
fn tunnel_key(node: NodeId) -> TunnelKey {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&node.as_u128().to_be_bytes());
    TunnelKey(key)
}

/// As the manager's reports decide it.
fn news(cluster: &Cluster, task: TaskId, node: NodeId, status: &TaskStatus) -> Option<Change> {
    let change = Change::ReportTask { task, node, status: status.clone() };
    let known = cluster.tasks.get(&task)?;
    if known.status == *status {
        return None;
    }
    let mut picture = cluster.clone();
    picture.apply(&change, cluster.version.0 + 1).ok()?;
    Some(change)
}

fn assigned(cluster: &Cluster, node: NodeId, sabotage: Option<Sabotage>) -> AssignmentSet {
    let mut set = assignments_for(cluster, node);
    if sabotage == Some(Sabotage::AssignmentsLeak) {
        let others = cluster.nodes.keys().filter(|other| **other != node);
        let secrets = others.flat_map(|other| assignments_for(cluster, *other));
        set.extend(secrets.filter(|(_, assignment)| matches!(assignment, Assignment::Secret(_))));
    }
    set
}
