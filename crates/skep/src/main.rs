//! The skep binary: daemon, command line, lab, and the re-exec entries.
fn main() {}
