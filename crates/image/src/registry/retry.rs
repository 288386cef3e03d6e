//! When to try again, and after how long: jittered, doubling, bounded; a server's `Retry-After` is honoured.

use std::time::Duration;

/// Attempts for one request, the first included. A registry that is down is reported within about 2 s; who
/// wants the image retries at its own pace.
const ATTEMPTS: u32 = 4;
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// A registry that asks for more is reported instead: the caller's own back-off can wait without holding a pull.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Waits before the next attempt; `false` when there shall be none.
    pub(crate) async fn again(&mut self, retry_after: Option<Duration>) -> bool {
        self.failures += 1;
        if self.failures >= ATTEMPTS || retry_after.is_some_and(|after| after > RETRY_AFTER_MAX) {
            return false;
        }
        let doubled = FIRST.saturating_mul(1 << (self.failures - 1)).min(LONGEST);
        let wait = retry_after.unwrap_or_default().max(doubled.mul_f64(jitter()));
        tokio::time::sleep(wait).await;
        true
    }

    /// There was progress: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// 0.5 to 1.5, so that nodes that failed together do not come back together.
fn jitter() -> f64 {
    let mut byte = [0u8; 1];
    // Without randomness the waits are merely not spread.
    let filled = rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::NONBLOCK).unwrap_or(0);
    if filled == 1 { 0.5 + f64::from(byte[0]) / 256.0 } else { 1.0 }
}
