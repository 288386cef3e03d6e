//! Randomness for spreading load and for query ids that a stranger cannot guess.

use rustix::rand::{GetRandomFlags, getrandom};

/// From the kernel's generator.
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .expect("getrandom(2) of 8 bytes neither fails nor stops halfway once the system has started");
    u64::from_ne_bytes(bytes)
}

/// Below `bound`, which is not 0. The bias is of the order of bound / 2^64.
pub fn below(bound: usize) -> usize {
    (number() % bound as u64) as usize
}

pub fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last + 1));
    }
}
