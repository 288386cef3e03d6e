//! What a lab promises: nodes that are machines of their own, an outside, and nothing left behind.

mod clean_up;
mod faults;
mod isolation;
mod lifecycle;
mod registries;
#[cfg(target_arch = "x86_64")]
mod vm;
