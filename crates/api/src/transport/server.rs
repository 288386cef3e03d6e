//! Serving calls on a listener.
//!
//! A connection that fails its handshake is dropped and told to the log, at debug level: anybody can open one. A
//! listener that fails to accept (no descriptors left) waits a moment and goes on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use skep_identity::{HandshakeError, Peer, TlsAcceptor, addresses};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::stream::{self as connection, Accepted};
use crate::ca::{Ca, CaAdapter};
use crate::control::{Control, ControlAdapter};
use crate::dispatcher::{Dispatcher, DispatcherAdapter};
use crate::local::{Local, LocalAdapter};
use crate::roster::{Roster, RosterAdapter};
use crate::rpc::Caller;

/// Handshakes that may run at once; strangers beyond that wait in the listener's queue.
const HANDSHAKES_MAX: usize = 256;
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long calls may run on after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(3);
/// A peer that vanished without a word (power cut) is noticed after this and half of it.
const KEEPALIVE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
#[error("failed to serve calls")]
pub struct ServeError(#[source] tonic::transport::Error);

/// The services that a daemon offers, on any number of listeners.
///
/// Every method checks who may call it, so that one set can stand behind the socket and the port.
#[derive(Clone, Default)]
pub struct Server {
    routes: Routes,
}

impl Server {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn control(mut self, handler: Arc<impl Control>) -> Self {
        self.routes = self.routes.add_service(ControlAdapter::routes(handler));
        self
    }

    pub fn local(mut self, handler: Arc<impl Local>) -> Self {
        self.routes = self.routes.add_service(LocalAdapter::routes(handler));
        self
    }

    pub fn dispatcher(mut self, handler: Arc<impl Dispatcher>) -> Self {
        self.routes = self.routes.add_service(DispatcherAdapter::routes(handler));
        self
    }

    pub fn ca(mut self, handler: Arc<impl Ca>) -> Self {
        self.routes = self.routes.add_service(CaAdapter::routes(handler));
        self
    }

    pub fn roster(mut self, handler: Arc<impl Roster>) -> Self {
        self.routes = self.routes.add_service(RosterAdapter::routes(handler));
        self
    }

    /// Serves nodes until `shutdown`; then no new connections, and what still runs after 3 s is cut.
    pub async fn serve_tls(
        self,
        listener: TcpListener,
        acceptor: TlsAcceptor,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let cut = CancellationToken::new();
        let cutting = cut.clone();
        let accepted = accept(listener, |listener: Arc<TcpListener>| async move { Ok(listener.accept().await?.0) })
            .map(move |tcp| handshake(acceptor.clone(), tcp, cutting.clone()))
            .buffer_unordered(HANDSHAKES_MAX)
            .filter_map(async |result| match result {
                Ok(accepted) => Some(accepted),
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "connection refused");
                    None
                }
            });
        self.serve(accepted, cut, shutdown).await
    }

    /// Serves processes of this machine until `shutdown`; who may open the socket is up to its file's permissions.
    pub async fn serve_unix(
        self,
        listener: UnixListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let cut = CancellationToken::new();
        let cutting = cut.clone();
        let accepted = accept(listener, |listener: Arc<UnixListener>| async move { Ok(listener.accept().await?.0) })
            .filter_map(move |stream: UnixStream| {
                let cut = cutting.clone();
                async move { local(stream, cut) }
            });
        self.serve(accepted, cut, shutdown).await
    }

    async fn serve(
        self,
        accepted: impl Stream<Item = Accepted> + Send,
        cut: CancellationToken,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        // However serving ends, no connection outlives it.
        let cut_guard = cut.clone().drop_guard();
        let drained = CancellationToken::new();
        let draining = drained.clone();
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE / 2))
            .add_routes(self.routes)
            .serve_with_incoming_shutdown(accepted.map(Ok::<_, io::Error>), async move {
                shutdown.await;
                draining.cancel();
            });
        let cutting = async {
            drained.cancelled().await;
            tokio::time::sleep(DRAIN).await;
            drop(cut_guard);
            std::future::pending::<()>().await
        };
        tokio::select! {
            result = serving => result.map_err(ServeError),
            () = cutting => unreachable!("cutting never ends"),
        }
    }
}

/// The connections of a listener, without end.
fn accept<L, S, F>(listener: L, next: impl Fn(Arc<L>) -> F + Send) -> impl Stream<Item = S> + Send
where
    L: Send + Sync,
    S: Send,
    F: Future<Output = io::Result<S>> + Send,
{
    stream::unfold((Arc::new(listener), next), async |(listener, next)| {
        loop {
            match next(listener.clone()).await {
                Ok(stream) => return Some((stream, (listener, next))),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    })
}

async fn handshake(acceptor: TlsAcceptor, tcp: TcpStream, cut: CancellationToken) -> Result<Accepted, HandshakeError> {
    let (stream, peer) = acceptor.accept(tcp).await?;
    let (_, address) = addresses(&stream).map_err(HandshakeError::Tls)?;
    let caller = match peer {
        Peer::Node(identity) => Caller::Member { identity, address },
        Peer::Lapsed(identity) => Caller::Lapsed { identity, address },
        Peer::Anonymous => Caller::Anonymous { address },
    };
    Ok(Accepted::new(caller, connection::Stream::Tls(Box::new(stream)), cut))
}

/// None if the peer is gone before the kernel could say who it was.
fn local(stream: UnixStream, cut: CancellationToken) -> Option<Accepted> {
    let credentials = stream.peer_cred().ok()?;
    let caller = Caller::Local { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() };
    Some(Accepted::new(caller, connection::Stream::Unix(stream), cut))
}
