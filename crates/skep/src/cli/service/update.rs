//! `service update`: the service as it is, the flags on top of it, and back, unless somebody was faster: then again.

use std::net::IpAddr;

use anyhow::bail;
use clap::Args;
use skep_api::ControlClient;
use skep_model::ServiceSpec;

use super::conduct::{self, Conduct};
use super::flags::Settings;
use super::flags::lists::{Edit, Lists};
use super::rollback;
use super::syntax::{
    CapabilityFlag, ConfigFlag, ConstraintFlag, HostFlag, KeyValue, MountFlag, NetworkFlag, PreferenceFlag,
    PublishFlag, SecretFlag, UlimitFlag, environment, words,
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
    /// The image
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// The arguments, all anew; split as a shell would
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    args: Option<String>,
    /// Replace every task, even when nothing else changes
    #[arg(long)]
    force: bool,
    /// Go back to the previous spec
    #[arg(long)]
    rollback: bool,
    service: String,
}

#[derive(Debug, Clone, Default, PartialEq, Args)]
struct ListFlags {
    /// Add a Linux capability
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<CapabilityFlag>,
    /// Drop a Linux capability
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<CapabilityFlag>,
    /// Add a config: name, or source=,target=,uid=,gid=,mode=
    #[arg(long, value_name = "CONFIG")]
    config_add: Vec<ConfigFlag>,
    /// Remove a config
    #[arg(long, value_name = "NAME")]
    config_rm: Vec<String>,
    /// Add a constraint: node.labels.disk==ssd
    #[arg(long, value_name = "CONSTRAINT")]
    constraint_add: Vec<ConstraintFlag>,
    /// Remove a constraint
    #[arg(long, value_name = "CONSTRAINT")]
    constraint_rm: Vec<String>,
    /// Add or change a label of the containers: name=value
    #[arg(long, value_name = "LABEL")]
    container_label_add: Vec<KeyValue>,
    /// Remove a label of the containers
    #[arg(long, value_name = "NAME")]
    container_label_rm: Vec<String>,
    /// Add a resolver
    #[arg(long, value_name = "ADDRESS")]
    dns_add: Vec<IpAddr>,
    /// Remove a resolver
    #[arg(long, value_name = "ADDRESS")]
    dns_rm: Vec<String>,
    /// Add an option of resolv.conf
    #[arg(long, value_name = "OPTION")]
    dns_option_add: Vec<String>,
    /// Remove an option of resolv.conf
    #[arg(long, value_name = "OPTION")]
    dns_option_rm: Vec<String>,
    /// Add a search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search_add: Vec<String>,
    /// Remove a search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search_rm: Vec<String>,
    /// Add or change a variable: NAME=value, or NAME for this command's own value
    #[arg(long, value_name = "VARIABLE")]
    env_add: Vec<String>,
    /// Remove a variable
    #[arg(long, value_name = "NAME")]
    env_rm: Vec<String>,
    /// Add a further group of the process
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Remove a group
    #[arg(long, value_name = "GROUP")]
    group_rm: Vec<String>,
    /// Add a line of /etc/hosts: name:address
    #[arg(long, value_name = "HOST")]
    host_add: Vec<HostFlag>,
    /// Remove a line of /etc/hosts: name, or name:address
    #[arg(long, value_name = "HOST")]
    host_rm: Vec<String>,
    /// Add or change a label of the service: name=value
    #[arg(long, value_name = "LABEL")]
    label_add: Vec<KeyValue>,
    /// Remove a label of the service
    #[arg(long, value_name = "NAME")]
    label_rm: Vec<String>,
    /// Add or change a mount: type=volume,source=data,target=/data
    #[arg(long, value_name = "MOUNT")]
    mount_add: Vec<MountFlag>,
    /// Remove the mount at a path of the container
    #[arg(long, value_name = "TARGET")]
    mount_rm: Vec<String>,
    /// Attach to a network: name, or name=,alias=
    #[arg(long, value_name = "NETWORK")]
    network_add: Vec<NetworkFlag>,
    /// Detach from a network
    #[arg(long, value_name = "NETWORK")]
    network_rm: Vec<String>,
    /// Add a preference: spread=node.labels.zone
    #[arg(long, value_name = "PREFERENCE")]
    placement_pref_add: Vec<PreferenceFlag>,
    /// Remove a preference
    #[arg(long, value_name = "PREFERENCE")]
    placement_pref_rm: Vec<String>,
    /// Publish a port: 8080:80, or published=,target=,protocol=,mode=
    #[arg(long, value_name = "PORT")]
    publish_add: Vec<PublishFlag>,
    /// Publish a port of the container no more: 80, 80/udp, or target=,protocol=,mode=
    #[arg(long, value_name = "PORT")]
    publish_rm: Vec<PublishFlag>,
    /// Add a secret: name, or source=,target=,uid=,gid=,mode=
    #[arg(long, value_name = "SECRET")]
    secret_add: Vec<SecretFlag>,
    /// Remove a secret
    #[arg(long, value_name = "NAME")]
    secret_rm: Vec<String>,
    /// Add or change a kernel parameter of the container: name=value
    #[arg(long, value_name = "SYSCTL")]
    sysctl_add: Vec<KeyValue>,
    /// Remove a kernel parameter
    #[arg(long, value_name = "NAME")]
    sysctl_rm: Vec<String>,
    /// Add or change a limit of each process: nofile=1024:2048
    #[arg(long, value_name = "LIMIT")]
    ulimit_add: Vec<UlimitFlag>,
    /// Remove a limit
    #[arg(long, value_name = "NAME")]
    ulimit_rm: Vec<String>,
}

pub async fn run(options: Options, control: &ControlClient) -> Result {
    if options.rollback {
        return options.roll_back(control).await;
    }
    let lists = options.lists.lists(|name| std::env::var(name).ok())?;
    let auth = |spec: &mut ServiceSpec| -> Result {
        if options.conduct.with_registry_auth {
            spec.task.container.registry_auth = login::registry_auth(&spec.task.container.image)?;
        }
        Ok(())
    };
    let edit = |service: &skep_model::Service| {
        let mut spec = options.edited(&lists, (*service.spec).clone())?;
        auth(&mut spec)?;
        Ok(spec)
    };
    let as_given = options.conduct.no_resolve_image;
    let (service, written) = conduct::edit(control, &options.service, as_given, edit).await?;
    written.warnings.iter().for_each(|warning| output::complain(format_args!("warning: {warning}")));
    output::line(&options.service)?;
    options.conduct.settle(control, [service.name().to_owned()].into(), written.version).await
}

impl Options {
    async fn roll_back(self, control: &ControlClient) -> Result {
        let Self { settings, lists, conduct, image, args, force, rollback: _, service } = self;
        let Conduct { detach: _, timeout: _, quiet: _, no_resolve_image, with_registry_auth } = conduct;
        let alone = settings == Settings::default()
            && lists == ListFlags::default()
            && (image, args, force, no_resolve_image, with_registry_auth) == (None, None, false, false, false);
        if !alone {
            bail!("other flags may not be combined with --rollback");
        }
        rollback::roll_back(&service, None, &conduct, control).await
    }

    fn edited(&self, lists: &Lists, mut spec: ServiceSpec) -> Result<ServiceSpec> {
        if let Some(image) = &self.image {
            spec.task.container.image = conduct::image(image)?;
            // They were the other image's.
            spec.task.placement.platforms.clear();
        }
        if let Some(args) = &self.args {
            spec.task.container.args = Some(words(args).map_err(anyhow::Error::msg)?);
        }
        if self.force {
            spec.task.force_update += 1;
        }
        lists.apply(&mut spec);
        self.settings.apply(&mut spec)?;
        spec.validate()?;
        Ok(spec)
    }
}

impl ListFlags {
    fn lists(&self, own: impl Fn(&str) -> Option<String>) -> Result<Lists> {
        let mut env = Vec::new();
        for variable in &self.env_add {
            env.extend(environment(variable, &own).map_err(anyhow::Error::msg)?);
        }
        Ok(Lists {
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            configs: Edit::new(&self.config_rm, &self.config_add),
            constraints: Edit::new(&self.constraint_rm, &self.constraint_add),
            container_labels: Edit::new(&self.container_label_rm, &self.container_label_add),
            dns: Edit::new(&self.dns_rm, &self.dns_add),
            dns_options: Edit::new(&self.dns_option_rm, &self.dns_option_add),
            dns_search: Edit::new(&self.dns_search_rm, &self.dns_search_add),
            env: Edit::new(&self.env_rm, &env),
            groups: Edit::new(&self.group_rm, &self.group_add),
            hosts: Edit::new(&self.host_rm, &self.host_add),
            labels: Edit::new(&self.label_rm, &self.label_add),
            mounts: Edit::new(&self.mount_rm, &self.mount_add),
            networks: Edit::new(&self.network_rm, &self.network_add),
            preferences: Edit::new(&self.placement_pref_rm, &self.placement_pref_add),
            ports_rm: self.publish_rm.clone(),
            ports_add: self.publish_add.clone(),
            secrets: Edit::new(&self.secret_rm, &self.secret_add),
            sysctls: Edit::new(&self.sysctl_rm, &self.sysctl_add),
            ulimits: Edit::new(&self.ulimit_rm, &self.ulimit_add),
        })
    }
}

#[cfg(test)]
mod tests;
