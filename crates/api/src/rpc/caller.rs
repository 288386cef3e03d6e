//! Who makes a call, and which calls are open to whom.
//!
//! This is the coarse gate: by how the caller came in and what its certificate says. Whether a node still has the role
//! of its certificate is asked of the cluster's state by whoever serves the call.

use std::net::SocketAddr;

use skep_identity::PeerIdentity;
use skep_model::Role;

use super::refusal::{Refusal, RefusalKind};

/// The other end of the connection that a call came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A process of this machine that could open the socket: root, or of the socket's group.
    Local { uid: u32, gid: u32, pid: Option<i32> },
    /// A node with a certificate of this cluster.
    Member { identity: PeerIdentity, address: SocketAddr },
    /// A node whose certificate of this cluster has expired, or is of a CA that was rotated away.
    Lapsed { identity: PeerIdentity, address: SocketAddr },
    /// Somebody without a certificate.
    Anonymous { address: SocketAddr },
}

impl Caller {
    /// The member that calls; a refusal for everybody else.
    pub fn member(&self) -> Result<PeerIdentity, Refusal> {
        match self {
            Caller::Member { identity, .. } => Ok(*identity),
            Caller::Lapsed { .. } => Err(lapsed()),
            Caller::Local { .. } | Caller::Anonymous { .. } => Err(Refusal::new(
                RefusalKind::Denied,
                "only a node with a certificate of this cluster may ask for this",
            )),
        }
    }

    /// The node that calls, whether its certificate is still good for more than its own renewal or not.
    pub fn renewer(&self) -> Result<PeerIdentity, Refusal> {
        match self {
            Caller::Lapsed { identity, .. } => Ok(*identity),
            Caller::Member { .. } | Caller::Local { .. } | Caller::Anonymous { .. } => self.member(),
        }
    }
}

fn lapsed() -> Refusal {
    let message = "the node's certificate has expired, or is of a CA that was rotated away: it is good for renewal only, and \
                   the node renews it by itself";
    Refusal::new(RefusalKind::Lapsed, message)
}

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admit {
    /// The machine's own socket.
    Local,
    /// The machine's own socket, or a manager on somebody's behalf.
    Operator,
    /// Nodes of the cluster.
    Member,
    /// Managers of the cluster.
    Manager,
    /// Nodes of the cluster, also those with a lapsed certificate.
    Renewer,
    /// Everybody who reached the port.
    Anyone,
}

impl Admit {
    pub fn check(self, caller: &Caller) -> Result<(), Refusal> {
        let admitted = match (self, caller) {
            (Admit::Anyone, _) => true,
            (Admit::Local | Admit::Operator, Caller::Local { .. }) => true,
            (Admit::Operator | Admit::Manager, Caller::Member { identity, .. }) => identity.role == Role::Manager,
            (Admit::Member | Admit::Renewer, Caller::Member { .. }) => true,
            (Admit::Renewer, Caller::Lapsed { .. }) => true,
            (Admit::Local | Admit::Operator | Admit::Member | Admit::Manager, Caller::Lapsed { .. }) => {
                return Err(lapsed());
            }
            (Admit::Local, Caller::Member { .. } | Caller::Anonymous { .. })
            | (Admit::Operator, Caller::Anonymous { .. })
            | (Admit::Member | Admit::Manager | Admit::Renewer, Caller::Local { .. } | Caller::Anonymous { .. }) => {
                false
            }
        };
        if admitted {
            return Ok(());
        }
        let message = match self {
            Admit::Local => "this is open only to the socket on the node itself",
            Admit::Operator => "this is open only to managers and to the socket on a manager: ask on a manager",
            Admit::Member | Admit::Renewer => "this is open only to nodes with a certificate of this cluster",
            Admit::Manager => "this is open only to managers of this cluster",
            Admit::Anyone => "this is open to everybody",
        };
        Err(Refusal::new(RefusalKind::Denied, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::{ClusterId, NodeId};

    #[test]
    fn only_who_should_gets_in() {
        let address = SocketAddr::from(([10, 0, 0, 1], 7377));
        let identity = |role| PeerIdentity { node_id: NodeId::from_u128(1), role, cluster_id: ClusterId::from_u128(2) };
        let member = |role| Caller::Member { identity: identity(role), address };
        let lapsed = |role| Caller::Lapsed { identity: identity(role), address };
        let callers = [
            Caller::Local { uid: 0, gid: 0, pid: None },
            member(Role::Manager),
            member(Role::Worker),
            lapsed(Role::Manager),
            Caller::Anonymous { address },
        ];
        let admitted = |admit: Admit| callers.map(|caller| admit.check(&caller).is_ok());
        assert_eq!(admitted(Admit::Local), [true, false, false, false, false]);
        assert_eq!(admitted(Admit::Operator), [true, true, false, false, false]);
        assert_eq!(admitted(Admit::Member), [false, true, true, false, false]);
        assert_eq!(admitted(Admit::Renewer), [false, true, true, true, false]);
        assert_eq!(admitted(Admit::Manager), [false, true, false, false, false]);
        assert_eq!(admitted(Admit::Anyone), [true, true, true, true, true]);
    }
}
