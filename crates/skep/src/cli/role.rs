//! `node promote` and `node demote`: asked for, then waited for.

use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use futures::StreamExt;
use skep_api::{ControlClient, NodeUpdate, RefusalKind, UpdateRequest, WatchRequest};
use skep_model::{NodeId, Role};

use super::host::Host;
use super::{Result, node, output};

/// How long a node may take to follow its role: a new manager gets the whole state first.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleName {
    Worker,
    Manager,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Worker => Role::Worker,
            RoleName::Manager => Role::Manager,
        }
    }
}

/// Gives each node a role, one after the other. The node that is asked comes last: demoted, it answers no more.
pub async fn change(nodes: &[String], role: Role, host: &Host) -> Result {
    let control = host.control().await?;
    let own = host.local().await?.info(()).await?.node;
    let mut found = Vec::new();
    for wanted in nodes {
        found.push((node::find(&control, host, wanted).await?, wanted));
    }
    found.sort_by_key(|(node, _)| own == Some(node.id));
    for (node, wanted) in found {
        let (word, other) = match role {
            Role::Manager => ("manager", "promoted to a manager"),
            Role::Worker => ("worker", "demoted to a worker"),
        };
        if node.spec.role == role {
            output::line(format_args!("Node {wanted} is already a {word}."))?;
            continue;
        }
        set(&control, node.id, role).await?;
        await_role(&control, node.id, wanted, role).await?;
        output::line(format_args!("Node {wanted} {other} in the cluster."))?;
    }
    Ok(())
}

/// Whatever else is written to the node meanwhile.
async fn set(control: &ControlClient, id: NodeId, role: Role) -> Result {
    loop {
        let node = control.node(&id.to_string()).await?;
        let mut spec = node.spec;
        spec.role = role;
        let update = NodeUpdate { id, expected: node.meta.version, spec };
        match control.update(UpdateRequest::Node(update)).await {
            Ok(written) => {
                written.warnings.iter().for_each(|warning| output::complain(format_args!("warning: {warning}")));
                return Ok(());
            }
            Err(refusal) if refusal.kind == RefusalKind::OutOfSequence => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
}

/// Returns once the node has followed. A manager that demotes itself stops answering, which is an end too.
pub async fn await_role(control: &ControlClient, id: NodeId, wanted: &str, role: Role) -> Result {
    let followed = async {
        let mut events = control.watch(WatchRequest::default()).await?;
        while let Some(Ok(_)) = events.next().await {
            let node = control.node(&id.to_string()).await?;
            let is_manager = node.manager.is_some();
            if is_manager == (role == Role::Manager) {
                return Ok(());
            }
        }
        match role {
            Role::Worker => Ok(()),
            Role::Manager => {
                bail!("the manager that was asked stopped answering; `skep node ls` shows what became of it")
            }
        }
    };
    match tokio::time::timeout(PATIENCE, followed).await {
        Ok(followed) => followed,
        Err(_) => bail!(
            "node {wanted} has not followed within {} s; it does so when it is up and reaches a manager: see `skep node ls`",
            PATIENCE.as_secs()
        ),
    }
}
