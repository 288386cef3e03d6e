//! Nodes in the order of their load: for each number of tasks, the set of nodes that have as many.
//!
//! A set is a row of bits, so that the first node of a level that is also in a class is found by looking at
//! 64 nodes at a time, and a node that takes a task moves by flipping two bits.

use std::collections::BTreeMap;

/// A set of nodes, by position.
#[derive(Debug, Clone, Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    pub fn none(nodes: usize) -> Bits {
        Bits(vec![0; nodes.div_ceil(64)])
    }

    pub fn insert(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    pub fn remove(&mut self, at: usize) {
        self.0[at / 64] &= !(1 << (at % 64));
    }

    pub fn contains(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    /// The first member at `from` or after it.
    fn first(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = self.0.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.0.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

/// Levels that hold a node, lowest first.
#[derive(Debug, Default)]
pub struct Loads(BTreeMap<u32, Level>);

#[derive(Debug)]
struct Level {
    nodes: Bits,
    /// Which words of `nodes` have a bit.
    words: Bits,
    count: usize,
}

/// Where a search goes on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cursor {
    load: u32,
    at: usize,
}

impl Loads {
    /// Every node by its number of tasks.
    pub fn new(tasks: impl ExactSizeIterator<Item = u32>) -> Loads {
        let mut loads = Loads::default();
        let nodes = tasks.len();
        for (at, load) in tasks.enumerate() {
            loads.insert(at, load, nodes);
        }
        loads
    }

    fn insert(&mut self, at: usize, load: u32, nodes: usize) {
        let empty = || Level { nodes: Bits::none(nodes), words: Bits::none(nodes.div_ceil(64)), count: 0 };
        let level = self.0.entry(load).or_insert_with(empty);
        level.nodes.insert(at);
        level.words.insert(at / 64);
        level.count += 1;
    }

    /// One of `nodes` nodes takes a task: it had `load` before.
    pub fn raise(&mut self, at: usize, load: u32, nodes: usize) {
        let level = self.0.get_mut(&load).expect("a node is in the level of its load");
        level.nodes.remove(at);
        if level.nodes.0[at / 64] == 0 {
            level.words.remove(at / 64);
        }
        level.count -= 1;
        if level.count == 0 {
            self.0.remove(&load);
        }
        self.insert(at, load + 1, nodes);
    }

    /// The next node of `class`, least loaded first, then by position; the cursor moves past it.
    pub fn next_of(&self, class: &Bits, cursor: &mut Cursor) -> Option<usize> {
        for (load, level) in self.0.range(cursor.load..) {
            if *load > cursor.load {
                *cursor = Cursor { load: *load, at: 0 };
            }
            if let Some(at) = level.first_of(class, cursor.at) {
                cursor.at = at + 1;
                return Some(at);
            }
        }
        // Nothing is left at this load or above it, and no load ever falls.
        cursor.load = u32::MAX;
        None
    }
}

impl Level {
    fn first_of(&self, class: &Bits, from: usize) -> Option<usize> {
        let mut from = from;
        while let Some(word) = self.words.first(from / 64) {
            let low = if word == from / 64 { u64::MAX << (from % 64) } else { u64::MAX };
            let both = self.nodes.0[word] & class.0[word] & low;
            if both != 0 {
                return Some(word * 64 + both.trailing_zeros() as usize);
            }
            from = (word + 1) * 64;
        }
        None
    }
}
