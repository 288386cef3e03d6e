//! `lab status`: each node as it stands, by what its daemon says and what the cluster says of it.

use std::time::Duration;

use clap::Args;
use skep_api::{ControlClient, Filter, LocalClient, LocalInfo, connect_unix};
use skep_lab::{Faults, Lab, Node as LabNode};
use skep_model::{Node, Role};

use super::LabOptions;
use crate::cli::node::{role, state};
use crate::cli::output::format::Format;
use crate::cli::output::listing::{ListOptions, Listing, row};
use crate::cli::output::{self, time};
use crate::cli::tasks::capital;
use crate::cli::{Result, runtime};

/// A daemon that hangs, or a cluster without a leader, is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(5);

const LISTING: Listing = Listing {
    columns: &[("Name", "NAME"), ("Address", "ADDRESS"), ("Gateway", "GATEWAY"), ("Role", "ROLE"), ("State", "STATE")],
    more: &[],
    quiet: "Name",
};

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    lab: LabOptions,
    /// table, json (an object a line), or a template such as '{{.Name}} {{.State}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// What a node's daemon says.
#[derive(Debug)]
enum Daemon {
    /// There is none.
    Stopped,
    Paused,
    /// It is there and does not answer.
    Silent,
    Answers(Box<LocalInfo>),
}

pub fn run(options: &Options) -> Result {
    let lab = options.lab.attach()?;
    runtime()?.block_on(show(&lab, options))
}

async fn show(lab: &Lab, options: &Options) -> Result {
    let daemons = futures::future::join_all(lab.nodes().iter().map(ask)).await;
    let daemons = daemons.into_iter().collect::<Result<Vec<_>>>()?;
    let members = members(lab, &daemons).await;
    let gateway = lab.info().gateway.map(|address| address.to_string()).unwrap_or_default();
    let rows = lab.nodes().iter().zip(&daemons).map(|(node, daemon)| {
        let member = members.as_ref().and_then(|members| find_member(members, node, daemon));
        row([
            ("Name", node.name().to_owned()),
            ("Address", node.address().to_string()),
            ("Gateway", gateway.clone()),
            ("Role", role_of(daemon, member).to_owned()),
            ("State", state_of(daemon, member)),
        ])
    });
    let list = ListOptions { format: options.format.clone(), ..ListOptions::default() };
    LISTING.print(rows.collect(), &list)?;
    if matches!(Format::parse(options.format.as_deref())?, Format::Table) {
        output::text(&faults(&lab.faults()?))?;
    }
    Ok(())
}

async fn ask(node: &LabNode) -> Result<Daemon> {
    match node.daemon()? {
        None => return Ok(Daemon::Stopped),
        Some(daemon) if daemon.is_paused() => return Ok(Daemon::Paused),
        Some(_) => {}
    }
    let info = async { LocalClient::new(connect_unix(&node.socket()).await.ok()?).info(()).await.ok() };
    let info = tokio::time::timeout(PATIENCE, info).await.ok().flatten();
    Ok(info.map_or(Daemon::Silent, |info| Daemon::Answers(Box::new(info))))
}

/// The cluster's nodes as the first manager that answers lists them.
async fn members(lab: &Lab, daemons: &[Daemon]) -> Option<Vec<Node>> {
    for (node, daemon) in lab.nodes().iter().zip(daemons) {
        if !matches!(daemon, Daemon::Answers(info) if info.role == Some(Role::Manager)) {
            continue;
        }
        let nodes = async {
            let connection = connect_unix(&node.socket()).await.ok()?;
            ControlClient::new(connection).nodes(Filter::default()).await.ok()
        };
        if let Some(nodes) = tokio::time::timeout(PATIENCE, nodes).await.ok().flatten() {
            return Some(nodes);
        }
    }
    None
}

/// By its id where the daemon tells it, else by its name, of which the newest is meant.
fn find_member<'a>(members: &'a [Node], node: &LabNode, daemon: &Daemon) -> Option<&'a Node> {
    match daemon {
        Daemon::Answers(info) => members.iter().find(|member| Some(member.id) == info.node),
        Daemon::Stopped | Daemon::Paused | Daemon::Silent => {
            members.iter().filter(|member| member.hostname() == node.name()).max_by_key(|member| member.meta.version)
        }
    }
}

fn role_of(daemon: &Daemon, member: Option<&Node>) -> &'static str {
    match (member, daemon) {
        (Some(member), _) => role(member),
        (None, Daemon::Answers(info)) => match info.role {
            Some(Role::Manager) => "manager",
            Some(Role::Worker) => "worker",
            None => "",
        },
        (None, Daemon::Stopped | Daemon::Paused | Daemon::Silent) => "",
    }
}

/// What is wrong with the daemon itself, else what the cluster says of the node.
fn state_of(daemon: &Daemon, member: Option<&Node>) -> String {
    match (daemon, member) {
        (Daemon::Stopped, _) => "Stopped".to_owned(),
        (Daemon::Paused, _) => "Paused".to_owned(),
        (Daemon::Answers(info), None) if info.node.is_none() => "Inactive".to_owned(),
        (Daemon::Silent | Daemon::Answers(_), None) => "Unknown".to_owned(),
        (Daemon::Silent | Daemon::Answers(_), Some(member)) => capital(state(member)),
    }
}

/// A line for each thing that is wrong with the network.
fn faults(faults: &Faults) -> String {
    let cuts = faults.cuts.iter().map(|cut| format!("n{} does not reach n{}\n", cut.from, cut.to));
    let slow = faults.slow.iter().map(|slow| {
        let delay = time::exact(Duration::from_millis(slow.delay_ms.into()));
        format!("the link of n{} is slow: {delay} late, {} lost\n", slow.node, slow.loss)
    });
    let lines: String = cuts.chain(slow).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}
