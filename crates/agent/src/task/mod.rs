//! One task on this node: from its assignment to its end.
//!
//! `step` decides, `driver` performs and reports; `prepare` makes what the container needs, `plan` says
//! what it is, `watch` waits for its end, `probe` runs its health check.

pub mod contents;
pub mod driver;
pub mod files;
pub mod health;
pub mod plan;
pub mod prepare;
pub mod probe;
pub mod step;
mod stop;
pub mod template;
pub mod watch;
