//! Several managers: what one cluster promises whichever of them is asked, and whichever of them is gone.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};

use skep_api::{
    ApplyHashReply, ApplyHashRequest, PEER_PROTOCOL, PeerClient, PeerLink, ReadIndexRequest, RefusalKind, connect_tls,
};
use skep_identity::{Expect, Tls};
use skep_model::{Change, Cluster, ConfigId, NodeSpec, Role, Version};
use skep_store::{Leadership, ProposeError, ReadError, Store};
use tokio::time::timeout;

use crate::linear::{Event, Op, is_linearizable};
use crate::managers::{Managers, PATIENCE, node_id};
use crate::notes::{note, rewrite, text_of};

#[tokio::test(flavor = "multi_thread")]
async fn three_managers_write_and_read_at_any_of_them() {
    let managers = Managers::started(3, |_| {}).await;
    for (number, store) in (1..).zip(managers.stores()) {
        let written = store.propose(vec![note(number, "text")]).await.unwrap();
        assert!(text_of(&written.cluster, number).is_some(), "the writer finds its own write");
        for reader in managers.stores() {
            let read = reader.linearizable().await.unwrap();
            assert!(text_of(&read, number).is_some(), "manager {} reads an old state", reader.raft_id());
        }
        let refused = store.propose(vec![note(number, "again")]).await;
        assert!(matches!(refused, Err(ProposeError::Rejected(_))), "{refused:?}");
    }
    let leader = managers.leader().await;
    for store in managers.stores() {
        assert_eq!(store.members().voters.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(store.quorum(), None);
        let here = store.propose_here(vec![note(10 + store.raft_id(), "here")]).await;
        assert_eq!(here.is_ok(), store.raft_id() == leader, "{here:?}");
    }
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_stops_hands_over_and_comes_back_as_a_follower() {
    let mut managers = Managers::started(3, |_| {}).await;
    let first = managers.leader().await;
    let next = first % 3 + 1;
    managers.store(first).hand_over(Some(next)).await.unwrap();
    assert_eq!(managers.leader().await, next);
    managers.stop(next).await;
    let third = managers.leader().await;
    assert_ne!(third, next);
    managers.store(third).propose(vec![note(1, "meanwhile")]).await.unwrap();
    managers.start(next).await;
    managers.caught_up(next).await;
    let mut leadership = managers.store(next).leadership();
    let follows = leadership.wait_for(|now| matches!(now, Leadership::Follower { leader: Some(_) }));
    timeout(PATIENCE, follows).await.unwrap().unwrap();
    assert!(text_of(&managers.store(next).cluster(), 1).is_some());
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manager_joins_moves_and_leaves() {
    let mut managers = Managers::started(1, |_| {}).await;
    managers.start(2).await;
    // Not a member yet: it neither elects nor is elected, however long it waits.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(!managers.store(2).is_initialized());
    assert_eq!(managers.store(2).metrics().term, 0);
    assert_eq!(*managers.store(2).leadership().borrow(), Leadership::Follower { leader: None });

    managers.store(1).propose(vec![note(1, "before")]).await.unwrap();
    managers.announce(2).await;
    managers.add_learner(2).await;
    assert!(managers.store(2).is_initialized());
    let members = managers.store(2).members();
    assert_eq!((members.voters.len(), members.learners.len()), (1, 1));
    managers.store(1).set_voters(BTreeSet::from([1, 2])).await.unwrap();
    managers.store(1).hand_over(None).await.unwrap();
    assert_eq!(managers.leader().await, 2);

    managers.store(2).update_address(1, "127.0.0.1:1").await.unwrap();
    assert_eq!(managers.store(2).members().voters[&1], "127.0.0.1:1");
    let back = managers.address(1).to_owned();
    managers.store(2).update_address(1, back).await.unwrap();

    managers.store(2).remove(1).await.unwrap();
    assert_eq!(managers.store(2).members().voters.keys().copied().collect::<Vec<_>>(), [2]);
    managers.store(2).propose(vec![note(2, "alone")]).await.unwrap();
    managers.shutdown().await;
}

/// `0` for the first value of the register, and a number of its own for each that is written.
fn register_value(cluster: &Cluster) -> (ConfigId, Version, u64) {
    let config = cluster.config_named("note-0").unwrap();
    let text = text_of(cluster, 0).unwrap();
    (config.id, config.meta.version, text.parse().unwrap())
}

/// Reads and swaps one register at its manager until told to stop.
async fn client(store: Store, number: u64, clock: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Vec<Event> {
    let tick = || clock.fetch_add(1, SeqCst);
    let mut events = Vec::new();
    let mut written = 0;
    while !stop.load(SeqCst) && events.len() < 120 {
        let called = tick();
        let Ok(cluster) = store.linearizable().await else { continue };
        let (config, expected, from) = register_value(&cluster);
        events.push(Event { called, returned: Some(tick()), op: Op::Read(from) });
        written += 1;
        let to = number * 1_000_000 + written;
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
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn history_of_a_register_is_linearizable_while_leaders_are_lost() {
    let mut managers = Managers::started(3, |_| {}).await;
    managers.store(1).propose(vec![note(0, "0")]).await.unwrap();
    let (clock, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let clients = |managers: &Managers| -> Vec<_> {
        let stores = managers.stores().into_iter();
        stores.map(|store| tokio::spawn(client(store.clone(), store.raft_id(), clock.clone(), stop.clone()))).collect()
    };
    let running = clients(&managers);
    for _ in 0..2 {
        writes_pass(&managers, 3).await;
        let leader = managers.leader().await;
        managers.switch.isolate(leader);
        let rest: Vec<u64> = managers.running.keys().copied().filter(|id| *id != leader).collect();
        managers.leader_among(&rest).await;
        managers.switch.heal();
    }
    let leader = managers.leader().await;
    managers.stop(leader).await;
    writes_pass(&managers, 3).await;
    managers.restart(leader).await;
    managers.caught_up(leader).await;
    stop.store(true, SeqCst);
    let mut events = Vec::new();
    for client in running {
        events.extend(client.await.unwrap());
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

/// Waits until the register was written so many times.
async fn writes_pass(managers: &Managers, count: u64) {
    for store in managers.stores().into_iter().take(1) {
        let mut watch = store.watch();
        for _ in 0..count {
            timeout(PATIENCE, watch.changed()).await.expect("writes pass").unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_the_loss_of_any_two_of_five() {
    let mut managers = Managers::started(5, |_| {}).await;
    let writers: Vec<_> = managers
        .stores()
        .into_iter()
        .map(|store| {
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0..60 {
                    let number = store.raft_id() * 1000 + number;
                    if store.propose(vec![note(number, "kept")]).await.is_ok() {
                        acknowledged.push(number);
                    }
                }
                acknowledged
            })
        })
        .collect();
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
    assert!(acknowledged.len() > 100, "{} of 300 writes were acknowledged", acknowledged.len());
    for raft_id in lost.into_iter().chain([leader]) {
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

#[tokio::test(flavor = "multi_thread")]
async fn follower_that_was_away_for_long_gets_a_snapshot() {
    let mut managers = Managers::started(3, |config| {
        config.snapshot_bytes_min = 128 * 1024;
        config.entries_kept = 8;
        config.cache_bytes = 16 * 1024;
    })
    .await;
    let leader = managers.leader().await;
    let away = leader % 3 + 1;
    managers.stop(away).await;
    let store = managers.store(managers.leader().await);
    let before = store.metrics().last_log_index;
    let mut number = 0;
    while store.metrics().purged_index <= before {
        number += 1;
        store.propose(vec![note(number, &"text ".repeat(4000))]).await.unwrap();
        assert!(number < 10_000, "no snapshot came: {:?}", store.metrics());
    }
    managers.start(away).await;
    managers.caught_up(away).await;
    let (there, here) = (managers.store(away).linearizable().await.unwrap(), store.linearizable().await.unwrap());
    assert_eq!(*there, *here);
    assert!(managers.store(away).metrics().snapshot_index > before, "{:?}", managers.store(away).metrics());
    store.propose(vec![note(number + 1, "after")]).await.unwrap();
    managers.caught_up(away).await;
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_quorum_reads_answer_and_writes_say_who_is_missing() {
    let mut managers = Managers::started(3, |_| {}).await;
    managers.store(1).propose(vec![note(1, "before")]).await.unwrap();
    managers.caught_up(2).await;
    managers.stop(3).await;
    managers.stop(1).await;
    let left = managers.store(2);
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
    let written = timeout(PATIENCE, async {
        loop {
            if let Ok(written) = left.propose(vec![note(3, "after")]).await {
                return written;
            }
        }
    });
    let written = written.await.unwrap();
    assert!(text_of(&written.cluster, 2).is_none(), "what was refused was not kept");
    assert_eq!(left.quorum(), None);
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_manager_of_this_cluster_is_refused_by_name() {
    let managers = Managers::started(2, |_| {}).await;
    let ask = |tls: Tls, from: u64, to: u64, protocol: u32| {
        let address = managers.address(1).to_owned();
        async move {
            let peer =
                PeerClient::new(connect_tls(&address, tls.connector(Expect::Role(Role::Manager))).await.unwrap());
            peer.read_index(ReadIndexRequest { link: PeerLink { protocol, from, to } }).await
        }
    };
    ask(managers.tls(2, Role::Manager), 2, 1, PEER_PROTOCOL).await.unwrap();
    // The number of nobody yet: a manager that this one has not heard of may have been made by now.
    ask(managers.tls(7, Role::Manager), 100, 1, PEER_PROTOCOL).await.unwrap();
    let cases = [
        (Role::Worker, 2, 2, 1, PEER_PROTOCOL, RefusalKind::Denied, "only to the managers"),
        (Role::Manager, 2, 2, 3, PEER_PROTOCOL, RefusalKind::Denied, "this is manager 1, not manager 3"),
        (Role::Manager, 2, 1, 1, PEER_PROTOCOL, RefusalKind::Denied, "is not manager 1"),
        (Role::Manager, 9, 2, 1, PEER_PROTOCOL, RefusalKind::Denied, "is not manager 2"),
        (Role::Manager, 2, 2, 1, PEER_PROTOCOL + 1, RefusalKind::Unsupported, "upgrade"),
    ];
    for (role, node, from, to, protocol, kind, words) in cases {
        let refused = ask(managers.tls(node, role), from, to, protocol).await.unwrap_err();
        assert_eq!(refused.kind, kind, "{refused}");
        assert!(refused.message.contains(words), "{refused}");
    }

    // Demoted in the cluster's state: refused at once, whatever its certificate says.
    let leader = managers.store(managers.leader().await);
    let node = leader.cluster().nodes[&node_id(2)].clone();
    let spec = NodeSpec { role: Role::Worker, ..node.spec.clone() };
    let demote = Change::UpdateNodeSpec { node: node.id, expected: node.meta.version, spec, at: node.meta.updated_at };
    leader.propose(vec![demote]).await.unwrap();
    managers.caught_up(1).await;
    let refused = ask(managers.tls(2, Role::Manager), 2, 1, PEER_PROTOCOL).await.unwrap_err();
    assert!(refused.message.contains("or no longer"), "{refused}");
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manager_whose_state_differs_from_the_others_stops() {
    let managers = Managers::started(2, |_| {}).await;
    let leader = managers.store(managers.leader().await);
    let other = leader.raft_id() % 2 + 1;
    for number in 0..256 {
        leader.propose(vec![note(number, "text")]).await.unwrap();
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
    leader.propose(vec![note(300, "goes on")]).await.unwrap();
    ask(0, true).await.unwrap();
    let reason = stop_reason(&managers.store(other)).await;
    assert!(reason.contains("differs from what most managers have"), "{reason}");
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voter_with_an_old_disk_does_not_vote_and_says_what_to_do() {
    let mut managers = Managers::started(3, |_| {}).await;
    managers.store(1).hand_over(Some(2)).await.ok();
    let leader = managers.leader().await;
    let (restored, witness) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    managers.stop(restored).await;
    let image = managers.folder(0);
    copy(&managers.folder(restored), &image);
    managers.start(restored).await;

    let store = managers.store(leader);
    let written = store.propose(vec![note(1, "acknowledged")]).await.unwrap().revision;
    let mut number = 1;
    while store.progress().get(&restored).copied().flatten() < Some(written) {
        number += 1;
        store.propose(vec![note(number, "more")]).await.unwrap();
    }
    // With this the others hear what the leader knows.
    store.propose(vec![note(number + 1, "last")]).await.unwrap();
    managers.caught_up(witness).await;

    managers.stop(restored).await;
    managers.stop(leader).await;
    std::fs::remove_dir_all(managers.folder(restored)).unwrap();
    std::fs::rename(&image, managers.folder(restored)).unwrap();
    managers.start(restored).await;
    // Together they are a majority, and could elect a leader that lacks what was acknowledged.
    let reason = stop_reason(&managers.store(restored)).await;
    assert!(reason.contains("older than what it acknowledged") && reason.contains("skep leave --force"), "{reason}");
    let refused = managers.store(restored).propose(vec![]).await.map(drop);
    assert!(matches!(refused, Err(ProposeError::Stopped { .. })), "{refused:?}");

    managers.start(leader).await;
    let cluster = managers.store(managers.leader().await).linearizable().await.unwrap();
    assert!(text_of(&cluster, 1).is_some());
    managers.shutdown().await;
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
