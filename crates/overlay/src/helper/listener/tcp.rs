//! A TCP port's proxy: each connection to one backend, bytes both ways, each direction closed for itself.
//!
//! A connection that is idle holds no buffer: bytes pass through the stack, and only what the receiver does not take
//! at once is kept until it does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::Backends;

const CONNECT: Duration = Duration::from_secs(3);
/// Backends tried for one connection.
const TRIES_MAX: usize = 4;
/// Passed on in one go.
const CHUNK_BYTES: usize = 32 << 10;

/// Accepts until it is aborted; connections outlive it.
pub async fn serve(listener: TcpListener, backends: watch::Receiver<Backends>, connections: Arc<Semaphore>) {
    loop {
        match listener.accept().await {
            Ok((client, from)) => {
                let permit = Arc::clone(&connections).acquire_owned().await.expect("the semaphore is never closed");
                let backends: Vec<_> = backends.borrow().for_client(from.ip()).take(TRIES_MAX).collect();
                tokio::spawn(async move {
                    proxy(client, &backends).await;
                    drop(permit);
                });
            }
            // The client has gone again, or descriptors are short for a moment.
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn proxy(client: TcpStream, backends: &[SocketAddr]) {
    let Some(backend) = connect(backends).await else { return reset(&client) };
    for stream in [&client, &backend] {
        let socket = SockRef::from(stream);
        // Without these two a connection still works, only slower, or held for longer than its peer lives.
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_keepalive(true);
    }
    // Either side's end by error is the other side's too, and should look the same there.
    if tokio::try_join!(pass(&client, &backend), pass(&backend, &client)).is_err() {
        reset(&client);
        reset(&backend);
    }
}

/// The first that takes the connection.
async fn connect(backends: &[SocketAddr]) -> Option<TcpStream> {
    for backend in backends {
        match timeout(CONNECT, TcpStream::connect(backend)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%backend, %error, "a backend refused a connection"),
            Err(_) => tracing::debug!(%backend, "a backend did not answer"),
        }
    }
    None
}

/// Closes with RST instead of FIN, so that the peer sees a failure and not an empty answer.
fn reset(stream: &TcpStream) {
    // Else it is closed the other way.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// One direction, to its end.
async fn pass(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    loop {
        from.readable().await?;
        match pass_chunk(from, to)? {
            Passed::All => {}
            Passed::End => return SockRef::from(to).shutdown(std::net::Shutdown::Write),
            Passed::But(rest) => write(to, &rest).await?,
        }
        // Two fast peers must not keep everybody else waiting.
        tokio::task::coop::consume_budget().await;
    }
}

enum Passed {
    All,
    But(Vec<u8>),
    End,
}

fn pass_chunk(from: &TcpStream, to: &TcpStream) -> io::Result<Passed> {
    let mut buffer = [0; CHUNK_BYTES];
    let read = match from.try_read(&mut buffer) {
        Ok(0) => return Ok(Passed::End),
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Passed::All),
        Err(error) => return Err(error),
    };
    let written = try_write(to, &buffer[..read])?;
    Ok(if written == read { Passed::All } else { Passed::But(buffer[written..read].to_vec()) })
}

async fn write(to: &TcpStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        to.writable().await?;
        rest = &rest[try_write(to, rest)?..];
    }
    Ok(())
}

fn try_write(to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match to.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}
