//! Several managers: what one cluster promises whichever of them is asked, and whichever of them is gone.

use std::collections::BTreeSet;

use skep_store::{Leadership, ProposeError};
use tokio::time::timeout;

use crate::managers::{Managers, PATIENCE};
use crate::notes::{note, text_of};

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
