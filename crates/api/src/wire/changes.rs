//! Every kind of change.

use skep_model::{Change, Due};

use super::{choice, enumeration};

choice!(Change = Change in change {;
    SetClusterConfig(SetClusterConfig) { config, expected },
    CreateNode(CreateNode) { node },
    UpdateNodeSpec(UpdateNodeSpec) { node, expected, spec, at },
    ReportNode(ReportNode) { node, description, status, at },
    RemoveNode(RemoveNode) { node },
    SetNodeManager(SetNodeManager) { node, manager, at },
    CreateService(CreateService) { service },
    UpdateService(UpdateService) { service, expected, spec, at },
    SetServiceEndpoint(SetServiceEndpoint) { service, endpoint },
    SetUpdateStatus(SetUpdateStatus) { service, status },
    SetRebalancing(SetRebalancing) { service, since },
    RemoveService(RemoveService) { service },
    CreateTask(CreateTask) { task },
    SetTaskPending(SetTaskPending) { task, reason, at },
    AssignTask(AssignTask) { task, node, at },
    SetTaskDesired(SetTaskDesired) { task, desired, at, reason },
    ReportTask(ReportTask) { task, node, status },
    RefreshTask(RefreshTask) { task, spec, spec_version },
    RemoveTask(RemoveTask) { task },
    CreateNetwork(CreateNetwork) { network },
    AssignBlock(AssignBlock) { network, block, node },
    ReleaseBlock(ReleaseBlock) { network, block },
    RemoveNetwork(RemoveNetwork) { network },
    CreateSecret(CreateSecret) { secret },
    UpdateSecret(UpdateSecret) { secret, expected, labels, digest, data, at },
    RemoveSecret(RemoveSecret) { secret },
    CreateConfig(CreateConfig) { config },
    UpdateConfig(UpdateConfig) { config, expected, labels, digest, data, at },
    RemoveConfig(RemoveConfig) { config },
    PutStack(PutStack) { stack },
    RemoveStack(RemoveStack) { name },
    SetNodeTunnel(SetNodeTunnel) { node, key, endpoint, at },
    RecordCertificate(RecordCertificate) { node, certificate },
    FollowSchedule(FollowSchedule) { service, expected, due, outcome, message, at },
    SetTaskWaiting(SetTaskWaiting) { task, reason, at },
});
enumeration!(Due = Due { Run, Skip });
