//! System call filters: profiles, and their compilation to classic BPF.
//!
//! ```text
//! default_profile() ──┐
//!                     ├─ compile(profile, arch, capabilities) ─▶ Vec<Instruction> ─▶ Plan ─▶ seccomp(2) in the child
//! Arch::host() ───────┘
//! ```
//! Compilation is pure, done once per profile and set of capabilities by whoever makes the Plan. The filter is a binary
//! tree over ranges of numbers, because the kernel interprets it once for every number when it is loaded: that, not its
//! run time, is what a filter costs. Profiles in Docker's JSON format (`security_opt: seccomp=file`) are not read yet.

mod arch;
mod assembler;
mod compile;
mod default;
mod numbers;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_kernel;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use arch::Arch;
pub use compile::compile;
pub use default::default_profile;

/// One classic BPF instruction, in the kernel's layout (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// Rules in order: of those that name a call and whose capabilities fit, the first whose arguments match decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// For calls that no rule decides.
    pub default: Action,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Names that an architecture does not have are skipped there.
    pub names: &'static [&'static str],
    pub action: Action,
    /// The rule counts only if the container has all these capabilities, …
    pub needs: u64,
    /// … and none of these.
    pub unless: u64,
    /// All must hold.
    pub args: &'static [ArgTest],
}

/// A test of one argument; `index` is 0 to 5. Arguments are 64-bit, zero-extended where the caller is 32-bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgTest {
    /// In one of the ranges, ends included.
    In { index: u8, ranges: &'static [(u64, u64)] },
    /// `arg & mask == value`
    Masked { index: u8, mask: u64, value: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    /// The call fails with this errno, 1 to 4095.
    Errno(u16),
    KillProcess,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum SeccompError {
    #[error("the filter has {0} instructions, the kernel takes 4096")]
    TooLong(usize),
    #[error("a rule for `{name}` tests argument {index}; a system call has arguments 0 to 5")]
    NoSuchArgument { name: &'static str, index: u8 },
}
