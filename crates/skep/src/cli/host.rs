//! Which daemon a command talks to: flags, then environment, then the node's settings.

use std::env;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use skep_api::{Confirmed, ConnectError, Connection, ControlClient, LocalClient, connect_unix};

use super::{Result, output};
use crate::daemon::config::{NodeConfig, Overrides};

#[derive(Debug, Clone, Default, Args)]
pub struct HostOptions {
    /// The folder of the node's state
    #[arg(long, global = true, hide = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The folder of the node's socket
    #[arg(long, global = true, hide = true, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// The node's settings
    #[arg(id = "skep_config", long = "config", global = true, hide = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The daemon to talk to
    #[arg(id = "skep_host", long = "host", global = true, hide = true, value_name = "unix:///PATH")]
    host: Option<String>,
}

/// A daemon's address, and the settings that a daemon started here would have.
#[derive(Debug)]
pub struct Host {
    pub socket: PathBuf,
    pub overrides: Overrides,
    /// Whether a flag or the environment names a place of its own, apart from the machine's usual node.
    pub elsewhere: bool,
}

impl HostOptions {
    /// What the daemon is to be told: flags win over the environment.
    pub fn overrides(&self) -> Overrides {
        let path = |flag: &Option<PathBuf>, variable: &str| {
            flag.clone().or_else(|| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from))
        };
        Overrides {
            config: path(&self.config, "SKEP_CONFIG"),
            data_dir: path(&self.data_dir, "SKEP_DATA_DIR"),
            run_dir: path(&self.run_dir, "SKEP_RUN_DIR"),
        }
    }
}

impl Host {
    pub fn resolve(options: &HostOptions) -> Result<Self> {
        let overrides = options.overrides();
        let elsewhere = overrides.run_dir.is_some() || overrides.data_dir.is_some();
        let named = match (&options.host, &options.run_dir) {
            (Some(host), _) => Some(host.clone()),
            // A folder given as a flag wins over a host in the environment.
            (None, Some(_)) => None,
            (None, None) => env::var("SKEP_HOST").ok().filter(|host| !host.is_empty()),
        };
        let socket = match named {
            Some(host) => socket_of(&host)?,
            None => NodeConfig::load(&overrides)?.socket(),
        };
        Ok(Self { socket, overrides, elsewhere })
    }

    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        connect_unix(&self.socket).await
    }

    /// A client of the manager here. What it reads is current, or a warning has said that it may not be.
    pub async fn control(&self) -> Result<ControlClient> {
        let control = ControlClient::new(self.connect().await?);
        // Why it fails, the command's own request will say better.
        if let Ok(Confirmed { stale: Some(why) }) = control.confirm(()).await {
            output::complain(format_args!("warning: {why}"));
        }
        Ok(control)
    }

    pub async fn local(&self) -> Result<LocalClient> {
        Ok(LocalClient::new(self.connect().await?))
    }
}

fn socket_of(host: &str) -> Result<PathBuf> {
    if host.starts_with("ssh://") {
        bail!("`{host}`: hosts over ssh are not supported yet; run `ssh HOST skep …`, or use unix:///PATH");
    }
    match host.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => bail!("`{host}` is not a host that skep can talk to; write it as unix:///run/skep/skep.sock"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_unix_sockets_by_absolute_path() {
        assert_eq!(socket_of("unix:///run/x.sock").unwrap(), PathBuf::from("/run/x.sock"));
        for wrong in ["unix://run/x.sock", "tcp://1.2.3.4:5", "ssh://me@there"] {
            assert!(socket_of(wrong).is_err(), "{wrong}");
        }
    }
}
