//! The agent's side: ask the keeper for containers, and talk to their wardens.
//! All calls are synchronous and short; descriptors are open to `AsFd` for an event loop.

mod container;
mod events;
mod exec;
mod keeper;

pub use container::Container;
pub use events::Events;
pub use exec::{ExecExit, ExecIo, ExecSession};
pub use keeper::{Created, Keeper, KeeperConfig, KeeperError};

use crate::failure::Failure;
use crate::wire::WireError;

/// Why a container could not be made: step, words for the user, exit code.
pub type CreateError = Failure;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody looks after this container: it never was, was released, or its warden is lost (see `recover_lost`).
    #[error("container `{id}` has no supervisor")]
    NoWarden {
        id: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Refused(#[from] Failure),
    #[error("the supervisor of container `{id}` does not answer")]
    Connection {
        id: String,
        #[source]
        source: WireError,
    },
    #[error("the supervisor of container `{id}` went away")]
    Gone { id: String },
    #[error("the supervisor of container `{id}` gave an answer that does not fit the request")]
    Unexpected { id: String },
}
