//! Two ends of real TCP connections on loopback: who is let in, who is not.

mod handshake;
mod joining;
mod lapsed;
mod storage;
mod support;
