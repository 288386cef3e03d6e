//! `init`, `join` and `leave`: becoming a member of a cluster, and ceasing to be one.

use std::net::IpAddr;

use anyhow::bail;
use clap::{Args, ValueEnum};
use ipnet::Ipv4Net;
use skep_api::{InitRequest, Initialized, JoinRequest, LeaveRequest, LocalClient, LocalInfo, Refusal};
use skep_model::{Availability, Labels, Role};

use super::Result;
use super::cluster;
use super::firewall::{self, NodePorts};
use super::host::Host;
use super::node::label;
use super::output;
use super::start::{self, DaemonLog, Started};
use super::unlock;
use crate::daemon::config::NodeConfig;

#[derive(Debug, Args)]
pub struct InitOptions {
    /// The address that other nodes reach this one under; by default the one of the way out
    #[arg(long, value_name = "ADDRESS")]
    advertise_addr: Option<String>,
    /// Where to listen for other nodes; by default 0.0.0.0:7377
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_addr: Option<String>,
    /// Where networks get their subnets from; by default 10.64.0.0/10
    #[arg(long, value_name = "CIDR")]
    default_addr_pool: Option<Ipv4Net>,
    /// How long the prefix of such a subnet is; by default 18
    #[arg(long, value_name = "LENGTH")]
    default_addr_pool_mask_length: Option<u8>,
    /// Make a cluster of one out of what this manager has, when the others are lost for good
    #[arg(long)]
    force_new_cluster: bool,
    /// Let managers that start wait for an unlock key
    #[arg(long)]
    autolock: bool,
    /// A label of this node: name=value; may be given several times
    #[arg(long = "label", value_name = "LABEL", value_parser = label)]
    labels: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub struct JoinOptions {
    /// The token that the cluster's `init` or `join-token` printed
    #[arg(long, required_unless_present = "reconnect", conflicts_with = "reconnect")]
    token: Option<String>,
    /// Find the cluster of this node again when all its addresses have changed; needs no token
    #[arg(long)]
    reconnect: bool,
    /// The address that other nodes reach this one under; by default the one of the way to the manager
    #[arg(long, value_name = "ADDRESS")]
    advertise_addr: Option<String>,
    /// Where to listen for other nodes; by default 0.0.0.0:7377
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_addr: Option<String>,
    /// Whether the node is to take tasks
    #[arg(long, value_enum, default_value = "active")]
    availability: AvailabilityName,
    /// Managers of the cluster
    #[arg(required = true, value_name = "HOST:PORT")]
    managers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct LeaveOptions {
    /// Leave also as a manager, with all that the cluster knows
    #[arg(short, long)]
    force: bool,
    /// Remove this node's named volumes as well
    #[arg(long)]
    volumes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AvailabilityName {
    Active,
    Pause,
    Drain,
}

impl From<AvailabilityName> for Availability {
    fn from(name: AvailabilityName) -> Self {
        match name {
            AvailabilityName::Active => Availability::Active,
            AvailabilityName::Pause => Availability::Pause,
            AvailabilityName::Drain => Availability::Drain,
        }
    }
}

pub async fn init(options: InitOptions, host: &Host) -> Result {
    let (connection, started) = start::connect_or_start(host, "init").await?;
    let local = LocalClient::new(connection);
    let info = local.info(()).await?;
    if options.force_new_cluster && info.node.is_some() {
        return cluster::recover(true, false, host).await;
    }
    if let Some(node) = info.node {
        return already_member(&info, &node.to_string(), started.as_ref());
    }
    let request = InitRequest {
        advertise_address: options.advertise_addr,
        listen_address: options.listen_addr,
        address_pool: options.default_addr_pool,
        subnet_prefix: options.default_addr_pool_mask_length,
        force_new_cluster: options.force_new_cluster,
        node_labels: options.labels.into_iter().collect::<Labels>(),
        autolock: options.autolock,
    };
    let made = match local.init(request).await {
        Ok(made) => made,
        Err(refusal) => return Err(undone(refusal, started, host)),
    };
    // Asked again: the addresses are known only now.
    let info = local.info(()).await?;
    output::text(&welcome(&made, &info, started.as_ref(), host)?)?;
    if let Some(key) = &made.unlock_key {
        output::line("")?;
        unlock::tell(key)?;
    }
    tell_warnings(&info);
    Ok(())
}

/// A daemon that was started for what failed is not left behind.
fn undone(refusal: Refusal, started: Option<Started>, host: &Host) -> anyhow::Error {
    if let Some(started) = started
        && let Err(error) = started.undo(host)
    {
        output::complain(format_args!("warning: the daemon still runs: {error:#}"));
    }
    refusal.into()
}

/// Of a node that came back with its daemon there is nothing to make.
fn already_member(info: &LocalInfo, node: &str, started: Option<&Started>) -> Result {
    if started.is_none() {
        bail!("this node is already a member of a cluster, as {node}; `skep leave` ends that");
    }
    output::line(format_args!("The daemon runs again, as node {node} of its cluster."))?;
    tell_warnings(info);
    Ok(())
}

fn welcome(made: &Initialized, info: &LocalInfo, started: Option<&Started>, host: &Host) -> Result<String> {
    let log = match started.map(|started| &started.log) {
        Some(DaemonLog::Journal) => "journalctl -u skep".to_owned(),
        Some(DaemonLog::File(path)) => path.display().to_string(),
        None => "where its starter sent it".to_owned(),
    };
    let group = &NodeConfig::load(&host.overrides)?.socket_group;
    let without_sudo = match start::group_exists(group) {
        true => format!("`sudo usermod -aG {group} $USER`, and log in again: the group {group} may use the socket"),
        false => format!("`sudo groupadd --system {group}` and a restart of the daemon let that group use the socket"),
    };
    let ports = firewall::lines(skep_agent::firewall("/".as_ref()), ports(info, Role::Manager)).join("\n");
    let Initialized { node, cluster: _, advertise_address, worker_token, manager_token: _, unlock_key: _ } = made;
    Ok(format!(
        "This node ({node}) is now a cluster of one.\n\
         \n\
         Data        {}\n\
         Daemon log  {log}\n\
         {ports}\n\
         No sudo     {without_sudo}\n\
         \n\
         To add a worker, run on it:\n\
         \n    skep join --token {worker_token} {advertise_address}\n\
         \n\
         The token is shown only now; `skep join-token worker` makes a new one, `skep join-token manager` one for managers.\n\
         \n\
         Next: skep stack deploy -c compose.yml NAME\n",
        info.data_dir,
    ))
}

/// What must be open on this node.
fn ports(info: &LocalInfo, role: Role) -> NodePorts {
    let control = info.listen_address.rsplit(':').next().and_then(|port| port.parse().ok());
    NodePorts { control: control.filter(|_| role == Role::Manager), tunnel: info.tunnel_port }
}

/// `host:port` that other nodes reach this one's manager under.
pub fn reachable_at(info: &LocalInfo) -> String {
    let port = info.listen_address.rsplit(':').next().unwrap_or_default();
    let address = &info.advertise_address;
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{address}]:{port}"),
        Ok(IpAddr::V4(_)) => format!("{address}:{port}"),
        // It has a port of its own.
        Err(_) => address.clone(),
    }
}

fn tell_warnings(info: &LocalInfo) {
    for warning in &info.warnings {
        output::complain(format_args!("warning: {warning}"));
    }
}

pub async fn join(options: JoinOptions, host: &Host) -> Result {
    let (connection, started) = start::connect_or_start(host, "join").await?;
    let local = LocalClient::new(connection);
    let info = local.info(()).await?;
    if let Some(node) = info.node.filter(|_| !options.reconnect) {
        return already_member(&info, &node.to_string(), started.as_ref());
    }
    let request = JoinRequest {
        reconnect: options.reconnect,
        token: options.token.unwrap_or_default(),
        managers: options.managers,
        advertise_address: options.advertise_addr,
        listen_address: options.listen_addr,
        availability: options.availability.into(),
    };
    let joined = match local.join(request).await {
        Ok(joined) => joined,
        Err(refusal) => return Err(undone(refusal, started, host)),
    };
    let role = match joined.role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    };
    match options.reconnect {
        true => output::line(format_args!("This node ({}) looks for its cluster there, as a {role}.", joined.node))?,
        false => output::line(format_args!("This node joined the cluster as a {role} ({}).", joined.node))?,
    }
    if !options.reconnect {
        // Asked again: where it listens is known only now.
        let ports = ports(&local.info(()).await?, joined.role);
        firewall::lines(skep_agent::firewall("/".as_ref()), ports).iter().try_for_each(output::line)?;
    }
    joined.warnings.iter().for_each(|warning| output::complain(format_args!("warning: {warning}")));
    tell_warnings(&info);
    Ok(())
}

pub async fn leave(options: LeaveOptions, host: &Host) -> Result {
    let local = host.local().await?;
    let info = local.info(()).await?;
    let left = local.leave(LeaveRequest { force: options.force, remove_volumes: options.volumes }).await?;
    output::line("This node left the cluster; its containers and networks are gone.")?;
    if let Some(why) = left.untold {
        output::complain(format_args!(
            "warning: the cluster was not told ({why}); `skep node rm --force {}` on a manager removes it there",
            info.node.map(|node| node.to_string()).unwrap_or_default()
        ));
    }
    match start::remove_unit(host)? || start::end_spawned(host)? {
        true => output::line("The daemon was stopped.")?,
        false => output::line("The daemon still runs, and ends the way it was started.")?,
    }
    match left.kept_volumes.is_empty() {
        true => output::line("No volumes are left.")?,
        false => {
            let volumes = left.kept_volumes.join(", ");
            output::line(format_args!("These volumes stay in {}: {volumes}", info.data_dir))?;
            output::line("They are there again after the next `skep init`; `skep leave --volumes` removes them too.")?;
        }
    }
    Ok(())
}
