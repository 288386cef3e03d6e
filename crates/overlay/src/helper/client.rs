//! The daemon's side: one task owns the connection, gives the helper each snapshot, and starts another helper with
//! the last one when it dies.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::process::{self, Live};
use super::{HelperConfig, HelperError, Paths, cgroup, wire};
use crate::snapshot::{Reply, Request, ServeError, Snapshot};
use crate::tunnel::{PeerStats, PublicKey};

/// For one snapshot: it opens sockets in every new sandbox.
const REPLY: Duration = Duration::from_secs(20);
/// A process whose connection is gone has about ended; one that has not is ended.
const EXIT: Duration = Duration::from_millis(200);
/// After a start that failed; doubled up to the second.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The node's net helper. Dropping it leaves the process running: it serves on for the next daemon.
#[derive(Debug)]
pub struct Helper {
    commands: mpsc::Sender<Command>,
    pid: watch::Receiver<Option<i32>>,
}

#[derive(Debug)]
enum Command {
    Apply(Box<Snapshot>, oneshot::Sender<Result<Vec<ServeError>, HelperError>>),
    TunnelStats(oneshot::Sender<Result<BTreeMap<PublicKey, PeerStats>, HelperError>>),
    Stop(oneshot::Sender<Result<(), HelperError>>),
}

impl Helper {
    /// Takes over the helper that runs for this run folder, or starts one; and sees to it from then on.
    ///
    /// # Errors
    /// When neither works: the program cannot be run, or ends at once.
    pub async fn start(config: HelperConfig) -> Result<Self, HelperError> {
        let paths = Paths::new(&config.run_dir);
        let folder = paths.folder();
        fs::create_dir_all(&folder).map_err(|source| HelperError::File { path: folder, source })?;
        let live = match process::find(&paths).await? {
            Some(live) => live,
            None => process::start(&config, &paths).await?,
        };
        let (commands, receiver) = mpsc::channel(16);
        let (pid, watched) = watch::channel(Some(live.pid.as_raw_nonzero().get()));
        let owner = Owner {
            config,
            paths,
            commands: receiver,
            pid,
            live: Some(live),
            last: None,
            version: 0,
            backoff: BACKOFF_MIN,
            retry_at: Instant::now(),
        };
        tokio::spawn(owner.run());
        Ok(Self { commands, pid: watched })
    }

    /// Serves `snapshot` from now on, also in the helpers that follow this one. Returns when it is served, but for
    /// the parts that are returned.
    ///
    /// # Errors
    /// When no helper can be had. It is tried on, and the snapshot is not forgotten.
    pub async fn apply(&self, snapshot: Snapshot) -> Result<Vec<ServeError>, HelperError> {
        self.ask(|reply| Command::Apply(Box::new(snapshot), reply)).await
    }

    /// What is known of the tunnel's peers; nothing where the helper carries none, or is of a build that cannot.
    ///
    /// # Errors
    /// When the helper cannot be asked.
    pub async fn tunnel_stats(&self) -> Result<BTreeMap<PublicKey, PeerStats>, HelperError> {
        self.ask(Command::TunnelStats).await
    }

    /// Ends the process and removes its files: nothing is served any more.
    ///
    /// # Errors
    /// When it does not end. After a success every call is refused with [`HelperError::Stopped`].
    pub async fn stop(&self) -> Result<(), HelperError> {
        self.ask(Command::Stop).await
    }

    /// The helper's process id; None while there is none.
    pub fn pid(&self) -> Option<i32> {
        *self.pid.borrow()
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, HelperError>>) -> Command,
    ) -> Result<T, HelperError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| HelperError::Stopped)?;
        answer.await.unwrap_or(Err(HelperError::Stopped))
    }
}

struct Owner {
    config: HelperConfig,
    paths: Paths,
    commands: mpsc::Receiver<Command>,
    pid: watch::Sender<Option<i32>>,
    /// None after a failed start, until `retry_at`.
    live: Option<Live>,
    last: Option<Snapshot>,
    version: u64,
    backoff: Duration,
    retry_at: Instant,
}

enum Event {
    Command(Command),
    Dropped,
    Lost,
    Retry,
}

impl Owner {
    async fn run(mut self) {
        loop {
            let event = tokio::select! {
                command = self.commands.recv() => command.map_or(Event::Dropped, Event::Command),
                () = lost(self.live.as_ref()) => Event::Lost,
                () = sleep_until(self.retry_at), if self.live.is_none() => Event::Retry,
            };
            match event {
                Event::Dropped => return,
                Event::Command(Command::Apply(snapshot, reply)) => {
                    self.last = Some(*snapshot);
                    // Whoever asked may not wait any more.
                    let _ = reply.send(self.serve_last().await);
                }
                Event::Command(Command::TunnelStats(reply)) => {
                    // As above.
                    let _ = reply.send(self.tunnel_stats().await);
                }
                Event::Command(Command::Stop(reply)) => {
                    let stopped = self.stop().await;
                    let is_stopped = stopped.is_ok();
                    let _ = reply.send(stopped);
                    if is_stopped {
                        return;
                    }
                }
                Event::Lost => {
                    tracing::warn!(helper.pid = *self.pid.borrow(), "the net helper ended; starting another");
                    self.revive().await;
                }
                Event::Retry => self.revive().await,
            }
        }
    }

    /// Another helper with the last snapshot. A failure is tried again later.
    async fn revive(&mut self) {
        self.discard().await;
        match self.serve_last().await {
            Ok(errors) => errors.iter().for_each(|error| tracing::warn!(?error, "not served by the new net helper")),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, retry_ms = self.backoff.as_millis(), "no net helper");
            }
        }
    }

    /// Gives the last snapshot to the helper, to another one if this one is lost or does not understand it.
    async fn serve_last(&mut self) -> Result<Vec<ServeError>, HelperError> {
        let was_live = self.live.is_some();
        let mut served = self.try_serve().await;
        // Another build's helper may refuse what ours takes; one that broke the connection may be ending.
        if was_live && matches!(served, Err(HelperError::Refused { .. } | HelperError::Talk { .. })) {
            self.discard().await;
            served = self.try_serve().await;
        }
        if matches!(served, Err(HelperError::Talk { .. })) {
            self.discard().await;
        }
        self.backoff = if served.is_ok() { BACKOFF_MIN } else { (self.backoff * 2).min(BACKOFF_MAX) };
        self.retry_at = Instant::now() + self.backoff;
        served
    }

    async fn try_serve(&mut self) -> Result<Vec<ServeError>, HelperError> {
        let live = match &mut self.live {
            Some(live) => live,
            none => {
                let live = process::start(&self.config, &self.paths).await?;
                self.pid.send_replace(Some(live.pid.as_raw_nonzero().get()));
                none.insert(live)
            }
        };
        let Some(snapshot) = &self.last else { return Ok(Vec::new()) };
        self.version += 1;
        let request = Request::Apply { version: self.version, snapshot: snapshot.clone() };
        match exchange(live, &request).await.map_err(|source| talk(&self.paths, source))? {
            Reply::Applied { version: _, errors } => Ok(errors),
            Reply::Refused { version: _, message } => Err(HelperError::Refused { message }),
            Reply::TunnelStats { .. } => Err(talk(&self.paths, io::ErrorKind::InvalidData.into())),
        }
    }

    async fn tunnel_stats(&mut self) -> Result<BTreeMap<PublicKey, PeerStats>, HelperError> {
        let Some(live) = &mut self.live else { return Ok(BTreeMap::new()) };
        self.version += 1;
        let asked = exchange(live, &Request::TunnelStats { version: self.version }).await;
        match asked.map_err(|source| talk(&self.paths, source)) {
            Ok(Reply::TunnelStats { version: _, peers }) => Ok(peers),
            Ok(Reply::Refused { .. }) => Ok(BTreeMap::new()),
            // Its words are not understood, or it is ending: it is not asked on.
            Ok(Reply::Applied { .. }) => Err(self.lose(talk(&self.paths, io::ErrorKind::InvalidData.into())).await),
            Err(error) => Err(self.lose(error).await),
        }
    }

    async fn lose(&mut self, error: HelperError) -> HelperError {
        self.revive().await;
        error
    }

    /// Lets the helper go, and waits until its ports are free.
    async fn discard(&mut self) {
        self.pid.send_replace(None);
        let Some(live) = self.live.take() else { return };
        if timeout(EXIT, live.ended()).await.is_ok() {
            return;
        }
        if let Err(error) = live.end().await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the lost net helper was not ended");
        }
    }

    async fn stop(&mut self) -> Result<(), HelperError> {
        if self.live.is_none() {
            self.live = process::find(&self.paths).await?;
        }
        if let Some(live) = self.live.take() {
            self.pid.send_replace(None);
            live.end().await?;
        }
        for path in [self.paths.socket(), self.paths.snapshot(), self.paths.lock(), self.paths.log()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(|source| HelperError::File { path, source })?,
            }
        }
        if let Some(parent) = self.config.cgroup_parent.clone() {
            let removed = tokio::task::spawn_blocking(move || cgroup::remove(&parent)).await;
            removed.expect("removing a cgroup does not panic");
        }
        Ok(())
    }
}

/// One request, one reply, in time.
async fn exchange(live: &mut Live, request: &Request) -> io::Result<Reply> {
    let exchanged = async {
        wire::write(&mut live.stream, request).await?;
        let message = wire::read(&mut live.stream).await?.ok_or(io::ErrorKind::ConnectionReset)?;
        Ok(serde_json::from_slice(&message)?)
    };
    timeout(REPLY, exchanged).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn talk(paths: &Paths, source: io::Error) -> HelperError {
    HelperError::Talk { socket: paths.socket(), source }
}

/// Ends when the helper is lost. It says nothing unasked, so anything that can be read is the end.
async fn lost(live: Option<&Live>) {
    let Some(live) = live else { return std::future::pending().await };
    loop {
        if live.stream.readable().await.is_err() {
            return;
        }
        match live.stream.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}
