//! The unlock key of the managers' files.

use crate::wire::{enumeration, message};

/// What is to become of autolock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutolockChange {
    On,
    Off,
    /// A new key in the place of the one that managers are locked with.
    Rotate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AutolockRequest {
    /// Absent: only look.
    pub change: Option<AutolockChange>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct AutolockState {
    /// The unlock key; absent while autolock is off.
    pub unlock_key: Option<String>,
}

enumeration!(AutolockChange = AutolockChange { On, Off, Rotate });
message!(AutolockRequest = AutolockRequest { change });
message!(AutolockState = AutolockState { unlock_key });
