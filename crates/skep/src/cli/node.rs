//! `node`: the machines of the cluster.

use std::time::Duration;

use clap::{Args, Subcommand};
use skep_api::{ControlClient, Filter, NodeUpdate, RefusalKind, RemoveRequest, UpdateRequest};
use skep_model::{Availability, Kind, Membership, Node, NodeId, NodeSpec, NodeState, Role};

use super::Result;
use super::host::Host;
use super::inspect::{self, InspectOptions};
use super::membership::AvailabilityName;
use super::output::filter::{Facet, Filters};
use super::output::listing::{ListOptions, Listing, Row, row};
use super::output::{self, time};
use super::role;
use super::tasks::{self, capital, natural};
use super::wait::drain;

const FILTERS: &[&str] = &["id", "name", "role", "membership", "label", "node.label"];

const LISTING: Listing = Listing {
    columns: &[
        ("IDSelf", "ID"),
        ("Hostname", "HOSTNAME"),
        ("Status", "STATUS"),
        ("Availability", "AVAILABILITY"),
        ("ManagerStatus", "MANAGER STATUS"),
        ("EngineVersion", "ENGINE VERSION"),
    ],
    more: &[("ID", "ID"), ("Self", "SELF"), ("TLSStatus", "TLS STATUS"), ("Address", "ADDRESS")],
    quiet: "ID",
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List nodes
    #[command(visible_alias = "list")]
    Ls(ListOptions),
    /// Show all about one or more nodes; `self` is this one
    Inspect(InspectOptions),
    /// List the tasks of one or more nodes; this one by default
    Ps(PsOptions),
    /// Change a node's availability, labels or role
    Update(UpdateOptions),
    /// Make nodes managers
    Promote(RoleOptions),
    /// Make managers workers again
    Demote(RoleOptions),
    /// Remove nodes that have left or are lost
    #[command(visible_alias = "remove")]
    Rm(RemoveOptions),
}

#[derive(Debug, Args)]
pub struct PsOptions {
    #[command(flatten)]
    list: ListOptions,
    #[arg(value_name = "NODE", default_value = "self")]
    nodes: Vec<String>,
}

#[derive(Debug, Args)]
pub struct UpdateOptions {
    /// active takes tasks, pause keeps those that it has, drain moves them away
    #[arg(long, value_enum)]
    availability: Option<AvailabilityName>,
    /// Add or change a label: name=value; may be given several times
    #[arg(long, value_name = "LABEL", value_parser = label)]
    label_add: Vec<(String, String)>,
    /// Remove a label; may be given several times
    #[arg(long, value_name = "NAME")]
    label_rm: Vec<String>,
    /// manager takes part in deciding, worker only runs tasks
    #[arg(long, value_enum)]
    role: Option<role::RoleName>,
    /// Do not wait until a drained node is empty
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    detach: bool,
    /// How long to wait
    #[arg(long, default_value = "10m", value_parser = time::parse_duration)]
    timeout: Duration,
    node: String,
}

#[derive(Debug, Args)]
pub struct RoleOptions {
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RemoveOptions {
    /// Also nodes that are not down
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

pub async fn run(command: Command, host: &Host) -> Result {
    match command {
        Command::Ls(options) => list(&options, host).await,
        Command::Inspect(options) => {
            let control = host.control().await?;
            let mut nodes = Vec::new();
            for wanted in &options.names {
                nodes.push(find(&control, host, wanted).await?);
            }
            let leader = control.info(()).await?.leader;
            inspect::nodes(&nodes, leader, &options)
        }
        Command::Ps(options) => list_tasks(&options, host).await,
        Command::Update(options) => update(options, host).await,
        Command::Promote(options) => role::change(&options.nodes, Role::Manager, host).await,
        Command::Demote(options) => role::change(&options.nodes, Role::Worker, host).await,
        Command::Rm(options) => remove(options, host).await,
    }
}

/// `name=value`, or `name` alone for an empty value, as Docker reads labels.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    match name.is_empty() {
        true => Err("write it as name=value".to_owned()),
        false => Ok((name.to_owned(), value.to_owned())),
    }
}

pub async fn find(control: &ControlClient, host: &Host, wanted: &str) -> Result<Node> {
    if wanted != "self" {
        return Ok(control.node(wanted).await?);
    }
    match host.local().await?.info(()).await?.node {
        Some(node) => Ok(control.node(&node.to_string()).await?),
        None => anyhow::bail!("this node is not a member of a cluster; `skep init` or `skep join` makes it one"),
    }
}

async fn list(options: &ListOptions, host: &Host) -> Result {
    let filters = Filters::parse(&options.filter, FILTERS)?;
    let control = host.control().await?;
    let mut nodes = control.nodes(Filter::default()).await?;
    let leader = control.info(()).await?.leader;
    let own = host.local().await?.info(()).await?.node;
    nodes.retain(|node| filters.keep(&facets(node)));
    nodes.sort_by(|a, b| natural(a.hostname(), b.hostname()).then_with(|| a.id.cmp(&b.id)));
    LISTING.print(nodes.iter().map(|node| node_row(node, leader, own)).collect(), options)
}

fn facets(node: &Node) -> Vec<Facet> {
    let mut facets = vec![
        Facet::prefix("id", node.id.to_string()),
        Facet::prefix("name", node.hostname()),
        Facet::exact("role", role(node)),
        Facet::exact("membership", membership(node)),
    ];
    facets.extend(Facet::labels("node.label", &node.spec.labels));
    if let Some(description) = &node.description {
        facets.extend(Facet::labels("label", &description.engine_labels));
    }
    facets
}

/// Ids are whole, as in Docker.
fn node_row(node: &Node, leader: Option<NodeId>, own: Option<NodeId>) -> Row {
    let is_self = own == Some(node.id);
    let version = node.description.as_ref().map(|description| description.engine_version.clone());
    row([
        ("ID", node.id.to_string()),
        ("IDSelf", format!("{} {}", node.id, if is_self { "*" } else { " " })),
        ("Self", is_self.to_string()),
        ("Hostname", node.hostname().to_owned()),
        ("Status", capital(state(node))),
        ("Availability", capital(availability(node))),
        ("ManagerStatus", manager_status(node, leader).map(capital).unwrap_or_default()),
        ("EngineVersion", version.unwrap_or_default()),
        ("TLSStatus", "Ready".to_owned()),
        ("Address", node.status.address.clone()),
    ])
}

pub fn role(node: &Node) -> &'static str {
    match node.spec.role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    }
}

pub fn membership(node: &Node) -> &'static str {
    match node.spec.membership {
        Membership::Pending => "pending",
        Membership::Accepted => "accepted",
    }
}

pub fn availability(node: &Node) -> &'static str {
    match node.spec.availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    }
}

pub fn state(node: &Node) -> &'static str {
    match node.status.state {
        NodeState::Unknown => "unknown",
        NodeState::Down => "down",
        NodeState::Ready => "ready",
        NodeState::Disconnected => "disconnected",
    }
}

fn manager_status(node: &Node, leader: Option<NodeId>) -> Option<&'static str> {
    node.manager.as_ref()?;
    Some(match node.status.state {
        _ if leader == Some(node.id) => "leader",
        NodeState::Ready => "reachable",
        NodeState::Unknown => "unknown",
        NodeState::Down | NodeState::Disconnected => "unreachable",
    })
}

async fn list_tasks(options: &PsOptions, host: &Host) -> Result {
    let control = host.control().await?;
    let mut found = Vec::new();
    for wanted in &options.nodes {
        let node = find(&control, host, wanted).await?;
        let filter = Filter { node: Some(node.id.to_string()), ..Filter::default() };
        found.extend(control.tasks(filter).await?);
    }
    tasks::print(&control, found, &options.list).await
}

async fn update(options: UpdateOptions, host: &Host) -> Result {
    let control = host.control().await?;
    let mut node = find(&control, host, &options.node).await?;
    for name in options.label_rm.iter().filter(|name| !node.spec.labels.contains_key(*name)) {
        output::complain(format_args!("warning: node {} has no label `{name}`", options.node));
    }
    let before = node.spec.role;
    let drains = options.availability == Some(AvailabilityName::Drain) && !options.detach;
    let slots = if drains { drain::slots_on(&control, node.id).await? } else { drain::Slots::default() };
    let (spec, written) = loop {
        let spec = edited(&node.spec, &options);
        let update = NodeUpdate { id: node.id, expected: node.meta.version, spec: spec.clone() };
        match control.update(UpdateRequest::Node(update)).await {
            Ok(written) => break (spec, written),
            // It was written to meanwhile, by the renewal of its certificate for one: the same is asked of what it is now.
            Err(refusal) if refusal.kind == RefusalKind::OutOfSequence => {
                node = find(&control, host, &options.node).await?;
            }
            Err(refusal) => return Err(refusal.into()),
        }
    };
    written.warnings.iter().for_each(|warning| output::complain(format_args!("warning: {warning}")));
    if spec.role != before {
        role::await_role(&control, node.id, &options.node, spec.role).await?;
    }
    if !slots.is_empty() {
        drain::until_empty(&control, (node.id, node.hostname()), &slots, options.timeout).await?;
    }
    output::line(options.node)?;
    Ok(())
}

fn edited(spec: &NodeSpec, options: &UpdateOptions) -> NodeSpec {
    let mut spec = spec.clone();
    spec.availability = options.availability.map_or(spec.availability, Availability::from);
    spec.labels.retain(|name, _| !options.label_rm.contains(name));
    spec.labels.extend(options.label_add.iter().cloned());
    spec.role = options.role.map_or(spec.role, Role::from);
    spec
}

async fn remove(options: RemoveOptions, host: &Host) -> Result {
    let control = host.control().await?;
    for wanted in options.nodes {
        control.remove(RemoveRequest { kind: Kind::Node, wanted: wanted.clone(), force: options.force }).await?;
        output::line(wanted)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use skep_model::{ManagerStatus, Meta, NodeDescription, NodeStatus};

    #[test]
    fn nodes_are_listed_as_docker_lists_them() {
        let node = Node {
            id: NodeId::from_u128(7),
            meta: Meta::default(),
            spec: NodeSpec { role: Role::Manager, ..NodeSpec::default() },
            description: Some(NodeDescription {
                hostname: "mgr1".to_owned(),
                engine_version: "0.1.0".to_owned(),
                ..NodeDescription::default()
            }),
            status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
            manager: Some(ManagerStatus { raft_id: 1, address: String::new() }),
            certificate: Default::default(),
            tunnel: None,
        };
        let mut lost = Node { id: NodeId::from_u128(8), ..node.clone() };
        lost.status.state = NodeState::Down;
        let row = |node: &Node| {
            let row = node_row(node, Some(NodeId::from_u128(7)), Some(NodeId::from_u128(7)));
            LISTING.columns.iter().map(|(key, _)| row[*key].as_str().unwrap_or_default()).collect::<Vec<_>>().join("|")
        };
        expect![[r#"
            0000000000000000000000007 *|mgr1|Ready|Active|Leader|0.1.0
            0000000000000000000000008  |mgr1|Down|Active|Unreachable|0.1.0"#]]
        .assert_eq(&[row(&node), row(&lost)].join("\n"));
    }

    #[test]
    fn labels_without_a_value_are_empty() {
        assert_eq!(label("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert_eq!(label("a").unwrap(), ("a".to_owned(), String::new()));
        assert!(label("=b").is_err());
    }
}
