//! One task on this node: from its assignment to its end.
//!
//! `step` decides, `driver` performs and reports; `prepare` makes what the container needs, `plan` says
//! what it is, `watch` waits for its end, `probe` runs its health check, `hooks` what it asks
//! for after its start and before its stop.

pub mod contents;
pub mod driver;
pub mod files;
pub mod health;
mod hook_run;
mod hooks;
pub mod plan;
pub mod prepare;
pub mod probe;
pub mod step;
mod stop;
pub mod template;
pub mod watch;
