//! Whether a majority of managers answers, and if not, who is missing: in words for whoever wanted to write.

use std::fmt;
use std::time::{Duration, SystemTime};

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use crate::leadership::Leadership;
use crate::store::Store;

/// Fewer managers answer than a majority: nothing can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumLost {
    /// When the majority was lost.
    pub since: SystemTime,
    /// How many managers vote.
    pub voters: usize,
    /// Those that do not answer, the longest missing first.
    pub missing: Vec<MissingManager>,
}

/// A manager that does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingManager {
    pub raft_id: u64,
    /// Where it was: `host:port`.
    pub address: String,
    pub since: SystemTime,
}

impl QuorumLost {
    /// How long ago the majority was lost.
    pub fn age(&self) -> Duration {
        self.since.elapsed().unwrap_or_default()
    }
}

impl fmt::Display for QuorumLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QuorumLost { voters, missing, since: _ } = self;
        write!(f, "the cluster has no quorum: {} of {voters} managers do not answer (", missing.len())?;
        for (number, MissingManager { raft_id, address, since }) in missing.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            let age = since.elapsed().unwrap_or_default();
            write!(f, "{comma}manager {raft_id} at {address} for {}", Age(age))?;
        }
        let needed = (voters / 2 + 1).saturating_sub(voters - missing.len());
        write!(
            f,
            "); start {needed} of them again, or, if they are gone for good, run `skep cluster recover` on a manager that is left"
        )
    }
}

struct Age(Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ 0..120 => write!(f, "{seconds} s"),
            seconds @ 120..7200 => write!(f, "{} min", seconds / 60),
            seconds @ 7200..172_800 => write!(f, "{} h", seconds / 3600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

impl Store {
    /// Who is missing, if so many managers do not answer this one that nothing can be written. `None` while a leader
    /// is known, and while one is being elected.
    pub fn quorum(&self) -> Option<QuorumLost> {
        if matches!(*self.inner.leadership.borrow(), Leadership::Follower { leader: Some(_) }) {
            return None;
        }
        let server = self.inner.raft.server_metrics();
        let membership = server.borrow_watched().membership_config.clone();
        let (contacts, now) = (&self.inner.outside.contacts, Instant::now());
        let missing_since = |raft_id: u64| match raft_id {
            own if own == self.inner.raft_id => None,
            other => contacts.missing_since(other, now),
        };
        // Every configuration needs its own majority while the members change.
        let lost = membership.membership().get_joint_config().iter().filter_map(|voters| {
            let mut missing: Vec<Instant> = voters.iter().filter_map(|id| missing_since(*id)).collect();
            missing.sort_unstable();
            let spare = voters.len() - (voters.len() / 2 + 1).min(voters.len());
            missing.get(spare).copied()
        });
        let since = lost.min()?;
        let mut missing: Vec<_> =
            membership.membership().voter_ids().filter_map(|id| Some((missing_since(id)?, id))).collect();
        missing.sort_unstable();
        let missing = missing.into_iter().map(|(since, raft_id)| MissingManager {
            raft_id,
            address: membership.membership().get_node(&raft_id).map(|node| node.address.clone()).unwrap_or_default(),
            since: on_the_clock(since),
        });
        Some(QuorumLost {
            since: on_the_clock(since),
            voters: membership.membership().voter_ids().count(),
            missing: missing.collect(),
        })
    }
}

fn on_the_clock(at: Instant) -> SystemTime {
    SystemTime::now().checked_sub(at.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_who_since_when_and_what_to_do() {
        let ago = |seconds| SystemTime::now() - Duration::from_secs(seconds);
        let missing = |raft_id, seconds| MissingManager {
            raft_id,
            address: format!("10.0.0.{raft_id}:7377"),
            since: ago(seconds),
        };
        let lost = QuorumLost { since: ago(12), voters: 3, missing: vec![missing(2, 200), missing(3, 12)] };
        assert_eq!(
            lost.to_string(),
            "the cluster has no quorum: 2 of 3 managers do not answer (manager 2 at 10.0.0.2:7377 for 3 min, \
             manager 3 at 10.0.0.3:7377 for 12 s); start 1 of them again, or, if they are gone for good, run \
             `skep cluster recover` on a manager that is left"
        );
    }
}
