//! Why a change was refused, on its way from the leader to whoever proposed it.

use skep_model::Rejection;

use crate::wire::choice;

choice!(Rejection = Rejection in rejection {;
    NotFound(RejectedNotFound) { kind, id },
    AlreadyExists(RejectedAlreadyExists) { kind, name },
    OutOfSequence(RejectedOutOfSequence) { kind, id, expected, actual },
    InUse(RejectedInUse) { kind, name, user },
    Backwards(RejectedBackwards) { task, state, wanted },
    BlockTaken(RejectedBlockTaken) { network, reason },
    Taken(RejectedTaken) { what, by },
    NoNodeAddress(RejectedNoNodeAddress) { node, range },
});
