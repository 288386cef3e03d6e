//! Compose project to service, network, secret and config specs; what a deploy of them would change.
//!
//! [`convert`] gives the project Docker's names, labels and defaults, warns of what a cluster cannot honour
//! and refuses what it cannot do without, each with its place in the file.
//! [`diff`] compares the result with what a cluster has.
//! Both are pure; credentials, image digests and ids are other crates' affair.

mod convert;
mod diff;
mod spec;

pub use convert::{Conversion, IMAGE_LABEL, convert, with_tag};
pub use diff::{Action, Plan, PlanStep, Prune, diff, service_changes};
pub use spec::{ContentSpec, External, StackSpec};
