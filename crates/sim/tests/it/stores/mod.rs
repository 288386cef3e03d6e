//! Real stores of three managers under random faults of network, disk and power: what was acknowledged stays.
//!
//! The faults follow from a seed, the interleaving does not: openraft draws its own election times, and each log has a
//! thread of its own. So a failing seed is a strong hint and not a replay.
//! Nothing here depends on how fast anything goes but the deadline for what must come in the end.

mod disk;
mod net;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use disk::SimDisk;
use net::{Net, Way};
use skep_api::encode_cluster;
use skep_model::{
    CertificateRecord, Change, Cluster, ClusterConfig, ClusterId, ClusterSpec, Config, ContentDigest, Contents,
    IdSource, JoinTokenHashes, Labels, ManagerStatus, Meta, Node, NodeId, NodeSpec, NodeStatus, Role, Timestamp,
    TrustHistory, Version,
};
use skep_store::{DataKey, Leadership, ProposeError, Store, StoreConfig};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const MANAGERS: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(120);
const ROUNDS: u64 = 14;

struct World {
    dir: TempDir,
    net: Arc<Net>,
    disks: BTreeMap<u64, Arc<SimDisk>>,
    stores: Arc<Mutex<BTreeMap<u64, Store>>>,
    seen: Arc<Seen>,
    watchers: JoinSet<()>,
    chance: IdSource,
}

/// What was observed of all managers, to be compared.
#[derive(Default)]
struct Seen {
    leaders: Mutex<BTreeMap<u64, u64>>,
    states: Mutex<BTreeMap<Version, Vec<u8>>>,
    /// Clients are to end. They are never cut short: a call that is dropped while Raft ends makes openraft panic.
    over: AtomicBool,
    acknowledged: Mutex<BTreeSet<String>>,
    proposed: Mutex<BTreeSet<String>>,
}

fn node(raft_id: u64) -> Change {
    let node = Node {
        id: NodeId::from_u128(u128::from(raft_id)),
        meta: Meta::new(Timestamp(1)),
        spec: NodeSpec { role: Role::Manager, ..NodeSpec::default() },
        description: None,
        status: NodeStatus::default(),
        manager: Some(ManagerStatus { raft_id, address: format!("m{raft_id}:1") }),
        certificate: CertificateRecord::default(),
        tunnel: None,
    };
    Change::CreateNode { node: Box::new(node) }
}

fn note(name: &str) -> Change {
    let id = IdSource::from_seed(name.bytes().fold(7, |seed: u128, byte| seed.wrapping_mul(257) + u128::from(byte)));
    let contents = Contents::new(ContentDigest(name.to_owned()), name.as_bytes().into(), Timestamp(1));
    let (meta, labels) = (Meta::new(Timestamp(1)), Labels::new());
    let config = Config { id: id.clone().next_id(), meta, name: name.to_owned(), labels, contents };
    Change::CreateConfig { config: Box::new(config) }
}

fn names(cluster: &Cluster) -> BTreeSet<String> {
    cluster.configs.values().map(|config| config.name.clone()).collect()
}

impl World {
    async fn start(seed: u64) -> World {
        let mut world = World {
            dir: TempDir::new().unwrap(),
            net: Net::new(seed),
            disks: BTreeMap::new(),
            stores: Arc::default(),
            seen: Arc::default(),
            watchers: JoinSet::new(),
            chance: IdSource::from_seed(u128::from(seed) + 1),
        };
        for raft_id in 1..=MANAGERS {
            world.disks.insert(raft_id, Arc::default());
            world.open(raft_id).await;
        }
        let config = ClusterConfig {
            id: ClusterId::from_u128(1),
            meta: Meta::new(Timestamp(1)),
            spec: ClusterSpec::default(),
            ca_certificate: String::new(),
            ca_key: String::new(),
            join_tokens: JoinTokenHashes::default(),
            next_raft_id: 1,
            unlock_key: None,
            level: 0,
            trust: TrustHistory::default(),
        };
        let first = world.store(1);
        let config = Change::SetClusterConfig { config: Box::new(config), expected: None };
        first.initialize([config].into_iter().chain((1..=MANAGERS).map(node)).collect()).await.unwrap();
        for raft_id in 2..=MANAGERS {
            first.add_learner(raft_id, format!("m{raft_id}:1")).await.unwrap();
        }
        first.set_voters((1..=MANAGERS).collect()).await.unwrap();
        world
    }

    fn store(&self, raft_id: u64) -> Store {
        self.stores.lock().unwrap()[&raft_id].clone()
    }

    async fn open(&mut self, raft_id: u64) {
        let dir = self.dir.path().join(raft_id.to_string());
        let mut config =
            StoreConfig::new(dir, raft_id, format!("m{raft_id}:1"), DataKey::from_bytes([raft_id as u8; 32]));
        config.segment_bytes = 64 * 1024;
        config.snapshot_bytes_min = 256 * 1024;
        config.entries_kept = 16;
        config.peers = Arc::new(Way { from: raft_id, net: Arc::clone(&self.net) });
        config.disk = Arc::clone(&self.disks[&raft_id]) as Arc<dyn skep_store::wal::Disk>;
        let store = Store::open(config).await.unwrap_or_else(|error| panic!("manager {raft_id}: {error}"));
        self.net.serve(raft_id, store.peer_service());
        self.net.heal(raft_id);
        self.watchers.spawn(watch(store.clone(), Arc::clone(&self.seen)));
        self.stores.lock().unwrap().insert(raft_id, store);
    }

    /// Cuts a manager's power, and gives it back: what was not synced is partly gone.
    async fn power_cut(&mut self, raft_id: u64) {
        let left = self.disks[&raft_id].cut_power(&mut self.chance);
        self.net.unplug(raft_id);
        let store = self.stores.lock().unwrap().remove(&raft_id).unwrap();
        store.shutdown().await;
        drop(store);
        self.disks.insert(raft_id, Arc::new(left));
        sleep(Duration::from_millis(self.chance.below(500))).await;
        self.open(raft_id).await;
    }

    async fn fault(&mut self) {
        let raft_id = 1 + self.chance.below(MANAGERS);
        let faults = Arc::clone(&self.disks[&raft_id].faults);
        let fault = self.chance.below(8);
        let terms = self.seen.leaders.lock().unwrap().clone();
        println!("fault {fault} at manager {raft_id}; leaders of the terms: {terms:?}");
        match fault {
            0..=2 => self.power_cut(raft_id).await,
            3 => {
                // A failed sync is the end of a manager until it is started again.
                faults.syncs_fail.store(true, SeqCst);
                sleep(Duration::from_millis(300)).await;
                self.power_cut(raft_id).await;
            }
            4 => {
                faults.full.store(true, SeqCst);
                sleep(Duration::from_millis(700)).await;
                self.power_cut(raft_id).await;
            }
            5 => faults.sync_ms.store(self.chance.below(40), SeqCst),
            6 => {
                let (out, into) = [(true, true), (true, false), (false, true)][self.chance.below(3) as usize];
                self.net.cut(raft_id, out, into);
                sleep(Duration::from_millis(500 + self.chance.below(1500))).await;
                self.net.heal(raft_id);
            }
            _ => {
                // It may not lead, or stop before it is done.
                let _ = self.store(raft_id).hand_over(None).await;
                let _ = self.store(raft_id).snapshot().await;
            }
        }
    }
}

/// One leader a term, and equal states at equal versions.
async fn watch(store: Store, seen: Arc<Seen>) {
    let (mut leadership, mut cluster) = (store.leadership(), store.watch());
    let raft_id = store.raft_id();
    drop(store);
    loop {
        let now = leadership.borrow_and_update().clone();
        if let Leadership::Leader { term } = now {
            let leader = *seen.leaders.lock().unwrap().entry(term).or_insert(raft_id);
            assert_eq!(leader, raft_id, "two leaders of term {term}");
        }
        let state = Arc::clone(&cluster.borrow_and_update());
        let bytes = encode_cluster(&state);
        let known = seen.states.lock().unwrap().entry(state.version).or_insert_with(|| bytes.clone()).clone();
        if known != bytes {
            let other = skep_api::decode_cluster(&known).unwrap();
            let (here, there) = (names(&state), names(&other));
            let (more, less): (Vec<_>, Vec<_>) = (here.difference(&there).collect(), there.difference(&here).collect());
            panic!("manager {raft_id} differs at {:?}: it has {more:?} and lacks {less:?}", state.version);
        }
        let changed = tokio::select! {
            changed = leadership.changed() => changed,
            changed = cluster.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Writes notes of its own through any manager, and reads: a read has all that was acknowledged before it began.
async fn client(number: u64, stores: Arc<Mutex<BTreeMap<u64, Store>>>, seen: Arc<Seen>) {
    for count in 0u64.. {
        if seen.over.load(SeqCst) {
            return;
        }
        let via = 1 + (number + count) % MANAGERS;
        let Some(store) = stores.lock().unwrap().get(&via).cloned() else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        if count % 4 == 3 {
            let before = seen.acknowledged.lock().unwrap().clone();
            if let Ok(cluster) = store.linearizable().await {
                let has = names(&cluster);
                let missing: Vec<_> = before.difference(&has).collect();
                assert!(missing.is_empty(), "a read at manager {via} lacks {missing:?}");
            }
            continue;
        }
        let name = format!("note-{number}-{count}");
        seen.proposed.lock().unwrap().insert(name.clone());
        match store.propose(vec![note(&name)]).await {
            Ok(committed) => {
                assert!(names(&committed.cluster).contains(&name), "an answer has its own write");
                seen.acknowledged.lock().unwrap().insert(name);
            }
            Err(ProposeError::Rejected(rejection)) => panic!("{name} was written twice: {rejection}"),
            // It may come or not.
            Err(_) => {}
        }
    }
}

async fn holds(seed: u64) {
    let mut world = World::start(seed).await;
    let mut clients = JoinSet::new();
    for number in 0..6 {
        clients.spawn(client(number, Arc::clone(&world.stores), Arc::clone(&world.seen)));
    }
    for _ in 0..ROUNDS {
        sleep(Duration::from_millis(world.chance.below(600))).await;
        world.fault().await;
        // What a client or a watcher found is told at once.
        while let Some(ended) = clients.try_join_next() {
            ended.unwrap();
        }
        while let Some(ended) = world.watchers.try_join_next() {
            ended.unwrap();
        }
    }
    for raft_id in 1..=MANAGERS {
        world.net.heal(raft_id);
        world.disks[&raft_id].faults.sync_ms.store(0, SeqCst);
    }
    world.seen.over.store(true, SeqCst);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    for raft_id in 1..=MANAGERS {
        timeout(PATIENCE, at_rest(&world, raft_id)).await.unwrap_or_else(|_| panic!("manager {raft_id} never came"));
    }
    for raft_id in 1..=MANAGERS {
        let store = world.stores.lock().unwrap().remove(&raft_id).unwrap();
        store.shutdown().await;
    }
    while let Some(ended) = world.watchers.join_next().await {
        ended.unwrap();
    }
    let (acknowledged, terms) =
        (world.seen.acknowledged.lock().unwrap().len(), world.seen.leaders.lock().unwrap().len());
    println!("seed {seed}: {acknowledged} writes acknowledged in {terms} terms with a leader");
    assert!(acknowledged > 0, "something was written");
}

/// A manager can be read and written again, and has everything that was acknowledged and nothing that nobody wrote.
async fn at_rest(world: &World, raft_id: u64) {
    let cluster = loop {
        match world.store(raft_id).linearizable().await {
            Ok(cluster) => break cluster,
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    };
    let has = names(&cluster);
    let acknowledged = world.seen.acknowledged.lock().unwrap().clone();
    let lost: Vec<_> = acknowledged.difference(&has).collect();
    assert!(lost.is_empty(), "manager {raft_id} lost {lost:?}");
    let proposed = world.seen.proposed.lock().unwrap().clone();
    let phantoms: Vec<_> = has.difference(&proposed).collect();
    assert!(phantoms.is_empty(), "manager {raft_id} has {phantoms:?}, which nobody wrote");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_keep_what_they_acknowledged() {
    let seeds = if std::env::var_os("SKEP_SOAK").is_some() { 60 } else { 2 };
    let first = std::env::var("SKEP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + seeds {
        holds(seed).await;
    }
}
