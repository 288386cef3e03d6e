//! Looking again whenever the cluster changes, until there is an end to tell.

use std::time::Duration;

use futures::StreamExt;
use skep_api::{ControlClient, Refusal, WatchRequest};
use tokio::time::{sleep, timeout};

use super::{LOOK_EVERY, LOOK_PAUSE, give_up_later};
use crate::cli::Result;
use crate::cli::failure::{Exit, INTERRUPTED, TIMED_OUT};
use crate::cli::output;

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
        end = timeout(*patience, run(control, look)) => end.unwrap_or_else(|_| {
            let message = format!("{what} has not ended after {}", output::time::exact(*patience));
            Err(Exit::saying(TIMED_OUT, format!("{message}; it goes on, watch it with `{watch_with}`")))
        }),
    }
}

async fn run<T>(control: &ControlClient, mut look: impl AsyncFnMut() -> Result<Option<T>, Refusal>) -> Result<T> {
    let mut lost_since = None;
    loop {
        let mut events = match control.watch(WatchRequest::default()).await {
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
