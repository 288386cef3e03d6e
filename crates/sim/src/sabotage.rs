//! Deliberate faults of the code under test, one for each invariant, to show that the checks see them.
//!
//! Each is applied in the seam around a real function: its input or output is altered, never its source.
//! docs/simulation.md lists which check finds which.

use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Sabotage {
    /// Compare-and-set updates are applied whatever version they were made for.
    ApplySkipsVersionCheck,
    /// One replica leaves out a change now and then.
    ReplicaSkipsEntry,
    /// A snapshot loses a task.
    SnapshotForgetsTask,
    /// What a manager decides is written although another leads by now.
    DeposedLeaderWrites,
    /// A new leader decides before it knows all that earlier leaders wrote.
    LeaderSkipsBarrier,
    /// A new leader begins by moving a running task.
    LeaderReshuffles,
    /// Tasks that are to stop are not told.
    DropDesiredShutdown,
    /// Tasks are put on any node that is ready.
    IgnoreConstraints,
    /// All tasks are put on one node.
    Overcommit,
    /// A report of an earlier state is applied.
    TaskGoesBack,
    /// An assigned task is given to another node.
    TaskMoves,
    /// Each round finds something to write.
    RestlessReconcile,
    /// Nothing is ever removed.
    ReaperSleeps,
    /// Some pending tasks are never placed.
    SchedulerOverlooks,
    /// A node gets the secrets of others.
    AssignmentsLeak,
    /// Deltas leave out what is to be taken from a node.
    DeltaForgetsRemoval,
    /// A manager serves sessions from a replica that lags.
    SessionsFromStaleReplica,
    /// A manager loses reports of its agents.
    ReportsLost,
    /// A node that is back stays down.
    NodesStayDown,
    /// A leader counts silence from before its election.
    LeaderForgetsElection,
    /// A container runs on when its lease has run out.
    AgentOutlivesLease,
    /// A silent node's tasks are taken for over at once.
    FenceTooSoon,
    /// A manager that may be cut off grants leases.
    LeasesUnconfirmed,
    /// Containers of tasks that were taken from a node run on.
    AgentKeepsContainers,
}

impl Sabotage {
    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().expect("no variant is hidden").get_name().to_owned()
    }
}
