//! bpf(2) for device programs: load one, attach it to a cgroup v2 folder.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One eBPF instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BpfInstruction {
    pub(super) code: u8,
    /// Destination in the low four bits, source in the high ones.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

impl BpfInstruction {
    const fn new(code: u8, to: u8, from: u8, offset: i16, immediate: u32) -> Self {
        // The kernel's bit fields follow the byte order.
        let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        Self { code, registers, offset, immediate: immediate as i32 }
    }

    /// `to = *(u32 *)(from + offset)`
    pub(super) const fn load_word(to: u8, from: u8, offset: i16) -> Self {
        Self::new(0x61, to, from, offset, 0)
    }

    pub(super) const fn move_register(to: u8, from: u8) -> Self {
        Self::new(0xbf, to, from, 0, 0)
    }

    pub(super) const fn move_constant(to: u8, value: u32) -> Self {
        Self::new(0xb7, to, 0, 0, value)
    }

    /// 32 bits, the upper half becomes 0.
    pub(super) const fn and(to: u8, mask: u32) -> Self {
        Self::new(0x54, to, 0, 0, mask)
    }

    pub(super) const fn shift_right(to: u8, bits: u32) -> Self {
        Self::new(0x74, to, 0, 0, bits)
    }

    /// 64-bit compare with a sign-extended constant: device numbers stay below 2^31.
    pub(super) fn jump_not_equal(register: u8, value: u32, skip: i16) -> Self {
        Self::new(0x55, register, 0, skip, value)
    }

    pub(super) fn jump_equal(register: u8, value: u32, skip: i16) -> Self {
        Self::new(0x15, register, 0, skip, value)
    }

    pub(super) const fn exit() -> Self {
        Self::new(0x95, 0, 0, 0, 0)
    }
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what is missing as zero.
#[repr(C)]
struct LoadAttr {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    program_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Loads a device program. EPERM without CAP_BPF or CAP_SYS_ADMIN, ENOSYS or EINVAL on a kernel without it.
pub(super) fn load_device_program(program: &[BpfInstruction]) -> io::Result<OwnedFd> {
    let attr = LoadAttr {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `attr` is a live `bpf_attr` prefix of the size given; its pointers outlive the call, and the kernel only
    // reads `instruction_count` instructions and the terminated license.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<LoadAttr>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches to a cgroup; the kernel keeps the program for as long as the cgroup lives.
pub(super) fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = AttachAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        program_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: `attr` is a live `bpf_attr` prefix of the size given, and both descriptors are open.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attr, size_of::<AttachAttr>()) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
