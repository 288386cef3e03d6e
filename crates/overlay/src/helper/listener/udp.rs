//! A UDP port's proxy: each client is a flow with a socket of its own towards one backend, so that answers find back.
//! A flow ends when neither side has said anything for [`IDLE`], or when the backend refuses; the client's next
//! datagram begins another.
//!
//! On a socket for every address the kernel chooses the source of an answer by its route to the client; for the
//! loopback addresses 127.0.0.1 and ::1 that is the address that was asked.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::Backends;
use crate::helper::datagram;

const IDLE: Duration = Duration::from_secs(60);
/// Flows of one port; datagrams of further clients are dropped.
const FLOWS_MAX: usize = 1024;
/// Datagrams taken in one go before other sockets have their turn.
const BATCH: usize = 64;

struct Flow {
    client: SocketAddr,
    backend: SocketAddr,
    /// Connected to the backend.
    socket: UdpSocket,
    /// When the client last said something, in milliseconds since the start of the proxy.
    heard_ms: AtomicU64,
}

/// Passes datagrams until it is aborted.
pub async fn serve(socket: UdpSocket, backends: watch::Receiver<Backends>) {
    let started = Instant::now();
    let mut flows: HashMap<SocketAddr, Arc<Flow>> = HashMap::new();
    let mut ends = FuturesUnordered::new();
    loop {
        tokio::select! {
            ready = socket.readable() => {
                if ready.is_err() {
                    return;
                }
                for _ in 0..BATCH {
                    let mut buffer = [0; u16::MAX as usize];
                    let Ok((length, client)) = socket.try_recv_from(&mut buffer) else { break };
                    let datagram = &buffer[..length];
                    let now_ms = started.elapsed().as_millis() as u64;
                    let known = flows.get(&client).filter(|flow| backends.borrow().addresses.contains(&flow.backend));
                    if let Some(flow) = known {
                        flow.heard_ms.store(now_ms, Ordering::Relaxed);
                        // An error of the network is the flow's own task's to see.
                        let _ = SockRef::from(&flow.socket).send(datagram);
                    } else if ends.len() < FLOWS_MAX
                        && let Some(flow) = begin(client, &backends.borrow(), datagram, now_ms)
                    {
                        let flow = Arc::new(flow);
                        flows.insert(client, Arc::clone(&flow));
                        ends.push(answer(flow, &socket, started));
                    }
                }
            }
            Some(ended) = ends.next(), if !ends.is_empty() => {
                // The client may have another flow by now.
                if flows.get(&ended.client).is_some_and(|flow| Arc::ptr_eq(flow, &ended)) {
                    flows.remove(&ended.client);
                }
            }
        }
    }
}

/// A flow with its first datagram on the way; None without a backend.
fn begin(client: SocketAddr, backends: &Backends, datagram: &[u8], now_ms: u64) -> Option<Flow> {
    let backend = backends.for_client(client.ip()).next()?;
    match connect(backend, datagram) {
        Ok(socket) => Some(Flow { client, backend, socket, heard_ms: AtomicU64::new(now_ms) }),
        Err(error) => {
            tracing::debug!(%backend, %error, "a datagram could not be passed on");
            None
        }
    }
}

fn connect(backend: SocketAddr, datagram: &[u8]) -> io::Result<UdpSocket> {
    let any: SocketAddr = match backend {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(backend)?;
    socket.send(datagram)?;
    UdpSocket::from_std(socket)
}

/// Brings answers back until the flow's end.
async fn answer(flow: Arc<Flow>, to: &UdpSocket, started: Instant) -> Arc<Flow> {
    loop {
        match timeout(IDLE, datagram::arrived(&flow.socket)).await {
            Ok(Ok(())) => match pass(&flow.socket, to, flow.client) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return flow,
                Ok(()) | Err(_) => {}
            },
            Ok(Err(_)) => return flow,
            Err(_) => {
                let heard = Duration::from_millis(flow.heard_ms.load(Ordering::Relaxed));
                if started.elapsed().saturating_sub(heard) >= IDLE {
                    return flow;
                }
            }
        }
        tokio::task::coop::consume_budget().await;
    }
}

/// A datagram that the client cannot take is lost, as on any network.
fn pass(from: &UdpSocket, to: &UdpSocket, client: SocketAddr) -> io::Result<()> {
    let mut buffer = [0; u16::MAX as usize];
    let length = datagram::receive(from, &mut buffer)?;
    let _ = SockRef::from(to).send_to(&buffer[..length], &client.into());
    Ok(())
}
