//! Members among themselves.

use anyhow::Result;
use skep_identity::{ConnectError, Expect, HandshakeError, Peer, PeerProblem};
use skep_model::{NodeId, Role};

use crate::support::{ca, member, read_all, serve_one, tls};

#[tokio::test]
async fn both_ends_learn_who_the_other_is() -> Result<()> {
    let ca = ca(1);
    let (manager, worker) = (member(&ca, 10, Role::Manager), member(&ca, 11, Role::Worker));
    let (address, server) = serve_one(tls(&manager).acceptor()).await?;
    let connector = tls(&worker).connector(Expect::Role(Role::Manager));
    let (stream, found) = connector.connect(address).await?;
    assert_eq!(found, manager.identity());
    assert_eq!(read_all(stream).await?, "hello");
    assert_eq!(server.await??, Peer::Node(worker.identity()));
    Ok(())
}

#[tokio::test]
async fn a_worker_is_no_manager_and_a_node_is_no_other_node() -> Result<()> {
    let ca = ca(1);
    let (worker, other) = (member(&ca, 11, Role::Worker), member(&ca, 12, Role::Worker));
    for expect in [Expect::Role(Role::Manager), Expect::Node(NodeId::from_u128(99))] {
        let (address, _server) = serve_one(tls(&worker).acceptor()).await?;
        let error = tls(&other).connector(expect).connect(address).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unexpected { .. }), "{error}");
        assert!(error.to_string().contains(&format!("expected {expect}")), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_foreign_ca_is_refused_by_either_end() -> Result<()> {
    // The same cluster id on purpose: what counts is the signature.
    let (ours, theirs) = (ca(1), ca(1));
    let (manager, stranger) = (member(&ours, 10, Role::Manager), member(&theirs, 10, Role::Manager));
    let (address, server) = serve_one(tls(&stranger).acceptor()).await?;
    let connector = tls(&manager).connector(Expect::Role(Role::Manager));
    let error = connector.connect(address).await.unwrap_err();
    assert!(matches!(error, ConnectError::Distrusted { problem: PeerProblem::UnknownCa, .. }), "{error}");
    assert!(server.await?.is_err());

    // A stranger that trusts us is still not let in: its certificate is not ours.
    let trusting = skep_identity::Credentials::new(
        skep_identity::NodeKey::from_pem(&stranger.key().to_pem())?,
        &issued_by(&theirs, &stranger),
        ours.certificate_pem(),
    )?;
    let (address, server) = serve_one(tls(&manager).acceptor()).await?;
    let connector = tls(&trusting).connector(Expect::Role(Role::Manager));
    // In TLS 1.3 the client is done first, and meets the refusal when it reads.
    if let Ok((stream, _)) = connector.connect(address).await {
        assert!(read_all(stream).await.is_err());
    }
    assert!(matches!(server.await?, Err(HandshakeError::Tls(_))));
    Ok(())
}

fn issued_by(ca: &skep_identity::ClusterCa, node: &skep_identity::Credentials) -> String {
    let request = node.key().request().unwrap();
    ca.issue(&request, node.identity().node_id, node.identity().role, crate::support::now(), crate::support::DAY)
        .unwrap()
}

#[tokio::test]
async fn replaced_credentials_are_used_from_the_next_connection_on() -> Result<()> {
    let ca = ca(1);
    let manager = tls(&member(&ca, 10, Role::Manager));
    let worker = member(&ca, 11, Role::Worker);
    let node = tls(&worker);
    let connector = node.connector(Expect::Role(Role::Manager));
    let acceptor = manager.acceptor();

    let (address, server) = serve_one(acceptor.clone()).await?;
    read_all(connector.connect(address).await?.0).await?;
    assert_eq!(server.await??, Peer::Node(worker.identity()));

    // The worker is promoted, and the server's own certificate changes as well: same connector, same acceptor.
    let mut changes = node.changes();
    let promoted = member(&ca, 11, Role::Manager);
    node.replace(&promoted)?;
    changes.next().await;
    manager.replace(&member(&ca, 20, Role::Manager))?;
    let (address, server) = serve_one(acceptor).await?;
    let (stream, found) = connector.connect(address).await?;
    assert_eq!(found.node_id, NodeId::from_u128(20));
    read_all(stream).await?;
    assert_eq!(server.await??, Peer::Node(promoted.identity()));
    assert_eq!(node.identity().role, Role::Manager);
    Ok(())
}
