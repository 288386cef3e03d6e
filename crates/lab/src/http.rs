//! The smallest HTTP client that can tell whether a published port answers: run it in a node, or outside.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// For a connection, and for each silence within an answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    pub status: u16,
    pub body: String,
}

/// `GET path` over HTTP/1.0 from `address`, from the network of the calling thread.
pub fn http_get(address: SocketAddr, path: &str) -> Result<HttpAnswer> {
    let mut stream =
        TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE)).context("cannot limit the wait")?;
    // With the port, and so with an IPv6 address in brackets: servers refuse it without.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .with_context(|| format!("cannot ask {address}"))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).with_context(|| format!("{address} broke off its answer"))?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) =
        text.split_once("\r\n\r\n").with_context(|| format!("{address} does not speak HTTP: {:?}", text.get(..80)))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("the answer has no status")?;
    Ok(HttpAnswer { status, body: body.to_owned() })
}
