//! A manager of one, over real TLS on loopback and a real store.

mod trust;
mod tunnel;
mod world;
