//! `info` and `version`: this node, its cluster, and what runs.

use clap::Args;
use serde_json::{Value, json};
use skep_api::{ClusterInfo, ControlClient, LocalClient, LocalInfo, TunnelPeer};
use skep_model::Role;

use super::Result;
use super::host::Host;
use super::output::format::Template;
use super::output::{self, time};

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Args)]
pub struct Options {
    /// json, or a template such as '{{.Swarm.NodeID}}'
    #[arg(short, long)]
    format: Option<String>,
}

#[derive(Debug, Args)]
pub struct VersionOptions {
    /// json, or a template such as '{{.Server.Version}}'
    #[arg(short, long)]
    format: Option<String>,
}

pub async fn run(options: Options, host: &Host) -> Result {
    let connection = host.connect().await?;
    let local = LocalClient::new(connection.clone()).info(()).await?;
    let cluster = match local.role {
        Some(Role::Manager) => ControlClient::new(connection).info(()).await,
        // Only a manager knows; what the node itself knows is shown all the same.
        Some(Role::Worker) | None => Err(skep_api::Refusal::new(skep_api::RefusalKind::Unsupported, "")),
    };
    match options.format {
        Some(format) => print(&as_json(&local, cluster.as_ref().ok()), &format)?,
        None => {
            output::text(&summary(&local, cluster.as_ref().ok()))?;
            if let (Some(Role::Manager), Err(refusal)) = (local.role, &cluster) {
                output::complain(format_args!("warning: the cluster does not answer: {refusal}"));
            }
            local.warnings.iter().for_each(|warning| output::complain(format_args!("warning: {warning}")));
        }
    }
    Ok(())
}

fn print(value: &Value, format: &str) -> Result {
    match format {
        "json" => output::line(value)?,
        template => output::line(Template::parse(template)?.render(value)?)?,
    }
    Ok(())
}

fn summary(local: &LocalInfo, cluster: Option<&ClusterInfo>) -> String {
    let mut lines = vec![
        format!("Server Version: {}", local.version),
        format!("Containers Running: {}", local.containers_running),
        format!("Name: {}", local.hostname),
        format!("Kernel Version: {}", local.kernel),
        format!("Data Dir: {}", local.data_dir),
        format!("Run Dir: {}", local.run_dir),
    ];
    match (local.node, local.cluster) {
        (Some(node), Some(id)) => {
            lines.push("Cluster: active".to_owned());
            lines.push(format!(" NodeID: {node}"));
            lines.push(format!(" ClusterID: {id}"));
            lines.push(format!(" Is Manager: {}", local.role == Some(Role::Manager)));
            lines.push(format!(" Node Address: {}", local.advertise_address));
            lines.push(format!(" Listen Address: {}", local.listen_address));
            lines.push(format!(" Session: {}", if local.manager_reachable { "up" } else { "no manager in reach" }));
            lines.extend(tunnel(local));
            if !local.managers.is_empty() {
                lines.push(" Manager Addresses:".to_owned());
                lines.extend(local.managers.iter().map(|address| format!("  {address}")));
            }
        }
        _ if local.locked => lines.push("Cluster: locked; `skep unlock` unlocks this manager".to_owned()),
        _ => lines.push("Cluster: none; `skep init` makes one, `skep join` becomes a member of another's".to_owned()),
    }
    if let Some(cluster) = cluster {
        let spec = &cluster.spec;
        lines.push(format!(" Managers: {}", cluster.managers));
        lines.push(format!(" Nodes: {}", cluster.nodes));
        lines.push(format!(" Leader: {}", cluster.leader.map_or("none".to_owned(), |leader| leader.to_string())));
        lines.push(format!(" Default Address Pool: {}", spec.address_pool));
        lines.push(format!(" SubnetSize: {}", spec.subnet_prefix));
        lines.push(format!(" Task History Retention Limit: {}", spec.task_history_limit));
        if spec.bin_pack {
            lines.push(" Placement: binpack".to_owned());
        }
        lines.push(format!(" Heartbeat Period: {}", time::exact(spec.heartbeat_period)));
        lines.push(format!(" Certificate Validity: {}", time::exact(spec.node_certificate_validity)));
        lines.push(format!(" Created: {}", time::rfc3339(cluster.meta.created_at)));
    }
    lines.join("\n") + "\n"
}

/// How other nodes' networks are reached.
fn tunnel(local: &LocalInfo) -> Vec<String> {
    let carrier = local.carrier.as_deref().unwrap_or_default();
    let mut lines = vec![format!(" Data Plane: {carrier}, {}/udp", local.tunnel_port)];
    if !local.peers.is_empty() {
        lines.push(" Peers:".to_owned());
    }
    lines.extend(local.peers.iter().map(|peer| {
        let endpoint = peer.endpoint.map_or("nobody knows where".to_owned(), |endpoint| endpoint.to_string());
        let handshake = match peer.handshake_age {
            Some(age) => format!("handshake {} ago", time::rough(age)),
            None => "no handshake yet".to_owned(),
        };
        format!("  {} {} at {endpoint}, {handshake}", peer.node.short(), peer.address)
    }));
    lines
}

/// Docker's keys, where it has one for the thing.
fn as_json(local: &LocalInfo, cluster: Option<&ClusterInfo>) -> Value {
    json!({
        "ServerVersion": local.version,
        "Name": local.hostname,
        "KernelVersion": local.kernel,
        "DockerRootDir": local.data_dir,
        "RunDir": local.run_dir,
        "ContainersRunning": local.containers_running,
        "Warnings": local.warnings,
        "Swarm": {
            "NodeID": local.node.map(|id| id.to_string()).unwrap_or_default(),
            "NodeAddr": local.advertise_address,
            "LocalNodeState": match local.node {
                Some(_) => "active",
                None if local.locked => "locked",
                None => "inactive",
            },
            "ControlAvailable": local.role == Some(Role::Manager),
            "RemoteManagers": local.managers.iter().map(|address| json!({ "Addr": address })).collect::<Vec<_>>(),
            "Nodes": cluster.map_or(0, |cluster| cluster.nodes),
            "Managers": cluster.map_or(0, |cluster| cluster.managers),
            "Leader": cluster.and_then(|cluster| cluster.leader).map(|id| id.to_string()),
            "Tunnel": {
                "Carrier": local.carrier,
                "Port": local.tunnel_port,
                "Peers": local.peers.iter().map(peer).collect::<Vec<_>>(),
            },
            "Cluster": { "ID": local.cluster.map(|id| id.to_string()).unwrap_or_default() },
        },
    })
}

fn peer(peer: &TunnelPeer) -> Value {
    json!({
        "NodeID": peer.node.to_string(),
        "Address": peer.address.to_string(),
        "Endpoint": peer.endpoint.map(|endpoint| endpoint.to_string()),
        "HandshakeAgeSeconds": peer.handshake_age.map(|age| age.as_secs()),
        "ReceivedBytes": peer.received_bytes,
        "SentBytes": peer.sent_bytes,
    })
}

/// The daemon's version where one answers: the program's own needs none.
pub async fn version(options: VersionOptions, host: &Host) -> Result {
    let server = match host.local().await {
        Ok(local) => local.info(()).await.map(|info| info.version).map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    if let Some(format) = options.format {
        let server = server.as_ref().ok().map(|version| json!({ "Version": version }));
        return print(&json!({ "Client": { "Version": VERSION }, "Server": server }), &format);
    }
    output::line(format_args!("Client: {VERSION}"))?;
    match server {
        Ok(version) => output::line(format_args!("Daemon: {version}"))?,
        Err(error) => output::line(format_args!("Daemon: {error:#}"))?,
    }
    Ok(())
}
