//! The store as managers use it, on the real disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use skep_model::{Change, Rejection};
use skep_store::{DataKey, InitializeError, Leadership, ProposeError, Store, StoreConfig, StoreError};
use tempfile::TempDir;

use crate::disks::FaultyDisk;
use crate::notes::{note, text_of};

fn config(dir: &Path) -> StoreConfig {
    let mut config = StoreConfig::new(dir, 1, "10.0.0.1:7377", DataKey::from_bytes([3; 32]));
    config.segment_bytes = 64 * 1024;
    config
}

async fn open(dir: &Path) -> Store {
    Store::open(config(dir)).await.expect("the store opens")
}

async fn started(dir: &Path) -> Store {
    let store = open(dir).await;
    store.initialize(vec![note(0, "first")]).await.expect("a fresh store can be initialized");
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_of_one_keeps_its_state_over_a_restart() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).await;
    assert!(!store.is_initialized());
    let first = store.initialize(vec![note(0, "first")]).await.unwrap();
    assert_eq!(text_of(&first.cluster, 0).as_deref(), Some("first"));
    assert!(store.is_initialized());
    let again = store.initialize(vec![note(1, "again")]).await;
    assert!(matches!(again, Err(InitializeError::AlreadyInitialized)), "{again:?}");

    let mut watch = store.watch();
    watch.mark_unchanged();
    let second = store.propose(vec![note(1, "second"), note(2, "third")]).await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(second.cluster.version.0, second.revision);
    watch.changed().await.unwrap();
    assert_eq!(text_of(&watch.borrow(), 2).as_deref(), Some("third"));
    assert_eq!(*store.leadership().borrow(), Leadership::Leader { term: store.metrics().term });
    store.shutdown().await;
    assert!(matches!(store.propose(vec![]).await, Err(ProposeError::Stopped { .. })));
    assert!(matches!(*store.leadership().borrow(), Leadership::Stopped { .. }));
    drop(store);

    let store = open(dir.path()).await;
    assert!(store.is_initialized());
    store.leadership().wait_for(|now| matches!(now, Leadership::Leader { .. })).await.unwrap();
    let cluster = store.linearizable().await.unwrap();
    assert_eq!(*cluster, *second.cluster);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proposal_is_applied_whole_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    let store = started(dir.path()).await;
    let before = store.cluster();
    let refused = store.propose(vec![note(1, "new"), note(0, "taken")]).await;
    assert!(matches!(refused, Err(ProposeError::Rejected(Rejection::AlreadyExists { .. }))), "{refused:?}");
    assert_eq!(*store.cluster(), *before);
    store.propose(vec![note(1, "new")]).await.unwrap();

    let huge = note(2, &"x".repeat(5 << 20));
    let refused = store.propose(vec![huge]).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_under_way_share_syncs() {
    let dir = TempDir::new().unwrap();
    let store = started(dir.path()).await;
    let syncs = store.metrics().wal.syncs;
    let writers = (1..=500).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.propose(vec![note(number, "at once")]).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap().unwrap();
    }
    let syncs = store.metrics().wal.syncs - syncs;
    assert!(syncs < 250, "{syncs} syncs for 500 proposals");
    assert!((1..=500).all(|number| text_of(&store.cluster(), number).is_some()));
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_replaces_the_log_and_restores_the_state() {
    let dir = TempDir::new().unwrap();
    let small = StoreConfig { snapshot_bytes_min: 256 * 1024, entries_kept: 8, ..config(dir.path()) };
    let store = Store::open(small.clone()).await.unwrap();
    store.initialize(vec![note(0, "first")]).await.unwrap();
    let mut number = 0;
    while store.metrics().purged_index.is_none_or(|purged| purged < 150) {
        number += 1;
        let mut changes = vec![note(number, &"text ".repeat(20))];
        if number % 3 == 0 {
            let gone = store.cluster().config_named(&format!("note-{}", number - 1)).unwrap().id;
            changes.push(Change::RemoveConfig { config: gone });
        }
        store.propose(changes).await.unwrap();
        assert!(number < 20_000, "no snapshot came: {:?}", store.metrics());
    }
    let metrics = store.metrics();
    assert!(metrics.snapshot_index > metrics.purged_index, "{metrics:?}");
    let before = store.linearizable().await.unwrap();
    store.shutdown().await;
    drop(store);

    let snapshots = files(&dir.path().join("snapshots"));
    assert!((1..=2).contains(&snapshots.len()), "{snapshots:?}");
    let store = Store::open(small.clone()).await.unwrap();
    assert_eq!(*store.linearizable().await.unwrap(), *before);
    store.propose(vec![note(number + 1, "after")]).await.unwrap();
    store.shutdown().await;
    drop(store);

    // The log no longer has what a damaged snapshot held.
    for snapshot in files(&dir.path().join("snapshots")) {
        let mut bytes = fs::read(&snapshot).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&snapshot, bytes).unwrap();
    }
    let error = Store::open(small).await.map(drop).expect_err("a damaged snapshot is no state");
    assert!(matches!(&error, StoreError::Snapshot(_)), "{error}");
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_snapshot_and_the_log_replace_a_damaged_one() {
    let dir = TempDir::new().unwrap();
    let store = started(dir.path()).await;
    for number in 1..=40 {
        store.propose(vec![note(number, "text")]).await.unwrap();
        if number % 20 == 0 {
            take_snapshot(&store).await;
        }
    }
    store.propose(vec![note(41, "text")]).await.unwrap();
    let before = store.cluster();
    store.shutdown().await;
    let newest = files(&dir.path().join("snapshots")).pop().unwrap();
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[..bytes.len() - 1]).unwrap();
    let store = open(dir.path()).await;
    assert_eq!(*store.linearizable().await.unwrap(), *before);
    store.shutdown().await;
}

async fn take_snapshot(store: &Store) {
    let last = store.metrics().snapshot_index;
    store.snapshot().await.unwrap();
    while store.metrics().snapshot_index == last {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_readable_on_disk() {
    let dir = TempDir::new().unwrap();
    let store = started(dir.path()).await;
    let secret = "correct-horse-battery-staple";
    store.propose(vec![note(77, secret)]).await.unwrap();
    take_snapshot(&store).await;
    store.shutdown().await;
    let all = [files(&dir.path().join("log")), files(&dir.path().join("snapshots"))].concat();
    assert!(all.len() >= 3, "{all:?}");
    for path in all {
        let bytes = fs::read(&path).unwrap();
        for word in [secret.as_bytes(), b"note-77"] {
            assert!(!bytes.windows(word.len()).any(|window| window == word), "readable in {}", path.display());
        }
    }
    let other = StoreConfig { key: DataKey::from_bytes([4; 32]), ..config(dir.path()) };
    drop(store);
    let error = Store::open(other).await.map(drop).expect_err("another key does not open it");
    assert!(error.to_string().contains("encrypted with key"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn second_daemon_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = started(dir.path()).await;
    let second = Store::open(config(dir.path())).await.map(drop);
    assert!(matches!(second, Err(StoreError::InUse { .. })), "{second:?}");
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_store_writes_nothing_and_a_failed_sync_stops_it() {
    let dir = TempDir::new().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let faulty = StoreConfig { disk: Arc::clone(&disk) as Arc<_>, ..config(dir.path()) };
    let store = Store::open(faulty).await.unwrap();
    store.initialize(vec![note(0, "first")]).await.unwrap();
    while store.metrics().wal.spares < 2 {
        store.propose(vec![]).await.unwrap();
    }
    let writes = disk.faults.writes.load(SeqCst);
    // Many heartbeats and election timeouts.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(disk.faults.writes.load(SeqCst), writes, "an idle store wrote");

    disk.faults.syncs_fail.store(true, SeqCst);
    let failed = store.propose(vec![note(1, "lost")]).await.map(drop);
    let Err(ProposeError::Stopped { reason }) = failed else { panic!("{failed:?}") };
    assert!(reason.contains("sync"), "{reason}");
    let mut leadership = store.leadership();
    let stopped = leadership.wait_for(|now| matches!(now, Leadership::Stopped { .. })).await.unwrap().clone();
    let Leadership::Stopped { reason } = stopped else { unreachable!() };
    assert!(reason.contains("cannot sync"), "{reason}");
    disk.faults.syncs_fail.store(false, SeqCst);
    store.shutdown().await;
    drop(store);

    let store = open(dir.path()).await;
    assert_eq!(text_of(&store.linearizable().await.unwrap(), 0).as_deref(), Some("first"));
    store.propose(vec![note(2, "after")]).await.unwrap();
    store.shutdown().await;
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
