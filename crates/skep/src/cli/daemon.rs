//! `daemon`: the node itself, in the foreground; and the entries that it starts itself again by.

use anyhow::Context as _;
use clap::Args;

use super::Result;
use super::host::HostOptions;

/// Containers do their work elsewhere: the daemon waits far more than it computes.
const WORKERS: std::ops::RangeInclusive<usize> = 2..=4;

#[derive(Debug, Args)]
pub struct Options {
    /// Begin a session of its own, so that the terminal it was started from can go
    #[arg(long, hide = true)]
    new_session: bool,
}

#[derive(Debug, Args)]
pub struct NetOptions {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<std::ffi::OsString>,
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
    runtime.block_on(crate::daemon::run(host.overrides()))
}

pub fn net(options: NetOptions) -> Result {
    anyhow::bail!("the net helper takes no arguments yet: {:?}", options.args)
}
