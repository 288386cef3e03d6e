//! All chance of a simulation: one stream of numbers, determined by the seed.

use skep_model::IdSource;

use crate::clock::Nanos;

#[derive(Debug, Clone)]
pub struct Chance(IdSource);

impl Chance {
    /// `stream` separates uses of one seed from each other, so that more draws in one do not shift another.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(IdSource::from_seed((u128::from(stream) << 64) | u128::from(seed)))
    }

    /// A number in `0..bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound.max(1))
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of `all`; `None` when there is none.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(usize::try_from(self.below(all.len() as u64)).unwrap_or(0))
    }

    /// Mostly short, seldom long: a network's or a disk's delay.
    pub fn delay(&mut self, usual: Nanos, longest: Nanos) -> Nanos {
        match self.below(20) {
            0 => self.between(usual, longest),
            _ => self.between(usual / 4, usual),
        }
    }

    pub fn ids(&mut self) -> IdSource {
        IdSource::from_seed(self.0.next_id::<()>().as_u128())
    }
}
