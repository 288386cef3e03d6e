//! Waiting for a container without a thread of its own.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use skep_runtime::{ClientError, Container, Event, Events, State};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub exit_code: i32,
    pub oom_killed: bool,
    /// Why it could not start, or that its supervisor was lost.
    pub error: Option<String>,
}

/// A container's events; an end that already happened comes at once.
pub struct Watch {
    events: AsyncFd<Source>,
    container: Container,
}

/// Gives tokio the descriptor that the events come over.
struct Source(Events);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    #[expect(deprecated, reason = "the new constructor is unsafe; the descriptor is owned by what is registered")]
    pub fn new(container: &Container) -> Result<Self, ClientError> {
        let events = container.subscribe()?;
        let watched = AsyncFd::with_interest(Source(events), Interest::READABLE);
        let events = watched.map_err(|source| ClientError::NoWarden { id: container.id().to_owned(), source })?;
        Ok(Self { events, container: container.clone() })
    }

    /// Resolves when the container has ended; may be dropped and called again.
    pub async fn ended(&mut self) -> Ended {
        loop {
            match self.events.get_ref().0.try_next_event() {
                Ok(Some(Event::Exited { code, oom_killed })) => return self.details(code, oom_killed),
                Ok(Some(Event::ExecExited { .. })) => continue,
                Ok(None) => {}
                Err(error) => return lost(&error),
            }
            match self.events.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(error) => return Ended { exit_code: 255, oom_killed: false, error: Some(error.to_string()) },
            }
        }
    }

    /// The state knows more than the event: why a start failed.
    fn details(&self, code: i32, oom_killed: bool) -> Ended {
        match self.container.state() {
            Ok(State::Exited { code, oom_killed, error, .. }) => Ended { exit_code: code, oom_killed, error },
            Ok(State::Created { .. } | State::Running { .. }) | Err(_) => {
                Ended { exit_code: code, oom_killed, error: None }
            }
        }
    }
}

fn lost(error: &ClientError) -> Ended {
    let error = match error {
        ClientError::Gone { .. } | ClientError::NoWarden { .. } => {
            "supervisor lost: the process that looked after the container was killed".to_owned()
        }
        other => other.to_string(),
    };
    Ended { exit_code: 255, oom_killed: false, error: Some(error) }
}
