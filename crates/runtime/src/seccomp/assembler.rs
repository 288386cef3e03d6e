//! A backwards assembler for classic BPF.
//!
//! BPF jumps only forwards, by at most 255 instructions if conditional. Emitting from the end makes every target known
//! when its jump is written, lets many jumps share one `ret`, and shows at once where one is out of reach.

use std::collections::HashMap;

use super::{Action, Instruction};

const LOAD_ABSOLUTE: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Farthest target of a conditional jump, less the two instructions that may be put in between to reach another.
const REACH: usize = 255 - 2;

/// An emitted instruction, by its distance from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Label(usize);

#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Last instruction first.
    reversed: Vec<Instruction>,
    returns: HashMap<u32, Label>,
    /// The latest stand-in for a target that was out of reach.
    stand_ins: HashMap<Label, Label>,
}

impl Assembler {
    /// The one `ret` of this action.
    pub(super) fn ret(&mut self, action: Action) -> Label {
        let k = match action {
            Action::Allow => 0x7fff_0000,
            Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Action::KillProcess => 0x8000_0000,
        };
        match self.returns.get(&k) {
            Some(label) => *label,
            None => {
                let label = self.push(RETURN, k, 0, 0);
                self.returns.insert(k, label);
                label
            }
        }
    }

    /// Loads 32 bits of `struct seccomp_data` and goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.straight_to(next);
        self.push(LOAD_ABSOLUTE, offset, 0, 0)
    }

    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.straight_to(next);
        self.push(AND, mask, 0, 0)
    }

    pub(super) fn if_equal(&mut self, k: u32, then: Label, otherwise: Label) -> Label {
        self.branch(JUMP_EQUAL, k, then, otherwise)
    }

    pub(super) fn if_at_least(&mut self, k: u32, then: Label, otherwise: Label) -> Label {
        self.branch(JUMP_GREATER_OR_EQUAL, k, then, otherwise)
    }

    pub(super) fn if_any_bit(&mut self, k: u32, then: Label, otherwise: Label) -> Label {
        self.branch(JUMP_SET, k, then, otherwise)
    }

    /// The program that starts at `entry`.
    pub(super) fn finish(mut self, entry: Label) -> Vec<Instruction> {
        self.straight_to(entry);
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// How far an instruction pushed now would have to jump.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - target.0 - 1
    }

    fn branch(&mut self, code: u16, k: u32, then: Label, otherwise: Label) -> Label {
        if then == otherwise {
            return then;
        }
        let then = self.within_reach(then);
        let otherwise = self.within_reach(otherwise);
        let (jt, jf) = (self.distance(then), self.distance(otherwise));
        self.push(code, k, jt as u8, jf as u8)
    }

    fn within_reach(&mut self, target: Label) -> Label {
        if self.distance(target) <= REACH {
            return target;
        }
        if let Some(stand_in) = self.stand_ins.get(&target).filter(|label| self.distance(**label) <= REACH) {
            return *stand_in;
        }
        let stand_in = self.copy_or_jump(target);
        self.stand_ins.insert(target, stand_in);
        stand_in
    }

    /// Makes `next` the instruction that the next push falls through to.
    fn straight_to(&mut self, next: Label) {
        if self.distance(next) > 0 {
            self.copy_or_jump(next);
        }
    }

    fn copy_or_jump(&mut self, target: Label) -> Label {
        let instruction = self.reversed[target.0];
        match instruction.code {
            RETURN => self.push(RETURN, instruction.k, 0, 0),
            _ => self.push(JUMP, self.distance(target) as u32, 0, 0),
        }
    }
}
