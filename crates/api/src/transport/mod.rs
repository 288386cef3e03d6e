//! Connections: TLS over TCP between nodes, a unix socket on one machine; HTTP/2 and gRPC on top of either.

mod client;
mod server;
mod stream;

pub use client::{ConnectError, Connection, connect_join, connect_tls, connect_unix, connect_watched};
pub use server::{ServeError, Server};
