//! The wire: generated protobuf (private), one conversion table per object, gRPC clients and servers, and what the
//! store writes to disk.
//!
//! - [`Control`]: the command line, to a manager. [`Local`]: the command line, to the daemon of its machine.
//! - [`Dispatcher`]: an agent's session with a manager. [`Ca`]: certificates. [`Roster`]: who is a member.
//!   [`Peer`]: managers among each other.
//! - [`Server`] serves any of them on the port and on the socket; [`connect_unix`], [`connect_tls`] and
//!   [`connect_join`] reach them.
//! - [`encode_changes`] and [`encode_cluster`] are the bytes of the log and of snapshots, [`encode_assignments`] those that
//!   an agent keeps.
//!
//! Invariant: no generated type is visible outside.
//! Invariant: every call passes a gate that knows who calls, before anything of it is read.

mod ca;
mod control;
mod disk;
mod dispatcher;
mod doctor;
mod local;
mod peer;
#[allow(clippy::all)]
mod pb {
    include!("generated/skep.v1.rs");
}
mod roster;
mod rpc;
mod streams;
mod transport;
mod wire;

pub use ca::{Ca, CaClient, IssueRequest, IssuedCertificate, RenewRequest};
pub use control::*;
pub use disk::{
    ASSIGNMENTS_FORMAT, CHANGES_FORMAT, CLUSTER_FORMAT, decode_assignments, decode_changes, decode_cluster,
    encode_assignments, encode_changes, encode_cluster,
};
pub use dispatcher::*;
pub use doctor::{
    Complaint, Diagnosis, Examined, Firewall, ManagerProbe, ManagerTarget, NodeFindings, PeerProbe, ProbeClock,
    ProbePart, Reached,
};
pub use local::*;
pub use peer::*;
pub use roster::{
    EnrollRequest, LearntAddress, NodeClaim, NodePresence, NodeStanding, PresenceNote, PresenceReport, Question,
    Roster, RosterClient, SettledRequest,
};
pub use rpc::{Caller, Messages, Refusal, RefusalKind};
pub use streams::{ExecInput, ExecOutput, ExecSpec, LogEntry, LogOptions, OutputStream, TerminalSize};
pub use transport::{
    ConnectError, Connection, ServeError, Server, connect_join, connect_tls, connect_unix, connect_watched,
};
pub use wire::{DecodeError, Object};
