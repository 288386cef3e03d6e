//! Sessions between agents and managers: ordered streams that break when a message is lost.

use std::collections::BTreeMap;

use skep_api::Assignments;
use skep_manager::AssignmentSet;
use skep_model::{TaskId, TaskStatus};

use crate::chance::Chance;
use crate::clock::Nanos;
use crate::network::Network;

pub type SessionId = u64;

#[derive(Debug)]
pub enum ToManager {
    Hello,
    /// When it was sent, by the agent's monotonic clock.
    Heartbeat {
        sent: Nanos,
    },
    Report(Vec<(TaskId, TaskStatus)>),
    Leaving,
    Closed,
}

#[derive(Debug)]
pub enum ToAgent {
    /// What is to be taken over, and what the agent must have afterwards.
    Assignments {
        delta: Assignments,
        result: AssignmentSet,
    },
    /// These tasks may live on, for a lease's duration from the heartbeat that was sent then.
    Lease {
        sent: Nanos,
        tasks: Vec<TaskId>,
    },
    Closed,
}

#[derive(Debug)]
pub struct Session {
    pub machine: usize,
    pub manager: usize,
    /// Nothing arrives any more in this direction.
    up_broken: bool,
    down_broken: bool,
    /// When the last message of each direction arrives: the next comes later.
    up_last: Nanos,
    down_last: Nanos,
}

#[derive(Debug, Default)]
pub struct Sessions {
    pub all: BTreeMap<SessionId, Session>,
    next: SessionId,
}

impl Sessions {
    pub fn open(&mut self, machine: usize, manager: usize) -> SessionId {
        self.next += 1;
        let session = Session { machine, manager, up_broken: false, down_broken: false, up_last: 0, down_last: 0 };
        self.all.insert(self.next, session);
        self.next
    }

    /// When a message to the manager arrives, if it does.
    pub fn send_up(&mut self, id: SessionId, now: Nanos, network: &Network, chance: &mut Chance) -> Option<Nanos> {
        let session = self.all.get_mut(&id)?;
        let delay = network.carry(session.machine, session.manager, chance).filter(|_| !session.up_broken);
        session.up_broken = delay.is_none();
        session.up_last = (now + delay?).max(session.up_last + 1);
        Some(session.up_last)
    }

    /// When a message to the agent arrives, if it does.
    pub fn send_down(&mut self, id: SessionId, now: Nanos, network: &Network, chance: &mut Chance) -> Option<Nanos> {
        let session = self.all.get_mut(&id)?;
        let delay = network.carry(session.manager, session.machine, chance).filter(|_| !session.down_broken);
        session.down_broken = delay.is_none();
        session.down_last = (now + delay?).max(session.down_last + 1);
        Some(session.down_last)
    }

    /// Whether one of its directions has lost a message: the end that sent it will find out.
    pub fn is_broken(&self, id: SessionId) -> bool {
        self.all.get(&id).is_none_or(|session| session.up_broken || session.down_broken)
    }

    pub fn close(&mut self, id: SessionId) {
        self.all.remove(&id);
    }
}
