//! The agent's session with a manager: kept open, opened again, and fed.

use std::time::Duration;

use futures::StreamExt;
use skep_api::{AgentMessage, DISPATCH_PROTOCOL, DispatcherClient, Hello, ManagerMessage, Refusal, connect_tls};
use skep_identity::{Expect, Tls};
use skep_model::{IdSource, Role, lease};
use skep_runtime::boottime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::describe::describe;
use crate::leases::Leases;
use crate::node::chain;
use crate::relay::Relay;
use crate::reporter::Reporter;
use crate::worker::Worker;

/// Between two tries to reach a manager: the first pause, and the longest.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long a stopping daemon waits for its manager to take note.
const LEAVING_WAIT: Duration = Duration::from_secs(1);
/// Messages that wait for a manager that is slow to read.
const QUEUE: usize = 256;

/// What a session is opened with.
pub struct SessionSetup {
    pub tls: Tls,
    /// `host:port` of the managers to begin with.
    pub managers: Vec<String>,
    /// The address that others reach this node under; empty leaves it to the connection.
    pub address: String,
    pub reporter: Reporter,
    pub leases: Leases,
    pub warnings: Vec<String>,
    pub connected: watch::Sender<bool>,
    /// Cancelled before the stop of a node that ceases to be a member.
    pub leave: CancellationToken,
    /// Spreads retries of many nodes; must be random.
    pub seed: u128,
}

/// Runs sessions until `stop`, one after the other; says good-bye at the end.
pub async fn run(mut setup: SessionSetup, worker: &mut Worker, relay: &Relay, stop: CancellationToken) {
    let mut jitter = IdSource::from_seed(setup.seed);
    let mut pause = RETRY;
    let mut number = 0;
    while !stop.is_cancelled() {
        let manager = setup.managers[number % setup.managers.len()].clone();
        number += 1;
        let opened = tokio::select! {
            opened = open(&setup, &manager, worker.revision()) => opened,
            () = stop.cancelled() => return,
        };
        match opened {
            Ok((to_manager, messages)) => {
                pause = RETRY;
                setup.connected.send_replace(true);
                tracing::info!(manager, "session opened");
                let end = converse(&mut setup, worker, relay, to_manager, messages, &stop).await;
                setup.connected.send_replace(false);
                relay.cancel_all();
                tracing::info!(manager, reason = end, "session ended");
            }
            Err(error) => tracing::warn!(manager, error, retry_in = ?pause, "no session with this manager"),
        }
        let spread = Duration::from_millis(jitter.below(pause.as_millis() as u64 + 1));
        tokio::select! {
            () = tokio::time::sleep(pause + spread) => pause = (pause * 2).min(RETRY_MAX),
            () = stop.cancelled() => {}
        }
    }
}

type Incoming = skep_api::Messages<ManagerMessage>;

async fn open(
    setup: &SessionSetup,
    manager: &str,
    revision: u64,
) -> Result<(mpsc::Sender<AgentMessage>, Incoming), String> {
    let connection =
        connect_tls(manager, setup.tls.connector(Expect::Role(Role::Manager))).await.map_err(|error| chain(&error))?;
    let client = DispatcherClient::new(connection);
    let (to_manager, outgoing) = mpsc::channel(QUEUE);
    let description = describe(&setup.warnings);
    let hello = Hello { protocol: DISPATCH_PROTOCOL, description, address: setup.address.clone(), revision };
    to_manager.send(AgentMessage::Hello(hello)).await.expect("the receiver is held here");
    let messages = client.session(ReceiverStream::new(outgoing)).await.map_err(|refusal| refusal.message)?;
    Ok((to_manager, messages))
}

enum Event {
    Message(Option<Result<ManagerMessage, Refusal>>),
    News,
    Stop,
}

/// One session's life; returns why it ended.
async fn converse(
    setup: &mut SessionSetup,
    worker: &mut Worker,
    relay: &Relay,
    to_manager: mpsc::Sender<AgentMessage>,
    mut messages: Incoming,
    stop: &CancellationToken,
) -> String {
    let mut heart = JoinSet::new();
    heart.spawn(beat(to_manager.clone(), Duration::from_secs(1)));
    setup.reporter.send_all_again();
    loop {
        let event = tokio::select! {
            message = messages.next() => Event::Message(message),
            () = setup.reporter.news() => Event::News,
            () = stop.cancelled() => Event::Stop,
        };
        let sent = match event {
            Event::Message(Some(Ok(message))) => {
                match take(setup, worker, relay, &to_manager, &mut heart, message).await {
                    Ok(()) => continue,
                    Err(reason) => return reason,
                }
            }
            Event::Message(Some(Err(refusal))) => return refusal.message,
            Event::Message(None) => return "the manager ended it".to_owned(),
            Event::News => match setup.reporter.take_unsent() {
                tasks if tasks.is_empty() => continue,
                tasks => to_manager.send(AgentMessage::Report { tasks }).await,
            },
            Event::Stop => {
                // "Leaving" means that the daemon comes back, and its tasks are kept for it. A node that ceases
                // to be a member must not ask for that: its tasks are replaced as after any silence.
                if !setup.leave.is_cancelled() {
                    // The manager learns of the end from the stream too.
                    let _ = to_manager.send(AgentMessage::Leaving).await;
                    // It ends the session once it has heard; cutting the stream before could lose the word.
                    let heard = async { while messages.next().await.is_some() {} };
                    let _ = tokio::time::timeout(LEAVING_WAIT, heard).await;
                }
                return "this daemon stops".to_owned();
            }
        };
        if sent.is_err() {
            return "the connection broke".to_owned();
        }
    }
}

/// Heartbeats have a task of their own: a node whose worker is busy is not a silent one. Ends with its set,
/// or with the stream.
async fn beat(to_manager: mpsc::Sender<AgentMessage>, period: Duration) {
    let mut beats = tokio::time::interval(period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        // Read before it is sent: a lease counts from here.
        let sent = u64::try_from(boottime().as_nanos()).unwrap_or(u64::MAX);
        if to_manager.send(AgentMessage::Heartbeat { sent }).await.is_err() {
            return;
        }
    }
}

async fn take(
    setup: &mut SessionSetup,
    worker: &mut Worker,
    relay: &Relay,
    to_manager: &mpsc::Sender<AgentMessage>,
    heart: &mut JoinSet<()>,
    message: ManagerMessage,
) -> Result<(), String> {
    match message {
        ManagerMessage::Welcome(welcome) => {
            heart.abort_all();
            // Leases are renewed by the same beat; a few may get lost.
            let period = welcome.heartbeat_period.min(lease::DURATION / 5);
            heart.spawn(beat(to_manager.clone(), period));
            // Those that it began with stay: the machine's own manager is there whatever address it had once.
            let news = welcome.managers.into_iter().filter(|manager| !setup.managers.contains(manager));
            let news: Vec<String> = news.collect();
            setup.managers.extend(news);
        }
        ManagerMessage::Assignments(assignments) => {
            worker.assign(assignments).await.map_err(|error| error.to_string())?
        }
        ManagerMessage::Log { request, task, options } => relay.log(request, task, options, to_manager.clone()),
        ManagerMessage::Exec { request, task, spec } => relay.exec(request, task, spec, to_manager.clone()),
        ManagerMessage::Feed { request, input } => relay.feed(request, input),
        ManagerMessage::Cancel { request } => relay.cancel(request),
        ManagerMessage::LeaseGrant(grant) => setup.leases.take(&grant),
    }
    Ok(())
}
