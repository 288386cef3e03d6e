//! Logs and exec: relayed between the command line and the agents of the tasks.

use std::collections::BTreeMap;

use futures::StreamExt;
use skep_api::{
    ExecOutput, ExecRequest, LogEntry, LogSource, LogsRequest, ManagerMessage, Messages, Refusal, RefusalKind,
};
use skep_model::{Cluster, NodeId, Task, TaskId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{ControlService, not_found};
use crate::reach::Wanted;
use crate::sessions::{Answer, Request};

/// Entries that wait for the command line.
const QUEUE: usize = 256;

impl<R> ControlService<R> {
    pub(super) async fn read_logs(&self, request: LogsRequest) -> Result<Messages<LogEntry>, Refusal> {
        let tasks = log_tasks(&self.cluster(), &request.source)?;
        let (entries, stream) = mpsc::channel(QUEUE);
        let mut open = 0;
        let mut refused = None;
        for (task, node) in tasks {
            let options = request.options;
            let asked = self.reach.ask(node, Wanted::Log { task, options }).await;
            match asked {
                Ok((request, answers)) => {
                    open += 1;
                    tokio::spawn(relay_logs(request, answers, entries.clone()));
                }
                Err(refusal) => refused = Some(refusal),
            }
        }
        match refused {
            // What can be read is shown; nothing at all is an error.
            Some(refusal) if open == 0 => Err(refusal),
            _ => Ok(ReceiverStream::new(stream).boxed()),
        }
    }

    pub(super) async fn run_exec(&self, mut input: Messages<ExecRequest>) -> Result<Messages<ExecOutput>, Refusal> {
        let target = match input.next().await {
            Some(Ok(ExecRequest::Start(target))) => target,
            Some(Err(refusal)) => return Err(refusal),
            Some(Ok(ExecRequest::Input(_))) | None => {
                return Err(Refusal::new(RefusalKind::Invalid, "an exec session begins with what to run"));
            }
        };
        let cluster = self.cluster();
        let task = cluster.find_task(&target.task).map_err(not_found)?;
        let node = running_on(task)?;
        let spec = target.spec;
        let (request, answers) = self.reach.ask(node, Wanted::Exec { task: task.id, spec }).await?;
        let (output, stream) = mpsc::channel(QUEUE);
        tokio::spawn(relay_exec(request, answers, input, output));
        Ok(ReceiverStream::new(stream).boxed())
    }
}

fn running_on(task: &Task) -> Result<NodeId, Refusal> {
    match task.node {
        Some(node) if !task.status.state.is_terminal() => Ok(node),
        _ => {
            let message = format!("task {} is {} and has no running container", task.name(), task.status.state.word());
            Err(Refusal::new(RefusalKind::Conflict, message))
        }
    }
}

/// The tasks whose logs are meant, each with its node.
fn log_tasks(cluster: &Cluster, source: &LogSource) -> Result<BTreeMap<TaskId, NodeId>, Refusal> {
    let assigned = |task: &Task| Some((task.id, task.node?));
    Ok(match source {
        LogSource::Service(wanted) => {
            let service = cluster.find_service(wanted).map_err(not_found)?;
            cluster.tasks_of_service(service.id).filter_map(|task| assigned(task)).collect()
        }
        LogSource::Task(wanted) => {
            let task = cluster.find_task(wanted).map_err(not_found)?;
            let waits = || {
                Refusal::new(
                    RefusalKind::Conflict,
                    format!("task {} was not given to a node yet, it has no log", task.name()),
                )
            };
            BTreeMap::from([assigned(task).ok_or_else(waits)?])
        }
    })
}

async fn relay_logs(
    _request: Request,
    mut answers: mpsc::Receiver<Answer>,
    to: mpsc::Sender<Result<LogEntry, Refusal>>,
) {
    loop {
        let answer = tokio::select! {
            answer = answers.recv() => answer,
            // The reader left: dropping the request tells the agent.
            () = to.closed() => return,
        };
        match answer {
            Some(Answer::Log(entries)) => {
                for entry in entries {
                    if to.send(Ok(entry)).await.is_err() {
                        return;
                    }
                }
            }
            Some(Answer::End { error: None }) => return,
            Some(Answer::End { error: Some(error) }) => {
                // The reader may have left meanwhile.
                let _ = to.send(Err(Refusal::new(RefusalKind::NotFound, error))).await;
                return;
            }
            Some(Answer::Exec(_) | Answer::Probed(_)) => return,
            None => {
                let message = "the stream was cut: the node's session ended, or the reader was too slow";
                let _ = to.send(Err(Refusal::new(RefusalKind::Unavailable, message))).await;
                return;
            }
        }
    }
}

async fn relay_exec(
    request: Request,
    mut answers: mpsc::Receiver<Answer>,
    mut input: Messages<ExecRequest>,
    to: mpsc::Sender<Result<ExecOutput, Refusal>>,
) {
    let mut input_open = true;
    loop {
        tokio::select! {
            answer = answers.recv() => match answer {
                Some(Answer::Exec(output)) => {
                    let over = matches!(output, ExecOutput::Exit(_));
                    if to.send(Ok(output)).await.is_err() || over {
                        return;
                    }
                }
                Some(Answer::End { error: Some(error) }) => {
                    let _ = to.send(Err(Refusal::new(RefusalKind::Conflict, error))).await;
                    return;
                }
                Some(Answer::End { error: None } | Answer::Log(_) | Answer::Probed(_)) => return,
                None => {
                    let message = "the session was cut: the node is not connected any more";
                    let _ = to.send(Err(Refusal::new(RefusalKind::Unavailable, message))).await;
                    return;
                }
            },
            message = input.next(), if input_open => match message {
                Some(Ok(ExecRequest::Input(input))) => {
                    if request.to_agent.send(ManagerMessage::Feed { request: request.id, input }).await.is_err() {
                        return;
                    }
                }
                Some(Ok(ExecRequest::Start(_))) => {}
                // The command line is gone; its process is ended with the request.
                Some(Err(_)) => return,
                None => input_open = false,
            },
            () = to.closed() => return,
        }
    }
}
