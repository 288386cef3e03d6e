//! The flags that `service create` and `service update` share, and what each changes of a spec.
//!
//! Every group is read by clap and applied by a function that knows nothing but the flags and the spec; a flag that was
//! not given changes nothing. Lists, which the two commands name differently, are in [`lists`].

pub mod health;
pub mod lists;
pub mod logging;
pub mod policy;
pub mod process;
pub mod resources;

use clap::Args;
use skep_model::{EndpointMode, Mode, ServiceSpec, SessionAffinity};

use super::syntax::KeyValue;
use crate::cli::Result;

/// Everything that is set and not added to.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct Settings {
    #[command(flatten)]
    process: process::Process,
    #[command(flatten)]
    health: health::Health,
    #[command(flatten)]
    resources: resources::ResourceFlags,
    #[command(flatten)]
    logging: logging::Logging,
    #[command(flatten)]
    restart: policy::Restart,
    #[command(flatten)]
    update: policy::Update,
    #[command(flatten)]
    rollback: policy::Rollback,
    /// Number of tasks
    #[arg(long, value_name = "NUMBER")]
    replicas: Option<u64>,
    /// Tasks of a job that run at a time; as many as --replicas by default
    #[arg(long, value_name = "NUMBER")]
    max_concurrent: Option<u64>,
    /// Most tasks on one node; 0 is no limit
    #[arg(long, value_name = "NUMBER")]
    replicas_max_per_node: Option<u64>,
    /// vip: the service's name stands for one virtual address; dnsrr: for those of its tasks
    #[arg(long, value_name = "MODE", value_parser = ["vip", "dnsrr"])]
    endpoint_mode: Option<String>,
    /// client-ip: all connections of one client address lead to one task; none: each to any
    #[arg(long, value_name = "KIND", value_parser = ["client-ip", "none"])]
    session_affinity: Option<String>,
    /// Lead connections to tasks of the same node, as long as one of them serves
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    prefer_local: Option<bool>,
    #[command(flatten)]
    unsupported: Unsupported,
}

/// What Docker has and this version of skep refuses in words.
#[derive(Debug, Clone, Default, PartialEq, Args)]
struct Unsupported {
    #[arg(long, hide = true)]
    isolation: Option<String>,
    #[arg(long, hide = true)]
    credential_spec: Option<String>,
    #[arg(long, hide = true)]
    memory_swap: Option<String>,
    #[arg(long, hide = true)]
    memory_swappiness: Option<String>,
}

impl Settings {
    pub fn apply(&self, spec: &mut ServiceSpec) -> Result {
        self.unsupported.refuse()?;
        self.process.apply(&mut spec.task.container)?;
        self.health.apply(&mut spec.task.container)?;
        self.resources.apply(&mut spec.task.resources);
        self.logging.apply(&mut spec.task.log_driver)?;
        self.restart.apply(&mut spec.task.restart);
        self.update.apply(&mut spec.update);
        self.rollback.apply(&mut spec.rollback);
        if let Some(wanted) = self.replicas {
            match &mut spec.mode {
                Mode::Replicated { replicas } => *replicas = wanted,
                // As Docker has it: so many completions, as many at a time.
                Mode::ReplicatedJob { max_concurrent, total_completions } => {
                    (*max_concurrent, *total_completions) = (wanted, wanted);
                }
                Mode::Global | Mode::GlobalJob => {
                    anyhow::bail!("--replicas cannot be used with a global service: it runs once on each node")
                }
            }
        }
        match (self.max_concurrent, &mut spec.mode) {
            (None, _) => {}
            (Some(most), Mode::ReplicatedJob { max_concurrent, .. }) => *max_concurrent = most,
            (Some(_), Mode::Replicated { .. } | Mode::Global | Mode::GlobalJob) => {
                anyhow::bail!("--max-concurrent belongs to jobs; give --mode replicated-job with `service create`")
            }
        }
        if let Some(most) = self.replicas_max_per_node {
            spec.task.placement.max_replicas_per_node = most;
        }
        match self.endpoint_mode.as_deref() {
            None => {}
            Some("dnsrr") => spec.endpoint.mode = EndpointMode::DnsRr,
            Some(_) => spec.endpoint.mode = EndpointMode::Vip,
        }
        if let Some(kind) = self.session_affinity.as_deref() {
            spec.endpoint.session_affinity = (kind == "client-ip").then_some(SessionAffinity::ClientIp);
        }
        set(&mut spec.endpoint.prefer_local, &self.prefer_local);
        Ok(())
    }
}

impl Unsupported {
    fn refuse(&self) -> Result {
        let Self { isolation, credential_spec, memory_swap, memory_swappiness } = self;
        if isolation.as_deref().is_some_and(|isolation| !matches!(isolation, "" | "default")) {
            anyhow::bail!("--isolation is for Windows nodes, which skep does not have");
        }
        if credential_spec.is_some() {
            anyhow::bail!("--credential-spec is for Windows nodes, which skep does not have");
        }
        if memory_swap.is_some() || memory_swappiness.is_some() {
            anyhow::bail!(
                "swap cannot be set for services by this version of skep; leave out --memory-swap and --memory-swappiness"
            );
        }
        Ok(())
    }
}

/// Sets what was given.
fn set<T: Clone>(place: &mut T, given: &Option<T>) {
    if let Some(given) = given {
        *place = given.clone();
    }
}

/// Sets what was given; empty text takes away what was there.
fn set_text(place: &mut Option<String>, given: &Option<String>) {
    if let Some(given) = given {
        *place = Some(given.clone()).filter(|given| !given.is_empty());
    }
}

pub fn pairs(given: &[KeyValue]) -> impl Iterator<Item = (String, String)> + '_ {
    given.iter().map(|KeyValue(name, value)| (name.clone(), value.clone()))
}
