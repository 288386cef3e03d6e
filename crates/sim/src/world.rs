//! The simulated world: its clock, its queue of events, and everything that events happen to.
//!
//! ```text
//!  queue ─▶ event ─▶ a manager's or agent's step ─▶ real functions ─▶ checks ─▶ new events ─▶ queue
//! ```
//! Events of one moment happen in the order in which they were planned, so a seed has one history.

use std::collections::BTreeMap;
use std::time::Instant;

use skep_model::{NodeId, TaskId};

use crate::agent::Agent;
use crate::chance::Chance;
use crate::check::{Checker, Violation};
use crate::clock::{MILLI, Nanos, SECOND};
use crate::log::{Log, Term};
use crate::manager::{Manager, Purpose};
use crate::network::Network;
use crate::sabotage::Sabotage;
use crate::session::{SessionId, Sessions, ToAgent, ToManager};
use crate::trace::Trace;

#[derive(Debug)]
pub enum Event {
    /// The consensus looks whether its leader still leads.
    Watch,
    Commit {
        proposal: u64,
    },
    /// A forwarded proposal arrives at the leader of the sender's belief.
    Forwarded {
        proposal: u64,
        to: usize,
    },
    Answer {
        manager: usize,
        epoch: u64,
        purpose: Purpose,
        answer: Answer,
    },
    Replicate {
        manager: usize,
        upto: u64,
    },
    BelieveLeading {
        manager: usize,
        term: Term,
    },
    StepDown {
        manager: usize,
        term: Term,
    },
    ManagerTick {
        manager: usize,
    },
    Decide {
        manager: usize,
        epoch: u64,
    },
    Rested {
        manager: usize,
        epoch: u64,
    },
    Dispatch {
        manager: usize,
        epoch: u64,
    },
    /// A manager knows that its replica is as new as its leader's was.
    Confirmed {
        manager: usize,
        epoch: u64,
        session: SessionId,
        upto: u64,
    },
    Gather {
        manager: usize,
        epoch: u64,
    },
    /// A manager may grant leases.
    Granted {
        manager: usize,
        epoch: u64,
        session: SessionId,
        sent: Nanos,
        upto: u64,
    },
    /// A warden looks whether its container's lease has run out.
    LeaseEnds {
        machine: usize,
        power: u64,
        task: TaskId,
    },
    /// What a manager heard, told to the leader: node, age, leaving.
    Heard {
        to: usize,
        nodes: Vec<(NodeId, Nanos, bool)>,
    },
    ToManager {
        session: SessionId,
        message: ToManager,
    },
    ToAgent {
        session: SessionId,
        message: ToAgent,
    },
    AgentTick {
        machine: usize,
    },
    Driver {
        machine: usize,
        epoch: u64,
        task: TaskId,
        timer: u64,
    },
    ContainerEnds {
        machine: usize,
        power: u64,
        task: TaskId,
        code: i32,
    },
    Start {
        machine: usize,
    },
    User,
    Fault,
    Heal,
}

/// What a proposer learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Applied,
    Rejected,
    /// It may have been lost, and may still come.
    Unknown,
}

#[derive(Debug)]
pub struct World {
    pub now: Nanos,
    /// Stands for the beginning where real code wants an `Instant`; only differences count.
    pub origin: Instant,
    queue: BTreeMap<(Nanos, u64), Event>,
    planned: u64,
    pub chance: Chance,
    pub user_chance: Chance,
    pub sabotage: Option<Sabotage>,
    pub log: Log,
    pub managers: Vec<Manager>,
    pub agents: Vec<Agent>,
    pub network: Network,
    pub sessions: Sessions,
    pub checker: Checker,
    pub trace: Trace,
    /// Since when nothing goes wrong any more.
    pub healed: Option<Nanos>,
    pub leader_missing_since: Option<Nanos>,
    /// A manager that is to take over from a healthy leader.
    pub forced: Option<usize>,
    pub elected_at: Nanos,
    pub last_entry: Nanos,
    pub steps: u64,
    pub names: u64,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "an arbitrary beginning, of which only differences are taken")]
    pub fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let mut chance = Chance::new(seed, 1);
        let managers = [1, 3, 3, 3, 5][chance.below(5) as usize];
        let machines = (managers + chance.between(1, 4)) as usize;
        let mut world = Self {
            now: 0,
            origin: Instant::now(),
            queue: BTreeMap::new(),
            planned: 0,
            user_chance: Chance::new(seed, 2),
            sabotage,
            log: Log::new(),
            managers: (1..=managers).map(|raft_id| Manager::new(raft_id, chance.ids())).collect(),
            agents: Vec::new(),
            network: Network::default(),
            sessions: Sessions::default(),
            checker: Checker::default(),
            trace: Trace::default(),
            healed: None,
            leader_missing_since: None,
            forced: None,
            elected_at: 0,
            last_entry: 0,
            steps: 0,
            names: 0,
            chance,
        };
        world.found(machines);
        world
    }

    pub fn at(&mut self, when: Nanos, event: Event) {
        self.planned += 1;
        self.queue.insert((when.max(self.now), self.planned), event);
    }

    pub fn after(&mut self, delay: Nanos, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Takes the next event; false when the world has ended.
    pub fn step(&mut self) -> Result<bool, Violation> {
        let Some(((when, _), event)) = self.queue.pop_first() else { return Ok(false) };
        self.now = when;
        self.steps += 1;
        self.happen(event)?;
        Ok(true)
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Watch => self.watch_leader()?,
            Event::Commit { proposal } => self.commit(proposal)?,
            Event::Forwarded { proposal, to } => self.take_forwarded(proposal, to),
            Event::Answer { manager, epoch, purpose, answer } => {
                if self.is_run(manager, epoch) {
                    self.take_answer(manager, purpose, answer);
                }
            }
            Event::Replicate { manager, upto } => self.replicate(manager, upto)?,
            Event::BelieveLeading { manager, term } => self.believe_leading(manager, term),
            Event::StepDown { manager, term } => self.step_down(manager, term),
            Event::ManagerTick { manager } => {
                self.manager_tick(manager)?;
                let pause = 500 * MILLI + self.chance.below(20 * MILLI);
                self.after(pause, Event::ManagerTick { manager });
            }
            Event::Decide { manager, epoch } if self.is_run(manager, epoch) => self.decide(manager)?,
            Event::Rested { manager, epoch } if self.is_run(manager, epoch) => {
                self.managers[manager].leader_loop.waits = false;
                self.poke(manager);
            }
            Event::Dispatch { manager, epoch } if self.is_run(manager, epoch) => self.dispatch(manager)?,
            Event::Gather { manager, epoch } if self.is_run(manager, epoch) => self.write_reports(manager),
            Event::Confirmed { manager, epoch, session, upto } => {
                if self.is_run(manager, epoch) {
                    self.confirmed(manager, session, upto)?;
                }
            }
            Event::Granted { manager, epoch, session, sent, upto } => {
                if self.is_run(manager, epoch) {
                    self.granted(manager, session, sent, upto)?;
                }
            }
            Event::LeaseEnds { machine, power, task } => self.lease_ends(machine, power, task),
            Event::Decide { .. } | Event::Rested { .. } | Event::Dispatch { .. } | Event::Gather { .. } => {}
            Event::Heard { to, nodes } => self.take_heard(to, nodes),
            Event::ToManager { session, message } => self.at_manager(session, message)?,
            Event::ToAgent { session, message } => self.at_agent(session, message)?,
            Event::AgentTick { machine } => {
                self.agent_tick(machine);
                let pause = SECOND - self.chance.below(20 * MILLI);
                self.after(pause, Event::AgentTick { machine });
            }
            Event::Driver { machine, epoch, task, timer } => self.driver_timer(machine, epoch, task, timer)?,
            Event::ContainerEnds { machine, power, task, code } => self.container_ends(machine, power, task, code),
            Event::Start { machine } => self.start(machine),
            Event::User => self.user_acts(),
            Event::Fault => self.fault(),
            Event::Heal => self.heal(),
        }
        Ok(())
    }

    pub fn is_run(&self, manager: usize, epoch: u64) -> bool {
        self.managers[manager].up && self.managers[manager].epoch == epoch
    }

    pub fn say(&mut self, words: impl FnOnce() -> String) {
        self.trace.note(self.now, words);
    }

    /// Two-way to more than half of all managers, itself included.
    pub fn has_quorum(&self, manager: usize) -> bool {
        let reached = (0..self.managers.len())
            .filter(|other| self.managers[*other].up && self.network.reach_each_other(manager, *other))
            .count();
        self.managers[manager].up && reached * 2 > self.managers.len()
    }
}
