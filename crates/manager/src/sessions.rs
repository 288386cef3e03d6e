//! The agents' sessions that end at this manager: who is there, when each was last heard, and the requests
//! that wait for an agent's answer.
//!
//! All of it is this manager's memory alone; nothing here is replicated.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use skep_api::{AgentMessage, ExecOutput, LogEntry, ManagerMessage, Refusal, RefusalKind};
use skep_model::{NodeId, TaskId, TaskStatus};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What waits in memory for a reader of logs or exec output; a reader that lags further is cut off.
const UNREAD_MAX: usize = 4096;

/// A part of the answer to a request.
#[derive(Debug)]
pub enum Answer {
    Log(Vec<LogEntry>),
    Exec(ExecOutput),
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
    waiting: HashMap<u64, Waiting>,
    /// States between assignment and the first that is replicated.
    progress: HashMap<TaskId, TaskStatus>,
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

    pub fn is_open(&self, node: NodeId) -> bool {
        self.lock().by_node.contains_key(&node)
    }

    pub fn heard(&self, node: NodeId) -> Option<Heard> {
        self.lock().heard.get(&node).copied()
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
            let to_agent = session.ok_or_else(|| unreachable(node))?;
            inner.waiting.insert(id, Waiting { node, answers });
            to_agent
        };
        let request = Request { sessions: Arc::clone(self), to_agent: to_agent.clone(), id };
        to_agent.send(make(id)).await.map_err(|_| unreachable(node))?;
        Ok((request, receiver))
    }

    /// Takes an agent's answer to whoever waits for it.
    pub fn answer(&self, node: NodeId, message: AgentMessage) {
        let (id, answer) = match message {
            AgentMessage::Log { request, entries } => (request, Answer::Log(entries)),
            AgentMessage::Exec { request, output } => (request, Answer::Exec(output)),
            AgentMessage::End { request, error } => (request, Answer::End { error }),
            AgentMessage::Hello(_)
            | AgentMessage::Heartbeat { .. }
            | AgentMessage::Report { .. }
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
        self.lock().progress.insert(task, status);
    }

    pub fn forget_progress(&self, task: TaskId) {
        self.lock().progress.remove(&task);
    }

    /// The state of a task between those that are replicated.
    pub fn progress(&self, task: TaskId) -> Option<TaskStatus> {
        self.lock().progress.get(&task).cloned()
    }
}

fn unreachable(node: NodeId) -> Refusal {
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
    sessions: Arc<Sessions>,
    pub to_agent: mpsc::Sender<ManagerMessage>,
    pub id: u64,
}

impl Drop for Request {
    fn drop(&mut self) {
        // Gone already when the agent ended it.
        if self.sessions.lock().waiting.remove(&self.id).is_some() {
            // A session whose queue is full is about to end, and its requests with it.
            let _ = self.to_agent.try_send(ManagerMessage::Cancel { request: self.id });
        }
    }
}
