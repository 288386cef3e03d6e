//! A seeded, fully deterministic simulation of a cluster's decisions: the real orchestrator, scheduler,
//! allocator, admission and assignments, under simulated managers, agents, users and faults.
//!
//! ```text
//!  users ─┐                     ┌─▶ checks of every entry, decision and assignment
//!  agents ┼─▶ proposals ─▶ log ─┴─▶ replicas ─▶ leader::decide ─▶ proposals
//!  faults ┘                            └──────▶ assignments ─▶ agents
//! ```
//! A run has two parts: faults, then repair.
//! After the repair the cluster must come to rest in the state that its users asked for.
//! Raft's own protocol, disks and sockets are not simulated here: see docs/simulation.md.

mod agent;
mod chance;
mod check;
mod clock;
mod consensus;
mod daemon;
mod faults;
mod leading;
mod liveness;
mod log;
mod manager;
mod network;
mod sabotage;
mod serving;
mod session;
mod specs;
mod trace;
mod users;
mod words;
mod world;

pub use check::Violation;
pub use sabotage::Sabotage;

use clock::{MINUTE, SECOND};
use world::{Event, World};

/// After this time without an entry the cluster is at rest: longer than any back-off or stop that is waited for.
const QUIET: clock::Nanos = 3 * MINUTE;
/// How long it may take to come to rest.
const REST_MAX: clock::Nanos = 30 * MINUTE;
/// Changes that coming to rest may take, for each task and node that there could be.
const CHANGES_AT_REST_MAX: u64 = 4000;

/// What a seed's run amounted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub events: u64,
    pub entries: u64,
    pub terms: u64,
    pub simulated_seconds: u64,
    /// Of the last state: equal runs have equal ones.
    pub fingerprint: u64,
}

/// A seed whose run broke an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub seed: u64,
    pub violation: Violation,
    /// The last things that happened.
    pub trace: Vec<String>,
}

/// Whether to keep what happened, in words; it slows a run down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracing {
    On,
    Off,
}

/// Runs one seed to its end, or to the first broken invariant.
pub fn run(seed: u64, sabotage: Option<Sabotage>, tracing: Tracing) -> Result<Summary, Failure> {
    let mut world = World::new(seed, sabotage);
    world.trace.on = tracing == Tracing::On;
    match live(&mut world) {
        Ok(()) => Ok(summary(&world)),
        Err(violation) => Err(Failure { seed, violation, trace: world.trace.lines() }),
    }
}

/// As [`run`]; a failure is run again to tell what led to it.
pub fn run_and_explain(seed: u64, sabotage: Option<Sabotage>) -> Result<Summary, Failure> {
    run(seed, sabotage, Tracing::Off).or_else(|_| run(seed, sabotage, Tracing::On))
}

fn live(world: &mut World) -> Result<(), Violation> {
    let healed = world.chance.between(60 * SECOND, 240 * SECOND);
    world.at(healed, Event::Heal);
    while world.step()? {
        let Some(healed) = world.healed else { continue };
        let quiet = world.now.saturating_sub(world.last_entry.max(healed)) > QUIET;
        if quiet {
            return world.check_rest();
        }
        if world.now > healed + REST_MAX {
            let detail = format!("the cluster still writes {} minutes after its repair", REST_MAX / MINUTE);
            return Err(Violation { invariant: "comes-to-rest", detail });
        }
        if world.checker.changes_at_rest > CHANGES_AT_REST_MAX {
            let detail = format!("{} changes since the repair", world.checker.changes_at_rest);
            return Err(Violation { invariant: "bounded-work", detail });
        }
    }
    Ok(())
}

fn summary(world: &World) -> Summary {
    let bytes = skep_api::encode_cluster(world.log.state());
    let fingerprint = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    Summary {
        events: world.steps,
        entries: world.log.committed(),
        terms: world.log.term,
        simulated_seconds: world.now / SECOND,
        fingerprint,
    }
}
