//! The doctor's rounds: every node is asked to examine itself and its way to the others, all at once.
//!
//! All of it is measured and nothing judged here. A node that does not answer in time is told as such.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use skep_api::{Diagnosis, Examined, ManagerTarget, NodeFindings, ProbeClock, ProbePart, Refusal};
use skep_identity::NodeClock;
use skep_model::{Cluster, Feature, Node};
use tokio::time::timeout;

use super::ControlService;
use crate::reach::{Reach, Wanted};
use crate::sessions::Answer;

/// Twice what an agent needs where most ways are bad.
const ANSWER_WAIT: Duration = Duration::from_secs(45);

impl<R> ControlService<R> {
    pub(super) async fn examine_nodes(&self) -> Result<Diagnosis, Refusal> {
        let cluster = self.cluster();
        let targets = managers(&cluster);
        let nodes = cluster.nodes.values().map(|node| {
            let (targets, knows) = (targets.clone(), knows(&cluster, node));
            let (reach, clock) = (Arc::clone(&self.reach), Arc::clone(&self.clock));
            async move {
                let mut findings = unexamined(node);
                match knows {
                    Ok(()) => ask(&reach, &clock, targets, &mut findings).await,
                    Err(level) => findings.older_level = Some(level),
                }
                findings
            }
        });
        Ok(Diagnosis { nodes: join_all(nodes).await })
    }
}

/// Whether the question can be put to the node; else the level that cannot.
fn knows(cluster: &Cluster, node: &Node) -> Result<(), u32> {
    let own = node.description.as_ref().map_or(0, |description| description.level);
    let level = own.min(cluster.level());
    if level >= Feature::Doctor.level() { Ok(()) } else { Err(level) }
}

fn managers(cluster: &Cluster) -> Vec<ManagerTarget> {
    let target = |node: &Arc<Node>| {
        let address = node.manager.as_ref()?.address.clone();
        Some(ManagerTarget { node: Some(node.id), address })
    };
    cluster.nodes.values().filter_map(target).collect()
}

fn unexamined(node: &Node) -> NodeFindings {
    let endpoint = node.tunnel.as_ref().and_then(|tunnel| tunnel.endpoint);
    NodeFindings {
        node: node.id,
        hostname: node.hostname().to_owned(),
        is_manager: node.manager.is_some(),
        address: endpoint.map_or_else(|| node.status.address.clone(), |endpoint| endpoint.ip().to_string()),
        clock: None,
        examined: None,
        silent: None,
        older_level: None,
    }
}

async fn ask(reach: &Reach, clock: &NodeClock, managers: Vec<ManagerTarget>, findings: &mut NodeFindings) {
    let asking = async {
        let asked = clock.now();
        // Dropping it at the end tells an agent that is late.
        let (_request, mut answers) = reach.ask(findings.node, Wanted::Probe { managers }).await?;
        while let Some(answer) = answers.recv().await {
            match answer {
                Answer::Probed(ProbePart::Began { time }) => {
                    findings.clock = Some(ProbeClock { asked, told: time, heard: clock.now() });
                }
                Answer::Probed(ProbePart::Examined(examined)) => return Ok(examined),
                Answer::End { error } => return Err(ended(error)),
                Answer::Log(_) | Answer::Exec(_) => {}
            }
        }
        Err(ended(None))
    };
    match timeout(ANSWER_WAIT, asking).await {
        Ok(Ok::<Examined, Refusal>(examined)) => findings.examined = Some(examined),
        Ok(Err(refusal)) => findings.silent = Some(refusal.message),
        Err(_) => findings.silent = Some(format!("no answer within {} s", ANSWER_WAIT.as_secs())),
    }
}

fn ended(error: Option<String>) -> Refusal {
    let message = error.unwrap_or_else(|| "its session ended meanwhile".to_owned());
    Refusal::new(skep_api::RefusalKind::Unavailable, message)
}
