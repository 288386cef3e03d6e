//! How the container's process runs.

use std::time::Duration;

use clap::Args;
use skep_model::ContainerSpec;
use skep_runtime::Signal;

use super::set_text;
use crate::cli::Result;
use crate::cli::output::time;
use crate::cli::service::syntax::words;

#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct Process {
    /// The image's entry point, overridden; split as a shell would
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// The container's host name; may hold {{.Task.Slot}} and the like
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Run a small reaper as the first process
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    init: Option<bool>,
    /// Mount the container's root file system read only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_only: Option<bool>,
    /// Give the process a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tty: Option<bool>,
    /// User name or id, and group: name[:group]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Folder that the process starts in
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// -1000 to 1000: higher is killed earlier when the node runs out of memory
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    oom_score_adj: Option<i32>,
    /// How long a container may take to stop before it is killed
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration)]
    stop_grace_period: Option<Duration>,
    /// The signal that asks it to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
}

impl Process {
    pub fn apply(&self, container: &mut ContainerSpec) -> Result {
        if let Some(entrypoint) = &self.entrypoint {
            container.command = Some(words(entrypoint).map_err(anyhow::Error::msg)?);
        }
        set_text(&mut container.hostname, &self.hostname);
        set_text(&mut container.user, &self.user);
        set_text(&mut container.working_dir, &self.workdir);
        if let Some(signal) = self.stop_signal.as_ref().filter(|signal| !signal.is_empty())
            && Signal::parse(signal).is_none()
        {
            anyhow::bail!("--stop-signal `{signal}` is not a signal; write it as SIGTERM, or as a number");
        }
        set_text(&mut container.stop_signal, &self.stop_signal);
        super::set(&mut container.init, &self.init);
        super::set(&mut container.read_only, &self.read_only);
        super::set(&mut container.tty, &self.tty);
        container.oom_score_adj = self.oom_score_adj.or(container.oom_score_adj);
        container.stop_grace_period = self.stop_grace_period.or(container.stop_grace_period);
        Ok(())
    }
}
