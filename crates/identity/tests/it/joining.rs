//! The first connection of a node that has nothing but a token.

use std::sync::Arc;

use anyhow::Result;
use skep_identity::{CaDigest, ConnectError, JoinConnector, JoinToken, NodeClock, Peer, PeerProblem};
use skep_model::Role;

use crate::support::{Rotations, ca, days_ago, member, member_since, read_all, serve_one, tls};

fn connector(digest: CaDigest) -> JoinConnector {
    JoinConnector::new(digest, Arc::new(NodeClock::new()))
}

#[tokio::test]
async fn the_right_token_finds_the_cluster_and_is_anonymous_there() -> Result<()> {
    let ca = ca(1);
    let token: JoinToken = JoinToken::generate(ca.digest())?.to_string().parse()?;
    let (address, server) = serve_one(tls(&member(&ca, 10, Role::Manager)).acceptor()).await?;
    let stream = connector(token.ca()).connect(address).await?;
    assert_eq!(read_all(stream).await?, "hello");
    assert_eq!(server.await??, Peer::Anonymous);
    Ok(())
}

#[tokio::test]
async fn a_token_of_another_cluster_is_told_apart() -> Result<()> {
    let (ours, theirs) = (ca(1), ca(2));
    let (address, _server) = serve_one(tls(&member(&ours, 10, Role::Manager)).acceptor()).await?;
    let error = connector(theirs.digest()).connect(address).await.unwrap_err();
    assert!(matches!(error, ConnectError::OtherCa { .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_worker_cannot_pose_as_a_manager() -> Result<()> {
    let ca = ca(1);
    let (address, _server) = serve_one(tls(&member(&ca, 11, Role::Worker)).acceptor()).await?;
    let error = connector(ca.digest()).connect(address).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unexpected { .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_clock_that_is_behind_does_not_keep_a_node_out() -> Result<()> {
    let ca = ca(1);
    // Seen from today's clock, this server's certificate begins in ten days.
    let ahead = skep_model::Timestamp(days_ago(0).0 + (crate::support::DAY * 10).as_nanos() as u64);
    let manager = member_since(&ca, 10, Role::Manager, ahead);
    let (address, server) = serve_one(tls(&manager).acceptor()).await?;
    read_all(connector(ca.digest()).connect(address).await?).await?;
    assert_eq!(server.await??, Peer::Anonymous);
    Ok(())
}

#[tokio::test]
async fn an_expired_server_is_refused_although_its_ca_is_pinned() -> Result<()> {
    let ca = ca(1);
    let manager = member_since(&ca, 10, Role::Manager, days_ago(91));
    let (address, _server) = serve_one(tls(&manager).acceptor()).await?;
    let error = connector(ca.digest()).connect(address).await.unwrap_err();
    assert!(matches!(error, ConnectError::Distrusted { problem: PeerProblem::Expired { .. }, .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_token_from_before_a_rotation_is_said_to_be_that() -> Result<()> {
    let rotated = Rotations::new(2);
    let server = rotated.member(10, Role::Manager);
    for old in &rotated.cas[..2] {
        let (address, _server) = serve_one(tls(&server).acceptor()).await?;
        let error = connector(old.digest()).connect(address).await.unwrap_err();
        assert!(matches!(error, ConnectError::Distrusted { problem: PeerProblem::CaRotated, .. }), "{error:?}");
        assert!(error.to_string().contains("join-token worker"), "{error}");
    }
    let (address, server) = serve_one(tls(&server).acceptor()).await?;
    read_all(connector(rotated.present().digest()).connect(address).await?).await?;
    assert_eq!(server.await??, Peer::Anonymous);
    Ok(())
}
