//! Why tasks are where they are, or nowhere.

use crate::wire::message;

/// Name or id of a service, whose tasks are to be spread anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebalanceRequest {
    pub service: String,
}

/// Name or id of a service, or of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainRequest {
    pub wanted: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The service's name.
    pub service: String,
    /// The task that was asked about, or all of the service that run or are to.
    pub tasks: Vec<TaskPlace>,
    /// What each node says to the task that was asked about, or to one more of the service.
    pub nodes: Vec<NodeVerdict>,
    /// What would make a node fit; empty where one does.
    pub hints: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskPlace {
    pub id: String,
    pub name: String,
    pub state: String,
    /// Host name; empty while no node has it.
    pub node: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeVerdict {
    pub id: String,
    pub hostname: String,
    /// The filter that refuses the node; empty when it fits.
    pub refused_by: String,
    pub why: String,
    /// Tasks of the service there, and all tasks.
    pub service_tasks: u64,
    pub tasks: u64,
}

message!(RebalanceRequest = RebalanceRequest { service });
message!(ExplainRequest = ExplainRequest { wanted });
message!(Explanation = Explanation { service, tasks, nodes, hints });
message!(TaskPlace = TaskPlace { id, name, state, node, why });
message!(NodeVerdict = NodeVerdict { id, hostname, refused_by, why, service_tasks, tasks });
