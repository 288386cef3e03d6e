//! Going back to what services and stacks were.

use skep_model::Version;

use crate::wire::message;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackServiceRequest {
    /// Name or id.
    pub service: String,
    /// The spec version of one of the service's revisions; absent is the newest of them.
    pub to: Option<Version>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackStackRequest {
    pub stack: String,
    /// The number of a revision; absent is the one before the newest.
    pub to: Option<u64>,
}

message!(RollbackServiceRequest = RollbackServiceRequest { service, to });
message!(RollbackStackRequest = RollbackStackRequest { stack, to });
