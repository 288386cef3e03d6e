//! Certificates that were good once, clocks that are wrong, and other clusters: who gets in, and what the others are told.

use std::sync::Arc;

use anyhow::Result;
use skep_identity::{
    ClusterCa, ConnectError, Credentials, Expect, NodeClock, Peer, PeerProblem, ROTATIONS_KEPT, Synchronised, Tls,
};
use skep_model::Role;

use crate::support::{Rotations, ca, days_ago, member, member_since, read_all, serve_one, tls};

const DAY_SECONDS: i64 = 24 * 3600;

/// Whom a manager sees when `client` connects, or why the client does not trust the manager.
async fn seen(manager: &Tls, client: &Tls) -> Result<Result<Peer, ConnectError>> {
    let (address, server) = serve_one(manager.acceptor()).await?;
    match client.connector(Expect::Role(Role::Manager)).connect(address).await {
        Ok((stream, _)) => {
            assert_eq!(read_all(stream).await?, "hello");
            Ok(Ok(server.await??))
        }
        Err(error) => Ok(Err(error)),
    }
}

fn problem(error: ConnectError) -> PeerProblem {
    match error {
        ConnectError::Distrusted { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_expired_certificate_is_good_for_renewal_only_and_its_holder_still_reaches_managers() -> Result<()> {
    let ca = ca(1);
    let (manager, expired) = (member(&ca, 10, Role::Manager), member_since(&ca, 11, Role::Worker, days_ago(150)));
    assert_eq!(seen(&tls(&manager), &tls(&expired)).await?.unwrap(), Peer::Lapsed(expired.identity()));
    Ok(())
}

#[tokio::test]
async fn an_expired_server_is_told_apart_with_both_dates() -> Result<()> {
    let ca = ca(1);
    let (expired, node) = (member_since(&ca, 10, Role::Manager, days_ago(150)), member(&ca, 11, Role::Worker));
    let error = seen(&tls(&expired), &tls(&node)).await?.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("expired on 20") && text.contains("check the clocks of both"), "{text}");
    assert!(matches!(problem(error), PeerProblem::Expired { .. }));
    Ok(())
}

#[tokio::test]
async fn a_clock_that_nobody_sets_keeps_nobody_out() -> Result<()> {
    let ca = ca(1);
    let (manager, node) = (member(&ca, 10, Role::Manager), member(&ca, 11, Role::Worker));
    for days in [-3650, 3650] {
        let clock = NodeClock::shifted(days * DAY_SECONDS, || Synchronised::No);
        let wrong = Tls::new(&node, Arc::new(clock))?;
        assert_eq!(seen(&tls(&manager), &wrong).await?.unwrap(), Peer::Node(node.identity()), "{days} days");
    }
    // A manager whose clock runs behind refuses nobody either.
    let clock = NodeClock::shifted(-3650 * DAY_SECONDS, || Synchronised::No);
    let behind = Tls::new(&manager, Arc::new(clock))?;
    assert_eq!(seen(&behind, &tls(&node)).await?.unwrap(), Peer::Node(node.identity()));
    Ok(())
}

#[tokio::test]
async fn a_node_that_missed_rotations_finds_back_and_may_only_renew() -> Result<()> {
    let rotated = Rotations::new(ROTATIONS_KEPT);
    let manager = rotated.member(10, Role::Manager);
    for missed in 1..=ROTATIONS_KEPT {
        let old = &rotated.cas[ROTATIONS_KEPT - missed];
        let away = member_since(old, 11, Role::Worker, days_ago(150));
        let peer = seen(&tls(&manager), &tls(&away)).await?.unwrap();
        assert_eq!(peer, Peer::Lapsed(away.identity()), "{missed} missed");
        let not_expired = member(old, 12, Role::Worker);
        let peer = seen(&tls(&manager), &tls(&not_expired)).await?.unwrap();
        assert_eq!(peer, Peer::Lapsed(not_expired.identity()), "{missed} missed");
    }
    Ok(())
}

#[tokio::test]
async fn a_node_that_missed_too_many_rotations_is_told_to_join_again() -> Result<()> {
    let rotated = Rotations::new(ROTATIONS_KEPT + 1);
    let away = member(&rotated.cas[0], 11, Role::Worker);
    let error = seen(&tls(&rotated.member(10, Role::Manager)), &tls(&away)).await?.unwrap_err();
    assert!(error.to_string().contains("skep leave --force"), "{error}");
    assert_eq!(problem(error), PeerProblem::UnknownCa);
    Ok(())
}

#[tokio::test]
async fn during_a_rotation_members_of_either_ca_are_members() -> Result<()> {
    let (old, new) = (ca(1), ca(1));
    let cross = old.cross_sign(&new, days_ago(1))?;
    let both = format!("{}{}{cross}", new.certificate_pem(), old.certificate_pem());
    let stale_manager = member(&old, 10, Role::Manager);
    let informed = |issuer: &ClusterCa, node, role| member(issuer, node, role).with_authorities(&both);
    let managers: [Credentials; 3] =
        [stale_manager, informed(&old, 12, Role::Manager)?, informed(&new, 13, Role::Manager)?];
    let nodes = [member(&old, 11, Role::Worker), informed(&old, 14, Role::Worker)?, informed(&new, 15, Role::Worker)?];
    for manager in &managers {
        for node in &nodes {
            let peer = seen(&tls(manager), &tls(node)).await?.unwrap();
            assert_eq!(peer, Peer::Node(node.identity()), "at {:?}", manager.identity().node_id);
        }
    }
    Ok(())
}

#[tokio::test]
async fn another_cluster_is_named() -> Result<()> {
    let (ours, theirs) = (ca(1), ca(2));
    let (manager, node) = (member(&theirs, 10, Role::Manager), member(&ours, 11, Role::Worker));
    let error = seen(&tls(&manager), &tls(&node)).await?.unwrap_err();
    let (found, own) = (theirs.cluster_id(), ours.cluster_id());
    assert!(error.to_string().contains("another cluster"), "{error}");
    assert_eq!(problem(error), PeerProblem::OtherCluster { found, own });
    Ok(())
}

#[test]
fn the_same_authorities_are_known_again_and_other_ones_keep_the_certificate() {
    let rotated = Rotations::new(1);
    let before = member(&rotated.cas[1], 11, Role::Worker);
    assert!(!before.has_authorities(&rotated.authorities()).unwrap());
    let after = before.with_authorities(&rotated.authorities()).unwrap();
    assert!(after.has_authorities(&rotated.authorities()).unwrap());
    assert_eq!(after.identity(), before.identity());
    assert_eq!(after.key().digest(), before.key().digest());
}
