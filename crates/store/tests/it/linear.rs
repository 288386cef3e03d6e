//! Whether a history of reads and compare-and-sets on one register is linearizable: some order of the operations, each
//! between its call and its return, explains every answer (Wing & Gong, with Lowe's memory of what was tried).

use std::collections::HashSet;

/// What was asked of the register and answered.
#[derive(Debug, Clone)]
pub enum Op {
    Read(u64),
    /// Sets `to` if the register holds `from`; whether it did, if that is known.
    Swap {
        from: u64,
        to: u64,
        done: Option<bool>,
    },
}

/// An operation with the times of its call and return; one without an answer may take effect at any time after its
/// call, or never.
#[derive(Debug, Clone)]
pub struct Event {
    pub called: u64,
    pub returned: Option<u64>,
    pub op: Op,
}

impl Op {
    /// The register after the operation, if it can have answered so.
    fn apply(&self, value: u64) -> Option<u64> {
        match *self {
            Op::Read(seen) => (seen == value).then_some(value),
            // One without an answer and without effect need not be placed at all.
            Op::Swap { from, to, done: Some(true) | None } => (from == value).then_some(to),
            Op::Swap { from, done: Some(false), .. } => (from != value).then_some(value),
        }
    }
}

pub fn is_linearizable(first: u64, events: &[Event]) -> bool {
    let mut tried = HashSet::new();
    let mut open = vec![(vec![false; events.len()], first)];
    while let Some((placed, value)) = open.pop() {
        let waiting = || (0..events.len()).filter(|index| !placed[*index]);
        if waiting().all(|index| events[index].returned.is_none()) {
            return true;
        }
        let earliest_return = waiting().filter_map(|index| events[index].returned).min().unwrap_or(u64::MAX);
        for index in waiting().filter(|index| events[*index].called <= earliest_return) {
            if let Some(next) = events[index].op.apply(value) {
                let mut placed = placed.clone();
                placed[index] = true;
                if tried.insert((placed.clone(), next)) {
                    open.push((placed, next));
                }
            }
        }
    }
    false
}

#[test]
fn checker_tells_good_histories_from_bad_ones() {
    let event = |called, returned, op| Event { called, returned, op };
    let swap = |from, to, done| Op::Swap { from, to, done };
    let good = [
        event(0, Some(3), swap(0, 1, Some(true))),
        event(1, Some(2), Op::Read(0)),
        event(4, Some(5), swap(0, 2, Some(false))),
        event(6, None, swap(1, 3, None)),
        event(7, Some(8), Op::Read(1)),
        event(9, Some(10), Op::Read(3)),
    ];
    assert!(is_linearizable(0, &good));
    let stale_read = [event(0, Some(1), swap(0, 1, Some(true))), event(2, Some(3), Op::Read(0))];
    assert!(!is_linearizable(0, &stale_read));
    let lost_write = [event(0, Some(1), swap(0, 1, Some(true))), event(2, Some(3), swap(0, 2, Some(true)))];
    assert!(!is_linearizable(0, &lost_write));
    let back_in_time =
        [event(0, None, swap(0, 1, None)), event(1, Some(2), Op::Read(1)), event(3, Some(4), Op::Read(0))];
    assert!(!is_linearizable(0, &back_in_time));
    let both_won = [event(0, Some(5), swap(0, 1, Some(true))), event(0, Some(5), swap(0, 2, Some(true)))];
    assert!(!is_linearizable(0, &both_won));
}
