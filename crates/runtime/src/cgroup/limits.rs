//! What a container may use, in Docker's terms, and the exact conversions to what cgroup files take.
//!
//! Pure: no file is touched here. `None` always means that the kernel's default stays.

use serde::{Deserialize, Serialize};

use super::devices::DeviceAccess;

/// The period that `cpus` is counted in, microseconds; Docker's and the kernel's default.
pub const CPU_PERIOD_US: u64 = 100_000;

/// Limits of one container. Part of the Plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes that are protected (v2 `memory.low`) or aimed at under pressure (v1 soft limit).
    pub memory_reservation: Option<u64>,
    pub memory_swap: Swap,
    /// Microseconds of cpu time per period; see [`Limits::from_nano_cpus`].
    pub cpu_quota_us: Option<u64>,
    /// Microseconds, 1 000 to 1 000 000; [`CPU_PERIOD_US`] when only the quota is set.
    pub cpu_period_us: Option<u64>,
    /// Relative weight, 2 to 262 144, 1 024 is everybody's default.
    pub cpu_shares: Option<u64>,
    /// Cpu list such as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Highest number of processes and threads.
    pub pids: Option<u64>,
    pub devices: DeviceAccess,
}

/// Memory and swap together, as Docker's `memswap_limit` counts. Means something only with a memory limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Swap {
    /// Docker's default: as much swap as memory.
    #[default]
    AsMuchAsMemory,
    Unlimited,
    /// Bytes of memory plus swap; equal to the memory limit means no swap.
    Total(u64),
}

impl Limits {
    /// Limits that give `nano_cpus` / 10^9 cpus and nothing else: `1_500_000_000` is a quota of 150 000 µs per 100 000.
    pub fn from_nano_cpus(nano_cpus: u64) -> Self {
        Self::default().with_nano_cpus(nano_cpus)
    }

    /// The same conversion onto other limits. The kernel's smallest quota is 1 000 µs, so 0.01 cpus.
    pub fn with_nano_cpus(mut self, nano_cpus: u64) -> Self {
        let quota = u128::from(nano_cpus) * u128::from(CPU_PERIOD_US) / 1_000_000_000;
        self.cpu_quota_us = Some(u64::try_from(quota).unwrap_or(u64::MAX));
        self.cpu_period_us = Some(CPU_PERIOD_US);
        self
    }

    /// Memory plus swap in bytes for v1's `memsw`: `None` when nothing is to be written, `Some(None)` for unlimited.
    pub(super) fn memory_and_swap(&self) -> Option<Option<u64>> {
        let memory = self.memory?;
        Some(match self.memory_swap {
            Swap::AsMuchAsMemory => Some(memory.saturating_mul(2)),
            Swap::Unlimited => None,
            Swap::Total(total) => Some(total.max(memory)),
        })
    }

    /// Swap alone in bytes for v2's `memory.swap.max`, which does not count memory.
    pub(super) fn swap_alone(&self) -> Option<Option<u64>> {
        let memory = self.memory?;
        self.memory_and_swap().map(|total| total.map(|total| total - memory))
    }

    /// `(quota, period)` in microseconds; `None` as the quota is "no limit".
    pub(super) fn cpu_bandwidth(&self) -> Option<(Option<u64>, u64)> {
        match (self.cpu_quota_us, self.cpu_period_us) {
            (None, None) => None,
            (quota, period) => Some((quota, period.unwrap_or(CPU_PERIOD_US))),
        }
    }
}

/// v1 `cpu.shares` to v2 `cpu.weight`, the curve that crun and runc use: 1 024 becomes 100, so that two containers with
/// and without the setting keep the ratio they have on v1. With l = log2(shares): 10^((l² + 125 l) / 612 − 7/34).
pub fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_become_a_quota_of_a_tenth_of_a_second() {
        let quota = |nano| Limits::from_nano_cpus(nano).cpu_bandwidth();
        assert_eq!(quota(500_000_000), Some((Some(50_000), 100_000)));
        assert_eq!(quota(1_500_000_000), Some((Some(150_000), 100_000)));
        assert_eq!(quota(10_000_000), Some((Some(1_000), 100_000)));
    }

    #[test]
    fn shares_follow_the_published_curve() {
        let points =
            [(0, 1), (2, 1), (3, 2), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000), (300_000, 10_000)];
        for (shares, weight) in points {
            assert_eq!(cpu_weight(shares), weight, "shares {shares}");
        }
    }

    #[test]
    fn swap_counts_memory_on_v1_and_not_on_v2() {
        let limits = |memory_swap| Limits { memory: Some(100), memory_swap, ..Limits::default() };
        let both = |swap| (limits(swap).memory_and_swap(), limits(swap).swap_alone());
        assert_eq!(both(Swap::AsMuchAsMemory), (Some(Some(200)), Some(Some(100))));
        assert_eq!(both(Swap::Unlimited), (Some(None), Some(None)));
        assert_eq!(both(Swap::Total(100)), (Some(Some(100)), Some(Some(0))));
        assert_eq!(both(Swap::Total(150)), (Some(Some(150)), Some(Some(50))));
        assert_eq!(Limits { memory_swap: Swap::Total(5), ..Limits::default() }.memory_and_swap(), None);
    }
}
