//! A profile becomes a program: per calling convention, a binary tree over ranges of call numbers, with argument tests
//! at its leaves.

use std::collections::{BTreeMap, BTreeSet};

use super::arch::{Abi, Arch, X32_BIT};
use super::assembler::{Assembler, Label};
use super::numbers::Column;
use super::{Action, ArgTest, Instruction, Profile, Rule, SeccompError};

const ENOSYS: Action = Action::Errno(38);

/// Offsets in `struct seccomp_data`, on a little-endian machine.
const NUMBER: u32 = 0;
const AUDIT_ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// BPF_MAXINSNS.
const LONGEST: usize = 4096;

/// The filter of a container with the capabilities `caps` (its bounding set; bits as in [`crate::caps`]).
///
/// A call with a number above the newest that the profile names is answered with ENOSYS instead of the profile's
/// default, so that a libc newer than the profile takes its fallback. A foreign `arch` kills.
///
/// # Errors
/// A rule that tests an argument above 5, or more rules than 4096 instructions can express.
pub fn compile(profile: &Profile, arch: Arch, caps: u64) -> Result<Vec<Instruction>, SeccompError> {
    for rule in &profile.rules {
        check_arguments(rule)?;
    }
    let mut code = Assembler::default();
    let mut entry = code.ret(Action::KillProcess);
    for abi in arch.abis().iter().rev() {
        let tree = calls(&mut code, profile, abi, caps);
        entry = code.if_equal(abi.audit, tree, entry);
    }
    let entry = code.load(AUDIT_ARCH, entry);
    let program = code.finish(entry);
    match program.len() {
        ..=LONGEST => Ok(program),
        length => Err(SeccompError::TooLong(length)),
    }
}

fn check_arguments(rule: &Rule) -> Result<(), SeccompError> {
    let index = |test: &ArgTest| match test {
        ArgTest::In { index, .. } | ArgTest::Masked { index, .. } => *index,
    };
    match rule.args.iter().map(index).find(|index| *index > 5) {
        Some(index) => Err(SeccompError::NoSuchArgument { name: rule.names.first().unwrap_or(&""), index }),
        None => Ok(()),
    }
}

fn calls(code: &mut Assembler, profile: &Profile, abi: &Abi, caps: u64) -> Label {
    let default = code.ret(profile.default);
    let unknown = code.ret(ENOSYS);
    let mut decisions: BTreeMap<u32, Label> = BTreeMap::new();
    // From the last rule to the first: an earlier one falls through to what the later ones say.
    for rule in profile.rules.iter().rev().filter(|rule| rule.counts_with(caps)) {
        let action = code.ret(rule.action);
        for number in rule.names.iter().flat_map(|name| abi.numbers(name)) {
            let otherwise = decisions.get(&number).copied().unwrap_or(default);
            let decision = rule.args.iter().rev().fold(action, |yes, test| argument(code, abi, test, yes, otherwise));
            decisions.insert(number, decision);
        }
    }
    let newest = newest_number(profile, abi);
    let unnamed = |number: u32| if number > newest && !abi.is_private(number) { unknown } else { default };
    let starts: BTreeSet<u32> = [0, newest + 1]
        .into_iter()
        .chain(abi.private_bounds().iter().copied())
        .chain(decisions.keys().flat_map(|number| [*number, number + 1]))
        .collect();
    let segments = starts.into_iter().map(|n| (n, decisions.get(&n).copied().unwrap_or_else(|| unnamed(n)))).collect();
    let tree = decide(code, &merged(segments));
    match abi.column {
        Column::X86_64 => {
            let masked = code.and(!X32_BIT, tree);
            code.load(NUMBER, masked)
        }
        Column::I386 | Column::Aarch64 | Column::Arm => code.load(NUMBER, tree),
    }
}

/// Of all that the profile names, whatever the capabilities.
fn newest_number(profile: &Profile, abi: &Abi) -> u32 {
    let named = profile.rules.iter().flat_map(|rule| rule.names.iter().flat_map(|name| abi.numbers(name)));
    named.filter(|number| !abi.is_private(*number)).max().unwrap_or(0)
}

impl Rule {
    pub(super) fn counts_with(&self, caps: u64) -> bool {
        caps & self.needs == self.needs && caps & self.unless == 0
    }
}

fn argument(code: &mut Assembler, abi: &Abi, test: &ArgTest, yes: Label, no: Label) -> Label {
    match *test {
        ArgTest::In { index, ranges } => in_ranges(code, abi, index, ranges, yes, no),
        ArgTest::Masked { index, mask, value } => {
            let low = masked_half(code, low_of(index), mask as u32, value as u32, yes, no);
            masked_half(code, high_of(index), (mask >> 32) as u32, (value >> 32) as u32, low, no)
        }
    }
}

fn low_of(index: u8) -> u32 {
    ARGUMENTS + 8 * u32::from(index)
}

fn high_of(index: u8) -> u32 {
    low_of(index) + 4
}

fn masked_half(code: &mut Assembler, offset: u32, mask: u32, value: u32, yes: Label, no: Label) -> Label {
    match (mask, value) {
        (0, 0) => yes,
        (mask, value) if value & !mask != 0 => no,
        (mask, 0) => {
            let test = code.if_any_bit(mask, no, yes);
            code.load(offset, test)
        }
        (mask, value) => {
            let test = code.if_equal(value, yes, no);
            let masked = code.and(mask, test);
            code.load(offset, masked)
        }
    }
}

/// 64-bit ranges with 32-bit compares: a tree over the upper halves, whose leaves are all, none, or a tree over the
/// lower halves.
fn in_ranges(code: &mut Assembler, abi: &Abi, index: u8, ranges: &[(u64, u64)], yes: Label, no: Label) -> Label {
    let high = |value: u64| (value >> 32) as u32;
    if !abi.is_64_bit {
        return low_half(code, low_of(index), 0, ranges, yes, no);
    }
    let ends: BTreeSet<u32> = ranges.iter().flat_map(|(from, to)| [high(*from), high(*to)]).collect();
    let starts: BTreeSet<u32> =
        ends.iter().flat_map(|high| [Some(*high), high.checked_add(1)]).flatten().chain([0]).collect();
    let segments = starts
        .into_iter()
        .map(|half| {
            let covered = ranges.iter().any(|(from, to)| (high(*from)..=high(*to)).contains(&half));
            let label = match (ends.contains(&half), covered) {
                (true, _) => low_half(code, low_of(index), half, ranges, yes, no),
                (false, true) => yes,
                (false, false) => no,
            };
            (half, label)
        })
        .collect();
    match merged(segments).as_slice() {
        [(_, only)] => *only,
        segments => {
            let tree = decide(code, segments);
            code.load(high_of(index), tree)
        }
    }
}

/// The values whose upper half is `half`.
fn low_half(code: &mut Assembler, offset: u32, half: u32, ranges: &[(u64, u64)], yes: Label, no: Label) -> Label {
    let (first, last) = (u64::from(half) << 32, u64::from(half) << 32 | 0xffff_ffff);
    let clipped: Vec<(u32, u32)> = ranges
        .iter()
        .filter(|(from, to)| *from <= last && *to >= first)
        .map(|(from, to)| ((*from).max(first) as u32, (*to).min(last) as u32))
        .collect();
    let starts: BTreeSet<u32> =
        clipped.iter().flat_map(|(from, to)| [Some(*from), to.checked_add(1)]).flatten().chain([0]).collect();
    let inside = |value: u32| clipped.iter().any(|(from, to)| (*from..=*to).contains(&value));
    let segments = starts.into_iter().map(|value| (value, if inside(value) { yes } else { no })).collect();
    match merged(segments).as_slice() {
        [(_, only)] => *only,
        segments => {
            let tree = decide(code, segments);
            code.load(offset, tree)
        }
    }
}

/// Neighbours with the same decision become one.
fn merged(mut segments: Vec<(u32, Label)>) -> Vec<(u32, Label)> {
    segments.dedup_by_key(|(_, label)| *label);
    segments
}

/// A binary tree over segments, each from its start to the next one's; the first starts at 0. The value is loaded.
fn decide(code: &mut Assembler, segments: &[(u32, Label)]) -> Label {
    match segments {
        [] => unreachable!("the segment that starts at 0 is always there"),
        [(_, only)] => *only,
        // A single value amid others that are alike.
        [(_, around), (value, label), (next, after)] if around == after && *next == value + 1 => {
            code.if_equal(*value, *label, *around)
        }
        segments => {
            let (below, above) = segments.split_at(segments.len() / 2);
            let then = decide(code, above);
            let otherwise = decide(code, below);
            code.if_at_least(above[0].0, then, otherwise)
        }
    }
}
