//! One simulated agent: a session, heartbeats, and a report of "running" for each task that it is assigned.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use futures::StreamExt;
use skep_api::{
    AgentMessage, Assignment, AssignmentKey, Assignments, DISPATCH_PROTOCOL, DispatcherClient, Hello, ManagerMessage,
    Messages, TaskReport, TunnelHello, connect_tls,
};
use skep_identity::{Expect, Tls};
use skep_model::{
    DesiredState, FEATURE_LEVEL, MemoryBytes, NanoCpus, NodeDescription, NodeResources, Platform, Role, TaskId,
    TaskState, TaskStatus, Timestamp, TunnelKey,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// Before another try at a manager that did not answer.
const RETRY: Duration = Duration::from_millis(500);

pub struct AgentSetup {
    pub number: u64,
    pub tls: Tls,
    pub manager: String,
    /// Tasks that any agent reported as running, each once.
    pub reported: Arc<AtomicU64>,
    /// Handshakes that run at once: all of them together would wait for each other.
    pub connecting: Arc<Semaphore>,
}

/// Lives until it is aborted: a session that ends is opened again.
pub async fn live(setup: AgentSetup) {
    let mut running = BTreeSet::new();
    loop {
        if let Err(error) = converse(&setup, &mut running).await {
            eprintln!("agent {}: {error:#}", setup.number);
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn converse(setup: &AgentSetup, running: &mut BTreeSet<TaskId>) -> Result<()> {
    let permit = setup.connecting.acquire().await?;
    let (to_manager, mut messages) = open(setup).await?;
    drop(permit);
    let mut beats = tokio::time::interval(Duration::from_secs(1));
    // What was reported over an earlier session may have been lost with it.
    report(&to_manager, running.iter().copied().collect()).await?;
    loop {
        tokio::select! {
            _ = beats.tick() => to_manager.send(AgentMessage::Heartbeat { sent: 0 }).await.context("the session broke")?,
            message = messages.next() => match message.context("the manager ended the session")? {
                Ok(ManagerMessage::Welcome(welcome)) => beats = tokio::time::interval(welcome.heartbeat_period),
                Ok(ManagerMessage::Assignments(assignments)) => {
                    let new = take(assignments, running);
                    let count = new.len() as u64;
                    report(&to_manager, new).await?;
                    setup.reported.fetch_add(count, Relaxed);
                }
                // It has no container to lease, no certificate to renew and no role to follow.
                Ok(ManagerMessage::LeaseGrant(_) | ManagerMessage::Trust(_) | ManagerMessage::Standing(_)) => {}
                // It asks for no word of others.
                Ok(ManagerMessage::Settled { .. }) => {}
                // Nobody asks a simulated task for its log, or its node how it is.
                Ok(ManagerMessage::Log { .. } | ManagerMessage::Exec { .. } | ManagerMessage::Probe { .. }) => {}
                Ok(ManagerMessage::Feed { .. } | ManagerMessage::Cancel { .. }) => {}
                Err(refusal) => return Err(anyhow!("{}", refusal.message)),
            },
        }
    }
}

async fn open(setup: &AgentSetup) -> Result<(mpsc::Sender<AgentMessage>, Messages<ManagerMessage>)> {
    let hello = Hello {
        protocol: DISPATCH_PROTOCOL,
        description: NodeDescription {
            hostname: format!("agent-{}", setup.number),
            platforms: vec![Platform {
                os: "linux".to_owned(),
                architecture: "amd64".to_owned(),
                variant: String::new(),
            }],
            resources: NodeResources { nano_cpus: NanoCpus(64_000_000_000), memory: MemoryBytes(256 << 30) },
            level: FEATURE_LEVEL,
            ..NodeDescription::default()
        },
        address: String::new(),
        revision: 0,
        instance: String::new(),
        acknowledges: false,
        tunnel: Some(TunnelHello { key: tunnel_key(setup.number), port: 7377, address: None }),
    };
    let connection = connect_tls(&setup.manager, setup.tls.connector(Expect::Role(Role::Manager))).await?;
    let (to_manager, outgoing) = mpsc::channel(64);
    to_manager.send(AgentMessage::Hello(hello)).await.context("the receiver is held here")?;
    let session = DispatcherClient::new(connection).session(ReceiverStream::new(outgoing)).await;
    Ok((to_manager, session.map_err(|refusal| anyhow!("{}", refusal.message))?))
}

/// Of nobody, and of this agent alone.
fn tunnel_key(number: u64) -> TunnelKey {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    TunnelKey(key)
}

/// The tasks that are to run and did not; those that are gone are forgotten.
fn take(assignments: Assignments, running: &mut BTreeSet<TaskId>) -> Vec<TaskId> {
    for key in &assignments.removed {
        if let AssignmentKey::Task(task) = key {
            running.remove(task);
        }
    }
    let tasks = assignments.set.into_iter().filter_map(|assignment| match assignment {
        Assignment::Task(task) => (task.desired == DesiredState::Running).then_some(task.id),
        Assignment::Secret(_)
        | Assignment::Config(_)
        | Assignment::Network(_)
        | Assignment::Endpoint(_)
        | Assignment::Place(_)
        | Assignment::Peer(_) => None,
    });
    tasks.filter(|task| running.insert(*task)).collect()
}

async fn report(to_manager: &mpsc::Sender<AgentMessage>, tasks: Vec<TaskId>) -> Result<()> {
    if tasks.is_empty() {
        return Ok(());
    }
    let status = TaskStatus::new(TaskState::Running, now(), "started");
    let tasks = tasks.into_iter().map(|task| TaskReport { task, status: status.clone() }).collect();
    to_manager.send(AgentMessage::Report { tasks }).await.context("the session broke")
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
