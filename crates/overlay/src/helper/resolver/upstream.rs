//! Names of the world: the client's question goes to the node's resolvers as it came, their answer comes back as it
//! came. Asked from the node's own network namespace, from a socket and with an id of its own for each question, so
//! that a stranger cannot guess what an answer must look like.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::answer::{Question, Transport};
use super::cache::Cache;
use super::message::{self, HEADER_BYTES};
use super::{random, read_message, write_message};
use crate::helper::datagram;

/// Questions of the whole node that wait at one time.
const WAITING_MAX: usize = 512;
/// For one try; clients give up after 5 s and ask again.
const UDP_PATIENCE: Duration = Duration::from_secs(2);
const TCP_PATIENCE: Duration = Duration::from_secs(4);
/// Tries at all servers together; a single one is asked twice, for a packet may be lost.
const TRIES_MIN: usize = 2;
const TRIES_MAX: usize = 3;
/// A server that did not answer is asked last for so long.
const DISTRUST: Duration = Duration::from_secs(30);
const CODE_SERVFAIL: u8 = 2;
const CODE_REFUSED: u8 = 5;

pub struct Upstream {
    cache: Mutex<Cache>,
    /// When a server last did not answer.
    failed: Mutex<HashMap<SocketAddr, Instant>>,
    waiting: Semaphore,
    started: Instant,
}

impl Upstream {
    pub fn new() -> Self {
        Self {
            cache: Mutex::default(),
            failed: Mutex::default(),
            waiting: Semaphore::new(WAITING_MAX),
            started: Instant::now(),
        }
    }

    pub fn forget(&self) {
        self.cache().clear();
        self.failed().clear();
    }

    /// The answer for the client; None if no server has one.
    pub async fn ask(&self, servers: &[SocketAddr], question: &Question, query: &[u8]) -> Option<Vec<u8>> {
        if let Some(key) = &question.cache_key {
            let kept = self.cache().get(key, query, self.now_s());
            if let Some(kept) = kept.filter(|kept| kept.len() <= question.bytes_max) {
                return Some(kept);
            }
        }
        let _permit = self.waiting.try_acquire().ok()?;
        let mut answer = self.ask_all(servers, query, question.transport).await?;
        if let Some(key) = &question.cache_key {
            self.cache().put(key.clone(), &answer, self.now_s());
        }
        if answer.len() > question.bytes_max {
            cut(&mut answer);
        }
        Some(answer)
    }

    /// The first good answer. A server that fails or refuses may be misled, so the next is asked; its answer is
    /// better than none.
    async fn ask_all(&self, servers: &[SocketAddr], query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let tries = servers.len().clamp(TRIES_MIN, TRIES_MAX);
        let mut poor = None;
        for server in self.in_order(servers).iter().cycle().take(tries) {
            match ask_one(*server, query, transport).await {
                Ok(answer) if matches!(message::response_code(&answer), Some(CODE_SERVFAIL | CODE_REFUSED)) => {
                    poor = Some(answer);
                }
                Ok(answer) => {
                    self.failed().remove(server);
                    return Some(answer);
                }
                Err(error) => {
                    tracing::debug!(%server, %error, "an upstream resolver did not answer");
                    self.failed().insert(*server, Instant::now());
                }
            }
        }
        poor
    }

    /// As they were given, but those that were silent a moment ago come last.
    fn in_order(&self, servers: &[SocketAddr]) -> Vec<SocketAddr> {
        let failed = self.failed();
        let mut servers = servers.to_vec();
        servers.sort_by_key(|server| failed.get(server).is_some_and(|at| at.elapsed() < DISTRUST));
        servers
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.failed.lock().expect("nothing panics while it holds the list")
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().expect("nothing panics while it holds the cache")
    }

    fn now_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

/// A cut answer is asked for again by TCP if the client has room for the whole; else the client does the same.
async fn ask_one(server: SocketAddr, query: &[u8], transport: Transport) -> io::Result<Vec<u8>> {
    let mut asked = query.to_vec();
    let id = (random::number() as u16).to_be_bytes();
    asked.get_mut(..2).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(&id);
    let mut answer = timeout(UDP_PATIENCE, by_udp(server, &asked)).await??;
    if message::is_truncated(&answer) && transport == Transport::Tcp {
        answer = timeout(TCP_PATIENCE, by_tcp(server, &asked)).await??;
    }
    answer[..2].copy_from_slice(&query[..2]);
    Ok(answer)
}

async fn by_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    loop {
        datagram::arrived(&socket).await?;
        match receive(&socket) {
            Ok(answer) if answers(&answer, query) => return Ok(answer),
            // Somebody else's, or late: the right one may still come.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = [0; u16::MAX as usize];
    let length = datagram::receive(socket, &mut buffer)?;
    Ok(buffer[..length].to_vec())
}

async fn by_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, query).await?;
    let answer = read_message(&mut stream).await?;
    answers(&answer, query).then_some(answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A response with this id to this question. Servers may leave the question out when they refuse.
fn answers(answer: &[u8], query: &[u8]) -> bool {
    if answer.len() < HEADER_BYTES || answer[..2] != query[..2] || answer[2] & 0x80 == 0 {
        return false;
    }
    let question = |message: &[u8]| {
        let end = message::question_end(message)?;
        Some(message[HEADER_BYTES..end].to_ascii_lowercase())
    };
    match question(answer) {
        Some(question_of_answer) => question(query) == Some(question_of_answer),
        None => message::response_code(answer) != Some(0),
    }
}

/// Only the header and the question, marked as cut: a server gave more than its client had asked for.
fn cut(answer: &mut Vec<u8>) {
    let end = message::question_end(answer).unwrap_or(HEADER_BYTES);
    answer.truncate(end);
    answer[2] |= 0x02;
    let counts = if end > HEADER_BYTES { [0, 1, 0, 0, 0, 0, 0, 0] } else { [0; 8] };
    answer[4..HEADER_BYTES].copy_from_slice(&counts);
}
