//! `service create`: flags → a spec → one request, and then the wait.

use std::env;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use clap::Args;
use skep_api::{ControlClient, CreateRequest};
use skep_model::{Mode, ServiceSpec};

use super::conduct::{self, Conduct};
use super::flags::Settings;
use super::flags::lists::{Edit, Lists, default_network};
use super::syntax::{
    CapabilityFlag, ConfigFlag, ConstraintFlag, HostFlag, KeyValue, MountFlag, NetworkFlag, PreferenceFlag,
    PublishFlag, SecretFlag, UlimitFlag, environment, environment_file,
};
use crate::cli::Result;
use crate::cli::{login, output};

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    lists: ListFlags,
    #[command(flatten)]
    conduct: Conduct,
    #[command(flatten)]
    _elsewhere: Elsewhere,
    /// replicated: as many as --replicas; global: one on each node
    #[arg(long, value_name = "MODE", value_parser = ["replicated", "global", "replicated-job", "global-job"])]
    mode: Option<String>,
    /// The service's name; without one it is made from the image's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    image: String,
    /// Arguments of the image's entry point, or the command that replaces the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Docker's `--config` and `--host` of a service have the names of two global options. Those give way: after `create`
/// they are called otherwise, and before it as ever.
#[derive(Debug, Args)]
struct Elsewhere {
    #[arg(id = "skep_config", long = "skep-config", hide = true)]
    _config: Option<std::path::PathBuf>,
    #[arg(id = "skep_host", long = "skep-host", hide = true)]
    _host: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
struct ListFlags {
    /// Add a Linux capability
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<CapabilityFlag>,
    /// Drop a Linux capability
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<CapabilityFlag>,
    /// A config as a file: name, or source=,target=,uid=,gid=,mode=
    #[arg(long, value_name = "CONFIG")]
    config: Vec<ConfigFlag>,
    /// What a node must be: node.labels.disk==ssd
    #[arg(long, value_name = "CONSTRAINT")]
    constraint: Vec<ConstraintFlag>,
    /// A label of the containers: name=value
    #[arg(long, value_name = "LABEL")]
    container_label: Vec<KeyValue>,
    /// A resolver for names outside of the cluster
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// An option of resolv.conf
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// A search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// A variable: NAME=value, or NAME for this command's own value
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// A file of variables, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// A further group of the process
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// A line of /etc/hosts: name:address
    #[arg(long, value_name = "HOST")]
    host: Vec<HostFlag>,
    /// A label of the service: name=value
    #[arg(short, long, value_name = "LABEL")]
    label: Vec<KeyValue>,
    /// type=volume,source=data,target=/data
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<MountFlag>,
    /// A network: name, or name=,alias=; `none` for no network at all, `host` for the node's own
    #[arg(long, value_name = "NETWORK")]
    network: Vec<NetworkFlag>,
    /// spread=node.labels.zone
    #[arg(long, value_name = "PREFERENCE")]
    placement_pref: Vec<PreferenceFlag>,
    /// A port: 8080:80, or published=,target=,protocol=,mode=
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<PublishFlag>,
    /// A secret as a file: name, or source=,target=,uid=,gid=,mode=
    #[arg(long, value_name = "SECRET")]
    secret: Vec<SecretFlag>,
    /// A kernel parameter of the container: name=value
    #[arg(long, value_name = "SYSCTL")]
    sysctl: Vec<KeyValue>,
    /// A limit of each process: nofile=1024:2048
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<UlimitFlag>,
}

pub async fn run(options: Options, control: &ControlClient) -> Result {
    let own = |name: &str| env::var(name).ok();
    let mut files = Vec::new();
    for file in &options.lists.env_file {
        let text = std::fs::read_to_string(file).with_context(|| format!("failed to read `{file}`"))?;
        files.push((file.clone(), text));
    }
    let name =
        options.name.clone().unwrap_or_else(|| name_for(&options.image, RandomState::new().build_hasher().finish()));
    let mut spec = options.spec(name, &files, own)?;
    if options.conduct.with_registry_auth {
        spec.task.container.registry_auth = login::registry_auth(&spec.task.container.image)?;
    }
    conduct::settle_networks(&mut spec, control).await?;
    let name = spec.name.clone();
    let spec = Box::new(spec);
    let request = match options.conduct.no_resolve_image {
        true => CreateRequest::ServiceAsGiven(spec),
        false => CreateRequest::Service(spec),
    };
    let written = control.create(request).await?;
    written.warnings.iter().for_each(|warning| output::complain(format_args!("warning: {warning}")));
    output::line(&written.id)?;
    options.conduct.settle(control, [name].into(), written.version).await
}

impl Options {
    /// The spec as the flags ask for it; `files` are the texts of the files of variables, `own` the command's variables.
    fn spec(
        &self,
        name: String,
        files: &[(String, String)],
        own: impl Fn(&str) -> Option<String>,
    ) -> Result<ServiceSpec> {
        let mut spec = ServiceSpec::new(name, conduct::image(&self.image)?);
        match self.mode.as_deref() {
            None | Some("replicated") => {}
            Some("global") => spec.mode = Mode::Global,
            Some("replicated-job") => spec.mode = Mode::ReplicatedJob { max_concurrent: 1, total_completions: 1 },
            Some("global-job") => spec.mode = Mode::GlobalJob,
            Some(mode) => bail!("--mode {mode}: use replicated, global, replicated-job or global-job"),
        }
        if !self.command.is_empty() {
            spec.task.container.args = Some(self.command.clone());
        }
        let lists = self.lists.lists(files, own)?;
        lists.apply(&mut spec);
        if spec.task.networks.is_empty() && !lists.without_network() && !spec.task.host_network {
            spec.task.networks.push(default_network());
        }
        self.settings.apply(&mut spec)?;
        if lists.without_network() && !spec.endpoint.ports.is_empty() {
            bail!("--publish leads nowhere with --network none; remove one of the two");
        }
        spec.validate()?;
        Ok(spec)
    }
}

impl ListFlags {
    fn lists(&self, files: &[(String, String)], own: impl Fn(&str) -> Option<String>) -> Result<Lists> {
        // The command line's variables win over the files'.
        let mut env = Vec::new();
        for (file, text) in files {
            env.extend(environment_file(file, text, &own).map_err(anyhow::Error::msg)?);
        }
        for variable in &self.env {
            env.extend(environment(variable, &own).map_err(anyhow::Error::msg)?);
        }
        Ok(Lists {
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            configs: Edit::adding(&self.config),
            constraints: Edit::adding(&self.constraint),
            container_labels: Edit::adding(&self.container_label),
            dns: Edit::adding(&self.dns),
            dns_options: Edit::adding(&self.dns_option),
            dns_search: Edit::adding(&self.dns_search),
            env: Edit::adding(&env),
            groups: Edit::adding(&self.group),
            hosts: Edit::adding(&self.host),
            labels: Edit::adding(&self.label),
            mounts: Edit::adding(&self.mount),
            networks: Edit::adding(&self.network),
            preferences: Edit::adding(&self.placement_pref),
            ports_rm: Vec::new(),
            ports_add: self.publish.clone(),
            secrets: Edit::adding(&self.secret),
            sysctls: Edit::adding(&self.sysctl),
            ulimits: Edit::adding(&self.ulimit),
        })
    }
}

/// `nginx_k3f9`: what it runs, and something that no other has.
fn name_for(image: &str, random: u64) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz0123456";
    let name = image.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let name: String =
        name.split(':').next().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    let name = if name.is_empty() { "service".to_owned() } else { name };
    let letter = |place: u32| char::from(LETTERS[(random >> (place * 5) & 31) as usize]);
    format!("{name}_{}", (0..4).map(letter).collect::<String>())
}

#[cfg(test)]
mod tests;
