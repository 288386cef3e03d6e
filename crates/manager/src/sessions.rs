//! The agents' sessions that end at this manager: who is there, when each was last heard, and the requests
//! that wait for an agent's answer; on the leader also what other managers told of theirs.
//!
//! All of it is this manager's memory alone; nothing here is replicated.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use skep_api::{
    AgentMessage, ExecOutput, LogEntry, ManagerMessage, NodePresence, ProbePart, Refusal, RefusalKind, TaskReport,
};
use skep_model::{Cluster, NodeId, TaskId, TaskStatus};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What waits in memory for a reader of logs or exec output; a reader that lags further is cut off.
const UNREAD_MAX: usize = 4096;
/// How long after its session a node is still told of: longer than a daemon that said good-bye may be away.
const TOLD_FOR: Duration = Duration::from_secs(90);

/// A node that was heard within this time is there.
const ALIVE: Duration = Duration::from_secs(4);

/// A part of the answer to a request.
#[derive(Debug)]
pub enum Answer {
    Log(Vec<LogEntry>),
    Exec(ExecOutput),
    Probed(ProbePart),
    End { error: Option<String> },
}

#[derive(Debug, Default)]
pub struct Sessions {
    inner: Mutex<Inner>,
    next_id: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    by_node: HashMap<NodeId, Session>,
    /// When each node was last heard, also after its session ended.
    heard: HashMap<NodeId, Heard>,
    /// Where each node's last session came from, as far as this manager heard.
    origins: HashMap<NodeId, Origin>,
    waiting: HashMap<u64, Waiting>,
    /// States between assignment and the first that is replicated.
    progress: HashMap<TaskId, TaskStatus>,
    /// Those among them that the leader was not told of.
    untold: BTreeSet<TaskId>,
    /// What other managers told.
    elsewhere: HashMap<NodeId, Elsewhere>,
}

/// A node whose session ends at another manager.
#[derive(Debug, Clone, Copy)]
struct Elsewhere {
    /// The Raft id of that manager.
    manager: u64,
    heard: Heard,
    open: bool,
}

/// The machine and boot that a node's agent runs in, and where from it connects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Empty if the agent did not say.
    pub instance: String,
    pub address: String,
}

#[derive(Debug)]
struct Session {
    id: u64,
    to_agent: mpsc::Sender<ManagerMessage>,
    ended: CancellationToken,
}

#[derive(Debug, Clone, Copy)]
pub struct Heard {
    pub at: Instant,
    /// It said that its daemon stops and comes back soon.
    pub leaving: bool,
}

#[derive(Debug)]
struct Waiting {
    node: NodeId,
    answers: mpsc::Sender<Answer>,
}

/// One open session, as its own loop sees it; closing is dropping.
#[derive(Debug)]
pub struct OpenSession {
    sessions: Arc<Sessions>,
    pub node: NodeId,
    id: u64,
    /// Cancelled when a newer session of the node replaces this one.
    pub ended: CancellationToken,
}

impl Inner {
    fn heard(&self, node: NodeId) -> Option<Heard> {
        let here = self.heard.get(&node).copied();
        let elsewhere = self.elsewhere.get(&node).map(|elsewhere| elsewhere.heard);
        here.into_iter().chain(elsewhere).max_by_key(|heard| heard.at)
    }
}

impl Origin {
    fn is_another_than(&self, other: &Origin) -> bool {
        !self.instance.is_empty() && !other.instance.is_empty() && self.instance != other.instance
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// Opens a session; an older one of the same node ends.
    pub fn open(self: &Arc<Self>, node: NodeId, to_agent: mpsc::Sender<ManagerMessage>) -> OpenSession {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let ended = CancellationToken::new();
        let mut inner = self.lock();
        let session = Session { id, to_agent, ended: ended.clone() };
        if let Some(older) = inner.by_node.insert(node, session) {
            older.ended.cancel();
        }
        inner.heard.insert(node, Heard { at: Instant::now(), leaving: false });
        OpenSession { sessions: Arc::clone(self), node, id, ended }
    }

    /// Notes where a session that is about to open comes from. A refusal means that the node is connected from
    /// another machine at this moment: one of the two is a copy.
    pub fn claim(&self, node: NodeId, origin: Origin) -> Result<(), Refusal> {
        let mut inner = self.lock();
        let alive = inner.heard(node).is_some_and(|heard| !heard.leaving && heard.at.elapsed() < ALIVE);
        if let Some(other) = inner.origins.get(&node).filter(|other| alive && other.is_another_than(&origin)) {
            let message = format!(
                "this node's identity is in use by another machine at {}: this one is probably a copy of its disk; run \
                 `skep leave --force` here and join again with a token",
                other.address
            );
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        inner.origins.insert(node, origin);
        inner.heard.insert(node, Heard { at: Instant::now(), leaving: false });
        Ok(())
    }

    /// Whether the node's session ends here.
    pub fn has(&self, node: NodeId) -> bool {
        self.lock().by_node.contains_key(&node)
    }

    /// Whether the node has a session, here or, as far as this manager was told, elsewhere.
    pub fn is_open(&self, node: NodeId) -> bool {
        let inner = self.lock();
        inner.by_node.contains_key(&node) || inner.elsewhere.get(&node).is_some_and(|elsewhere| elsewhere.open)
    }

    /// When the node was last heard, here or elsewhere.
    pub fn heard(&self, node: NodeId) -> Option<Heard> {
        self.lock().heard(node)
    }

    /// What the leader is to know: the nodes that were heard here not too long ago, and news of their tasks.
    pub fn report(&self) -> (Vec<NodePresence>, Vec<TaskReport>) {
        let mut inner = self.lock();
        let now = Instant::now();
        let Inner { by_node, heard, origins, progress, untold, .. } = &mut *inner;
        heard.retain(|node, heard| by_node.contains_key(node) || now.duration_since(heard.at) < TOLD_FOR);
        let nodes = heard.iter().map(|(node, heard)| {
            let origin = origins.get(node).cloned().unwrap_or_default();
            NodePresence {
                node: *node,
                silence: now.duration_since(heard.at),
                open: by_node.contains_key(node),
                leaving: heard.leaving,
                instance: origin.instance,
                address: origin.address,
            }
        });
        let nodes = nodes.collect();
        let news = std::mem::take(untold).into_iter();
        let news = news.filter_map(|task| Some(TaskReport { task, status: progress.get(&task)?.clone() })).collect();
        (nodes, news)
    }

    /// Takes in what manager `manager` (a Raft id) heard of its agents.
    pub fn take_report(&self, manager: u64, nodes: Vec<NodePresence>, progress: Vec<TaskReport>) {
        let mut inner = self.lock();
        let now = Instant::now();
        for NodePresence { node, silence, open, leaving, instance, address } in nodes {
            let Some(at) = now.checked_sub(silence) else { continue };
            // A session that moved on is known from where it is now.
            let newer = inner.elsewhere.get(&node).is_none_or(|known| known.manager == manager || known.heard.at < at);
            if newer {
                inner.elsewhere.insert(node, Elsewhere { manager, heard: Heard { at, leaving }, open });
                inner.origins.insert(node, Origin { instance, address });
            }
        }
        inner.progress.extend(progress.into_iter().map(|TaskReport { task, status }| (task, status)));
    }

    /// Forgets the states that the cluster has caught up with.
    pub fn prune_progress(&self, cluster: &Cluster) {
        let ahead = |task: &TaskId, status: &TaskStatus| {
            cluster.tasks.get(task).is_some_and(|known| known.status.state < status.state)
        };
        self.lock().progress.retain(|task, status| ahead(task, status));
    }

    /// A manager tells no more: its sessions count as ended until somebody tells of them again.
    pub fn forget_reports(&self, manager: u64) {
        let mut inner = self.lock();
        inner.elsewhere.values_mut().filter(|known| known.manager == manager).for_each(|known| known.open = false);
    }

    /// A good-bye holds until the node's next session, whatever still comes over this one.
    pub fn note_heard(&self, node: NodeId, leaving: bool) {
        let mut inner = self.lock();
        let leaving = leaving || inner.heard.get(&node).is_some_and(|heard| heard.leaving);
        inner.heard.insert(node, Heard { at: Instant::now(), leaving });
    }

    /// Sends a request to a node's agent; its answers come over the receiver.
    pub async fn request(
        self: &Arc<Self>,
        node: NodeId,
        make: impl FnOnce(u64) -> ManagerMessage,
    ) -> Result<(Request, mpsc::Receiver<Answer>), Refusal> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answers, receiver) = mpsc::channel(UNREAD_MAX);
        let to_agent = {
            let mut inner = self.lock();
            let session = inner.by_node.get(&node).map(|session| session.to_agent.clone());
            let to_agent = session.ok_or_else(|| not_connected(node))?;
            inner.waiting.insert(id, Waiting { node, answers });
            to_agent
        };
        let request = Request { sessions: Some(Arc::clone(self)), to_agent: to_agent.clone(), id };
        to_agent.send(make(id)).await.map_err(|_| not_connected(node))?;
        Ok((request, receiver))
    }

    /// Takes an agent's answer to whoever waits for it.
    pub fn answer(&self, node: NodeId, message: AgentMessage) {
        let (id, answer) = match message {
            AgentMessage::Log { request, entries } => (request, Answer::Log(entries)),
            AgentMessage::Exec { request, output } => (request, Answer::Exec(output)),
            AgentMessage::Probed { request, part } => (request, Answer::Probed(part)),
            AgentMessage::End { request, error } => (request, Answer::End { error }),
            AgentMessage::Hello(_)
            | AgentMessage::Heartbeat { .. }
            | AgentMessage::Report { .. }
            | AgentMessage::Applied { .. }
            | AgentMessage::Settle { .. }
            | AgentMessage::Tunnel(_)
            | AgentMessage::Leaving => {
                return;
            }
        };
        let mut inner = self.lock();
        let Some(waiting) = inner.waiting.get(&id).filter(|waiting| waiting.node == node) else { return };
        // A reader that does not keep up must not hold up the node's session: it is cut off.
        if waiting.answers.try_send(answer).is_err() {
            inner.waiting.remove(&id);
        }
    }

    pub fn note_progress(&self, task: TaskId, status: TaskStatus) {
        let mut inner = self.lock();
        inner.progress.insert(task, status);
        inner.untold.insert(task);
    }

    pub fn forget_progress(&self, task: TaskId) {
        self.lock().progress.remove(&task);
    }

    /// The state of a task between those that are replicated.
    pub fn progress(&self, task: TaskId) -> Option<TaskStatus> {
        self.lock().progress.get(&task).cloned()
    }
}

/// No manager that could be asked has a session with the node.
pub fn not_connected(node: NodeId) -> Refusal {
    Refusal::new(
        RefusalKind::Unavailable,
        format!("node {} is not connected; `skep node ls` shows its state", node.short()),
    )
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        let mut inner = self.sessions.lock();
        if inner.by_node.get(&self.node).is_some_and(|session| session.id == self.id) {
            inner.by_node.remove(&self.node);
            inner.waiting.retain(|_, waiting| waiting.node != self.node);
        }
    }
}

/// A request under way; dropping it tells the agent that nobody waits any more.
#[derive(Debug)]
pub struct Request {
    /// Absent when another manager has the session: there the end of `to_agent` tells.
    sessions: Option<Arc<Sessions>>,
    pub to_agent: mpsc::Sender<ManagerMessage>,
    pub id: u64,
}

impl Request {
    /// A request to an agent whose session another manager has.
    pub(crate) fn elsewhere(to_agent: mpsc::Sender<ManagerMessage>) -> Self {
        Self { sessions: None, to_agent, id: 0 }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // Gone already when the agent ended it.
        let Some(sessions) = &self.sessions else { return };
        if sessions.lock().waiting.remove(&self.id).is_some() {
            // A session whose queue is full is about to end, and its requests with it.
            let _ = self.to_agent.try_send(ManagerMessage::Cancel { request: self.id });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(instance: &str, address: &str) -> Origin {
        Origin { instance: instance.to_owned(), address: address.to_owned() }
    }

    #[test]
    fn a_copy_of_a_living_node_is_refused_and_told_where_the_other_is() {
        let sessions = Arc::new(Sessions::default());
        let node = NodeId::from_u128(1);
        sessions.claim(node, origin("a", "10.0.0.1")).unwrap();
        // However slow this machine is, the node was heard just now.
        let soon = Instant::now() + ALIVE;
        sessions.lock().heard.insert(node, Heard { at: soon, leaving: false });
        let refused = sessions.claim(node, origin("b", "10.0.0.2")).unwrap_err();
        assert!(refused.message.contains("10.0.0.1") && refused.message.contains("leave --force"), "{refused}");
        // Its own daemon after a restart is no other machine, nor is one that cannot say what it is.
        sessions.claim(node, origin("a", "10.0.0.3")).unwrap();
        sessions.claim(node, origin("", "10.0.0.2")).unwrap();
    }

    #[test]
    fn a_machine_that_said_good_bye_or_fell_silent_can_be_replaced() {
        let sessions = Arc::new(Sessions::default());
        let node = NodeId::from_u128(1);
        sessions.claim(node, origin("a", "10.0.0.1")).unwrap();
        sessions.note_heard(node, true);
        sessions.claim(node, origin("b", "10.0.0.2")).unwrap();
        let long_ago = Instant::now().checked_sub(ALIVE * 2).expect("this machine has been up for 8 s");
        sessions.lock().heard.insert(node, Heard { at: long_ago, leaving: false });
        sessions.claim(node, origin("c", "10.0.0.3")).unwrap();
    }
}
