//! What others get of this crate, at its boundary: bytes that come back as the same values, calls over real sockets.

mod arbitrary;
mod cluster;
mod control;
mod disk;
mod gate;
mod peer;
mod session;
