//! Changes in a few words, for traces.

use skep_model::{Change, Id};

fn short<K>(id: &Id<K>) -> String {
    id.to_string()[..6].to_owned()
}

pub fn change(change: &Change) -> String {
    match change {
        Change::CreateTask { task } => {
            format!(
                "create {} {} want {} not before {:?}",
                short(&task.id),
                task.name(),
                task.desired.word(),
                task.not_before
            )
        }
        Change::SetTaskPending { task, reason, .. } => format!("pending {} {reason:?}", short(task)),
        Change::AssignTask { task, node, .. } => format!("assign {} to {}", short(task), short(node)),
        Change::SetTaskDesired { task, desired, .. } => format!("want {} {}", short(task), desired.word()),
        Change::ReportTask { task, node, status } => {
            format!("report {} {} from {}", short(task), status.state.word(), short(node))
        }
        Change::RemoveTask { task } => format!("forget {}", short(task)),
        Change::ReportNode { node, status, .. } => format!("node {} {:?}", short(node), status.state),
        Change::UpdateNodeSpec { node, spec, .. } => {
            format!("node {} {:?} {:?}", short(node), spec.availability, spec.labels)
        }
        Change::CreateNode { node } => format!("new node {}", short(&node.id)),
        Change::SetNodeTunnel { node, .. } => format!("tunnel of {}", short(node)),
        Change::RemoveNode { node } => format!("remove node {}", short(node)),
        Change::CreateService { service } => format!("new service {} {:?}", service.name(), service.spec.mode),
        Change::UpdateService { service, expected, spec, .. } => {
            format!("update {} {} at {}", short(service), spec.name, expected.0)
        }
        Change::SetServiceEndpoint { service, .. } => format!("endpoint {}", short(service)),
        Change::SetUpdateStatus { service, status } => {
            format!("update of {} {:?}", short(service), status.as_ref().map(|status| status.state))
        }
        Change::RemoveService { service } => format!("remove service {}", short(service)),
        Change::AssignBlock { block, node, .. } => format!("block {block} to {}", short(node)),
        other => format!("{other:?}").chars().take(60).collect(),
    }
}
