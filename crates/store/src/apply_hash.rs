//! Whether all managers come to the same state: each folds what it applies into a hash, and the leader compares.
//!
//! ```text
//!  every manager:  entry, what came of it, and the size of the state ─▶ hash of each 256 entries
//!  the leader:     its newest hash ─▶ everybody ─▶ who differs from most of them stops
//! ```
//! Replicas of one log differ only through a fault: in memory, on disk, or in this program. To go on would spread it.
//! A manager that did not apply all of a window, because it started or got a snapshot in its middle, does not know
//! that window's hash.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use skep_api::{ApplyHashReply, ApplyHashRequest};
use skep_model::{Cluster, Rejection};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::leadership::Leadership;
use crate::members::Members;
use crate::network::Outside;

/// Entries that are hashed together.
const WINDOW: u64 = 256;
/// How many windows are remembered: for managers that lag.
const KEPT: usize = 64;
/// The least time between two comparisons.
const PAUSE: Duration = Duration::from_secs(1);
/// How often and how long a manager that lags is asked again.
const TRIES: u32 = 5;
const RETRY: Duration = Duration::from_millis(200);
const ANSWER: Duration = Duration::from_secs(2);

/// The hashes of the last windows, by their last index.
#[derive(Debug)]
pub(crate) struct ApplyHashes {
    windows: Mutex<VecDeque<(u64, u64)>>,
}

/// The window that is being applied; the state machine's.
#[derive(Debug)]
pub(crate) struct Folding {
    hash: u32,
    /// The index that must come next, if all of the window was folded so far.
    next: Option<u64>,
    hashes: Arc<ApplyHashes>,
    newest: watch::Sender<Option<(u64, u64)>>,
}

/// What to read hashes from.
#[derive(Debug, Clone)]
pub(crate) struct Folded {
    pub(crate) hashes: Arc<ApplyHashes>,
    pub(crate) newest: watch::Receiver<Option<(u64, u64)>>,
}

impl ApplyHashes {
    /// The hash of the window that ends at `index`, if it is known.
    pub(crate) fn at(&self, index: u64) -> Option<u64> {
        self.windows().iter().find(|(end, _)| *end == index).map(|(_, hash)| *hash)
    }

    fn windows(&self) -> MutexGuard<'_, VecDeque<(u64, u64)>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Folding {
    pub(crate) fn new() -> (Folding, Folded) {
        let hashes = Arc::new(ApplyHashes { windows: Mutex::default() });
        let (newest, watch) = watch::channel(None);
        let folded = Folded { hashes: Arc::clone(&hashes), newest: watch };
        (Folding { hash: 0, next: None, hashes, newest }, folded)
    }

    /// Adds an applied entry: its proposal, what came of it, and the state after it.
    pub(crate) fn fold(&mut self, index: u64, proposal: &[u8], result: &Result<(), Rejection>, cluster: &Cluster) {
        if index.is_multiple_of(WINDOW) {
            (self.hash, self.next) = (0, Some(index));
        }
        if self.next != Some(index) {
            self.next = None;
            return;
        }
        let Cluster { version, nodes, services, tasks, networks, secrets, configs, stacks, .. } = cluster;
        let lengths =
            [nodes.len(), services.len(), tasks.len(), networks.len(), secrets.len(), configs.len(), stacks.len()];
        let mut hash = crc32c::crc32c_append(self.hash, &index.to_le_bytes());
        hash = crc32c::crc32c_append(hash, proposal);
        // Not why it was refused: the words may differ between neighbouring versions.
        hash = crc32c::crc32c_append(hash, &[u8::from(result.is_ok())]);
        hash = crc32c::crc32c_append(hash, &version.0.to_le_bytes());
        for length in lengths {
            hash = crc32c::crc32c_append(hash, &(length as u64).to_le_bytes());
        }
        (self.hash, self.next) = (hash, Some(index + 1));
        if (index + 1).is_multiple_of(WINDOW) {
            let window = (index, u64::from(hash));
            let mut windows = self.hashes.windows();
            windows.push_back(window);
            if windows.len() > KEPT {
                windows.pop_front();
            }
            drop(windows);
            self.newest.send_replace(Some(window));
        }
    }

    /// The state came from elsewhere.
    pub(crate) fn interrupt(&mut self) {
        self.next = None;
    }
}

/// Who must stop.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Nobody,
    Others(Vec<u64>),
    Leader,
}

/// The leader is wrong only if more managers agree on something else than agree with it.
fn judge(own: u64, others: &BTreeMap<u64, u64>) -> Verdict {
    let mut votes = BTreeMap::from([(own, 1)]);
    for hash in others.values() {
        *votes.entry(*hash).or_insert(0) += 1;
    }
    if votes.iter().any(|(hash, count)| *hash != own && *count > votes[&own]) {
        return Verdict::Leader;
    }
    let differ: Vec<u64> = others.iter().filter(|(_, hash)| **hash != own).map(|(raft_id, _)| *raft_id).collect();
    if differ.is_empty() { Verdict::Nobody } else { Verdict::Others(differ) }
}

/// Why a manager whose state differs stops.
pub(crate) fn words(index: u64) -> String {
    format!(
        "this manager's state differs from what most managers have, somewhere before entry {index}: memory, disk or skep \
         itself is at fault. Run `skep leave --force` on it, join it again, and report this with both managers' logs"
    )
}

/// Compares while this manager leads. Ends with the state machine.
pub(crate) async fn compare(
    outside: Arc<Outside>,
    mut newest: watch::Receiver<Option<(u64, u64)>>,
    members: watch::Receiver<Members>,
    leadership: watch::Receiver<Leadership>,
) {
    while newest.changed().await.is_ok() {
        let Some((index, own)) = *newest.borrow_and_update() else { continue };
        if !matches!(*leadership.borrow(), Leadership::Leader { .. }) {
            continue;
        }
        let others: Vec<u64> = members.borrow().addresses().into_keys().filter(|id| *id != outside.raft_id).collect();
        let asked = others.iter().map(|raft_id| ask(&outside, *raft_id, index, own));
        let answers: BTreeMap<u64, u64> =
            others.iter().copied().zip(join_all(asked).await).filter_map(|(id, hash)| Some((id, hash?))).collect();
        match judge(own, &answers) {
            Verdict::Nobody => {}
            Verdict::Leader => outside.stop(words(index)),
            Verdict::Others(differ) => {
                for raft_id in differ {
                    tracing::error!(
                        peer.id = raft_id,
                        index,
                        "a manager's state differs from the others'; it is stopped"
                    );
                    let told = question(&outside, raft_id, index, own, true);
                    if told.await.is_none() {
                        tracing::warn!(peer.id = raft_id, "it could not be told; it is asked again");
                    }
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// A manager's hash of a window, if it knows it or soon comes to.
async fn ask(outside: &Outside, raft_id: u64, index: u64, own: u64) -> Option<u64> {
    for _ in 0..TRIES {
        match question(outside, raft_id, index, own, false).await? {
            ApplyHashReply::Equal => return Some(own),
            ApplyHashReply::Differs(hash) => return Some(hash),
            ApplyHashReply::Unknown => sleep(RETRY).await,
        }
    }
    None
}

async fn question(outside: &Outside, raft_id: u64, index: u64, hash: u64, decided: bool) -> Option<ApplyHashReply> {
    let at = outside.address_of(raft_id)?;
    let request = ApplyHashRequest { link: outside.link(raft_id), index, hash, decided };
    timeout(ANSWER, outside.peers.apply_hash(&at, request)).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(folding: &mut Folding, indexes: std::ops::Range<u64>, text: &str) {
        for index in indexes {
            folding.fold(index, text.as_bytes(), &Ok(()), &Cluster::default());
        }
    }

    #[test]
    fn whole_windows_have_hashes_and_what_differs_shows() {
        let (mut one, one_known) = Folding::new();
        let (mut two, two_known) = Folding::new();
        apply(&mut one, 0..600, "same");
        apply(&mut two, 0..600, "same");
        assert_eq!(*one_known.newest.borrow(), one_known.hashes.at(511).map(|hash| (511, hash)));
        assert_eq!(one_known.hashes.at(511), two_known.hashes.at(511));
        assert_ne!(one_known.hashes.at(511), one_known.hashes.at(255), "the indexes count");
        apply(&mut one, 600..768, "same");
        apply(&mut two, 600..601, "other");
        apply(&mut two, 601..768, "same");
        assert_ne!(one_known.hashes.at(767), two_known.hashes.at(767));

        let (mut late, late_known) = Folding::new();
        apply(&mut late, 100..300, "same");
        late.interrupt();
        apply(&mut late, 400..768, "same");
        assert_eq!(late_known.hashes.at(255), None, "it lacks the beginning");
        assert_eq!(late_known.hashes.at(511), None, "a snapshot replaced its middle");
        assert_eq!(late_known.hashes.at(767), one_known.hashes.at(767));
    }

    #[test]
    fn minority_stops_and_the_leader_wins_a_tie() {
        let others = |hashes: &[u64]| (2..).zip(hashes.iter().copied()).collect();
        assert_eq!(judge(1, &others(&[1, 1])), Verdict::Nobody);
        assert_eq!(judge(1, &others(&[])), Verdict::Nobody);
        assert_eq!(judge(1, &others(&[7])), Verdict::Others(vec![2]));
        assert_eq!(judge(1, &others(&[1, 7])), Verdict::Others(vec![3]));
        assert_eq!(judge(1, &others(&[7, 7])), Verdict::Leader);
        assert_eq!(judge(1, &others(&[7, 8])), Verdict::Others(vec![2, 3]));
    }
}
