//! One resolver per sandbox: a UDP and a TCP socket inside its network namespace, where nobody else can reach it,
//! so the socket that a question arrives on says whose view answers it.

mod answer;
mod cache;
mod message;
mod sockets;
mod upstream;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::random;
use crate::snapshot::{ServeError, Snapshot};
use answer::{Decision, Transport, decide};
use sockets::{Opened, Wanted};
use upstream::Upstream;

/// Questions of one sandbox that wait for an upstream; more are answered with SERVFAIL.
const WAITING_MAX: usize = 128;
/// TCP connections of one sandbox; more wait to be accepted.
const CONNECTIONS_MAX: usize = 32;
/// A TCP connection that asks nothing is closed.
const IDLE: Duration = Duration::from_secs(10);
/// A longer question than this is cut, and so answered with FORMERR.
const QUERY_BYTES_MAX: usize = 4096;
/// Questions taken in one go before answers that have arrived are sent.
const BATCH: usize = 32;

/// The resolvers of all sandboxes.
pub struct Resolvers {
    open: BTreeMap<String, Open>,
    shared: Arc<Shared>,
}

struct Shared {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    upstream: Upstream,
}

struct Open {
    wanted: Wanted,
    /// Of the namespace file, which may be another namespace's by now.
    identity: sockets::Identity,
    tasks: [JoinHandle<()>; 2],
}

impl Resolvers {
    pub fn new(snapshot: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self { open: BTreeMap::new(), shared: Arc::new(Shared { snapshot, upstream: Upstream::new() }) }
    }

    /// Upstreams have changed: others may answer otherwise.
    pub fn forget_answers(&self) {
        self.shared.upstream.forget();
    }

    /// Opens and closes sockets until there is one pair per sandbox. Those that stay are not disturbed.
    pub async fn serve(&mut self, snapshot: &Snapshot) -> Vec<ServeError> {
        let wanted = |view: &crate::snapshot::View| Wanted { netns: view.netns.clone(), port: snapshot.resolver_port };
        let stays = |id: &String, open: &Open| {
            let asked = snapshot.sandboxes.get(id).map(wanted).as_ref() == Some(&open.wanted);
            asked && sockets::identity(&open.wanted.netns).is_ok_and(|identity| identity == open.identity)
        };
        let gone: Vec<String> =
            self.open.iter().filter(|(id, open)| !stays(id, open)).map(|(id, _)| id.clone()).collect();
        for open in gone.iter().filter_map(|id| self.open.remove(id)) {
            for task in open.tasks {
                task.abort();
                // Aborted, and with it its socket is closed.
                let _ = task.await;
            }
        }
        let missing = snapshot.sandboxes.iter().filter(|(id, _)| !self.open.contains_key(*id));
        let missing: Vec<(String, Wanted)> = missing.map(|(id, view)| (id.clone(), wanted(view))).collect();
        let opened = sockets::open(missing.iter().map(|(_, wanted)| wanted.clone()).collect());
        let mut errors = Vec::new();
        for ((sandbox, wanted), opened) in missing.into_iter().zip(opened) {
            match opened.and_then(|opened| self.start(&sandbox, wanted, opened)) {
                Ok(open) => drop(self.open.insert(sandbox, open)),
                Err(error) => errors.push(ServeError::Resolver { sandbox, message: error.to_string() }),
            }
        }
        errors
    }

    fn start(&self, sandbox: &str, wanted: Wanted, opened: Opened) -> io::Result<Open> {
        let Opened { identity, udp, tcp } = opened;
        let resolver = Resolver { sandbox: sandbox.into(), shared: Arc::clone(&self.shared) };
        let udp = UdpSocket::from_std(udp)?;
        let tcp = TcpListener::from_std(tcp)?;
        let tasks = [tokio::spawn(resolver.clone().serve_udp(udp)), tokio::spawn(resolver.serve_tcp(tcp))];
        Ok(Open { wanted, identity, tasks })
    }
}

#[derive(Clone)]
struct Resolver {
    sandbox: Arc<str>,
    shared: Arc<Shared>,
}

impl Resolver {
    async fn serve_udp(self, socket: UdpSocket) {
        let mut waiting = FuturesUnordered::new();
        loop {
            tokio::select! {
                ready = socket.readable() => {
                    if ready.is_err() {
                        return;
                    }
                    for _ in 0..BATCH {
                        let Ok((query, client)) = receive(&socket) else { break };
                        match self.decide(&query, Transport::Udp) {
                            Decision::Reply(reply) => send(&socket, &reply, client),
                            Decision::Forward(question) if waiting.len() < WAITING_MAX => {
                                let shared = Arc::clone(&self.shared);
                                waiting.push(async move { (shared.forward(question, query).await, client) });
                            }
                            Decision::Forward(question) => send(&socket, &question.failure, client),
                            Decision::Ignore => {}
                        }
                    }
                }
                Some((reply, client)) = waiting.next(), if !waiting.is_empty() => send(&socket, &reply, client),
            }
        }
    }

    async fn serve_tcp(self, listener: TcpListener) {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => connections.push(self.converse(stream)),
                    // Out of descriptors: those in use are given back in a moment.
                    Err(_) => sleep(Duration::from_millis(50)).await,
                },
                Some(_) = connections.next(), if !connections.is_empty() => {}
            }
        }
    }

    /// Any number of questions; ends by the client's close, silence or nonsense, which are all the same to us.
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let query = timeout(IDLE, read_message(&mut stream)).await??;
            let reply = match self.decide(&query, Transport::Tcp) {
                Decision::Reply(reply) => reply,
                Decision::Forward(question) => self.shared.forward(question, query).await,
                Decision::Ignore => return Ok(()),
            };
            timeout(IDLE, write_message(&mut stream, &reply)).await??;
        }
    }

    fn decide(&self, query: &[u8], transport: Transport) -> Decision {
        decide(&self.shared.snapshot.borrow(), &self.sandbox, query, transport, random::shuffle)
    }
}

impl Shared {
    async fn forward(&self, question: answer::Question, query: Vec<u8>) -> Vec<u8> {
        let servers = self.snapshot.borrow().upstreams.clone();
        match self.upstream.ask(&servers, &question, &query).await {
            Some(reply) => reply,
            None => question.failure,
        }
    }
}

fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; QUERY_BYTES_MAX];
    let (length, client) = socket.try_recv_from(&mut buffer)?;
    Ok((buffer[..length].to_vec(), client))
}

/// Past the runtime's idea of readiness, which a new socket lacks. A client whose answer is lost asks again.
fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    let _ = SockRef::from(socket).send_to(reply, &client.into());
}

/// RFC 1035 §4.2.2: a length of two bytes in front.
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await
}
