//! A cluster that begins again from a state: what a manager's files hold, and files that begin with a given cluster.
//!
//! ```text
//!  recover:  own log and snapshots ─▶ read_local ─▶ (the caller takes the lost managers out) ─▶ create_from
//!  restore:  a backup ────────────────────────────▶ (the caller puts this node in) ───────────▶ create_from
//! ```
//! The new files always belong to a new Raft id and a new folder. So a lost manager that returns after all speaks to a
//! member that no longer exists, and the old folder stays as it was until somebody removes it.

use std::fs;
use std::io;
use std::sync::{Arc, mpsc};

use openraft::Membership;
use skep_api::{decode_cluster, encode_cluster};
use skep_model::Cluster;

use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::log_store::LogStore;
use crate::raft::{Member, SnapshotMeta, StoredMembership, entry_of, log_id_of, pos_of};
use crate::snapshot::Snapshots;
use crate::state_machine::apply_proposal;
use crate::store::{lock, wal_options};
use crate::wal::{Ballot, LogPos, Record, WalHalted};

/// What a manager knows by itself, without asking the others.
#[derive(Debug, Clone)]
pub struct LocalState {
    /// The state with every entry of the log in it.
    pub cluster: Cluster,
    /// Where in Raft's log that is.
    pub place: Place,
    /// Entries of it that this manager has not seen confirmed: some may never have been, and nobody was told of them;
    /// others were confirmed by the lost managers, so to leave them out could lose what was acknowledged.
    pub unconfirmed: u64,
}

/// A place in Raft's log to begin at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The last index that counts as written.
    pub index: u64,
    /// The term that is begun.
    pub term: u64,
}

/// Reads a manager's own log and snapshots to their end, confirmed or not. Blocking; no store may have them open.
///
/// The place it returns is behind everything that these files ever voted for or wrote.
pub fn read_local(config: &StoreConfig) -> Result<LocalState, StoreError> {
    let lock = lock(&config.dir)?;
    let (log, found) = LogStore::open(wal_options(config, Some(Arc::new(lock))))?;
    let read = replay(config, &log, found.purged);
    log.wal().close();
    read
}

fn replay(config: &StoreConfig, log: &LogStore, purged: Option<u64>) -> Result<LocalState, StoreError> {
    let (_, loaded) = Snapshots::open(&config.dir.join("snapshots"), &config.key, purged)?;
    let unreadable = |error: skep_api::DecodeError| StoreError::State(io::Error::other(error));
    let (mut cluster, applied) = match loaded {
        Some(loaded) => (decode_cluster(&loaded.data).map_err(unreadable)?, loaded.meta.last_log_id),
        None => (Cluster::default(), None),
    };
    let checkpoint = log.checkpoint();
    let entries = log.read_to_end(applied.map_or(0, |applied| applied.index + 1)).map_err(StoreError::State)?;
    let mut last = applied.as_ref().map(pos_of);
    for record in &entries {
        let entry = entry_of(record).map_err(StoreError::State)?;
        if let openraft::EntryPayload::Normal(proposal) = &entry.payload {
            // What was refused when its turn came is refused again: that is no failure.
            let _refused = apply_proposal(&mut cluster, proposal, entry.log_id.index).map_err(StoreError::State)?;
        }
        last = Some(record.pos);
    }
    let last = last.or(checkpoint.last);
    let index = last.map_or(0, |last| last.index).max(cluster.version.0);
    let term = checkpoint.vote.map_or(0, |vote| vote.term).max(last.map_or(0, |last| last.term)) + 1;
    let confirmed = checkpoint.committed.max(applied.as_ref().map(pos_of)).map_or(0, |committed| committed.index);
    let unconfirmed = entries.iter().filter(|entry| entry.pos.index > confirmed).count() as u64;
    Ok(LocalState { cluster, place: Place { index, term }, unconfirmed })
}

/// Writes a store that begins as a cluster of this one manager, with `cluster` as its state at `place`. Blocking.
///
/// The folder must hold no store. A store that is opened there leads at once.
pub fn create_from(config: &StoreConfig, cluster: &Cluster, place: Place) -> Result<(), StoreError> {
    let members = [(config.raft_id, Member { address: config.address.clone() })];
    write_store(config, cluster, place, members.into(), [config.raft_id].into())
}

fn write_store(
    config: &StoreConfig,
    cluster: &Cluster,
    place: Place,
    members: std::collections::BTreeMap<u64, Member>,
    voters: std::collections::BTreeSet<u64>,
) -> Result<(), StoreError> {
    let lock = lock(&config.dir)?;
    for folder in ["log", "snapshots"] {
        let path = config.dir.join(folder);
        if fs::exists(&path).map_err(|source| StoreError::Folder { path: path.clone(), source })? {
            return Err(StoreError::NotEmpty { path: config.dir.clone() });
        }
    }
    let pos = LogPos { term: place.term, node: config.raft_id, index: place.index };
    let membership = Membership::new(vec![voters], members).map_err(|error| StoreError::Raft(error.to_string()))?;
    let meta = SnapshotMeta {
        last_log_id: Some(log_id_of(&pos)),
        last_membership: StoredMembership::new(Some(log_id_of(&pos)), membership),
    };
    let (snapshots, _) = Snapshots::open(&config.dir.join("snapshots"), &config.key, None)?;
    snapshots.write(&meta, &encode_cluster(cluster))?;
    let (log, _) = LogStore::open(wal_options(config, Some(Arc::new(lock))))?;
    let vote = Ballot { term: place.term, node: config.raft_id, committed: true };
    let written = append(&log, vec![Record::Vote(vote), Record::Purge(pos), Record::Committed(pos)]);
    log.wal().close();
    Ok(written.map_err(crate::wal::WalError::from)?)
}

fn append(log: &LogStore, records: Vec<Record>) -> Result<(), WalHalted> {
    let (done, durable) = mpsc::channel();
    // The receiver waits below.
    log.wal().append(records, Box::new(move |result| drop(done.send(result))));
    durable.recv().unwrap_or_else(|_| Err(WalHalted { cause: "its writer ended".into() }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use skep_model::{Change, Config, ContentDigest, Contents, Id, Labels, Meta, Timestamp};
    use tempfile::TempDir;

    use super::*;
    use crate::{DataKey, Leadership, Store};

    fn config(dir: &Path, raft_id: u64) -> StoreConfig {
        let mut config = StoreConfig::new(dir, raft_id, "10.0.0.1:7377", DataKey::from_bytes([3; 32]));
        config.segment_bytes = 64 * 1024;
        config
    }

    fn note(number: u64) -> Change {
        let at = Timestamp(number);
        let config = Config {
            id: Id::from_u128(u128::from(number)),
            meta: Meta::new(at),
            name: format!("note-{number}"),
            labels: Labels::new(),
            contents: Contents::new(ContentDigest(format!("{number:064x}")), Arc::from(&b"text"[..]), at),
        };
        Change::CreateConfig { config: Box::new(config) }
    }

    /// What a manager of three holds that the two others left behind.
    fn one_of_three(dir: &Path, entries: u64) {
        let member = |id: u64| (id, Member { address: format!("10.0.0.{id}:7377") });
        let place = Place { index: 7, term: 3 };
        let mut cluster = Cluster::default();
        cluster.apply(&note(0), 7).unwrap();
        let members = [member(1), member(2), member(3)].into();
        write_store(&config(dir, 1), &cluster, place, members, [1, 2, 3].into()).unwrap();
        let lock = lock(dir).unwrap();
        let (log, _) = LogStore::open(wal_options(&config(dir, 1), Some(Arc::new(lock)))).unwrap();
        for index in 8..8 + entries {
            let payload = skep_api::encode_changes(&[note(index)]).into();
            let pos = LogPos { term: 4, node: 2, index };
            let entry = crate::wal::EntryRecord { pos, kind: crate::wal::PayloadKind::Normal, payload };
            append(&log, vec![Record::Entry(entry)]).unwrap();
        }
        append(&log, vec![Record::Vote(Ballot { term: 9, node: 3, committed: false })]).unwrap();
        log.wal().close();
    }

    async fn leads(store: &Store) {
        store.leadership().wait_for(|now| matches!(now, Leadership::Leader { .. })).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_manager_without_its_majority_begins_again_alone_with_all_that_it_wrote() {
        let (old, new) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        one_of_three(old.path(), 5);
        let local = read_local(&config(old.path(), 1)).unwrap();
        assert_eq!((local.place, local.unconfirmed), (Place { index: 12, term: 10 }, 5));
        assert_eq!(local.cluster.configs.len(), 6);

        create_from(&config(new.path(), 4), &local.cluster, local.place).unwrap();
        let store = Store::open(config(new.path(), 4)).await.unwrap();
        assert!(store.is_initialized());
        leads(&store).await;
        assert_eq!(*store.linearizable().await.unwrap(), local.cluster);
        assert!(store.metrics().term >= local.place.term);
        let written = store.propose(vec![note(100)]).await.unwrap();
        assert!(written.revision > local.place.index);
        store.shutdown().await;
        drop(store);
        let store = Store::open(config(new.path(), 4)).await.unwrap();
        leads(&store).await;
        assert_eq!(store.linearizable().await.unwrap().configs.len(), 7);
        store.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_running_clusters_files_are_read_to_their_end_and_not_over_another_store() {
        let (old, new) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let store = Store::open(config(old.path(), 1)).await.unwrap();
        store.initialize(vec![note(0)]).await.unwrap();
        let in_use = read_local(&config(old.path(), 1)).unwrap_err();
        assert!(matches!(in_use, StoreError::InUse { .. }), "{in_use}");
        for number in 1..=50 {
            store.propose(vec![note(number)]).await.unwrap();
        }
        // Refused at its turn: it must be refused again.
        store.propose(vec![note(51), note(3)]).await.unwrap_err();
        let before = store.cluster();
        store.shutdown().await;
        drop(store);
        let local = read_local(&config(old.path(), 1)).unwrap();
        assert_eq!(local.cluster, *before);

        let over = create_from(&config(old.path(), 1), &local.cluster, local.place).unwrap_err();
        assert!(matches!(over, StoreError::NotEmpty { .. }), "{over}");
        create_from(&config(new.path(), 2), &local.cluster, local.place).unwrap();
        let store = Store::open(config(new.path(), 2)).await.unwrap();
        leads(&store).await;
        assert_eq!(*store.linearizable().await.unwrap(), *before);
        store.shutdown().await;
    }
}
