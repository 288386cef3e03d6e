//! A node's TLS: its present credentials, and acceptors and connectors that follow them.
//!
//! Each connection takes the configuration that is current when it begins, so that a renewed certificate or a new CA
//! is in use from the next connection on, without a restart. Who holds a long connection watches [`Tls::changes`].

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::{Notify, watch};

use crate::certificate::PeerIdentity;
use crate::clock::NodeClock;
use crate::connect::{Expect, TlsAcceptor, TlsConnector};
use crate::credentials::{Credentials, CredentialsError};
use crate::verify::{Members, Servers};

pub(crate) const ALPN_HTTP2: &[u8] = b"h2";

/// A node's TLS identity, shared by everything that listens or connects. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls {
    current: Arc<watch::Sender<Current>>,
    renewal: Arc<Notify>,
    clock: Arc<NodeClock>,
}

/// Tells that the credentials were replaced: whoever holds a long connection connects again.
#[derive(Debug, Clone)]
pub struct TlsChanges(watch::Receiver<Current>);

impl TlsChanges {
    /// Returns at the next replacement; several since the last call count as one. Never returns once the [`Tls`]
    /// and all its clones are gone.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What follows from one set of credentials.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    pub identity: PeerIdentity,
    pub members: Arc<Members>,
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

impl Tls {
    pub fn new(credentials: &Credentials, clock: Arc<NodeClock>) -> Result<Self, CredentialsError> {
        let (current, _) = watch::channel(Current::build(credentials, &clock)?);
        Ok(Self { current: Arc::new(current), renewal: Arc::default(), clock })
    }

    /// New credentials for every connection from now on; those that are open stay as they are.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), CredentialsError> {
        let next = Current::build(credentials, &self.clock)?;
        self.current.send_replace(next);
        Ok(())
    }

    /// Asks for new credentials at once: a manager refused the certificate as lapsed, or the node's role has changed.
    pub fn ask_renewal(&self) {
        self.renewal.notify_one();
    }

    /// Returns when renewal was asked for since the last call. For the one task that renews.
    pub async fn renewal_asked(&self) {
        self.renewal.notified().await;
    }

    pub fn identity(&self) -> PeerIdentity {
        self.current.borrow().identity
    }

    pub fn clock(&self) -> &Arc<NodeClock> {
        &self.clock
    }

    /// Watches for the next replacement, from now on.
    pub fn changes(&self) -> TlsChanges {
        TlsChanges(self.current.subscribe())
    }

    /// Accepts members, and those who want to become one.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::new(self.clone())
    }

    /// Connects to members of the own cluster that are what `expect` says.
    pub fn connector(&self, expect: Expect) -> TlsConnector {
        TlsConnector::new(self.clone(), expect)
    }

    pub(crate) fn current(&self) -> Current {
        self.current.borrow().clone()
    }
}

impl Current {
    fn build(credentials: &Credentials, clock: &Arc<NodeClock>) -> Result<Self, CredentialsError> {
        // The CA signed this start of validity: that moment has passed, unless the clock is known to be right.
        clock.at_least(credentials.certificate().not_before);
        let provider = crypto();
        let key = credentials.key().to_rustls();
        let key = CertifiedKey::from_der(credentials.chain(), key, &provider).map_err(CredentialsError::Tls)?;
        let key = Arc::new(SingleCertAndKey::from(key));
        let trust = credentials.trust();
        let members = Arc::new(Members::new(trust, &provider)?);
        let servers = Servers::new(trust, credentials.identity(), clock.clone(), provider.clone())?;
        let clock: Arc<dyn TimeProvider> = clock.clone();
        let mut server = ServerConfig::builder_with_details(provider.clone(), clock.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(CredentialsError::Tls)?
            .with_client_cert_verifier(members.clone())
            .with_cert_resolver(key.clone());
        server.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        // A resumed session would not show its certificate again.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let mut client = ClientConfig::builder_with_details(provider, clock)
            .with_protocol_versions(&[&TLS13])
            .map_err(CredentialsError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(servers))
            .with_client_cert_resolver(key);
        client.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        client.resumption = rustls::client::Resumption::disabled();

        Ok(Self { identity: credentials.identity(), members, server: Arc::new(server), client: Arc::new(client) })
    }
}

pub(crate) fn crypto() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
