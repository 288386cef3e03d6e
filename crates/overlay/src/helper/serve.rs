//! The helper's process: what it does from its start to its end.
//!
//! It serves the snapshot on disk before anybody connects, so that a helper that was killed answers again as soon as
//! another runs; then it takes snapshots from the daemon, one connection after the other, the newest wins.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, setsid, umask};
use serde::Deserialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::listener::Listeners;
use super::resolver::Resolvers;
use super::tunnel::Tunnels;
use super::{HelperError, Paths, wire};
use crate::snapshot::{FORMAT, FORMAT_WITH_IPV6, FORMAT_WITH_TUNNEL, Reply, Request, ServeError, Snapshot};

/// Until another helper of the same run folder has ended.
const LOCK: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);
/// A daemon that does not read its reply is let go.
const REPLY: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT. The caller has made a current-thread runtime with IO and time enabled, and nothing
/// else runs in the process: it becomes the leader of a session of its own, and its umask changes.
///
/// # Errors
/// When another helper serves this run folder, or the folder cannot be written.
pub async fn run(run_dir: &Path) -> Result<(), HelperError> {
    become_own_process();
    let paths = Paths::new(run_dir);
    let folder = paths.folder();
    fs::create_dir_all(&folder).map_err(|source| HelperError::File { path: folder, source })?;
    let lock = lock(&paths).await?;
    let mut terminate = signal(SignalKind::terminate()).map_err(HelperError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(HelperError::Signals)?;
    let mut server = Server::new(paths.clone());
    server.serve_from_disk().await;
    let failed = |source| HelperError::Listen { socket: paths.socket(), source };
    let listener = listen(&paths).map_err(failed)?;
    let ended = tokio::select! {
        ended = converse(&listener, &mut server) => ended.map_err(failed),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    // While the lock is held: the next helper's socket has the same path.
    if let Err(error) = fs::remove_file(paths.socket()) {
        tracing::debug!(%error, "the helper's socket was gone already");
    }
    drop(lock);
    ended
}

/// What a process started by the daemon inherits and should not keep.
fn become_own_process() {
    // Refused to a leader of a process group: then a terminal's Ctrl-C was not meant for anybody else either.
    let _ = setsid();
    // The socket must never be open to others, not even between its making and a change of its mode.
    umask(Mode::RWXG | Mode::RWXO);
    let limit = getrlimit(Resource::Nofile);
    // Raising the soft limit up to the hard one is never refused.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Held until the process ends, however it ends.
async fn lock(paths: &Paths) -> Result<File, HelperError> {
    let failed = |source| HelperError::File { path: paths.lock(), source };
    let file = File::options().create(true).truncate(false).write(true).open(paths.lock()).map_err(failed)?;
    let started = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() < LOCK => sleep(POLL).await,
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(HelperError::Another { run_dir: paths.run_dir.clone(), seconds: LOCK.as_secs() });
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
}

fn listen(paths: &Paths) -> io::Result<UnixListener> {
    match fs::remove_file(paths.socket()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(paths.socket())?;
    fs::set_permissions(paths.socket(), fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Only a failure to accept ends it.
async fn converse(listener: &UnixListener, server: &mut Server) -> io::Result<()> {
    let mut stream = accept(listener).await?;
    loop {
        // A snapshot that has arrived is always served to its end, outside of this select.
        let message = tokio::select! {
            newer = accept(listener) => {
                stream = newer?;
                continue;
            }
            message = wire::read(&mut stream) => message,
        };
        let replied = match message {
            Ok(Some(message)) => {
                let reply = server.take(&message).await;
                timeout(REPLY, wire::write(&mut stream, &reply)).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
            }
            // The daemon has ended: its last snapshot is served on.
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => {
                tracing::warn!(%error, "the daemon's message could not be read");
                Err(error)
            }
        };
        if replied.is_err() {
            stream = accept(listener).await?;
        }
    }
}

/// The next connection of a process that runs as root.
async fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    loop {
        let (stream, _) = listener.accept().await?;
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == 0 => return Ok(stream),
            Ok(peer) => tracing::warn!(peer.uid = peer.uid(), "only root may tell the net helper what to serve"),
            Err(error) => tracing::warn!(%error, "a connection without a peer"),
        }
    }
}

struct Server {
    paths: Paths,
    current: watch::Sender<Arc<Snapshot>>,
    resolvers: Resolvers,
    listeners: Listeners,
    tunnels: Tunnels,
}

/// Only what tells whether the rest can be read.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    version: u64,
    snapshot: Option<Format>,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Server {
    fn new(paths: Paths) -> Self {
        let (current, watched) = watch::channel(Arc::new(nothing()));
        Self {
            paths,
            current,
            resolvers: Resolvers::new(watched),
            listeners: Listeners::new(),
            tunnels: Tunnels::default(),
        }
    }

    async fn serve_from_disk(&mut self) {
        let bytes = match fs::read(self.paths.snapshot()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            read => read,
        };
        let parsed = bytes.map_err(|error| error.to_string()).and_then(|bytes| {
            let Format { format } = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
            refuse_format(format)?;
            serde_json::from_slice::<Snapshot>(&bytes).map_err(|error| error.to_string())
        });
        match parsed {
            Ok(snapshot) => {
                for error in self.serve(snapshot).await {
                    tracing::warn!(?error, "not served from the snapshot on disk");
                }
            }
            Err(error) => tracing::warn!(error, "the snapshot on disk is not served"),
        }
    }

    async fn take(&mut self, message: &[u8]) -> Reply {
        let envelope = match serde_json::from_slice::<Envelope>(message) {
            Ok(envelope) => envelope,
            Err(error) => {
                return Reply::Refused { version: 0, message: format!("the message makes no sense: {error}") };
            }
        };
        let version = envelope.version;
        self.try_take(&envelope, message).await.unwrap_or_else(|message| Reply::Refused { version, message })
    }

    async fn try_take(&mut self, envelope: &Envelope, message: &[u8]) -> Result<Reply, String> {
        if let Some(snapshot) = &envelope.snapshot {
            refuse_format(snapshot.format)?;
        }
        let request =
            serde_json::from_slice(message).map_err(|error| format!("the message makes no sense: {error}"))?;
        match request {
            Request::Apply { version, snapshot } => {
                self.apply(snapshot).await.map(|errors| Reply::Applied { version, errors })
            }
            Request::TunnelStats { version } => Ok(Reply::TunnelStats { version, peers: self.tunnels.stats().await }),
        }
    }

    async fn apply(&mut self, snapshot: Snapshot) -> Result<Vec<ServeError>, String> {
        let unchanged = **self.current.borrow() == snapshot;
        if !unchanged || !self.paths.snapshot().exists() {
            store(&self.paths, &snapshot).map_err(|error| {
                format!(
                    "failed to write `{}`, so a restart would not serve it: {error}",
                    self.paths.snapshot().display()
                )
            })?;
        }
        Ok(self.serve(snapshot).await)
    }

    /// Names first: a socket that is new answers from this snapshot.
    async fn serve(&mut self, snapshot: Snapshot) -> Vec<ServeError> {
        let snapshot = Arc::new(snapshot);
        let before = self.current.send_replace(Arc::clone(&snapshot));
        if before.upstreams != snapshot.upstreams {
            self.resolvers.forget_answers();
        }
        let mut errors = self.resolvers.serve(&snapshot).await;
        errors.extend(self.listeners.serve(&snapshot.listeners).await);
        if let Err(message) = self.tunnels.serve(snapshot.tunnel.clone()).await {
            errors.push(ServeError::Tunnel { message });
        }
        errors
    }
}

fn nothing() -> Snapshot {
    Snapshot {
        format: FORMAT,
        resolver_port: crate::snapshot::RESOLVER_PORT,
        upstreams: Vec::new(),
        zones: Default::default(),
        sandboxes: Default::default(),
        listeners: Vec::new(),
        tunnel: None,
    }
}

fn refuse_format(format: u32) -> Result<(), String> {
    match format {
        FORMAT | FORMAT_WITH_TUNNEL | FORMAT_WITH_IPV6 => Ok(()),
        other => Err(format!(
            "its format is {other}; this build of the net helper reads formats {FORMAT} to {FORMAT_WITH_IPV6}"
        )),
    }
}

/// Whole or not at all. The run folder is in memory: what survives is a killed process, not a power cut.
fn store(paths: &Paths, snapshot: &Snapshot) -> io::Result<()> {
    let new = paths.folder().join("snapshot.json.new");
    fs::write(&new, serde_json::to_vec(snapshot)?)?;
    fs::rename(new, paths.snapshot())
}
