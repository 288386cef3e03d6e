//! The agent's session with a manager: kept open, opened again, and fed.
//!
//! Rounds over the known managers follow each other until one opens a session. When the first round after the daemon's
//! start fails, or takes long, the worker starts what the disk remembers.

use std::time::Duration;

use futures::StreamExt;
use skep_api::{
    AgentMessage, Connection, DISPATCH_PROTOCOL, DispatcherClient, Hello, ManagerMessage, Refusal, RefusalKind,
    Standing, TrustUpdate,
};
use skep_identity::Tls;
use skep_model::{GenericResource, IdSource, Timestamp, lease};
use skep_runtime::boottime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::describe::describe;
use crate::drains::Drains;
use crate::leases::Leases;
use crate::managers::Managers;
use crate::network::NetworkHandle;
use crate::race::Race;
use crate::relay::Relay;
use crate::reporter::Reporter;
use crate::tunnel::OwnTunnel;
use crate::worker::Worker;

/// Between two rounds: the first pause, and the longest; up to as much again is added at random.
/// A manager that is back waits four seconds for its nodes before it counts them as lost: they must have tried by then.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// A session that lasted was no failure: the next is opened within [`RETRY`].
const SETTLED: Duration = Duration::from_secs(5);
/// How long a manager has to answer a hello, which it may have to write down first.
const HELLO_MAX: Duration = Duration::from_secs(5);
/// After which a worker that has heard of no manager starts what it remembers, whatever connections are still tried.
const ALONE: Duration = Duration::from_secs(3);
/// How long a stopping daemon waits for its manager to take note.
const LEAVING_WAIT: Duration = Duration::from_secs(1);
/// Messages that wait for a manager that is slow to read.
const QUEUE: usize = 256;

/// A manager's clock that differs by more than this is worth a word to the operator.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(300);

/// What managers said of this node's trust and time.
#[derive(Debug, Clone, Default)]
pub struct ManagersWord {
    pub trust: Option<TrustUpdate>,
    /// How often something was said of trust: the same again is said for a reason.
    pub times_told: u64,
    /// In words for the node's operator; none while the clocks agree.
    pub clock: Option<String>,
    /// In words for the node's operator; none unless another machine is this node.
    pub copy: Option<String>,
}

/// What a session is opened with.
pub struct SessionSetup {
    pub tls: Tls,
    pub managers: Managers,
    /// The address that others reach this node under; empty leaves it to the connection.
    pub address: String,
    pub tunnel: OwnTunnel,
    pub reporter: Reporter,
    pub leases: Leases,
    pub drains: Drains,
    /// Asked when what was assigned is in force.
    pub network: NetworkHandle,
    pub warnings: Vec<String>,
    pub generic: Vec<GenericResource>,
    /// The machine's boot, for telling copies of a node apart.
    pub instance: String,
    pub word: watch::Sender<ManagersWord>,
    pub connected: watch::Sender<bool>,
    pub standing: watch::Sender<Option<Standing>>,
    /// Cancelled before the stop of a node that ceases to be a member.
    pub leave: CancellationToken,
    /// Spreads retries of many nodes; must be random.
    pub seed: u128,
}

/// Runs sessions until `stop`, one after the other; says good-bye at the end.
pub async fn run(mut setup: SessionSetup, worker: &mut Worker, relay: &Relay, stop: CancellationToken) {
    let mut random = IdSource::from_seed(setup.seed);
    let alone_at = Instant::now() + ALONE;
    let mut pause = RETRY;
    let mut failed_rounds = 0u32;
    while !stop.is_cancelled() {
        let opened = {
            let race = Race::new(setup.tls.clone(), setup.managers.round(&mut random));
            let mut opening = std::pin::pin!(open_first(&setup, race, worker.revision(), failed_rounds));
            loop {
                tokio::select! {
                    opened = &mut opening => break opened,
                    () = tokio::time::sleep_until(alone_at), if worker.remembers() => worker.restore().await,
                    () = stop.cancelled() => return,
                }
            }
        };
        match opened {
            Ok(Opened { manager, to_manager, messages }) => {
                let since = Instant::now();
                failed_rounds = 0;
                setup.managers.opened(&manager);
                setup.connected.send_replace(true);
                setup.word.send_if_modified(|word| word.copy.take().is_some());
                tracing::info!(manager, "session opened");
                let end = converse(&mut setup, worker, relay, to_manager, messages, &stop).await;
                setup.connected.send_replace(false);
                setup.drains.set_answered(false);
                relay.cancel_all();
                tracing::info!(manager, reason = end, "session ended");
                if since.elapsed() > SETTLED {
                    pause = Duration::ZERO;
                }
            }
            Err(failure) => {
                failed_rounds = failed_rounds.saturating_add(1);
                match failure {
                    Failure::Unreachable => worker.restore().await,
                    // A manager lives, and says that this node has no business here.
                    Failure::Denied => worker.forget_last(),
                    // What the disk remembers runs on that other machine.
                    Failure::Copy(words) => {
                        worker.forget_last();
                        setup.word.send_modify(|word| word.copy = Some(words));
                    }
                }
            }
        }
        let spread = Duration::from_millis(random.below(pause.max(RETRY).as_millis() as u64 + 1));
        tokio::select! {
            () = tokio::time::sleep(pause + spread) => pause = (pause * 2).clamp(RETRY, RETRY_MAX),
            () = stop.cancelled() => {}
        }
    }
}

type Incoming = skep_api::Messages<ManagerMessage>;

struct Opened {
    manager: String,
    to_manager: mpsc::Sender<AgentMessage>,
    messages: Incoming,
}

/// Why no manager of a round opened a session.
enum Failure {
    Unreachable,
    /// One answered and knows this node not, or no longer.
    Denied,
    /// Another machine is this node.
    Copy(String),
}

/// A session with the first manager that opens one.
async fn open_first(setup: &SessionSetup, mut race: Race, revision: u64, round: u32) -> Result<Opened, Failure> {
    let mut failure = Failure::Unreachable;
    while let Some((manager, connected)) = race.next().await {
        let opened = match connected {
            Ok(connection) => match tokio::time::timeout(HELLO_MAX, open(setup, connection, revision)).await {
                Ok(opened) => opened,
                Err(_) => Err(Refusal::new(RefusalKind::TimedOut, "no answer to the hello")),
            },
            Err(error) => Err(Refusal::new(RefusalKind::Unavailable, error)),
        };
        match opened {
            Ok((to_manager, messages)) => return Ok(Opened { manager, to_manager, messages }),
            Err(Refusal { kind, message, .. }) => {
                if kind == RefusalKind::Denied {
                    failure = Failure::Denied;
                }
                // Said once: it may go on for days.
                match round {
                    0 => tracing::warn!(manager, error = message, "no session with this manager"),
                    _ => tracing::debug!(manager, error = message, round, "no session with this manager"),
                }
                if kind == RefusalKind::Conflict {
                    // It asked the one that leads: no other will say anything else.
                    return Err(Failure::Copy(message));
                }
            }
        }
    }
    Err(failure)
}

async fn open(
    setup: &SessionSetup,
    connection: Connection,
    revision: u64,
) -> Result<(mpsc::Sender<AgentMessage>, Incoming), Refusal> {
    let client = DispatcherClient::new(connection);
    let (to_manager, outgoing) = mpsc::channel(QUEUE);
    let description = describe(&setup.warnings, &setup.generic);
    let hello = Hello {
        protocol: DISPATCH_PROTOCOL,
        description,
        address: setup.address.clone(),
        revision,
        instance: setup.instance.clone(),
        acknowledges: true,
        tunnel: Some(setup.tunnel.hello(&setup.address).await),
    };
    to_manager.send(AgentMessage::Hello(hello)).await.expect("the receiver is held here");
    let messages = client.session(ReceiverStream::new(outgoing)).await.inspect_err(|refusal| {
        if refusal.kind == RefusalKind::Lapsed {
            setup.tls.ask_renewal();
        }
    })?;
    Ok((to_manager, messages))
}

const BROKEN: &str = "the connection broke";

enum Event {
    Message(Option<Result<ManagerMessage, Refusal>>),
    News,
    Drains,
    Rekeyed,
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
    let mut acknowledging = JoinSet::new();
    let (assigned, revisions) = watch::channel(0);
    acknowledging.spawn(acknowledge(to_manager.clone(), setup.network.clone(), revisions, setup.drains.clone()));
    setup.reporter.send_all_again();
    loop {
        let event = tokio::select! {
            message = messages.next() => Event::Message(message),
            () = setup.reporter.news() => Event::News,
            () = setup.drains.asked() => Event::Drains,
            Ok(()) = setup.tunnel.told.changed() => Event::Rekeyed,
            () = stop.cancelled() => Event::Stop,
        };
        let sent = match event {
            Event::Message(Some(Ok(message))) => {
                match take(setup, worker, relay, &to_manager, &mut heart, message).await {
                    Ok(()) => {
                        assigned
                            .send_if_modified(|known| std::mem::replace(known, worker.revision()) != worker.revision());
                        continue;
                    }
                    Err(reason) => return reason,
                }
            }
            Event::Message(Some(Err(refusal))) => return refusal.message,
            Event::Message(None) => return "the manager ended it".to_owned(),
            Event::News => match setup.reporter.take_unsent() {
                tasks if tasks.is_empty() => continue,
                tasks => to_manager.send(AgentMessage::Report { tasks }).await,
            },
            Event::Drains => {
                for task in setup.drains.take_unsent() {
                    if to_manager.send(AgentMessage::Settle { task }).await.is_err() {
                        return BROKEN.to_owned();
                    }
                }
                continue;
            }
            Event::Rekeyed => {
                let hello = setup.tunnel.hello(&setup.address).await;
                to_manager.send(AgentMessage::Tunnel(hello)).await
            }
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
            return BROKEN.to_owned();
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

/// Tells what is in force, which others may wait for. Of several revisions the last says it all.
async fn acknowledge(
    to_manager: mpsc::Sender<AgentMessage>,
    network: NetworkHandle,
    mut revisions: watch::Receiver<u64>,
    drains: Drains,
) {
    while revisions.changed().await.is_ok() {
        let revision = *revisions.borrow_and_update();
        network.in_force().await;
        if drains.is_answered() && to_manager.send(AgentMessage::Applied { revision }).await.is_err() {
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
            setup.drains.set_answered(welcome.settles);
            // Leases are renewed by the same beat; a few may get lost.
            let period = welcome.heartbeat_period.min(lease::DURATION / 5);
            heart.spawn(beat(to_manager.clone(), period));
            compare_clocks(setup, welcome.time);
            setup.managers.told(welcome.managers);
        }
        ManagerMessage::Standing(standing) => {
            setup.managers.told(standing.managers.clone());
            setup.standing.send_if_modified(|known| known.replace(standing.clone()).as_ref() != Some(&standing));
        }
        ManagerMessage::Assignments(assignments) => {
            worker.assign(assignments).await.map_err(|error| error.to_string())?
        }
        ManagerMessage::Log { request, task, options } => relay.log(request, task, options, to_manager.clone()),
        ManagerMessage::Exec { request, task, spec } => relay.exec(request, task, spec, to_manager.clone()),
        ManagerMessage::Probe { request, managers } => relay.probe(request, managers, to_manager.clone()),
        ManagerMessage::Feed { request, input } => relay.feed(request, input),
        ManagerMessage::Cancel { request } => relay.cancel(request),
        ManagerMessage::LeaseGrant(grant) => setup.leases.take(&grant),
        ManagerMessage::Settled { task } => setup.drains.settled(task),
        ManagerMessage::Trust(update) => setup.word.send_modify(|word| {
            word.trust = Some(update);
            word.times_told += 1;
        }),
    }
    Ok(())
}

/// Neither clock is believed more than the other: which one is wrong, its operator sees.
fn compare_clocks(setup: &SessionSetup, managers: Timestamp) {
    let own = setup.tls.clock().now();
    let (difference, side) = match own > managers {
        true => (own.0 - managers.0, "ahead of"),
        false => (managers.0 - own.0, "behind"),
    };
    let difference = Duration::from_nanos(difference);
    let words = (difference > CLOCK_DIFFERENCE_MAX).then(|| {
        let minutes = difference.as_secs() / 60;
        format!("this node's clock is {minutes} min {side} its manager's: check time synchronisation (NTP) on both")
    });
    if let Some(words) = &words {
        tracing::warn!("{words}");
    }
    setup.word.send_modify(|word| word.clock = words);
}
