//! What a user wrote of a service's container.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ContentDigest, ContentKind, Labels, MemoryBytes};

/// Absent fields fall back to the image's configuration, as in Docker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// As written, plus `@sha256:…` once the leader has resolved it.
    pub image: String,
    pub pull_policy: PullPolicy,
    /// Base64 of the credentials that the command line read from its user's Docker configuration.
    pub registry_auth: Option<String>,
    /// The container's labels.
    pub labels: Labels,
    /// The entry point; `Some` and empty clears the image's.
    pub command: Option<Vec<String>>,
    /// The arguments; absent keeps the image's unless `command` is given.
    pub args: Option<Vec<String>>,
    /// `NAME=value`, or `NAME` alone to unset the image's.
    pub env: Vec<String>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    pub groups: Vec<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// Run a small reaper as the first process.
    pub init: bool,
    pub tty: bool,
    pub open_stdin: bool,
    pub read_only: bool,
    pub privileged: bool,
    pub no_new_privileges: bool,
    /// `security_opt: seccomp=unconfined`: no system call filter.
    pub seccomp_unconfined: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub sysctls: Labels,
    pub ulimits: Vec<Ulimit>,
    /// Size of /dev/shm; 64 MiB when absent.
    pub shm_size: Option<MemoryBytes>,
    pub oom_score_adj: Option<i32>,
    /// Host devices as `source:target:permissions`.
    pub devices: Vec<String>,
    pub stop_signal: Option<String>,
    /// 10 s when absent.
    pub stop_grace_period: Option<Duration>,
    pub health_check: Option<HealthCheck>,
    /// Commands within the container once it runs, in order; the task runs when they have all ended well.
    pub post_start: Vec<Hook>,
    /// Commands within the container before its stop signal, in order; how they end holds up no stop.
    pub pre_stop: Vec<Hook>,
    pub mounts: Vec<Mount>,
    pub secrets: Vec<SecretRef>,
    pub configs: Vec<ConfigRef>,
    /// The signal for the container when nothing but the contents of its secrets and configs has changed: its files are
    /// replaced in place, and it lives on. Without it such a change is an update like any other.
    pub on_change: Option<String>,
    /// `(name, address)` lines of /etc/hosts, in order; the address may be `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    pub dns_servers: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
}

impl ContainerSpec {
    pub(crate) fn has_volume_options(&self) -> bool {
        self.mounts.iter().any(|mount| matches!(&mount.kind, MountKind::Volume { options, .. } if !options.is_empty()))
    }

    pub(crate) fn has_content_templates(&self) -> bool {
        let secrets = self.secrets.iter().filter_map(|reference| reference.digest.as_ref());
        let mut digests = secrets.chain(self.configs.iter().filter_map(|reference| reference.digest.as_ref()));
        digests.any(|digest| digest.kind() == ContentKind::Template)
    }

    /// Whether something of it is rendered for each task: a secret or config, or a value with `{{…}}` in it.
    pub fn has_templates(&self) -> bool {
        let sources = self.mounts.iter().flat_map(|mount| match &mount.kind {
            MountKind::Bind { source, .. } => vec![source],
            MountKind::Volume { name, options, .. } => name.iter().chain(options.values()).collect(),
            MountKind::Tmpfs { .. } => Vec::new(),
        });
        let hooks = self.post_start.iter().chain(&self.pre_stop).flat_map(|hook| &hook.env);
        let mut values = self.env.iter().chain(&self.hostname).chain(sources).chain(hooks);
        self.has_content_templates() || values.any(|value| value.contains("{{"))
    }
}

/// When the node asks the registry, an image that it already has by digest aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PullPolicy {
    /// When the image is not here by the wanted digest or name.
    #[default]
    Missing,
    Always,
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Without `RLIMIT_`, lower case: `nofile`.
    pub name: String,
    /// `u64::MAX` means unlimited, here and in `hard`.
    pub soft: u64,
    pub hard: u64,
}

/// Absent fields keep the image's health check's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthCheck {
    pub test: Option<HealthTest>,
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub retries: Option<u32>,
    pub start_period: Option<Duration>,
    pub start_interval: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthTest {
    /// No health check, the image's included.
    Disabled,
    /// Run as given.
    Exec(Vec<String>),
    /// Run by the container's shell.
    Shell(String),
}

/// One more process in a container, at a certain time of its life.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hook {
    pub command: Vec<String>,
    /// The container's when absent.
    pub user: Option<String>,
    /// The container's when absent.
    pub working_dir: Option<String>,
    /// `NAME=value`, on top of the container's own.
    pub env: Vec<String>,
    /// Every capability, and no system call filter.
    pub privileged: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub target: String,
    pub read_only: bool,
    pub kind: MountKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    Bind {
        source: String,
        propagation: Propagation,
        /// Make the folder when it is not there (compose's short form).
        create_source: bool,
        /// Leave out the mounts below the source.
        non_recursive: bool,
    },
    /// A named volume of the node; without a name one that lives as long as the task.
    Volume {
        name: Option<String>,
        no_copy: bool,
        subpath: Option<String>,
        driver: Option<String>,
        options: Labels,
        labels: Labels,
    },
    Tmpfs {
        size: Option<MemoryBytes>,
        mode: Option<u32>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    RPrivate,
    Private,
    RShared,
    Shared,
    RSlave,
    Slave,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRef {
    /// Name of the secret.
    pub secret: String,
    /// The content that tasks get; pinned by the manager when the spec is accepted.
    pub digest: Option<ContentDigest>,
    pub file: FileTarget,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRef {
    /// Name of the config.
    pub config: String,
    pub digest: Option<ContentDigest>,
    pub file: FileTarget,
}

/// Where a secret or config appears in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTarget {
    /// Absolute, or relative to /run/secrets (secrets) or / (configs).
    pub path: String,
    /// Numeric, as Docker has it.
    pub uid: u32,
    pub gid: u32,
    /// Permission bits; 0444 by default.
    pub mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDriver {
    pub name: String,
    pub options: Labels,
}
