//! The node's settings: defaults, then the configuration file, then environment and flags.
//!
//! Two steps: [`FileConfig`] is the file as written, [`NodeConfig`] what the daemon runs with.
//! Settings of the whole cluster live in Raft, not here.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use skep_model::GenericResource;
use skep_overlay::tunnel::DataPlane;

use crate::cli::ca::duration;

/// The one port: gRPC over TCP. WireGuard's, over UDP, has the same number unless `tunnel_port` says otherwise.
pub const PORT: u16 = 7377;
const CONFIG_PATH: &str = "/etc/skep/config.toml";
const DATA_DIR: &str = "/var/lib/skep";
const RUN_DIR: &str = "/run/skep";

/// `/etc/skep/config.toml`, every key optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileConfig {
    pub data_dir: Option<PathBuf>,
    pub run_dir: Option<PathBuf>,
    /// `address:port` that managers and agents are reached at; every address by default.
    pub listen_address: Option<SocketAddr>,
    /// The address that other nodes are told.
    pub advertise_address: Option<String>,
    /// The cgroup below which the keeper and all containers run.
    pub cgroup_parent: Option<String>,
    /// The group whose members may use the socket.
    pub socket_group: Option<String>,
    /// Registries (`host:port`) that are asked over plain HTTP, or over HTTPS with any certificate.
    pub insecure_registries: Vec<String>,
    /// Registries that are asked before docker.io, in order.
    pub mirrors: Vec<String>,
    /// Folders with further root certificates for registries.
    pub registry_ca_dirs: Vec<PathBuf>,
    /// Resolvers for names outside the cluster; those of /etc/resolv.conf by default.
    pub dns_servers: Vec<std::net::IpAddr>,
    /// Who carries the encrypted tunnel to other nodes: `auto` (the kernel where it can), `kernel` or `userspace`.
    pub data_plane: DataPlane,
    /// The UDP port that other nodes reach this one at; 7377 by default.
    pub tunnel_port: Option<u16>,
    /// How old the node's key in the tunnel grows at most, as `12h` or `720h`; 30 days by default.
    pub tunnel_key_rotation: Option<String>,
    /// What the node has that its kernel does not count: `gpu=UUID1` for each named one, `apple=3` for so many alike.
    pub generic_resources: Vec<String>,
    /// Seconds that the node's idea of the time is off: to try out wrong clocks.
    pub clock_shift_seconds: i64,
}

/// Where flags and environment point.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub config: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub run_dir: Option<PathBuf>,
}

/// What the daemon runs with.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    listen_default: SocketAddr,
    listen_address: Arc<RwLock<SocketAddr>>,
    pub advertise_address: Option<String>,
    pub cgroup_parent: String,
    pub socket_group: String,
    pub insecure_registries: Vec<String>,
    pub mirrors: Vec<String>,
    pub registry_ca_dirs: Vec<PathBuf>,
    pub dns_servers: Vec<std::net::IpAddr>,
    pub data_plane: DataPlane,
    pub tunnel_port: u16,
    pub tunnel_key_rotation: Duration,
    pub generic_resources: Vec<GenericResource>,
    pub clock_shift_seconds: i64,
}

/// A node that never changed its key would not be asked for it: there is no zero.
fn rotation(written: Option<&str>) -> Result<Duration> {
    let Some(written) = written else { return Ok(skep_agent::TUNNEL_KEY_PERIOD) };
    match duration(written) {
        Ok(period) if !period.is_zero() => Ok(period),
        Ok(_) | Err(_) => bail!("`{written}` is no time after which a key may be replaced; write 720h, say"),
    }
}

impl NodeConfig {
    /// Reads the file (one that was named must be there) and fills in the rest.
    pub fn load(overrides: &Overrides) -> Result<Self> {
        let path = overrides.config.clone().unwrap_or_else(|| PathBuf::from(CONFIG_PATH));
        let file = read(&path, overrides.config.is_some())?;
        let listen_default = file.listen_address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], PORT)));
        let config = Self {
            data_dir: overrides.data_dir.clone().or(file.data_dir).unwrap_or_else(|| DATA_DIR.into()),
            run_dir: overrides.run_dir.clone().or(file.run_dir).unwrap_or_else(|| RUN_DIR.into()),
            listen_default,
            listen_address: Arc::new(RwLock::new(listen_default)),
            advertise_address: file.advertise_address,
            cgroup_parent: file.cgroup_parent.unwrap_or_else(|| skep_agent::CGROUP_PARENT.to_owned()),
            socket_group: file.socket_group.unwrap_or_else(|| "skep".to_owned()),
            insecure_registries: file.insecure_registries,
            mirrors: file.mirrors,
            registry_ca_dirs: file.registry_ca_dirs,
            dns_servers: file.dns_servers,
            data_plane: file.data_plane,
            tunnel_port: file.tunnel_port.unwrap_or(skep_overlay::tunnel::PORT),
            tunnel_key_rotation: rotation(file.tunnel_key_rotation.as_deref())
                .with_context(|| format!("{}: tunnel_key_rotation", path.display()))?,
            generic_resources: generic_resources(&file.generic_resources)
                .with_context(|| format!("{}: generic_resources", path.display()))?,
            clock_shift_seconds: file.clock_shift_seconds,
        };
        if !config.cgroup_parent.starts_with('/') || config.cgroup_parent.contains("..") {
            bail!(
                "{}: cgroup_parent `{}` must be an absolute path such as /skep",
                path.display(),
                config.cgroup_parent
            );
        }
        if config.tunnel_port == 0 {
            bail!(
                "{}: tunnel_port must be a port that other nodes can be told, such as {}; 0 is none",
                path.display(),
                skep_overlay::tunnel::PORT
            );
        }
        for dir in [&config.data_dir, &config.run_dir] {
            if !dir.is_absolute() {
                bail!("`{}` must be an absolute path", dir.display());
            }
        }
        Ok(config)
    }

    /// Where managers listen for nodes.
    pub fn listen_address(&self) -> SocketAddr {
        *self.listen_address.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another one, as `init` or `join` was told; where nodes of this machine reach it, too.
    pub fn listen_at(&self, address: SocketAddr) {
        *self.listen_address.write().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// Where the settings say, again.
    pub fn listen_as_set(&self) {
        self.listen_at(self.listen_default);
    }

    /// Where a manager of this machine is reached from here.
    pub fn own_manager(&self) -> String {
        let listening = self.listen_address();
        let ip = if listening.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { listening.ip() };
        SocketAddr::new(ip, listening.port()).to_string()
    }

    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("skep.sock")
    }
}

fn read(path: &Path, named: bool) -> Result<FileConfig> {
    match std::fs::read_to_string(path) {
        // toml's own words name line and column, and the keys that it knows.
        Ok(text) => {
            toml::from_str(&text).with_context(|| format!("failed to read the configuration file {}", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => Ok(FileConfig::default()),
        Err(error) => Err(error).with_context(|| format!("failed to read the configuration file {}", path.display())),
    }
}

/// By kind: named things have the names, others their number. Docker's `node-generic-resources`.
fn generic_resources(entries: &[String]) -> Result<Vec<GenericResource>> {
    let mut resources: Vec<GenericResource> = Vec::new();
    for entry in entries {
        let (kind, value) = entry.split_once('=').unwrap_or((entry, ""));
        if kind.is_empty() || value.is_empty() || kind.contains([' ', ',']) {
            bail!("`{entry}` is not KIND=ID or KIND=NUMBER, such as gpu=UUID1 or apple=3");
        }
        let found = resources.iter_mut().find(|resource| resource.kind == kind);
        match (value.parse::<u64>(), found) {
            (Ok(amount), None) => {
                resources.push(GenericResource { kind: kind.to_owned(), amount, ids: Vec::new() });
            }
            (Err(_), None) => {
                let ids = vec![value.to_owned()];
                resources.push(GenericResource { kind: kind.to_owned(), amount: 1, ids });
            }
            (Err(_), Some(resource)) if !resource.ids.is_empty() => {
                if resource.ids.iter().any(|id| id == value) {
                    bail!("`{entry}` is there twice");
                }
                resource.ids.push(value.to_owned());
                resource.amount += 1;
            }
            (Ok(_) | Err(_), Some(_)) => {
                bail!("{kind} is given by number and again: give each {kind} a name, or one number")
            }
        }
    }
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "data_dir = \"/d\"\nrun_dir = \"/r\"\ninsecure_registries = [\"reg:5000\"]\n").unwrap();
        let overrides = Overrides { config: Some(path.clone()), run_dir: Some("/other".into()), data_dir: None };
        let config = NodeConfig::load(&overrides).unwrap();
        assert_eq!(config.listen_address().port(), PORT);
        assert_eq!((config.data_dir, config.run_dir), ("/d".into(), "/other".into()));
        assert_eq!(config.insecure_registries, ["reg:5000"]);
        assert_eq!((config.data_plane, config.tunnel_port), (DataPlane::Auto, PORT));
        std::fs::write(&path, "data_dri = \"/d\"\n").unwrap();
        let error = format!("{:#}", NodeConfig::load(&overrides).unwrap_err());
        assert!(error.contains("data_dri") && error.contains("data_dir"), "{error}");
    }

    #[test]
    fn generic_resources_are_named_or_counted() {
        let read = |entries: &[&str]| {
            let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
            generic_resources(&entries).map_err(|error| error.to_string())
        };
        let named = GenericResource { kind: "gpu".into(), amount: 2, ids: vec!["A".into(), "B".into()] };
        let counted = GenericResource { kind: "apple".into(), amount: 3, ids: Vec::new() };
        assert_eq!(read(&["gpu=A", "apple=3", "gpu=B"]).unwrap(), [named, counted]);
        for wrong in [&["gpu"][..], &["=1"], &["gpu=A", "gpu=A"], &["gpu=2", "gpu=A"], &["gpu=A", "gpu=2"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn who_carries_the_tunnel_and_where_is_read_or_refused_with_what_would_be_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let overrides = Overrides { config: Some(path.clone()), ..Overrides::default() };
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            NodeConfig::load(&overrides).map_err(|error| format!("{error:#}"))
        };
        let config = load("data_plane = \"userspace\"\ntunnel_port = 51820\n").unwrap();
        assert_eq!((config.data_plane, config.tunnel_port), (DataPlane::Userspace, 51820));
        let error = load("data_plane = \"fast\"\n").unwrap_err();
        assert!(error.contains("fast") && error.contains("`kernel`") && error.contains("config.toml"), "{error}");
        assert!(load("tunnel_port = 0\n").unwrap_err().contains("tunnel_port"));
        assert!(load("tunnel_port = 70000\n").is_err());
        assert_eq!(load("").unwrap().tunnel_key_rotation, Duration::from_secs(30 * 24 * 3600));
        assert_eq!(
            load("tunnel_key_rotation = \"12h\"\n").unwrap().tunnel_key_rotation,
            Duration::from_secs(12 * 3600)
        );
        for wrong in ["0s", "often", "-1h"] {
            let error = load(&format!("tunnel_key_rotation = \"{wrong}\"\n")).unwrap_err();
            assert!(error.contains("tunnel_key_rotation") && error.contains("720h"), "{error}");
        }
    }
}
