//! Between an agent and a manager: one stream for each node.
//!
//! ```text
//! agent                                   manager
//!   Hello ───────────────────────────────▶
//!         ◀─────────────────────────────── Welcome, Standing, Assignments (full), then deltas
//!   Heartbeat, Report ───────────────────▶
//!         ◀─────────────────────────────── LeaseGrant, for at-most-one tasks
//!         ◀─────────────────────────────── Log / Exec, Feed, Cancel
//!   Log / Exec …, End ───────────────────▶
//!   Applied, after each change ───────────▶
//!   Settle ──────────────────────────────▶   (a task is about to stop)
//!         ◀─────────────────────────────── Settled, when every node has taken that in
//!   Leaving ─────────────────────────────▶   (the daemon stops in order; its tasks run on)
//! ```

mod assignment;
mod messages;

pub use assignment::{
    AssignedContent, AssignedNetwork, AssignedPeer, AssignedPlace, Assignment, AssignmentKey, Assignments, Backend,
    EndpointNetwork, ServiceEndpoint,
};
pub use messages::{
    AgentMessage, DISPATCH_PROTOCOL, Hello, LeaseGrant, ManagerMessage, Standing, TaskReport, TrustUpdate, TunnelHello,
    Welcome,
};

use crate::rpc::service;

service! {
    /// A manager, for agents.
    Dispatcher in dispatcher_server::DispatcherServer, dispatcher_client::DispatcherClient, via DispatcherAdapter;
    unary {}
    down {}
    up {}
    both {
        /// The agent's first message is `Hello`; a new session of a node ends its older one.
        [Member] session(stream AgentMessage) -> stream ManagerMessage as SessionStream;
    }
}
