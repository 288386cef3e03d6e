//! TCP connections that are there as soon as there is a way.
//!
//! A first packet that is lost, as all are while a network is cut, is sent again by the kernel a second later, then after
//! two, then four: who began to connect in the meantime would notice late that the way is there again. So another try is
//! begun beside those that are silent. A server that is slow has taken the first by then, so it is asked once.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// After which silence is met by another try.
const AGAIN: Duration = Duration::from_millis(400);

/// The first connection, or the first failure. Never returns while there is neither.
pub async fn dial(address: impl ToSocketAddrs) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = lookup_host(address).await?.collect();
    let mut tries = JoinSet::new();
    loop {
        let addresses = addresses.clone();
        tries.spawn(async move { TcpStream::connect(&addresses[..]).await });
        if let Ok(Some(outcome)) = timeout(AGAIN, tries.join_next()).await {
            return outcome.map_err(io::Error::other)?;
        }
    }
}
