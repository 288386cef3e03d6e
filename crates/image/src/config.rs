//! The image configuration: what an image says about how to run it (image-spec config.md).
//!
//! Read leniently, because real images carry `null` where the specification has lists and maps. The raw
//! bytes stay in the store: the image id is their digest, so they are never written again from these types.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};

use crate::digest::Digest;
use crate::platform::Platform;

/// Process defaults of an image. Empty means that the image does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `KEY=value`, in the image's order.
    pub env: Vec<String>,
    pub cmd: Vec<String>,
    pub entrypoint: Vec<String>,
    /// `user`, `uid`, `user:group`, …, looked up in the container's own passwd and group.
    pub user: String,
    pub working_dir: String,
    /// Absolute paths inside the container that want a volume.
    pub volumes: BTreeSet<String>,
    /// `80/tcp`; metadata only.
    pub exposed_ports: BTreeSet<String>,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: Option<String>,
    pub healthcheck: Option<Healthcheck>,
    /// The shell of `CMD-SHELL` health checks; empty means `/bin/sh -c`.
    pub shell: Vec<String>,
}

/// A health check as Docker stores it: durations in nanoseconds, 0 = inherit the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`.
    #[serde(deserialize_with = "nullable")]
    pub test: Vec<String>,
    #[serde(rename = "Interval")]
    pub interval_ns: i64,
    #[serde(rename = "Timeout")]
    pub timeout_ns: i64,
    #[serde(rename = "StartPeriod")]
    pub start_period_ns: i64,
    #[serde(rename = "StartInterval")]
    pub start_interval_ns: i64,
    pub retries: u32,
}

/// The configuration blob, as far as pulling and running need it.
#[derive(Debug, Clone)]
pub(crate) struct ConfigFile {
    pub(crate) platform: Platform,
    /// RFC 3339, as the image has it.
    pub(crate) created: Option<String>,
    pub(crate) process: ImageConfig,
    pub(crate) diff_ids: Vec<Digest>,
}

impl ConfigFile {
    pub(crate) fn parse(bytes: &[u8]) -> Result<ConfigFile, serde_json::Error> {
        let raw: RawFile = serde_json::from_slice(bytes)?;
        let process = raw.config;
        Ok(ConfigFile {
            platform: Platform { os: raw.os, architecture: raw.architecture, variant: raw.variant }.normalized(),
            created: raw.created,
            process: ImageConfig {
                env: process.env,
                cmd: process.cmd.into_vec(),
                entrypoint: process.entrypoint.into_vec(),
                user: process.user,
                working_dir: process.working_dir,
                volumes: process.volumes.into_keys().collect(),
                exposed_ports: process.exposed_ports.into_keys().collect(),
                labels: process.labels,
                stop_signal: process.stop_signal.filter(|signal| !signal.is_empty()),
                healthcheck: process.healthcheck.filter(|check| *check != Healthcheck::default()),
                shell: process.shell,
            },
            diff_ids: raw.rootfs.diff_ids,
        })
    }
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    config: RawProcess,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<Digest>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawProcess {
    #[serde(deserialize_with = "nullable")]
    env: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    cmd: Words,
    #[serde(deserialize_with = "nullable")]
    entrypoint: Words,
    #[serde(deserialize_with = "nullable")]
    user: String,
    #[serde(deserialize_with = "nullable")]
    working_dir: String,
    #[serde(deserialize_with = "nullable")]
    volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    stop_signal: Option<String>,
    healthcheck: Option<Healthcheck>,
    #[serde(deserialize_with = "nullable")]
    shell: Vec<String>,
}

/// Docker's own type accepts one string where a list is meant; old images have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    List(Vec<String>),
    One(String),
}

impl Default for Words {
    fn default() -> Words {
        Words::List(Vec::new())
    }
}

impl Words {
    fn into_vec(self) -> Vec<String> {
        match self {
            Words::List(words) => words,
            Words::One(word) => vec![word],
        }
    }
}

/// `null` is the same as absent.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_the_same_as_absent() {
        let file = ConfigFile::parse(
            br#"{"os":"linux","architecture":"arm","created":null,"rootfs":{"type":"layers","diff_ids":null},
                 "config":{"Env":null,"Cmd":null,"Entrypoint":"/init","Volumes":null,"Labels":null,
                 "Healthcheck":{"Test":["CMD","true"],"Interval":5000000000},"StopSignal":""}}"#,
        )
        .unwrap();
        assert_eq!(file.process.entrypoint, ["/init"]);
        assert_eq!(file.process.stop_signal, None);
        let check = file.process.healthcheck.unwrap();
        assert_eq!((check.interval_ns, check.retries), (5_000_000_000, 0));
        assert!(file.process.env.is_empty() && file.process.volumes.is_empty() && file.diff_ids.is_empty());
    }

    #[test]
    fn sets_come_from_the_keys_of_dockers_maps() {
        let file = ConfigFile::parse(
            br#"{"rootfs":{"diff_ids":[]},"config":{"ExposedPorts":{"80/tcp":{},"53/udp":{}},"Volumes":{"/data":{}}}}"#,
        )
        .unwrap();
        assert_eq!(file.process.exposed_ports.into_iter().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(file.process.volumes.into_iter().collect::<Vec<_>>(), ["/data"]);
    }
}
