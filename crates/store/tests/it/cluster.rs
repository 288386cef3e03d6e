//! Several managers: what one cluster promises whichever of them is asked.

use skep_api::{PEER_PROTOCOL, PeerClient, PeerLink, ReadIndexRequest, RefusalKind, connect_tls};
use skep_identity::{Expect, Tls};
use skep_model::{Change, NodeSpec, Role};
use skep_store::{Leadership, ProposeError};
use tokio::time::timeout;

use crate::managers::{Managers, PATIENCE, node_id, write};
use crate::notes::{note, text_of};

#[tokio::test(flavor = "multi_thread")]
async fn three_managers_write_and_read_at_any_of_them() {
    let managers = Managers::started(3, |_| {}).await;
    for (number, store) in (1..).zip(managers.stores()) {
        let written = write(&store, note(number, "text")).await;
        assert!(text_of(&written, number).is_some(), "the writer finds its own write");
        for reader in managers.stores() {
            let read = reader.linearizable().await.unwrap();
            assert!(text_of(&read, number).is_some(), "manager {} reads an old state", reader.raft_id());
        }
        let refused = store.propose(vec![note(number, "again")]).await;
        assert!(matches!(refused, Err(ProposeError::Rejected(_) | ProposeError::Unknown)), "{refused:?}");
        let here = store.propose_here(vec![note(10 + number, "here")]).await;
        assert!(
            matches!(here, Ok(_) | Err(ProposeError::NotLeader { .. } | ProposeError::Unknown)),
            "nothing is passed on: {here:?}"
        );
        assert_eq!(store.members().voters.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    }
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_stops_hands_over_and_comes_back_as_a_follower() {
    let mut managers = Managers::started(3, |_| {}).await;
    let first = managers.leader().await;
    let next = first % 3 + 1;
    managers.hand_over_to(next).await;
    managers.stop(next).await;
    let third = managers.leader().await;
    write(&managers.store(third), note(1, "meanwhile")).await;
    managers.start(next).await;
    managers.caught_up(next).await;
    let mut leadership = managers.store(next).leadership();
    let follows = leadership.wait_for(|now| *now != Leadership::Follower { leader: None });
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

    write(&managers.store(1), note(1, "before")).await;
    managers.announce(2).await;
    managers.add_learner(2).await;
    assert!(managers.store(2).is_initialized());
    let mut members = managers.store(2).watch_members();
    let listed = members.wait_for(|members| (members.voters.len(), members.learners.len()) == (1, 1));
    timeout(PATIENCE, listed).await.unwrap().unwrap();

    let (moved, back) = ("127.0.0.1:1", managers.address(2).to_owned());
    managers.change_members(async |leader| leader.update_address(2, moved).await).await;
    assert_eq!(managers.store(1).members().learners[&2], moved);
    managers.change_members(async |leader| leader.update_address(2, back.clone()).await).await;
    write(&managers.store(1), note(2, "moved")).await;
    managers.caught_up(2).await;

    managers.change_members(async |leader| leader.set_voters([1, 2].into()).await).await;
    managers.hand_over_to(2).await;
    managers.change_members(async |leader| leader.remove(1).await).await;
    let members = managers.store(2).members();
    assert_eq!(members.voters.into_keys().chain(members.learners.into_keys()).collect::<Vec<_>>(), [2]);
    write(&managers.store(2), note(3, "alone")).await;
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
    let away = managers.leader().await % 3 + 1;
    managers.stop(away).await;
    let store = managers.store(managers.leader().await);
    let before = store.metrics().last_log_index;
    let mut number = 0;
    while store.metrics().purged_index <= before {
        number += 1;
        write(&store, note(number, &"text ".repeat(4000))).await;
        assert!(number < 10_000, "no snapshot came: {:?}", store.metrics());
    }
    managers.start(away).await;
    managers.caught_up(away).await;
    let (there, here) = (managers.store(away).linearizable().await.unwrap(), store.linearizable().await.unwrap());
    assert_eq!(*there, *here);
    assert!(managers.store(away).metrics().snapshot_index > before, "{:?}", managers.store(away).metrics());
    write(&store, note(number + 1, "after")).await;
    managers.caught_up(away).await;
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_manager_of_this_cluster_is_refused_by_name() {
    let managers = Managers::started(2, |_| {}).await;
    let ask = |tls: Tls, from: u64, to: u64, protocol: u32| {
        let address = managers.address(1).to_owned();
        async move {
            let connection = connect_tls(&address, tls.connector(Expect::Role(Role::Manager))).await.unwrap();
            PeerClient::new(connection).read_index(ReadIndexRequest { link: PeerLink { protocol, from, to } }).await
        }
    };
    ask(managers.tls(2, Role::Manager), 2, 1, PEER_PROTOCOL).await.unwrap();
    // The number of nobody yet: a manager that this one has not heard of may have been made by now.
    ask(managers.tls(7, Role::Manager), 100, 1, PEER_PROTOCOL).await.unwrap();
    let cases = [
        (Role::Worker, 2, 2, 1, PEER_PROTOCOL, RefusalKind::Denied, "open only to managers"),
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

    // To be demoted: it keeps its seat until it is no manager in the cluster's state, for it may have to hand over.
    let leader = managers.store(managers.leader().await);
    let node = leader.cluster().nodes[&node_id(2)].clone();
    let spec = NodeSpec { role: Role::Worker, ..node.spec.clone() };
    let at = node.meta.updated_at;
    let demote = Change::UpdateNodeSpec { node: node.id, expected: node.meta.version, spec, at };
    leader.propose(vec![demote]).await.unwrap();
    let mut watch = managers.store(1).watch();
    let demoted = watch.wait_for(|cluster| cluster.nodes[&node_id(2)].spec.role == Role::Worker);
    timeout(PATIENCE, demoted).await.unwrap().unwrap();
    ask(managers.tls(2, Role::Manager), 2, 1, PEER_PROTOCOL).await.unwrap();
    // From then on it is refused, whatever its certificate says.
    let leader = managers.store(managers.leader().await);
    leader.propose(vec![Change::SetNodeManager { node: node.id, manager: None, at }]).await.unwrap();
    let unmade = watch.wait_for(|cluster| cluster.nodes[&node_id(2)].manager.is_none());
    timeout(PATIENCE, unmade).await.unwrap().unwrap();
    let refused = ask(managers.tls(2, Role::Manager), 2, 1, PEER_PROTOCOL).await.unwrap_err();
    assert!(refused.message.contains("or no longer"), "{refused}");
    managers.shutdown().await;
}
