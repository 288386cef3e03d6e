//! A Compose file as Rust types: parse, interpolate, merge, validate; knows no cluster.
