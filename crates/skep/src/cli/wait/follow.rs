//! Looking again whenever the cluster changes, until there is an end to tell.

use std::time::Duration;

use futures::StreamExt;
use skep_api::{ControlClient, Refusal, RefusalKind, WatchRequest};
use skep_model::Version;
use tokio::time::{Instant, sleep, timeout};

use crate::cli::Result;
use crate::cli::failure::{Exit, INTERRUPTED, TIMED_OUT};
use crate::cli::output;

/// Progress that is not replicated is looked at this often; nothing is looked at more often than the second.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOK_PAUSE: Duration = Duration::from_millis(40);
/// How long a manager may be out of reach: a new leader is found sooner.
const OUT_OF_REACH: Duration = Duration::from_secs(15);

/// What goes on whether anybody waits or not.
#[derive(Debug)]
pub struct Followed {
    /// `the drain`
    pub what: String,
    pub timeout: Duration,
    /// A command that shows how it goes on.
    pub watch_with: String,
}

/// What `look` found in the end; it is asked again for as long as it finds nothing.
pub async fn follow<T>(
    control: &ControlClient,
    followed: &Followed,
    look: impl AsyncFnMut() -> Result<Option<T>, Refusal>,
) -> Result<T> {
    let Followed { what, timeout: patience, watch_with } = followed;
    tokio::select! {
        // A signal that cannot be listened for ends the program by itself.
        _ = tokio::signal::ctrl_c() => {
            output::raw_complaint("\n");
            Err(Exit::saying(INTERRUPTED, format!("interrupted; {what} goes on, watch it with `{watch_with}`")))
        }
        end = timeout(*patience, run(control, Version::default(), look)) => end.unwrap_or_else(|_| {
            let message = format!("{what} has not ended after {}", output::time::exact(*patience));
            Err(Exit::saying(TIMED_OUT, format!("{message}; it goes on, watch it with `{watch_with}`")))
        }),
    }
}

/// The same without an end of patience. What is heard of the cluster is not older than `since`.
pub(super) async fn run<T>(
    control: &ControlClient,
    since: Version,
    mut look: impl AsyncFnMut() -> Result<Option<T>, Refusal>,
) -> Result<T> {
    let mut lost_since = None;
    loop {
        let mut events = match control.watch(WatchRequest { after: since }).await {
            Ok(events) => events,
            Err(refusal) => {
                give_up_later(&mut lost_since, refusal)?;
                sleep(LOOK_EVERY).await;
                continue;
            }
        };
        loop {
            match look().await {
                Ok(Some(end)) => return Ok(end),
                Ok(None) => lost_since = None,
                Err(refusal) => {
                    give_up_later(&mut lost_since, refusal)?;
                    break;
                }
            }
            sleep(LOOK_PAUSE).await;
            if let Ok(None | Some(Err(_))) = timeout(LOOK_EVERY, events.next()).await {
                // The stream ended, with its manager: ask again.
                sleep(LOOK_EVERY).await;
                break;
            }
        }
    }
}

fn give_up_later(lost_since: &mut Option<Instant>, refusal: Refusal) -> Result {
    let since = *lost_since.get_or_insert_with(Instant::now);
    match refusal.kind == RefusalKind::Unavailable && since.elapsed() < OUT_OF_REACH {
        true => Ok(()),
        false => Err(refusal.into()),
    }
}
