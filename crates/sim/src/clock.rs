//! Simulated time: one true clock, and the wall clocks that machines believe in.

use skep_model::Timestamp;

/// Nanoseconds since the simulation began.
pub type Nanos = u64;

pub const MILLI: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MILLI;
pub const MINUTE: Nanos = 60 * SECOND;
pub const HOUR: Nanos = 60 * MINUTE;

/// What a right wall clock shows when the simulation begins.
const START: i64 = 1_800_000_000 * SECOND as i64;

/// A machine's wall clock: the truth and an error.
#[derive(Debug, Clone, Copy, Default)]
pub struct WallClock {
    /// By how many nanoseconds it is ahead; negative where it is behind.
    pub ahead: i64,
}

impl WallClock {
    pub fn read(self, now: Nanos) -> Timestamp {
        Timestamp((START + now as i64 + self.ahead) as u64)
    }
}
