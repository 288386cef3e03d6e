//! Which device nodes a container may use: the rules, and their form for v1 files and for a v2 eBPF program.
//!
//! Docker denies everything and then allows a short list; a service's own devices are added to it. Rules apply in order,
//! the last one that matches decides. Loading the program is `sys.rs`'s work.

use serde::{Deserialize, Serialize};

use super::sys::BpfInstruction;

/// Part of a container's limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceAccess {
    /// Docker's list, then these.
    Restricted(Vec<DeviceRule>),
    /// Every device, as for a privileged container.
    Unrestricted,
}

impl Default for DeviceAccess {
    fn default() -> Self {
        Self::Restricted(Vec::new())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    pub verdict: Verdict,
    pub kind: DeviceKind,
    /// `None` is every number.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    Block,
    Char,
}

/// `rwm` as the kernel's bits (`BPF_DEVCG_ACC_*`): 1 mknod, 2 read, 4 write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access(u8);

impl Access {
    pub const MKNOD: Self = Self(1);
    pub const ALL: Self = Self(7);

    /// `"rwm"`, `"r"`, … in any order; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bits = 0;
        for letter in text.bytes() {
            bits |= match letter {
                b'm' => 1,
                b'r' => 2,
                b'w' => 4,
                _ => return None,
            };
        }
        (bits != 0).then_some(Self(bits))
    }

    fn letters(self) -> String {
        [(2, 'r'), (4, 'w'), (1, 'm')].iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, letter)| letter).collect()
    }
}

impl DeviceRule {
    pub const fn allow(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: Access) -> Self {
        Self { verdict: Verdict::Allow, kind, major, minor, access }
    }

    /// `c 1:3 rwm`: a line for v1's `devices.allow` and `devices.deny`.
    pub(super) fn v1_line(&self) -> String {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = match self.kind {
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        format!("{kind} {}:{} {}", number(self.major), number(self.minor), self.access.letters())
    }
}

/// Docker's rules after "deny all" (moby `oci/devices` and what OCI runtimes add): any node may be made, and used are
/// null, zero, full, random, urandom, tty, console, ptmx, pseudo-terminals and tun (10:200). fuse (10:229) is denied by name, so that
/// `device_cgroup_rules` of a parent image cannot bring it back by a wildcard before it.
pub const DOCKER_DEFAULT: [DeviceRule; 13] = [
    DeviceRule::allow(DeviceKind::Char, None, None, Access::MKNOD),
    DeviceRule::allow(DeviceKind::Block, None, None, Access::MKNOD),
    DeviceRule::allow(DeviceKind::Char, Some(1), Some(3), Access::ALL),
    DeviceRule::allow(DeviceKind::Char, Some(1), Some(5), Access::ALL),
    DeviceRule::allow(DeviceKind::Char, Some(1), Some(7), Access::ALL),
    DeviceRule::allow(DeviceKind::Char, Some(1), Some(8), Access::ALL),
    DeviceRule::allow(DeviceKind::Char, Some(1), Some(9), Access::ALL),
    DeviceRule::allow(DeviceKind::Char, Some(5), Some(0), Access::ALL),
    DeviceRule::allow(DeviceKind::Char, Some(5), Some(1), Access::ALL),
    DeviceRule::allow(DeviceKind::Char, Some(5), Some(2), Access::ALL),
    DeviceRule::allow(DeviceKind::Char, Some(136), None, Access::ALL),
    DeviceRule::allow(DeviceKind::Char, Some(10), Some(200), Access::ALL),
    DeviceRule {
        verdict: Verdict::Deny,
        kind: DeviceKind::Char,
        major: Some(10),
        minor: Some(229),
        access: Access::ALL,
    },
];

impl DeviceAccess {
    /// All rules in order, Docker's first; `None` when nothing is restricted.
    pub(super) fn rules(&self) -> Option<Vec<DeviceRule>> {
        match self {
            Self::Unrestricted => None,
            Self::Restricted(own) => Some(DOCKER_DEFAULT.iter().chain(own).copied().collect()),
        }
    }
}

/// A `BPF_PROG_TYPE_CGROUP_DEVICE` program that returns 1 (allow) or 0.
///
/// The kernel passes `{ u32 access_type; u32 major; u32 minor }`, access in the upper and type in the lower 16 bits
/// (`struct bpf_cgroup_dev_ctx`). Rules are tried from the last to the first: the first that matches is the last written.
pub(super) fn program(rules: &[DeviceRule]) -> Vec<BpfInstruction> {
    use BpfInstruction as I;
    const TYPE: u8 = 2;
    const ACCESS: u8 = 3;
    const MAJOR: u8 = 4;
    const MINOR: u8 = 5;
    const SCRATCH: u8 = 6;
    let mut code = vec![
        I::load_word(TYPE, 1, 0),
        I::move_register(ACCESS, TYPE),
        I::and(TYPE, 0xffff),
        I::shift_right(ACCESS, 16),
        I::load_word(MAJOR, 1, 4),
        I::load_word(MINOR, 1, 8),
    ];
    for rule in rules.iter().rev() {
        let kind = match rule.kind {
            DeviceKind::Block => 1,
            DeviceKind::Char => 2,
        };
        // Each test is a jump past the rest of the rule; its length is known once the rule is complete.
        let mut tests = vec![(I::jump_not_equal as fn(u8, u32, i16) -> I, TYPE, kind)];
        tests.extend(rule.major.map(|major| (I::jump_not_equal as _, MAJOR, major)));
        tests.extend(rule.minor.map(|minor| (I::jump_not_equal as _, MINOR, minor)));
        let mut prepare = Vec::new();
        if rule.access != Access::ALL {
            // Allowed only if nothing beyond the rule is asked for; denied if anything of the rule is.
            let (mask, skip): (u32, fn(u8, u32, i16) -> I) = match rule.verdict {
                Verdict::Allow => (u32::from(!rule.access.0), I::jump_not_equal),
                Verdict::Deny => (u32::from(rule.access.0), I::jump_equal),
            };
            prepare = vec![I::move_register(SCRATCH, ACCESS), I::and(SCRATCH, mask)];
            tests.push((skip, SCRATCH, 0));
        }
        let result = match rule.verdict {
            Verdict::Allow => 1,
            Verdict::Deny => 0,
        };
        let tail = [I::move_constant(0, result), I::exit()];
        let numbers = tests.len() - usize::from(!prepare.is_empty());
        let length = tests.len() + prepare.len() + tail.len();
        let mut at = 0;
        for (index, (jump, register, value)) in tests.into_iter().enumerate() {
            if index == numbers {
                code.append(&mut prepare);
                at += 2;
            }
            at += 1;
            code.push(jump(register, value, (length - at) as i16));
        }
        code.extend(tail);
    }
    code.extend([I::move_constant(0, 0), I::exit()]);
    code
}
