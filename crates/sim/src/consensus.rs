//! Elections, commits and replication over the simulated network.

use std::sync::Arc;
use std::time::Duration;

use skep_api::{decode_cluster, encode_cluster};
use skep_model::{Change, NodeState};

use crate::check::Violation;
use crate::clock::{MILLI, MINUTE, SECOND};
use crate::liveness::SILENCE_MAX;
use crate::log::{self, Plan, Proposal, Term};
use crate::manager::Purpose;
use crate::sabotage::Sabotage;
use crate::world::{Answer, Event, World};

impl World {
    /// Proposes on behalf of a manager; the answer comes as an event.
    pub fn propose(&mut self, from: usize, plan: Plan, changes: Vec<Change>, purpose: Purpose) {
        let manager = &self.managers[from];
        let (epoch, leads) = (manager.epoch, manager.leads);
        let proposal =
            Proposal { from, epoch, plan, changes: Arc::new(changes), purpose: purpose.clone(), accepted: None };
        if let Some((term, _)) = leads {
            let id = self.log.hold(Proposal { accepted: Some((from, term)), ..proposal });
            let fsync = self.chance.delay(4 * MILLI, 400 * MILLI);
            self.after(fsync, Event::Commit { proposal: id });
            return;
        }
        let leader = self.log.leader.filter(|leader| self.managers[*leader].up);
        let delay = leader.and_then(|leader| self.network.carry(from, leader, &mut self.chance));
        match (leader, delay) {
            (Some(to), Some(delay)) => {
                let id = self.log.hold(proposal);
                self.after(delay, Event::Forwarded { proposal: id, to });
            }
            _ => self.answer_later(from, epoch, purpose, Answer::Unknown, SECOND),
        }
    }

    pub fn take_forwarded(&mut self, id: u64, to: usize) {
        let leads = self.managers[to].leads.filter(|_| self.managers[to].up);
        let Some(proposal) = self.log.in_flight.get_mut(&id) else { return };
        match leads {
            Some((term, _)) => {
                proposal.accepted = Some((to, term));
                let fsync = self.chance.delay(4 * MILLI, 400 * MILLI);
                self.after(fsync, Event::Commit { proposal: id });
            }
            None => {
                let Some(Proposal { from, epoch, purpose, .. }) = self.log.in_flight.remove(&id) else { return };
                self.answer_later(from, epoch, purpose, Answer::Unknown, SECOND);
            }
        }
    }

    fn answer_later(&mut self, manager: usize, epoch: u64, purpose: Purpose, answer: Answer, delay: u64) {
        self.after(delay, Event::Answer { manager, epoch, purpose, answer });
    }

    pub fn commit(&mut self, id: u64) -> Result<(), Violation> {
        let Some(proposal) = self.log.in_flight.get(&id) else { return Ok(()) };
        let Some((leader, term)) = proposal.accepted else { return Ok(()) };
        if term < self.log.term && self.sabotage != Some(Sabotage::DeposedLeaderWrites) {
            // What was to survive its term did so at the election.
            self.lose(id);
            return Ok(());
        }
        let waits = term == self.log.term && (self.log.leader != Some(leader) || !self.has_quorum(leader));
        if waits || !self.managers[leader].up {
            self.after(50 * MILLI, Event::Commit { proposal: id });
            return Ok(());
        }
        let Some(proposal) = self.log.in_flight.remove(&id) else { return Ok(()) };
        self.append(term, proposal, leader)
    }

    fn lose(&mut self, id: u64) {
        let Some(Proposal { from, epoch, purpose, .. }) = self.log.in_flight.remove(&id) else { return };
        let late = self.chance.below(2 * SECOND);
        self.answer_later(from, epoch, purpose, Answer::Unknown, late);
    }

    /// Appends, applies at the leader, answers the proposer, and sends it on to the others.
    fn append(&mut self, term: Term, proposal: Proposal, leader: usize) -> Result<(), Violation> {
        let Proposal { from, epoch, plan, changes, purpose, .. } = proposal;
        let index = self.log.append(term, plan, changes, self.sabotage);
        self.last_entry = self.now;
        let entry = &self.log.entries[index as usize - 1];
        let result = entry.result.clone();
        self.trace.note(self.now, || {
            let what: Vec<String> = entry.changes.iter().map(crate::words::change).collect();
            let refused = entry.result.as_ref().err().map(|why| format!(" REFUSED: {why}")).unwrap_or_default();
            format!("{index} term {term} by m{leader} for m{from} {purpose:?}{refused}: {}", what.join("; "))
        });
        self.checker.entry(&self.log, index, self.healed.is_some())?;
        self.check_patience(index)?;
        self.replicate(leader, index)?;
        let answer = if result.is_ok() { Answer::Applied } else { Answer::Rejected };
        match self.network.carry(leader, from, &mut self.chance) {
            Some(delay) => self.answer_later(from, epoch, purpose, answer, delay),
            None => self.answer_later(from, epoch, purpose, Answer::Unknown, 2 * SECOND),
        }
        for manager in (0..self.managers.len()).filter(|manager| *manager != leader) {
            if let Some(delay) = self.network.carry(leader, manager, &mut self.chance) {
                self.after(delay, Event::Replicate { manager, upto: index });
            }
        }
        Ok(())
    }

    /// Nodes are given up for silence towards this leader, not for what it did not hear before it led; and
    /// where nothing is broken, none is.
    fn check_patience(&self, index: u64) -> Result<(), Violation> {
        let entry = &self.log.entries[index as usize - 1];
        let gives_up = |change: &Change| match change {
            Change::ReportNode { status, .. } => status.state == NodeState::Down,
            _ => false,
        };
        if !entry.changes.iter().any(gives_up) {
            return Ok(());
        }
        if self.now - self.elected_at < SILENCE_MAX {
            let detail =
                format!("entry {index} gives a node up {} ms after an election", (self.now - self.elected_at) / MILLI);
            return Err(Violation::new("patience-after-election", detail));
        }
        if self.healed.is_some_and(|healed| self.now > healed + MINUTE) {
            return Err(Violation::new("healthy-nodes-stay", format!("entry {index} gives a healthy node up")));
        }
        Ok(())
    }

    /// A manager applies what it has of the log, up to an index.
    pub fn replicate(&mut self, m: usize, upto: u64) -> Result<(), Violation> {
        if !self.managers[m].up || self.managers[m].applied >= upto {
            return Ok(());
        }
        while self.managers[m].applied < upto {
            let entry = &self.log.entries[self.managers[m].applied as usize];
            let manager = &mut self.managers[m];
            let mut changes = Arc::clone(&entry.changes);
            if self.sabotage == Some(Sabotage::ReplicaSkipsEntry) && entry.index.is_multiple_of(40) && m == 0 {
                changes = Arc::default();
            }
            let (cluster, _) = log::apply(&manager.cluster, &changes, entry.index, self.sabotage);
            (manager.cluster, manager.applied) = (cluster, entry.index);
            let clock = Duration::from_nanos(self.now - manager.began);
            manager.fence.observe(&manager.cluster, clock);
        }
        self.checker.replica(&self.log, m, &self.managers[m])?;
        self.poke(m);
        self.dispatch_soon(m);
        Ok(())
    }

    /// Looks for a leader that is down or cut off, and elects another.
    pub fn watch_leader(&mut self) -> Result<(), Violation> {
        self.after(100 * MILLI, Event::Watch);
        if let Some(next) = self.forced.take().filter(|next| self.has_quorum(*next)) {
            return self.elect(next);
        }
        let healthy = self.log.leader.is_some_and(|leader| self.has_quorum(leader));
        if healthy {
            self.leader_missing_since = None;
            return Ok(());
        }
        let since = *self.leader_missing_since.get_or_insert(self.now);
        if self.now - since < 300 * MILLI + self.chance.below(400 * MILLI) {
            return Ok(());
        }
        let able: Vec<usize> = (0..self.managers.len()).filter(|m| self.has_quorum(*m)).collect();
        match self.chance.pick(&able).copied() {
            Some(leader) => self.elect(leader),
            None => Ok(()),
        }
    }

    /// Begins a term: what older leaders left behind comes now or never.
    pub fn elect(&mut self, leader: usize) -> Result<(), Violation> {
        let old = self.log.leader.filter(|old| *old != leader || !self.managers[*old].up);
        if let Some((old, term)) = old.and_then(|old| Some((old, self.managers[old].leads?.0))) {
            let late = self.chance.below(2 * SECOND);
            self.after(late, Event::StepDown { manager: old, term });
        }
        let left: Vec<u64> =
            self.log.in_flight.iter().filter(|(_, p)| p.accepted.is_some()).map(|(id, _)| *id).collect();
        for id in left {
            if self.sabotage == Some(Sabotage::DeposedLeaderWrites) {
                continue;
            }
            let accepted = self.log.in_flight.get(&id).and_then(|proposal| proposal.accepted);
            let survives = self.chance.one_in(3) && accepted.is_some_and(|(_, term)| term == self.log.term);
            if !survives {
                self.lose(id);
                continue;
            }
            let Some(proposal) = self.log.in_flight.remove(&id) else { continue };
            // Its old leader cannot tell: it no longer leads.
            let (term, late) = (self.log.term, self.chance.below(2 * SECOND));
            self.answer_later(proposal.from, proposal.epoch, proposal.purpose.clone(), Answer::Unknown, late);
            self.append(term, Proposal { epoch: u64::MAX, ..proposal }, leader)?;
        }
        self.log.term += 1;
        self.log.leader = Some(leader);
        self.elected_at = self.now;
        self.leader_missing_since = None;
        let term = self.log.term;
        self.say(|| format!("m{leader} is elected in term {term}"));
        let first = Proposal {
            from: leader,
            epoch: u64::MAX,
            plan: Plan::Any,
            changes: Arc::default(),
            purpose: Purpose::User("term"),
            accepted: None,
        };
        let lag = self.chance.delay(5 * MILLI, 500 * MILLI);
        let index = self.log.append(term, first.plan, first.changes, None);
        self.log.barrier = index;
        self.checker.entry(&self.log, index, self.healed.is_some())?;
        self.after(lag, Event::Replicate { manager: leader, upto: index });
        self.after(lag / 2, Event::BelieveLeading { manager: leader, term });
        Ok(())
    }

    pub fn believe_leading(&mut self, m: usize, term: Term) {
        if self.managers[m].up && self.log.term == term {
            self.managers[m].leads = Some((term, self.now));
            self.poke(m);
        }
    }

    /// A leader finds out that it leads no more: what it still waited for is unknown to it.
    pub fn step_down(&mut self, m: usize, term: Term) {
        if self.managers[m].leads.is_none_or(|(led, _)| led != term) {
            return;
        }
        self.say(|| format!("m{m} steps down from term {term}"));
        self.managers[m].leads = None;
    }

    /// A restarted manager begins from a snapshot and reads its log again.
    pub fn restore(&mut self, m: usize) {
        let index = self.chance.between(self.managers[m].applied.saturating_sub(50), self.managers[m].applied);
        let bytes = encode_cluster(self.log.state_at(index));
        let mut cluster = decode_cluster(&bytes).expect("this build reads what it wrote");
        if self.sabotage == Some(Sabotage::SnapshotForgetsTask)
            && let Some(task) = cluster.tasks.keys().next().copied()
        {
            cluster.tasks.remove(&task);
        }
        // A snapshot knows its place in the log by itself: an entry that changed nothing moves no version.
        self.managers[m].cluster = Arc::new(cluster);
        self.managers[m].applied = index;
        self.managers[m].began = self.now;
    }
}
