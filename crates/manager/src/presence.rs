//! What followers hear of their agents, told to the leader: so a node is alive to the cluster whichever
//! manager its session ends at.
//!
//! ```text
//!  agent ─ heartbeat ─▶ follower ─ report, every half second ─▶ leader ─▶ liveness
//!                           ◀────────── note: taken in ─────────────────────────
//! ```
//! Nothing of it is replicated. A new leader knows of no session but its own; it counts silence from its
//! election, and followers tell it of theirs within a round.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use skep_api::{LearntAddress, Messages, PresenceNote, PresenceReport, Refusal, RefusalKind, RosterClient};
use skep_store::{Leadership, Store};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::fellows::Fellows;
use crate::sessions::Sessions;

/// Between two reports.
const ROUND: Duration = Duration::from_millis(500);
/// Before a stream that broke is opened again.
const RETRY: Duration = Duration::from_millis(200);
/// A leader that does not answer a report for so long is asked over a new stream.
const PATIENCE: Duration = Duration::from_secs(3);
/// Reports under way.
const QUEUE: usize = 4;

/// Tells whoever leads, until `stop`; idle while this manager leads.
pub async fn tell(store: Store, sessions: Arc<Sessions>, fellows: Arc<Fellows>, stop: CancellationToken) {
    let mut leadership = store.leadership();
    loop {
        leadership.borrow_and_update();
        let told = async {
            match fellows.leader() {
                Some(leader) => {
                    if let Err(refusal) = tell_one(&leader, &store, &sessions, &fellows).await {
                        tracing::debug!(leader, %refusal, "the leader was not told of sessions");
                    }
                    sleep(RETRY).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told => {}
            changed = leadership.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// One stream to one leader, until it breaks.
async fn tell_one(leader: &str, store: &Store, sessions: &Sessions, fellows: &Fellows) -> Result<(), Refusal> {
    let client = RosterClient::new(fellows.connect(leader).await?);
    let (reports, outgoing) = mpsc::channel(QUEUE);
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    // The first goes along with the call, so that the leader need not wait for it.
    send(&reports, number, store, sessions).await?;
    let mut notes = timed(client.presence(ReceiverStream::new(outgoing))).await?;
    loop {
        match timed_next(&mut notes).await? {
            Some(PresenceNote { .. }) => {}
            None => return Ok(()),
        }
        rounds.tick().await;
        number += 1;
        send(&reports, number, store, sessions).await?;
    }
}

async fn send(
    reports: &mpsc::Sender<PresenceReport>,
    number: u64,
    store: &Store,
    sessions: &Sessions,
) -> Result<(), Refusal> {
    let (nodes, progress) = sessions.report();
    // A leader may not be able to hear from one that moved: nobody told it where it was itself.
    let learnt = store.learnt_addresses().into_iter();
    let learnt = learnt.map(|(raft_id, address)| LearntAddress { raft_id, address }).collect();
    let report = PresenceReport { number, nodes, progress, learnt };
    reports.send(report).await.map_err(|_| Refusal::new(RefusalKind::Unavailable, "the stream is closed"))
}

async fn timed<T>(call: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    timeout(PATIENCE, call).await.unwrap_or_else(|_| Err(Refusal::new(RefusalKind::TimedOut, "no answer within 3 s")))
}

async fn timed_next(notes: &mut Messages<PresenceNote>) -> Result<Option<PresenceNote>, Refusal> {
    timed(async { notes.next().await.transpose() }).await
}

/// The leader's end: takes in reports for as long as this manager leads.
pub fn take(
    store: Store,
    sessions: Arc<Sessions>,
    from: u64,
    mut input: Messages<PresenceReport>,
) -> Messages<PresenceNote> {
    let (notes, stream) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Some(Ok(report)) = input.next().await {
            if !matches!(*store.leadership().borrow(), Leadership::Leader { .. }) {
                let refusal = Refusal::new(RefusalKind::Unavailable, "this manager does not lead");
                // Who does not read any more knows already.
                let _ = notes.send(Err(refusal)).await;
                break;
            }
            let PresenceReport { number, nodes, progress, learnt } = report;
            for LearntAddress { raft_id, address } in learnt.into_iter().filter(|it| it.raft_id != store.raft_id()) {
                store.learn_address(raft_id, address);
            }
            sessions.take_report(from, nodes, progress);
            sessions.prune_progress(&store.cluster());
            if notes.send(Ok(PresenceNote { number })).await.is_err() {
                break;
            }
        }
        sessions.forget_reports(from);
    });
    ReceiverStream::new(stream).boxed()
}
