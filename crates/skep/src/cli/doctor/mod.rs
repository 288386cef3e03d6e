//! `doctor`: what is wrong with this cluster's machines and the network between them, and what mends it.
//!
//! A manager has every node examine itself and its ways; a worker, or a machine without a cluster, examines itself alone.

mod judge;
mod pairs;

use clap::{Args, ValueEnum};
use serde_json::json;
use skep_agent::host_complaints;
use skep_api::{ConnectError, Connection, ControlClient, Diagnosis, Examined, LocalClient, LocalInfo, NodeFindings};
use skep_model::Role;

use self::judge::{Finding, Verdict, judge};
use super::Result;
use super::failure::Exit;
use super::host::Host;
use super::output;
use crate::daemon::config::NodeConfig;
use crate::daemon::preflight;

#[derive(Debug, Args)]
pub struct Options {
    /// Show every way between two nodes as well
    #[arg(short, long)]
    verbose: bool,
    /// json: an object a line
    #[arg(long, value_enum)]
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
}

/// Findings are no failure of the command, but scripts want to know.
const FINDINGS: u8 = 1;

pub async fn run(options: Options, host: &Host) -> Result {
    let (diagnosis, mut findings) = match host.connect().await {
        Ok(connection) => ask(connection).await?,
        Err(ConnectError::NoDaemon { .. }) => {
            output::complain("no daemon runs here: only this machine was examined");
            this_machine(host)?
        }
        Err(error) => return Err(error.into()),
    };
    let Verdict { findings: found, well } = judge(&diagnosis);
    findings.extend(found);
    match options.format {
        Some(Format::Json) => findings.iter().try_for_each(|finding| output::line(as_json(finding)))?,
        None => {
            findings.iter().try_for_each(|finding| output::line(line(finding)))?;
            output::line(summary(findings.len(), well))?;
            if options.verbose {
                output::text(&pairs::table(&diagnosis))?;
            }
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(Exit::silent(FINDINGS)) }
}

type Found = (Diagnosis, Vec<Finding>);

async fn ask(connection: Connection) -> Result<Found> {
    let local = LocalClient::new(connection.clone());
    let info = local.info(()).await?;
    let mut findings = Vec::new();
    if info.role == Some(Role::Manager) && !info.locked {
        let control = ControlClient::new(connection);
        if let Ok(skep_api::Confirmed { stale: Some(why) }) = control.confirm(()).await {
            let mend = "start the managers that are missing; `skep node ls` shows them".to_owned();
            findings.push(Finding { nodes: Vec::new(), what: why, measured: String::new(), mend });
        }
        match control.diagnose(()).await {
            Ok(diagnosis) => return Ok((diagnosis, findings)),
            Err(refusal) => {
                output::complain(format_args!("this manager does not answer ({refusal}): only this node was examined"))
            }
        }
    } else if info.node.is_some() {
        output::complain("only this node was examined: a manager examines all of them");
    } else {
        output::complain("this node is in no cluster: only this machine was examined");
    }
    let examined = local.examine(()).await?;
    Ok((alone(&info, examined), findings))
}

fn alone(info: &LocalInfo, examined: Examined) -> Diagnosis {
    let node = NodeFindings {
        node: info.node.unwrap_or(skep_model::NodeId::from_u128(0)),
        hostname: info.hostname.clone(),
        is_manager: info.role == Some(Role::Manager),
        address: info.advertise_address.clone(),
        clock: None,
        examined: Some(examined),
        silent: None,
        older_level: None,
    };
    Diagnosis { nodes: vec![node] }
}

/// What the daemon would refuse to start for, and what it would miss.
fn this_machine(host: &Host) -> Result<Found> {
    let config = NodeConfig::load(&host.overrides)?;
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let finding =
        |what: String, mend: String| Finding { nodes: vec![name.clone()], what, measured: String::new(), mend };
    let mut findings = match preflight::check() {
        Ok(missing) => missing.into_iter().map(|what| finding(what, String::new())).collect(),
        Err(error) => vec![finding(format!("{error:#}"), String::new())],
    };
    let folder = config.data_dir.ancestors().find(|folder| folder.exists()).unwrap_or("/".as_ref());
    let off = host_complaints(folder).into_iter().filter(|it| !it.mend.contains("ip_forward"));
    findings.extend(off.map(|it| finding(it.what, it.mend)));
    Ok((Diagnosis::default(), findings))
}

fn line(finding: &Finding) -> String {
    let Finding { nodes, what, measured, mend } = finding;
    let nodes = if nodes.is_empty() { "cluster".to_owned() } else { nodes.join(" and ") };
    let measured = if measured.is_empty() { String::new() } else { format!(" ({measured})") };
    let mend = if mend.is_empty() { String::new() } else { format!("; {mend}") };
    format!("{nodes}: {what}{measured}{mend}")
}

fn summary(findings: usize, well: usize) -> String {
    match (findings, well) {
        (0, 0) => "Nothing is wrong.".to_owned(),
        (0, well) => format!("All is well: {well} checks."),
        (1, well) => format!("1 finding; {well} checks are well."),
        (findings, well) => format!("{findings} findings; {well} checks are well."),
    }
}

fn as_json(finding: &Finding) -> serde_json::Value {
    let Finding { nodes, what, measured, mend } = finding;
    json!({ "Nodes": nodes, "Finding": what, "Measured": measured, "Mend": mend })
}
