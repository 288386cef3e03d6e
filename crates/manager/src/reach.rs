//! Asking a node's agent, whichever manager its session ends at.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use skep_api::{
    AgentMessage, ExecSpec, LogOptions, ManagerMessage, ManagerTarget, Messages, NodeClaim, Question, Refusal,
    RefusalKind, RosterClient,
};
use skep_model::{NodeId, TaskId};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use crate::fellows::Fellows;
use crate::sessions::{Answer, Origin, Request, Sessions, not_connected};

/// Messages that wait for a manager that is slow to read.
const QUEUE: usize = 256;
/// An agent waits for its welcome meanwhile.
const CLAIM_WAIT: Duration = Duration::from_secs(1);

/// What is wanted of an agent.
#[derive(Debug, Clone)]
pub enum Wanted {
    Log { task: TaskId, options: LogOptions },
    Exec { task: TaskId, spec: ExecSpec },
    Probe { managers: Vec<ManagerTarget> },
}

/// Reaches agents: those of this manager's own sessions, and through other managers those of theirs.
pub struct Reach {
    pub sessions: Arc<Sessions>,
    pub fellows: Arc<Fellows>,
}

impl Reach {
    pub async fn ask(&self, node: NodeId, wanted: Wanted) -> Result<(Request, mpsc::Receiver<Answer>), Refusal> {
        if self.sessions.has(node) {
            return self.ask_here(node, wanted).await;
        }
        for address in self.fellows.addresses().into_values() {
            match self.ask_there(&address, node, wanted.clone()).await {
                Ok(answer) => return Ok(answer),
                // That manager has no session with it, or is away itself.
                Err(refusal) => tracing::debug!(manager = address, %refusal, "not there"),
            }
        }
        Err(not_connected(node))
    }

    /// Notes where a node's session is about to come from, here and with whoever leads: the leader alone hears of all
    /// sessions. While nobody leads, or does not answer, this manager's own picture has to do.
    ///
    /// # Errors
    /// `Conflict` while another machine is that node.
    pub async fn claim(&self, node: NodeId, origin: Origin) -> Result<(), Refusal> {
        if let Some(leader) = self.fellows.leader() {
            let claim = NodeClaim { node, instance: origin.instance.clone(), address: origin.address.clone() };
            let asked = async { RosterClient::new(self.fellows.connect(&leader).await?).claim(claim).await };
            match timeout(CLAIM_WAIT, asked).await {
                Ok(Err(refusal)) if refusal.kind == RefusalKind::Conflict => return Err(refusal),
                Ok(Err(refusal)) => tracing::debug!(leader, %refusal, "the leader was not asked whose node it is"),
                Ok(Ok(())) | Err(_) => {}
            }
        }
        self.sessions.claim(node, origin)
    }

    async fn ask_here(&self, node: NodeId, wanted: Wanted) -> Result<(Request, mpsc::Receiver<Answer>), Refusal> {
        let message = |request| match wanted {
            Wanted::Log { task, options } => ManagerMessage::Log { request, task, options },
            Wanted::Exec { task, spec } => ManagerMessage::Exec { request, task, spec },
            Wanted::Probe { managers } => ManagerMessage::Probe { request, managers },
        };
        self.sessions.request(node, message).await
    }

    async fn ask_there(
        &self,
        address: &str,
        node: NodeId,
        wanted: Wanted,
    ) -> Result<(Request, mpsc::Receiver<Answer>), Refusal> {
        let client = RosterClient::new(self.fellows.connect(address).await?);
        let (questions, outgoing) = mpsc::channel(QUEUE);
        let first = match wanted {
            Wanted::Log { task, options } => Question::Log { node, task, options },
            Wanted::Exec { task, spec } => Question::Exec { node, task, spec },
            Wanted::Probe { managers } => Question::Probe { node, managers },
        };
        questions.send(first).await.expect("the receiver is held here");
        let incoming = client.ask(ReceiverStream::new(outgoing)).await?;
        let (to_agent, commands) = mpsc::channel(QUEUE);
        let (answers, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(pass(commands, questions, incoming, answers));
        Ok((Request::elsewhere(to_agent), receiver))
    }

    /// The other end: a question of another manager for an agent whose session is here.
    pub async fn answer(&self, mut input: Messages<Question>) -> Result<Messages<AgentMessage>, Refusal> {
        let (node, wanted) = match input.next().await {
            Some(Ok(Question::Log { node, task, options })) => (node, Wanted::Log { task, options }),
            Some(Ok(Question::Exec { node, task, spec })) => (node, Wanted::Exec { task, spec }),
            Some(Ok(Question::Probe { node, managers })) => (node, Wanted::Probe { managers }),
            Some(Err(refusal)) => return Err(refusal),
            Some(Ok(Question::Input(_))) | None => {
                return Err(Refusal::new(RefusalKind::Invalid, "a question begins with what is wanted"));
            }
        };
        let (request, answers) = self.ask_here(node, wanted).await?;
        let (out, stream) = mpsc::channel(QUEUE);
        tokio::spawn(serve(request, answers, input, out));
        Ok(ReceiverStream::new(stream).boxed())
    }
}

/// Between a request of this manager and the stream to the one that has the session.
async fn pass(
    mut commands: mpsc::Receiver<ManagerMessage>,
    questions: mpsc::Sender<Question>,
    mut incoming: Messages<AgentMessage>,
    answers: mpsc::Sender<Answer>,
) {
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(ManagerMessage::Feed { input, .. }) => {
                    if questions.send(Question::Input(input)).await.is_err() {
                        return;
                    }
                }
                Some(_) => {}
                // The request was dropped: closing the stream tells the other manager.
                None => return,
            },
            message = incoming.next() => {
                let answer = match message {
                    Some(Ok(AgentMessage::Log { entries, .. })) => Answer::Log(entries),
                    Some(Ok(AgentMessage::Exec { output, .. })) => Answer::Exec(output),
                    Some(Ok(AgentMessage::Probed { part, .. })) => Answer::Probed(part),
                    Some(Ok(AgentMessage::End { error, .. })) => Answer::End { error },
                    Some(Ok(_)) => continue,
                    Some(Err(refusal)) => Answer::End { error: Some(refusal.message) },
                    None => return,
                };
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn serve(
    request: Request,
    mut answers: mpsc::Receiver<Answer>,
    mut input: Messages<Question>,
    out: mpsc::Sender<Result<AgentMessage, Refusal>>,
) {
    let mut open = true;
    loop {
        tokio::select! {
            answer = answers.recv() => {
                let Some(answer) = answer else { return };
                let over = matches!(answer, Answer::End { .. });
                let message = match answer {
                    Answer::Log(entries) => AgentMessage::Log { request: 0, entries },
                    Answer::Exec(output) => AgentMessage::Exec { request: 0, output },
                    Answer::Probed(part) => AgentMessage::Probed { request: 0, part },
                    Answer::End { error } => AgentMessage::End { request: 0, error },
                };
                if out.send(Ok(message)).await.is_err() || over {
                    return;
                }
            }
            question = input.next(), if open => match question {
                Some(Ok(Question::Input(input))) => {
                    if request.to_agent.send(ManagerMessage::Feed { request: request.id, input }).await.is_err() {
                        return;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) => return,
                None => open = false,
            },
            () = out.closed() => return,
        }
    }
}
