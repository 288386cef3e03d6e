//! `daemon`: the node itself, in the foreground; and the entries that it starts itself again by.

use anyhow::Context as _;
use clap::Args;

use super::Result;
use super::host::HostOptions;
use crate::daemon::config::NodeConfig;

/// Containers do their work elsewhere: the daemon waits far more than it computes.
const WORKERS: std::ops::RangeInclusive<usize> = 2..=4;

#[derive(Debug, Args)]
pub struct Options {
    /// Begin a session of its own, so that the terminal it was started from can go
    #[arg(long, hide = true)]
    new_session: bool,
}

pub fn run(options: Options, host: &HostOptions) -> Result {
    if options.new_session {
        rustix::process::setsid().context("failed to begin a session")?;
    }
    let cores = std::thread::available_parallelism().map_or(*WORKERS.start(), std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(*WORKERS.start(), *WORKERS.end()))
        .enable_all()
        .build()
        .context("failed to start the async runtime")?;
    let ended = runtime.block_on(crate::daemon::run(host.overrides()));
    // All that must end in order has; a thread that waits for a registry or a container is not waited for.
    runtime.shutdown_background();
    ended
}

/// The net helper. The daemon starts it with its run folder in the environment.
pub fn net(host: &HostOptions) -> Result {
    let overrides = host.overrides();
    let run_dir = match &overrides.run_dir {
        Some(run_dir) => run_dir.clone(),
        None => NodeConfig::load(&overrides)?.run_dir,
    };
    // One thread: its memory is counted on every node, and it waits nearly always.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the async runtime")?;
    Ok(runtime.block_on(skep_overlay::helper::run(&run_dir))?)
}
