//! What the command line and other managers ask of a manager.

mod autolock;
mod ca;
mod client;
mod events;
mod messages;
mod placing;
mod readable;
mod rollback;
mod stack;

pub use autolock::{AutolockChange, AutolockRequest, AutolockState};
pub use ca::{GivenCa, RotateCaRequest, RotatedCa};
pub use events::{Event, EventAction, EventMessage, EventsRequest};
pub use messages::{
    ClusterInfo, ClusterUpdate, ConfigUpdate, Confirmed, CreateRequest, ExecRequest, ExecTarget, Filter, GetRequest,
    JoinTokenText, ListRequest, LogSource, LogsRequest, NewContent, NodeUpdate, ObjectList, RemoveRequest, Removed,
    RemovedObject, RotateJoinTokenRequest, ScaleRequest, SecretUpdate, ServiceUpdate, UpdateRequest, WatchEvent,
    WatchRequest, Written,
};
pub use placing::{ExplainRequest, Explanation, NodeVerdict, RebalanceRequest, TaskPlace};
pub use readable::Readable;
pub use rollback::{RollbackServiceRequest, RollbackStackRequest};
pub use stack::{DeployAction, DeployMode, DeployRequest, Deployed, DeployedObject, Prune};

use crate::doctor::Diagnosis;
use crate::rpc::service;
use crate::streams::{ExecOutput, LogEntry};

service! {
    /// The cluster, for who operates it.
    Control in control_server::ControlServer, control_client::ControlClient, via ControlAdapter;
    unary {
        [Operator] info(()) -> ClusterInfo;
        /// Waits until this manager knows all that was acknowledged to anybody before the call: later reads of it are
        /// current. Without a quorum it says why they may not be.
        [Operator] confirm(()) -> Confirmed;
        /// Every object of a kind that the filter lets through. Secrets come without their content.
        [Operator] list(ListRequest) -> ObjectList;
        /// One object, by whole id, name, or unambiguous prefix of its id.
        [Operator] get(GetRequest) -> Readable;
        [Operator] create(CreateRequest) -> Written;
        [Operator] update(UpdateRequest) -> Written;
        /// Removes one object; a stack with everything that belongs to it.
        [Operator] remove(RemoveRequest) -> Removed;
        [Operator] scale(ScaleRequest) -> Written;
        /// Spreads a service's tasks anew, a few at a time; the reply does not wait for it.
        [Operator] rebalance(RebalanceRequest) -> Written;
        /// Why tasks are where they are, or nowhere, node by node.
        [Operator] explain(ExplainRequest) -> Explanation;
        /// Every node examines itself and its way to the others: takes some ten seconds.
        [Operator] diagnose(()) -> Diagnosis;
        /// Makes a stack what the request says, or says what that would change. Everything is validated before the
        /// first write.
        [Operator] deploy_stack(DeployRequest) -> Deployed;
        /// Gives a service an earlier spec of its own, by the rules of its rollback configuration.
        [Operator] rollback_service(RollbackServiceRequest) -> Written;
        /// Makes a stack's services what they were in an earlier revision; the change is a new revision.
        [Operator] rollback_stack(RollbackStackRequest) -> Deployed;
        /// A new join token for a role; the old one is worthless from then on. A token cannot be read back.
        [Operator] rotate_join_token(RotateJoinTokenRequest) -> JoinTokenText;
        /// Turns autolock on or off or makes a new unlock key, where a change is asked for; the key of then.
        [Operator] autolock(AutolockRequest) -> AutolockState;
        /// A new CA; nodes renew their certificates by themselves. Earlier join tokens are worthless from then on.
        [Operator] rotate_ca(RotateCaRequest) -> RotatedCa;
    }
    down {
        /// An event for each write from now on; several writes may come as one event. The reader lists again.
        [Operator] watch(WatchRequest) -> stream WatchEvent as WatchStream;
        /// What happened to objects: what this manager remembers since the time that is asked for, and what comes.
        [Operator] events(EventsRequest) -> stream EventMessage as EventsStream;
        /// The output of a service's tasks or of one task.
        [Operator] logs(LogsRequest) -> stream LogEntry as LogsStream;
    }
    up {}
    both {
        /// Runs a process in a task's container. The first message is `Start`.
        [Operator] exec(stream ExecRequest) -> stream ExecOutput as ExecStream;
    }
}
