//! Managers that are lost, cut off, restored from old images or wrong: what was acknowledged stays, and history has an
//! order.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use skep_api::{ApplyHashReply, ApplyHashRequest, PEER_PROTOCOL, PeerClient, PeerLink, connect_tls};
use skep_identity::Expect;
use skep_model::{Cluster, ConfigId, Role, Version};
use skep_store::{Leadership, ProposeError, ReadError, Store};
use tokio::time::{sleep, timeout};

use crate::linear::{Event, Op, is_linearizable};
use crate::managers::{Managers, PATIENCE, write};
use crate::notes::{note, rewrite, text_of};

/// Keeps histories short enough to check.
const PAUSE: Duration = Duration::from_millis(20);

/// The register that [`client`] works on: note 0, `0` at first, then a number of its own for each write.
fn register(cluster: &Cluster) -> (ConfigId, Version, u64) {
    let config = cluster.config_named("note-0").unwrap();
    let text = text_of(cluster, 0).unwrap();
    (config.id, config.meta.version, text.parse().unwrap())
}

/// Reads and swaps the register at its manager until told to stop.
async fn client(store: Store, clock: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Vec<Event> {
    let tick = || clock.fetch_add(1, SeqCst);
    let mut events = Vec::new();
    while !stop.load(SeqCst) {
        let called = tick();
        let cluster = match store.linearizable().await {
            Ok(cluster) => cluster,
            Err(ReadError::Stopped { .. }) => break,
            Err(ReadError::NotLeader { .. } | ReadError::NoQuorum(_)) => {
                sleep(PAUSE).await;
                continue;
            }
        };
        let (config, expected, from) = register(&cluster);
        events.push(Event { called, returned: Some(tick()), op: Op::Read(from) });
        let to = store.raft_id() * 1_000_000 + events.len() as u64;
        let called = tick();
        let answer = store.propose(vec![rewrite(config, expected, to)]).await;
        let returned = Some(tick());
        let (returned, done) = match answer {
            Ok(_) => (returned, Some(true)),
            Err(ProposeError::Rejected(_)) => (returned, Some(false)),
            Err(ProposeError::Unknown) => (None, None),
            // Surely not proposed.
            Err(_) => continue,
        };
        events.push(Event { called, returned, op: Op::Swap { from, to, done } });
        sleep(PAUSE).await;
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn history_of_a_register_is_linearizable_while_leaders_are_lost() {
    let mut managers = Managers::started(3, |_| {}).await;
    write(&managers.store(1), note(0, "0")).await;
    let (clock, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let stores = managers.stores().into_iter();
    let clients: Vec<_> =
        stores.map(|store| tokio::spawn(client(store, Arc::clone(&clock), Arc::clone(&stop)))).collect();
    for _ in 0..2 {
        writes_pass(&managers).await;
        let leader = managers.leader().await;
        managers.switch.isolate(leader);
        let rest: Vec<u64> = managers.running.keys().copied().filter(|id| *id != leader).collect();
        managers.leader_among(&rest).await;
        managers.switch.heal();
    }
    let leader = managers.leader().await;
    managers.kill(leader).await;
    writes_pass(&managers).await;
    managers.restart(leader).await;
    managers.caught_up(leader).await;
    stop.store(true, SeqCst);
    let mut events = Vec::new();
    for client in clients {
        events.extend(timeout(PATIENCE, client).await.unwrap().unwrap());
    }
    let swapped = events.iter().filter(|event| matches!(event.op, Op::Swap { done: Some(true), .. })).count();
    assert!(swapped >= 6, "{swapped} of {} operations wrote", events.len());
    assert!(is_linearizable(0, &events), "{events:#?}");

    let last = managers.store(leader).linearizable().await.unwrap();
    for store in managers.stores() {
        assert_eq!(*store.linearizable().await.unwrap(), *last, "manager {}", store.raft_id());
    }
    managers.shutdown().await;
}

/// Waits until the register was written a few times.
async fn writes_pass(managers: &Managers) {
    let mut watch = managers.store(managers.leader().await).watch();
    for _ in 0..3 {
        timeout(PATIENCE, watch.changed()).await.expect("writes pass").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_the_loss_of_any_two_of_five() {
    let mut managers = Managers::started(5, |_| {}).await;
    let writers: Vec<_> = managers.stores().into_iter().map(|store| tokio::spawn(write_notes(store))).collect();
    let mut lost = Vec::new();
    for _ in 0..2 {
        let leader = managers.leader().await;
        managers.switch.isolate(leader);
        lost.push(leader);
    }
    let rest: Vec<u64> = (1..=5).filter(|id| !lost.contains(id)).collect();
    let leader = managers.leader_among(&rest).await;
    managers.switch.heal();
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(timeout(PATIENCE, writer).await.unwrap().unwrap());
    }
    assert!(acknowledged.len() >= 30, "{} of 150 writes were acknowledged", acknowledged.len());
    for raft_id in [lost[0], leader] {
        managers.kill(raft_id).await;
        managers.restart(raft_id).await;
    }
    for store in managers.stores() {
        let cluster = store.linearizable().await.unwrap();
        let missing: Vec<_> = acknowledged.iter().filter(|number| text_of(&cluster, **number).is_none()).collect();
        assert!(missing.is_empty(), "manager {} lacks {missing:?}", store.raft_id());
    }
    managers.shutdown().await;
}

/// Returns what was acknowledged.
async fn write_notes(store: Store) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for number in 0..30 {
        let number = store.raft_id() * 1000 + number;
        if store.propose(vec![note(number, "kept")]).await.is_ok() {
            acknowledged.push(number);
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn without_quorum_reads_answer_and_writes_say_who_is_missing() {
    let mut managers = Managers::started(3, |_| {}).await;
    write(&managers.store(1), note(1, "before")).await;
    managers.caught_up(2).await;
    managers.stop(3).await;
    managers.stop(1).await;
    let left = managers.store(2);
    let noticed = async {
        while left.quorum().is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, noticed).await.expect("it notices");
    let refused = left.propose(vec![note(2, "never")]).await.map(drop);
    let Err(ProposeError::NoQuorum(lost)) = refused else { panic!("{refused:?}") };
    assert_eq!(lost.missing.iter().map(|missing| missing.raft_id).collect::<BTreeSet<_>>(), BTreeSet::from([1, 3]));
    let words = lost.to_string();
    for part in ["2 of 3 managers", managers.address(1), managers.address(3), "skep cluster recover"] {
        assert!(words.contains(part), "`{part}` is not in `{words}`");
    }
    let refused = left.linearizable().await.map(drop);
    assert!(matches!(refused, Err(ReadError::NoQuorum(_))), "{refused:?}");
    assert!(text_of(&left.cluster(), 1).is_some(), "what was known is still read");

    managers.start(1).await;
    let written = write(&left, note(3, "after")).await;
    assert!(text_of(&written, 2).is_none(), "what was refused was not kept");
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manager_whose_state_differs_from_the_others_stops() {
    let managers = Managers::started(2, |_| {}).await;
    let leader = managers.store(managers.leader().await);
    let other = leader.raft_id() % 2 + 1;
    for number in 0..256 {
        write(&leader, note(number, "text")).await;
    }
    managers.caught_up(other).await;
    // As the leader would ask that had computed something else.
    let tls = managers.tls(leader.raft_id(), Role::Manager);
    let connector = tls.connector(Expect::Role(Role::Manager));
    let peer = PeerClient::new(connect_tls(managers.address(other), connector).await.unwrap());
    let link = PeerLink { protocol: PEER_PROTOCOL, from: leader.raft_id(), to: other };
    let ask = |hash, decided| peer.apply_hash(ApplyHashRequest { link, index: 255, hash, decided });
    let ApplyHashReply::Differs(hash) = ask(0, false).await.unwrap() else { panic!("0 is no hash of anything") };
    assert_eq!(ask(hash, true).await.unwrap(), ApplyHashReply::Equal);
    write(&leader, note(300, "goes on")).await;
    ask(0, true).await.unwrap();
    let reason = stop_reason(&managers.store(other)).await;
    assert!(reason.contains("differs from what most managers have"), "{reason}");
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voter_with_an_old_disk_does_not_vote_and_says_what_to_do() {
    let mut managers = Managers::started(3, |_| {}).await;
    let restored = managers.leader().await % 3 + 1;
    managers.stop(restored).await;
    let image = managers.folder(0);
    copy(&managers.folder(restored), &image);
    managers.start(restored).await;
    let (leader, witness) = acknowledge(&managers, restored).await;

    managers.stop(restored).await;
    managers.stop(leader).await;
    std::fs::remove_dir_all(managers.folder(restored)).unwrap();
    std::fs::rename(&image, managers.folder(restored)).unwrap();
    managers.start(restored).await;
    // With the witness it is a majority, and together they could elect a leader that lacks what was acknowledged.
    let reason = stop_reason(&managers.store(restored)).await;
    assert!(reason.contains("older than what it acknowledged") && reason.contains("skep leave --force"), "{reason}");
    let refused = managers.store(restored).propose(vec![]).await.map(drop);
    assert!(matches!(refused, Err(ProposeError::Stopped { .. })), "{refused:?}");

    managers.start(leader).await;
    managers.leader_among(&[leader, witness]).await;
    let cluster = managers.store(witness).linearizable().await.unwrap();
    assert!(text_of(&cluster, 1).is_some());
    managers.shutdown().await;
}

/// Writes until `restored` has acknowledged what it did not have in its image, and the others know. Returns who leads,
/// and the third manager.
async fn acknowledge(managers: &Managers, restored: u64) -> (u64, u64) {
    for number in 1..1000 {
        let leader = managers.store(managers.leader().await);
        let term = leader.metrics().term;
        if leader.raft_id() == restored {
            managers.hand_over_to(restored % 3 + 1).await;
            continue;
        }
        let witness = 6 - restored - leader.raft_id();
        write(&leader, note(3 * number - 2, "acknowledged")).await;
        let written = leader.metrics().last_applied_index;
        while leader.progress().get(&restored).copied().flatten() < written && leader.metrics().term == term {
            sleep(Duration::from_millis(5)).await;
        }
        // The first is committed with it, and with the second the witness hears of that.
        write(&leader, note(3 * number - 1, "more")).await;
        write(&leader, note(3 * number, "last")).await;
        managers.caught_up(witness).await;
        if leader.metrics().term == term && managers.store(witness).metrics().term == term {
            return (leader.raft_id(), witness);
        }
    }
    panic!("no leader stays for long enough")
}

async fn stop_reason(store: &Store) -> String {
    let mut leadership = store.leadership();
    let stopped = leadership.wait_for(|now| matches!(now, Leadership::Stopped { .. }));
    match timeout(PATIENCE, stopped).await.expect("it stops").unwrap().clone() {
        Leadership::Stopped { reason } => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
