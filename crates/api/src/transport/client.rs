//! Connecting to a daemon.
//!
//! A [`Connection`] is made once and mends itself: when it breaks, the calls that run fail as `Unavailable`, and the
//! next call connects again, with the certificate that is current then.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::{self, FutureExt, TryFutureExt};
use hyper_util::rt::TokioIo;
use skep_identity::{JoinConnector, TlsConnector};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

const KEEPALIVE: Duration = Duration::from_secs(20);
/// Of connections whose other end must be missed soon: a question after this long without a word, and the time to
/// answer it. A node without power sends no goodbye, nor does one that is stopped.
const WATCHED_KEEPALIVE: Duration = Duration::from_secs(1);
const WATCHED_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no skep daemon listens on `{}`: start one with `skep init`, or `systemctl start skep`", path.display())]
    NoDaemon { path: PathBuf },
    #[error("`{}` is not open to this user: use sudo, or add the user to the group `skep`", path.display())]
    NotAllowed { path: PathBuf },
    #[error("failed to connect to `{}`", path.display())]
    Socket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Tls(#[from] skep_identity::ConnectError),
    #[error("failed to talk to {address}")]
    Protocol {
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
}

/// A connection to one daemon, shared by the clients made of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connection(Channel);

impl Connection {
    pub(crate) fn into_channel(self) -> Channel {
        self.0
    }
}

/// Connects to the daemon of this machine.
pub async fn connect_unix(path: &Path) -> Result<Connection, ConnectError> {
    let address = format!("unix://{}", path.display());
    let path = path.to_owned();
    let open = move || {
        let path = path.clone();
        async move {
            UnixStream::connect(&path).await.map_err(|source| match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ConnectError::NoDaemon { path },
                io::ErrorKind::PermissionDenied => ConnectError::NotAllowed { path },
                _ => ConnectError::Socket { path, source },
            })
        }
    };
    connect(endpoint(), address, open).await
}

/// Connects to a member of the cluster at `address` (`host:port`), as the node whose certificate `connector` holds.
pub async fn connect_tls(address: &str, connector: TlsConnector) -> Result<Connection, ConnectError> {
    connect_member(between_nodes(), address, connector).await
}

/// As [`connect_tls`]; what runs over the connection fails within 4 s when the other end is silent.
pub async fn connect_watched(address: &str, connector: TlsConnector) -> Result<Connection, ConnectError> {
    let endpoint = endpoint().http2_keep_alive_interval(WATCHED_KEEPALIVE).keep_alive_timeout(WATCHED_TIMEOUT);
    connect_member(endpoint, address, connector).await
}

async fn connect_member(
    endpoint: Endpoint,
    address: &str,
    connector: TlsConnector,
) -> Result<Connection, ConnectError> {
    let target = address.to_owned();
    let open = move || {
        let (target, connector) = (target.clone(), connector.clone());
        async move { Ok(connector.connect(target).await?.0) }
    };
    connect(endpoint, address.to_owned(), open).await
}

/// Connects to a manager at `address` (`host:port`) without a certificate, to ask for one.
pub async fn connect_join(address: &str, connector: JoinConnector) -> Result<Connection, ConnectError> {
    let target = address.to_owned();
    let open = move || {
        let (target, connector) = (target.clone(), connector.clone());
        async move { Ok(connector.connect(target).await?) }
    };
    connect(between_nodes(), address.to_owned(), open).await
}

/// Opens the first stream itself, because tonic would wrap why that failed; the later ones are opened when needed.
async fn connect<S, F>(
    endpoint: Endpoint,
    address: String,
    open: impl Fn() -> F + Send + 'static,
) -> Result<Connection, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = Result<S, ConnectError>> + Send + 'static,
{
    let mut first = Some(open().await?);
    let connector = service_fn(move |_: Uri| {
        let stream = match first.take() {
            Some(stream) => future::ready(Ok(stream)).left_future(),
            None => open().right_future(),
        };
        stream.map_ok(TokioIo::new)
    });
    match endpoint.connect_with_connector(connector).await {
        Ok(channel) => Ok(Connection(channel)),
        Err(source) => Err(ConnectError::Protocol { address, source }),
    }
}

fn endpoint() -> Endpoint {
    // The name is not looked up: the connector knows where to go.
    Endpoint::from_static("http://skep")
}

fn between_nodes() -> Endpoint {
    endpoint().http2_keep_alive_interval(KEEPALIVE).keep_alive_timeout(KEEPALIVE / 2)
}
