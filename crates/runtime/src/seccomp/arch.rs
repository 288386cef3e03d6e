//! The architectures a filter is for, and the calling conventions that each kernel accepts.

use super::numbers::{Column, number, x32_number};

/// What the node's programs run on. A filter for one covers the 32-bit programs that its kernel also runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// With i386 and x32.
    X86_64,
    /// With arm.
    Aarch64,
    /// With arm64: a 32-bit skep may sit on a 64-bit kernel and run 64-bit images (Raspberry Pi OS).
    Arm,
}

/// One calling convention: what seccomp tells the filter as `arch`, and its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Abi {
    /// `AUDIT_ARCH_*`
    pub(super) audit: u32,
    pub(super) column: Column,
    pub(super) is_64_bit: bool,
}

const X86_64: Abi = Abi { audit: 0xc000_003e, column: Column::X86_64, is_64_bit: true };
const I386: Abi = Abi { audit: 0x4000_0003, column: Column::I386, is_64_bit: false };
const AARCH64: Abi = Abi { audit: 0xc000_00b7, column: Column::Aarch64, is_64_bit: true };
const ARM: Abi = Abi { audit: 0x4000_0028, column: Column::Arm, is_64_bit: false };

/// Set in the number of an x32 call, whose `arch` is x86-64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    /// The one this program was built for.
    pub fn host() -> Self {
        if cfg!(target_arch = "x86_64") {
            Self::X86_64
        } else if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::Arm
        }
    }

    /// The likelier one first.
    pub(super) fn abis(self) -> [Abi; 2] {
        match self {
            Self::X86_64 => [X86_64, I386],
            Self::Aarch64 => [AARCH64, ARM],
            Self::Arm => [ARM, AARCH64],
        }
    }
}

impl Abi {
    /// The numbers of a name, at most two: x86-64's own, and x32's without its bit. The filter masks the bit off and
    /// serves both from one tree: no number means different calls to the two, and what one of them lacks the kernel
    /// refuses itself.
    pub(super) fn numbers(&self, name: &str) -> impl Iterator<Item = u32> {
        let x32 = (self.column == Column::X86_64).then(|| x32_number(name)).flatten();
        [number(name, self.column), x32].into_iter().flatten()
    }

    /// Numbers outside the sequence that grows with the kernel: x32's own block, arm's private calls.
    pub(super) fn is_private(&self, number: u32) -> bool {
        match self.column {
            Column::X86_64 => (512..=547).contains(&number),
            Column::Arm => number >= 0xf_0000,
            Column::I386 | Column::Aarch64 => false,
        }
    }

    /// Where `is_private` changes.
    pub(super) fn private_bounds(&self) -> &'static [u32] {
        match self.column {
            Column::X86_64 => &[512, 548],
            Column::Arm => &[0xf_0000],
            Column::I386 | Column::Aarch64 => &[],
        }
    }
}
