//! Who gets in over the port: by real certificates, over real TCP.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use skep_api::*;
use skep_identity::{ConnectError as TlsError, Expect, JoinConnector, JoinToken, NodeClock, NodeKey};
use skep_model::{Availability, NodeId, Role};

use crate::cluster::{Daemon, Members};
use crate::control::Fake;

struct FakeCa {
    authorities: String,
}

impl Ca for FakeCa {
    async fn issue(&self, caller: Caller, request: IssueRequest) -> Result<IssuedCertificate, Refusal> {
        assert!(matches!(caller, Caller::Anonymous { .. }), "{caller:?}");
        let node = NodeId::from_u128(request.csr.len() as u128);
        Ok(IssuedCertificate {
            certificate: request.token,
            authorities: self.authorities.clone(),
            node,
            role: Role::Worker,
        })
    }

    async fn renew(&self, caller: Caller, request: RenewRequest) -> Result<IssuedCertificate, Refusal> {
        let identity = caller.renewer()?;
        Ok(IssuedCertificate {
            certificate: format!("{} bytes", request.csr.len()),
            authorities: self.authorities.clone(),
            node: identity.node_id,
            role: identity.role,
        })
    }
}

fn server(members: &Members) -> Server {
    let authorities = members.ca.certificate_pem().to_owned();
    Server::new().control(Arc::new(Fake::new(1))).ca(Arc::new(FakeCa { authorities }))
}

#[tokio::test]
async fn a_stranger_may_only_ask_for_a_certificate() -> Result<()> {
    let members = Members::new(1)?;
    let daemon = Daemon::start(server(&members), &members.tls(1, Role::Manager)?, "127.0.0.1:0").await?;
    let token = JoinToken::generate(members.ca.digest())?;
    let connector = JoinConnector::new(token.ca(), Arc::new(NodeClock::new()));
    let connection = connect_join(&daemon.address.to_string(), connector).await?;

    let csr = Bytes::from(NodeKey::generate()?.request()?);
    let request = IssueRequest {
        token: token.to_string(),
        csr: csr.clone(),
        availability: Availability::Drain,
        level: 1,
        routes: Vec::new(),
    };
    let issued = CaClient::new(connection.clone()).issue(request).await?;
    assert_eq!(issued.node, NodeId::from_u128(csr.len() as u128));
    assert_eq!(issued.authorities, members.ca.certificate_pem());

    let refused = CaClient::new(connection.clone()).renew(RenewRequest { csr }).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Denied);
    let refused = ControlClient::new(connection).info(()).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Denied);
    daemon.stop().await
}

#[tokio::test]
async fn a_worker_is_not_the_clusters_administrator() -> Result<()> {
    let members = Members::new(1)?;
    let daemon = Daemon::start(server(&members), &members.tls(1, Role::Manager)?, "127.0.0.1:0").await?;
    let worker = members.connect(2, Role::Worker, &daemon).await?;
    let refused = ControlClient::new(worker.clone()).info(()).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Denied);
    assert!(refused.message.contains("manager"), "{refused}");
    let renewed = CaClient::new(worker).renew(RenewRequest { csr: Bytes::new() }).await?;
    assert_eq!((renewed.node, renewed.role), (NodeId::from_u128(2), Role::Worker));

    let manager = members.connect(3, Role::Manager, &daemon).await?;
    assert!(ControlClient::new(manager).info(()).await?.ca_certificate.contains("Member"));
    daemon.stop().await
}

#[tokio::test]
async fn a_lapsed_certificate_renews_and_does_nothing_else() -> Result<()> {
    let members = Members::new(1)?;
    let daemon = Daemon::start(server(&members), &members.tls(1, Role::Manager)?, "127.0.0.1:0").await?;
    let connector = members.expired(5, Role::Manager)?.connector(Expect::Role(Role::Manager));
    let lapsed = connect_tls(&daemon.address.to_string(), connector).await?;
    let renewed = CaClient::new(lapsed.clone()).renew(RenewRequest { csr: Bytes::new() }).await?;
    assert_eq!(renewed.node, NodeId::from_u128(5));
    let refused = ControlClient::new(lapsed).info(()).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Lapsed);
    assert!(refused.message.contains("renewal only"), "{refused}");
    daemon.stop().await
}

#[tokio::test]
async fn a_service_that_the_daemon_does_not_offer_is_unsupported() -> Result<()> {
    let members = Members::new(1)?;
    let daemon = Daemon::start(Server::new(), &members.tls(1, Role::Manager)?, "127.0.0.1:0").await?;
    let manager = members.connect(3, Role::Manager, &daemon).await?;
    let refused = ControlClient::new(manager).info(()).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Unsupported);
    daemon.stop().await
}

#[tokio::test]
async fn the_wrong_cluster_is_told_apart_before_the_token_is_sent() -> Result<()> {
    let (members, others) = (Members::new(1)?, Members::new(2)?);
    let daemon = Daemon::start(server(&members), &members.tls(1, Role::Manager)?, "127.0.0.1:0").await?;
    let connector = JoinConnector::new(others.ca.digest(), Arc::new(NodeClock::new()));
    let refused = connect_join(&daemon.address.to_string(), connector).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Tls(TlsError::OtherCa { .. })), "{refused:?}");
    daemon.stop().await
}

#[tokio::test]
async fn a_connection_mends_itself_when_the_daemon_comes_back() -> Result<()> {
    let members = Members::new(1)?;
    let daemon = Daemon::start(server(&members), &members.tls(1, Role::Manager)?, "127.0.0.1:0").await?;
    let address = daemon.address.to_string();
    let client = ControlClient::new(members.connect(3, Role::Manager, &daemon).await?);
    client.info(()).await?;
    daemon.stop().await?;
    let gone = client.info(()).await.unwrap_err();
    assert_eq!(gone.kind, RefusalKind::Unavailable, "{gone}");
    assert!(gone.message.contains(&address), "{gone}");

    let daemon = Daemon::start(server(&members), &members.tls(4, Role::Manager)?, &address).await?;
    client.info(()).await?;
    daemon.stop().await
}
