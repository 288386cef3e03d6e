//! Control API, dispatcher, CA, and the leader loop that turns decisions into proposals.

pub mod admission;
mod clock;
pub mod deploy;
pub mod leader;
