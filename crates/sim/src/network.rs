//! The network between machines: who reaches whom, how long a message takes, and which are lost.
//!
//! A link is directed, so that one-way partitions can be.
//! Ordering is the matter of who sends: a session's messages keep their order, single messages need not.

use std::collections::BTreeSet;

use crate::chance::Chance;
use crate::clock::{MILLI, Nanos, SECOND};

#[derive(Debug, Default)]
pub struct Network {
    /// Directed pairs of machines between which nothing arrives.
    cut: BTreeSet<(usize, usize)>,
    /// Machines whose links lose and delay messages.
    slow: BTreeSet<usize>,
}

impl Network {
    pub fn reaches(&self, from: usize, to: usize) -> bool {
        from == to || !self.cut.contains(&(from, to))
    }

    pub fn reach_each_other(&self, a: usize, b: usize) -> bool {
        self.reaches(a, b) && self.reaches(b, a)
    }

    /// How long a message sent now takes; `None` when it is lost.
    pub fn carry(&self, from: usize, to: usize, chance: &mut Chance) -> Option<Nanos> {
        if from == to {
            return Some(chance.between(10_000, 100_000));
        }
        if !self.reaches(from, to) {
            return None;
        }
        if self.slow.contains(&from) || self.slow.contains(&to) {
            return (!chance.percent(5)).then(|| chance.delay(300 * MILLI, 3 * SECOND));
        }
        Some(chance.delay(MILLI, 40 * MILLI))
    }

    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    pub fn slow(&mut self, machine: usize) {
        self.slow.insert(machine);
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        self.slow.clear();
    }
}
