//! The daemon: one process that is an agent, and on managers a manager too.
//!
//! ```text
//!  config ─▶ preflight ─▶ lock ─▶ images, volumes ─▶ member? manager, agent ─▶ serve the socket ─▶ signal ─▶ stop
//! ```
//! Before a node is a member, and while it is a locked manager, it serves only its socket, for `init`, `join`, `unlock`
//! and what is local.

mod address;
mod autolock;
pub mod config;
mod control_gate;
mod instance;
mod joining;
mod known_managers;
mod local;
mod locked;
mod member;
mod membership;
mod node_clock;
mod pool;
pub mod preflight;
mod rebirth;
mod renewal;
mod resolver;
mod socket;
mod standing;

use std::fs::{DirBuilder, File, TryLockError};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use config::{NodeConfig, Overrides};
use control_gate::ControlGate;
use local::LocalService;
use membership::Membership;
use skep_agent::VolumeStore;
use skep_image::{ImageStore, RegistryConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs the daemon until SIGTERM or SIGINT.
pub async fn run(overrides: Overrides) -> Result<()> {
    start_logging();
    let config = NodeConfig::load(&overrides)?;
    let warnings = preflight::check()?;
    for warning in &warnings {
        tracing::warn!(warning, "this machine holds limits only in part");
    }
    let _lock = prepare_folders(&config)?;
    let _network = claim_network()?;
    let images = open_images(&config).await?;
    let volumes = VolumeStore::open(config.data_dir.join("volumes"), config.run_dir.join("volumes"))
        .context("failed to open the volumes' folder")?;
    let gate = Arc::new(ControlGate::default());
    let listener = socket::listen(&config.socket(), &config.socket_group)?;
    let membership = Arc::new(Membership::new(config, images, volumes, warnings, Arc::clone(&gate)));
    membership.resume().await?;
    let stop = CancellationToken::new();
    let server = skep_api::Server::new().local(Arc::new(LocalService(Arc::clone(&membership)))).control(gate);
    let serving = tokio::spawn(server.serve_unix(listener, stop.clone().cancelled_owned()));
    let standing = tokio::spawn(Arc::clone(&membership).mind_standing(stop.clone()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), socket = %membership.config.socket().display(), "daemon ready");
    wait_for_end().await?;
    tracing::info!("daemon stops; containers run on");
    stop.cancel();
    // It has said what it had to say.
    let _ = standing.await;
    membership.stop().await;
    // What it says of a failure while it was asked to end helps nobody.
    let _ = serving.await;
    let _ = std::fs::remove_file(membership.config.socket());
    Ok(())
}

fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SKEP_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=error,hyper=warn,h2=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

async fn wait_for_end() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to watch for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("failed to watch for SIGHUP")?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            // The terminal that it was started from went away: no reason to stop.
            _ = hangup.recv() => {}
        }
    }
}

/// Makes the folders and locks the data folder: one daemon for each.
fn prepare_folders(config: &NodeConfig) -> Result<File> {
    for dir in [&config.data_dir, &config.run_dir] {
        let mode = if dir == &config.data_dir { 0o710 } else { 0o755 };
        let made = DirBuilder::new().recursive(true).mode(mode).create(dir);
        made.with_context(|| format!("failed to create the folder {}", dir.display()))?;
    }
    lock(&config.data_dir)
}

fn lock(data_dir: &Path) -> Result<File> {
    let path = data_dir.join("daemon.lock");
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("failed to open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another skep daemon uses {}; stop it, or give this one another --data-dir", data_dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("failed to lock {}", path.display())),
    }
}

/// One daemon for each network namespace, whatever its folders: two would take each other's links and rules for leftovers.
/// An abstract socket's name belongs to the network namespace and goes with its holder (unix(7)).
fn claim_network() -> Result<UnixListener> {
    let name = SocketAddr::from_abstract_name("skep-daemon").context("failed to name the daemon's claim")?;
    match UnixListener::bind_addr(&name) {
        Ok(claim) => Ok(claim),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!(
                "another skep daemon runs in this network namespace; stop it, or start this one in a namespace of its own: \
                 `skep lab up` makes some"
            )
        }
        Err(error) => Err(error).context("failed to claim the network namespace"),
    }
}

/// The image store of a node.
pub async fn open_images(config: &NodeConfig) -> Result<ImageStore> {
    let registry = RegistryConfig {
        insecure: config.insecure_registries.clone(),
        mirrors: if config.mirrors.is_empty() {
            Default::default()
        } else {
            [("docker.io".to_owned(), config.mirrors.clone())].into()
        },
        ca_dirs: config.registry_ca_dirs.clone(),
    };
    let opened = ImageStore::open(config.data_dir.join("images"), registry).await;
    opened.context("failed to open the image store")
}
