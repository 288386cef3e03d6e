//! Stacks and their revisions.

use skep_model::{Stack, StackRevision};

use super::message;

message!(Stack = Stack { id, meta, name, revisions });
message!(StackRevision = StackRevision { number, created_at, author, services });
