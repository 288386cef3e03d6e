//! Installing a ready system-call filter.
#![allow(unsafe_code)]

use rustix::io::Errno;

use super::process::check;

/// Installs `filter` for this process and all it will exec.
/// Needs CAP_SYS_ADMIN or no_new_privs. Speculation stays allowed, as under Docker.
pub fn install(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let len = u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program points at `len` instructions that outlive the call; the kernel copies and checks them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &program as *const libc::sock_fprog,
        )
    };
    check(result).map(|_| ())
}
